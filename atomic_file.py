"""Writes files in one step: a reader sees the old content or the new one, also after a power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from errors import WriteError

TEMPORARY = ".*.tmp"  # files that a killed writer leaves behind


def write(path: Path, content: str | bytes) -> Path:
    """Replaces the content of ``path``. If that fails, raises WriteError and keeps the old file."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def writing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Opens a file that replaces ``path`` when the block ends without an error. Missing folders are created.

    durable: False for files that can be made again and are checked when they are read; a power cut may leave them
    incomplete. If writing fails, raises WriteError and keeps the old file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {reason(error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``folder`` when the block ends without an error; otherwise nothing is left.

    Raises WriteError, also where ``folder`` is there already and is not empty.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _sync_folder(temporary)
        temporary.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file ``path``, which is made and stays; waits while another process holds it.

    Raises WriteError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("ab")
    except OSError as error:
        raise WriteError(f"cannot write {path.parent}: {reason(error)}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def private() -> Iterator[None]:
    """What is made in the block can be read and changed by this user alone. Holds for the whole process."""
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


def reason(error: OSError) -> str:
    """What a user should read of an error of the operating system."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full" if full else error.strerror or str(error)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
