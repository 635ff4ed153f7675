"""Whether committed pages are what the committed results give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

PICTURES = (".png", ".pdf")
EMBEDDED = re.compile(rb"data:image/png;base64,[A-Za-z0-9+/=]*")  # a picture within a page
FOREIGN = "drawn by another version of matplotlib, not compared"


def differences(committed: Path, made: Path) -> Iterator[str]:
    """What differs between two folders of one page, a line per file."""
    there, here = (({path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}) for folder in (committed, made))
    for name in sorted(there | here):
        if name not in here:
            yield f"{name}: no report makes it"
        elif name not in there:
            yield f"{name}: missing"
        elif (old := (committed / name).read_bytes()) != (new := (made / name).read_bytes()):
            if name.suffix in PICTURES and not same_drawer(committed, made):
                continue
            if name.suffix == ".html" and not same_drawer(committed, made) and bare(old) == bare(new):
                continue
            yield f"{name}{_first(old, new) if name.suffix not in PICTURES else ''} differs"


def same_drawer(*folders: Path) -> bool:
    """Whether the pictures of both folders come from one version of the drawing library: only then bytes compare."""
    from PIL import Image

    found = set()
    for folder in folders:
        for path in sorted(folder.rglob("*.png")):
            with Image.open(path) as picture:
                found.add(str(picture.info.get("Software")))
    return len(found) <= 1


def bare(page: bytes) -> bytes:
    """A page without the pictures within it."""
    return EMBEDDED.sub(b"", page)


def _first(old: bytes, new: bytes) -> str:
    """``:12`` where the twelfth line is the first that differs."""
    pairs = zip(old.splitlines(), new.splitlines())
    return f":{next((n for n, (a, b) in enumerate(pairs, 1) if a != b), min(map(len, (old.splitlines(), new.splitlines()))) + 1)}"
