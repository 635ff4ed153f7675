"""Writes a file in one step, so that a reader sees the old content or the new one."""

from __future__ import annotations

import os
from pathlib import Path

from errors import SuiteError


def write(path: Path, content: str | bytes) -> Path:
    """Replaces ``path`` by ``content``; folders that are missing are made."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SuiteError(f"cannot write {path}: {error.strerror}") from None
    return path
