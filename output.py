"""Standard output and error: the program goes on when nobody can read them, and a terminal obeys no text of a run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.segment import Segment
    from rich.table import Table

# control characters, separators of lines, and marks that reverse the order of what follows
COMMANDS = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
ESCAPES = {code: f"\\u{code:04x}" for code in COMMANDS - set(map(ord, "\n\t"))}  # means the same in JSON


class _Unescaped:
    """A stream without the escapes, for a console that moves the cursor and sets colours itself."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> Any:
        return type(self._stream).write(self._stream, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


UNLIMITED = 10_000  # columns of output that goes to no terminal


def console(*, stderr: bool = False, **options: Any) -> Console:
    """rich's console on standard output or error; all consoles of the suite are made here.

    It is as wide as the terminal; a file or a pipe has no width that anything would have to be cut to.
    """
    from rich.console import Console

    class EscapingConsole(Console):
        def render(self, *arguments: Any, **named: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments, **named):
                # of one column, since columns are counted already
                text = segment.text if segment.control else segment.text.translate(dict.fromkeys(ESCAPES, "?"))
                yield segment._replace(text=text)

    file: Any = _Unescaped(sys.stderr if stderr else sys.stdout)
    made = EscapingConsole(file=file, stderr=stderr, **options)
    if not made.is_terminal and "width" not in options and "COLUMNS" not in os.environ:
        made.width = UNLIMITED
    return made


def print_table(table: Table) -> None:
    """Prints a table of rich; where a terminal is too narrow for it, cells continue on further lines, none is cut."""
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False
    console().print(table)


def escape_commands() -> None:
    """From now on, what a terminal would obey (colours, titles, the cursor) is printed as an escape such as \\u001b."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _escape(stream)


def _escape(stream: Any) -> None:
    def write(text: str) -> Any:
        return type(stream).write(stream, text.translate(ESCAPES))

    stream.write = write


class _Tolerant(io.RawIOBase):
    """Writes to a file descriptor; from the first failure on, it takes everything and writes nothing."""

    def __init__(self, number: int):
        self.number, self.lost = number, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.number

    def isatty(self) -> bool:
        return not self.lost and os.isatty(self.number)

    def write(self, content: Any) -> int:
        if not self.lost:
            try:
                return os.write(self.number, content)
            except OSError:  # the reader or the terminal is gone, or the disk of a file is full
                self.lost = True
        return len(content)


def tolerate_loss() -> None:
    """From now on, a message that cannot be written stops no work.

    A pipe whose reader has ended, a terminal that was closed and a full disk end what is printed, not the program.
    """
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        try:
            number = os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno()
            encoding = getattr(stream, "encoding", None)
        except (OSError, ValueError):  # not a file: a test that captures what is printed
            continue
        # a character that the terminal's encoding does not have is escaped
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(_Tolerant(number)), encoding, "backslashreplace", line_buffering=True
        )
        _escape(wrapped)
        setattr(sys, name, wrapped)


def escape_unencodable() -> None:
    """From now on, a character that the encoding of standard output does not have is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
