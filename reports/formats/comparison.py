"""Compares committed pages with the pages that the committed results give now."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PICTURES = (".png", ".pdf")
EMBEDDED = re.compile(rb'src="data:image/png;base64,[^"]*"( width="\d+" height="\d+")?')  # a picture within a page


def differences(folder: Path, made: Mapping[str, str | bytes]) -> Iterator[str]:
    """The differences between a committed folder and newly made files, a line per file.

    Pictures are compared where both come from one version of the drawing library: another draws other bytes. Their
    data, in CSV files beside them, always are.
    """
    committed = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    now = {name: content.encode() if isinstance(content, str) else content for name, content in made.items()}
    pictures = _drawers(path.read_bytes() for path in committed.values()) == _drawers(now.values())
    for name in sorted(committed.keys() | now.keys()):
        if name not in now:
            yield f"{name}: no report makes it"
        elif name not in committed:
            yield f"{name}: is missing"
        else:
            old, new = committed[name].read_bytes(), now[name]
            if not pictures:
                old, new = (b"", b"") if name.endswith(PICTURES) else (_bare(old), _bare(new))
            if old != new:
                yield f"{name}: differs" if name.endswith(PICTURES) else f"{name}:{_line(old, new)}: differs"


def _drawers(contents: Iterable[bytes]) -> set[str]:
    """The drawing libraries that the pictures among ``contents`` name."""
    from PIL import Image

    drawers = set()
    for content in contents:
        if content.startswith(b"\x89PNG"):
            with Image.open(io.BytesIO(content)) as picture:
                drawers.add(str(picture.info.get("Software")))
    return drawers


def _bare(page: bytes) -> bytes:
    """A page without the pictures within it."""
    return EMBEDDED.sub(b"", page)


def _line(old: bytes, new: bytes) -> int:
    """The first line that differs, counted from 1."""
    before, after = old.splitlines(), new.splitlines()
    return next((n for n, (a, b) in enumerate(zip(before, after), 1) if a != b), min(len(before), len(after)) + 1)
