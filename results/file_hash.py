"""The SHA-256 of files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def sha256(file: Path) -> str:
    """Of a file of any size, which is read once while its size and times stay the same. Raises OSError."""
    status = file.stat()
    return _sha256(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _sha256(file: Path, *_: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
