"""Reads files and folders that anybody may have changed. Only what was seen to be absent counts as absent.

Whatever else keeps a file from being read is an UnreadableError of one line that names it; nothing here blocks (named
pipes) or takes memory without bound (devices, sparse files).
"""

from __future__ import annotations

import errno
import fnmatch
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import UnreadableError

MOST_BYTES = 1 << 26  # of a file that is read whole; ours have a few kilobytes, logs of long runs some megabytes
ABSENT = (errno.ENOENT, errno.ENOTDIR)
NUMBER, TEXT, LIST, MAPPING = "a number", "a text", "a list", "keys and values"


def content(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """A regular file of at most ``most`` bytes. Raises FileNotFoundError where there is none."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise UnreadableError(f"{path}: longer than {most:,} bytes")
        try:
            read = file.read(most)
        except OSError as error:
            raise _unreadable(path, error) from None
    return read or b""


def last_lines(path: Path, count: int, most: int = 1 << 20) -> list[str]:
    """The last lines of a file of any size, from its last ``most`` bytes. Raises FileNotFoundError, UnreadableError."""
    with opened(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return (file.read(most) or b"").decode(errors="replace").splitlines()[-count:]


def keys_and_values(path: str | Path, kinds: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A file of JSON. kinds: of keys that may be there, which may be null. Raises FileNotFoundError."""
    try:
        read = json.loads(text := content(path).decode())
        if "\\ud" in text.lower():  # half a surrogate pair is JSON, but no text
            json.dumps(read, ensure_ascii=False).encode()
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UnreadableError(f"{path}{line}: torn or not JSON") from None
    except RecursionError:
        raise UnreadableError(f"{path}: nested too deeply") from None
    if not isinstance(read, dict):
        raise UnreadableError(f"{path}: expected keys and values")
    for key, kind in (kinds or {}).items():
        if (value := read.get(key)) is not None and not is_of(kind, value):
            raise UnreadableError(f"{path}: {key} is {str(value)[:40]!r}, not {kind}")
    return read


def is_of(kind: str, value: object) -> bool:
    return is_number(value) if kind == NUMBER else isinstance(value, {TEXT: str, LIST: list, MAPPING: dict}[kind])


def is_number(value: object) -> bool:
    """Whether this is a finite number that a float can hold; a bool is no number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Entries of a folder by name, in order; none where there is no folder.

    ``Path.glob`` finds nothing where it may not look, as if nothing had ever been there.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ENOTDIR and not exists(folder):  # a file stands where a folder above it should be
            return []
        raise UnreadableError(f"{folder}: cannot be listed ({os.strerror(error.errno or 0)})") from None


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder. ``os.path.exists`` denies what it may not look at."""
    try:
        os.stat(path)  # noqa: PTH116  # asked of ten thousand runs
    except OSError as error:
        if error.errno in ABSENT:
            return False
        raise _unreadable(path, error) from None
    return True


def opened(path: str | Path) -> io.FileIO:
    """A regular file, for reading in pieces. Raises FileNotFoundError where there is none."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # without waiting for a pipe's other end
    except OSError as error:
        if error.errno in ABSENT:
            raise FileNotFoundError(error.errno, os.strerror(error.errno), str(path)) from None
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode := os.fstat(number).st_mode):
        os.close(number)
        raise UnreadableError(f"{path}: {'is a folder, ' if stat.S_ISDIR(mode) else ''}not a regular file")
    return io.FileIO(number)


def _unreadable(path: str | Path, error: OSError) -> UnreadableError:
    return UnreadableError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})")
