"""Standard output and error of a program that goes on when nobody can read them any more."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


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
        setattr(sys, name, wrapped)


def escape_unencodable() -> None:
    """From now on, a character that the encoding of standard output does not have is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
