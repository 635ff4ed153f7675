"""A page as one HTML file that loads nothing from the network."""

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

from reports.content.page import Cell, Page, RunLine, Section, SourceFile
from reports.content.text import line_text
from reports.content.text import text as plain
from reports.formats.alignment import Aligned, aligned, only_numbers, unaligned
from reports.formats.markup import TEMPLATES, environment

if TYPE_CHECKING:
    from markupsafe import Markup

PIXELS_PER_INCH = 2  # pixels of a picture per pixel of the page: figures are drawn for sharp screens


@dataclass(frozen=True)
class HtmlCell:
    """A cell in its table. text: its first line, with all that has no line of its own; popover: id of the list of its
    runs, or nothing; letters: those of its remarks, each with an id that the remark links back to."""

    cell: Cell
    text: Aligned
    popover: str
    letters: Mapping[str, str]

    @property
    def below(self) -> list[str]:
        """Its other lines."""
        return list(map(line_text, self.cell.value.below))


@dataclass(frozen=True)
class HtmlTable:
    """A section's grid with all that its cells link to.

    sides: ``l`` or ``r`` per column, ``r`` only where numbers stand alone; popovers: id → runs, one for all cells with
    the same ones; back: letter → ids of the cells that bear it.
    """

    sides: str
    groups: list[list[list[HtmlCell]]]
    popovers: Mapping[str, list[RunLine]]
    back: Mapping[str, list[str]]


def document(page: Page, out_dir: Path) -> str:
    """The page as it stands in ``out_dir``: links to sources are relative to that folder."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    template = environment().get_template("report.html.j2")
    text = template.render(
        page=page,
        tables={section.name: table(section) for section in page.sections if section.grid},
        rows={section.name: row_ids(section) for section in page.sections},  # where its runs are listed
        style=style,
        script=script,
        policy=policy(style, script),
        link=partial(link, out_dir=out_dir),
        picture=picture,
        size=size,
        prose=prose,
        slug=slug,
        plain=plain,
    )
    return text.encode("utf-8", "replace").decode()  # half characters in a run's notes


def table(section: Section) -> HtmlTable:
    """Raises KeyError for a cell whose run is not among the section's."""
    assert section.grid
    grid, runs = section.grid, {run.id: run for run in section.runs}
    columns = [[value.head for value in grid.column(n)] for n in range(len(grid.header))]
    numeric = [side == "r" for side in grid.sides]
    lines = zip(*(aligned(column) if n else map(unaligned, column) for column, n in zip(columns, numeric)))
    ids = _Ids(section.name)
    groups = [[[ids.place(cell, text) for cell, text in zip(row, next(lines))] for row in g] for g in grid.groups]
    return HtmlTable(
        "".join("r" if n and only_numbers(column) else "l" for column, n in zip(columns, numeric)),
        groups,
        {popover: [runs[run] for run in behind] for behind, popover in ids.popovers.items()},
        ids.back,
    )


class _Ids:
    """Numbers a section's lists of runs, and the letters in its cells."""

    def __init__(self, section: str):
        self.section = section
        self.popovers: dict[tuple[str, ...], str] = {}
        self.back: dict[str, list[str]] = {}

    def place(self, cell: Cell, text: Aligned) -> HtmlCell:
        popover = ""
        if cell.runs:
            popover = self.popovers.setdefault(cell.runs, f"{self.section}.of-{len(self.popovers) + 1}")
        return HtmlCell(cell, text, popover, {letter: self._mark(letter) for letter in cell.marks})

    def _mark(self, letter: str) -> str:
        marks = self.back.setdefault(letter, [])
        marks.append(f"{self.section}.mark-{letter}-{len(marks) + 1}")
        return marks[-1]


def row_ids(section: Section) -> dict[str, str]:
    """Run → id of its row in the runs table; of the first, where arms share a run."""
    return {run.id: f"{section.runs_in or section.name}.run-{run.id}" for run in section.runs}


def policy(style: str, script: str) -> str:
    """The Content Security Policy under which nothing but these two and embedded pictures has any effect."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def link(source: SourceFile, out_dir: Path) -> str:
    """From a page in ``out_dir`` to a source, in any folder and under any name."""
    return quote(Path(os.path.relpath(source.path, out_dir)).as_posix())


def picture(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG on the page, from its first chunk."""
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return width // PIXELS_PER_INCH, height // PIXELS_PER_INCH


def prose(text: str) -> Markup:
    """A sentence with the little Markdown that ours use: code, strong and emphasised words. All else is text."""
    from markupsafe import Markup, escape

    codes: list[str] = []

    def take_out(match: re.Match[str]) -> str:
        codes.append(match[1])
        return "\0"

    html = re.sub(r"`([^`]+)`", take_out, str(escape(text.replace("\0", ""))))  # stars within code are no markup
    html = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", html)
    html = re.sub(r"\*([^\s*](?:[^*]*[^\s*])?)\*", r"<em>\1</em>", html)
    html = re.sub("\0", lambda _: f"<code>{codes.pop(0)}</code>", html)
    return Markup(html)  # noqa: S704 (escaped above)


def slug(tone: str) -> str:
    """A tone as the name of a class: ``within noise`` → ``within-noise``."""
    return "-".join(re.findall(r"[a-z0-9]+", tone.lower()))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
