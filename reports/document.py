"""What a page consists of, in no format yet: sections with a grid of cells, figures, and the runs behind both.

``reports.ablation`` and ``reports.published`` make sections; the templates set them as Markdown, LaTeX, HTML and CSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.figures import Drawing


@dataclass(frozen=True)
class Cell:
    """One cell. text: as every format shows it; order: what a column is sorted by, where it holds numbers.

    runs: ids of the runs behind it, all of the section's ``runs``; marks: letters of the section's ``remarks``;
    tone: what the cell says in a word that a style can be tied to ("agrees", "waiting", …), or nothing.
    """

    text: str
    order: float | None = None
    runs: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    tone: str = ""


Row = tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """A table. sides: ``l`` or ``r`` per column; groups: rows that stay together when the table is sorted."""

    header: tuple[str, ...]
    sides: str
    groups: tuple[tuple[Row, ...], ...]

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group]

    @property
    def paired(self) -> bool:
        return any(len(group) > 1 for group in self.groups)


@dataclass(frozen=True)
class Source:
    """A file that something can be followed back to, and the line in it."""

    text: str
    path: Path
    line: int | None = None


@dataclass(frozen=True)
class Run:
    """One run behind a section. ``sources``: its folder, config, log line and summary, as far as they are there."""

    id: str
    arm: str
    seed: int
    state: str
    step: str
    seconds: str
    images_per_s: str
    commit: str
    notes: str
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Section:
    """One table or figure with all that its reader has to know.

    name: letters, digits, ``_`` and ``-``, unique on a page; cautions: what makes its numbers doubtful, shown first;
    legend: how to read it; places: where the papers' numbers stand; remarks: letter → what contradicts a number;
    configs: arm's label → its settings as YAML; macros: name → text, for numbers in running text;
    records: the table as plain numbers, one mapping per row of the CSV file; warnings: what was left out, and why.
    """

    name: str
    title: str
    question: str = ""
    about: str = ""
    cautions: tuple[str, ...] = ()
    grid: Grid | None = None
    legend: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    drawings: tuple[Drawing, ...] = ()
    runs: tuple[Run, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    macros: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """Sections on one page. ``lead`` stands before the first; a page of one section has none of its own."""

    name: str
    title: str
    sections: tuple[Section, ...]
    lead: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        if len(set(names)) < len(names):  # files, anchors and macros are named by them
            raise ValueError(f"sections of one name on page {self.name}: {sorted(names)}")
