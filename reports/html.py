"""A page as one HTML file that asks nothing of the network: what its template needs beside the page itself."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from reports import decimals
from reports.document import Cell, Page, Run, Section, Source
from reports.markup import TEMPLATES, environment

if TYPE_CHECKING:
    from markupsafe import Markup

PIXELS_PER_INCH = 2  # of a picture per one of the page: figures are drawn for sharp screens


@dataclass(frozen=True)
class Place:
    """A cell in its table. pieces: its text with space before numbers; popover: id of the list of its runs, or
    nothing; letters: of its remarks, each with an id that the remark links back to."""

    cell: Cell
    pieces: list[decimals.Piece]
    popover: str
    letters: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A section's grid with all that its cells link to.

    sides: ``l`` or ``r`` per column, ``r`` only where numbers stand alone; popovers: id → runs, one for all cells with
    the same ones; back: letter → ids of the cells that bear it.
    """

    sides: str
    groups: list[list[list[Place]]]
    popovers: Mapping[str, list[Run]]
    back: Mapping[str, list[str]]


def document(page: Page, out_dir: Path) -> str:
    """The page as it stands in ``out_dir``: links to sources are relative to that folder."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    template = environment().get_template("report.html.j2")
    text = template.render(
        page=page,
        tables={section.name: table(section) for section in page.sections if section.grid},
        rows={section.name: row_ids(section) for section in page.sections},
        style=style,
        script=script,
        policy=policy(style, script),
        link=partial(link, out_dir=out_dir),
        picture=picture,
        size=size,
        number=number,
        prose=prose,
        slug=slug,
    )
    return text.encode("utf-8", "replace").decode()  # half characters in a run's notes


def table(section: Section) -> Table:
    """Raises KeyError for a cell whose run is none of the section's."""
    assert section.grid
    known = {run.id: run for run in reversed(section.runs)}
    columns = [[row[n].text for row in section.grid.rows] for n in range(len(section.grid.header))]
    numeric = [side == "r" for side in section.grid.sides]
    pieces = [decimals.aligned(c) if r else [[(0, text)] for text in c] for c, r in zip(columns, numeric)]
    right = [r and decimals.plain(texts) for texts, r in zip(columns, numeric)]
    popovers: dict[tuple[str, ...], str] = {}
    back: dict[str, list[str]] = {letter: [] for letter in section.remarks}
    groups: list[list[list[Place]]] = []
    line = 0
    for group in section.grid.groups:
        groups.append([])
        for row in group:
            groups[-1].append([])
            for n, cell in enumerate(row):
                popover = popovers.setdefault(cell.runs, f"{section.name}.of-{len(popovers) + 1}") if cell.runs else ""
                letters = {}
                for letter in cell.marks:
                    letters[letter] = f"{section.name}.mark-{letter}-{len(back[letter]) + 1}"
                    back[letter].append(letters[letter])
                groups[-1][-1].append(Place(cell, pieces[n][line], popover, letters))
            line += 1
    lists = {name: [known[run] for run in runs] for runs, name in popovers.items()}
    return Table("".join("r" if r else "l" for r in right), groups, lists, back)


def row_ids(section: Section) -> dict[str, str]:
    """Run → id of its row in the runs table; of the first, where arms share a run."""
    return {run.id: f"{section.name}.run-{run.id}" for run in section.runs}


def policy(style: str, script: str) -> str:
    """The Content Security Policy under which nothing but these two and embedded pictures has any effect."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def link(source: Source, out_dir: Path) -> str:
    """From a page in ``out_dir`` to a source, in any folder and under any name."""
    return quote(Path(os.path.relpath(source.path, out_dir)).as_posix())


def picture(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG on the page, from its first chunk."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return width // PIXELS_PER_INCH, height // PIXELS_PER_INCH


def number(text: str) -> float | None:
    """What a column of the runs table is sorted by, where its text is a number."""
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def prose(text: str) -> Markup:
    """A sentence with the little Markdown that ours use: code, strong and emphasised words. All else is text."""
    from markupsafe import Markup, escape

    codes: list[str] = []

    def kept(match: re.Match[str]) -> str:
        codes.append(match[1])
        return "\0"

    found = re.sub(r"`([^`]+)`", kept, str(escape(text.replace("\0", ""))))  # stars within code are no markup
    found = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", found)
    found = re.sub(r"\*([^\s*](?:[^*]*[^\s*])?)\*", r"<em>\1</em>", found)
    found = re.sub("\0", lambda _: f"<code>{codes.pop(0)}</code>", found)
    return Markup(found)  # noqa: S704 (escaped above)


def slug(tone: str) -> str:
    """A tone as the name of a class: ``within noise`` → ``within-noise``."""
    return "-".join(re.findall(r"[a-z0-9]+", tone.lower()))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
