"""The SHA-256 of files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from untrusted_files import opened


def sha256(file: Path) -> str:
    """Of a file of any size. Raises FileNotFoundError, UnreadableError."""
    digest = hashlib.sha256()
    with opened(file) as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remembered_sha256(file: Path) -> str:
    """Of a file that many runs of a plan name, read once while its size and times stay the same.

    Raises OSError, UnreadableError.
    """
    status = file.stat()
    return _remembered(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _remembered(file: Path, *_: int) -> str:
    return sha256(file)
