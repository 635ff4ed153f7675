"""Writes a file in one step: a reader sees the old content or the new one, also after a power cut."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from errors import WriteError


def write(path: Path, content: str | bytes) -> Path:
    """Replaces ``path`` by ``content``; folders that are missing are made. Raises WriteError, leaving the old file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise WriteError(f"cannot write {path}: {'the disk is full' if full else error.strerror}") from None
    return path


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
