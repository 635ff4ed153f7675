"""What a page consists of, in no format yet: sections with a grid of cells, figures, and the runs behind both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.content.values import Value

if TYPE_CHECKING:
    from reports.figures import Drawing

MacroName = tuple[str, ...]  # section, arm or row, quantity: formats.macros makes one LaTeX command of it


@dataclass(frozen=True)
class Cell:
    """One cell. runs: ids of the runs behind it, all of the section's ``runs``; marks: letters of its ``remarks``."""

    value: Value
    runs: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table. sides: ``l`` or ``r`` per column; groups: rows that stay together when the table is sorted.

    parts: where columns begin that a narrow terminal may set as a further table, beside the first column.
    """

    header: tuple[str, ...]
    sides: str
    groups: tuple[tuple[tuple[Cell, ...], ...], ...]
    parts: tuple[int, ...] = ()

    @property
    def rows(self) -> list[tuple[Cell, ...]]:
        return [row for group in self.groups for row in group]

    @property
    def paired(self) -> bool:
        return any(len(group) > 1 for group in self.groups)

    def column(self, number: int) -> list[Value]:
        return [row[number].value for row in self.rows]


@dataclass(frozen=True)
class SourceFile:
    """A file that something can be followed back to, and the line in it."""

    text: str
    path: Path
    line: int | None = None


@dataclass(frozen=True)
class RunLine:
    """One run behind a section. state: a word of run_format; status: the same with its progress or cause.

    sources: its folder, config, log line and summary, as far as they exist.
    """

    id: str
    arm: str
    seed: int
    state: str
    status: str
    task: str = ""
    step: int | None = None
    seconds: float | None = None
    images_per_s: float | None = None
    commit: str = ""
    notes: str = ""
    sources: tuple[SourceFile, ...] = ()


@dataclass(frozen=True)
class Section:
    """One table or figure with all that its reader has to know.

    name: letters, digits, ``_`` and ``-``, unique on a page; cautions: reasons to doubt its numbers, shown first;
    legend: how to read it; places: where the papers' numbers stand; remarks: letter → what contradicts a number;
    configs: arm's label → its settings as YAML; macros: numbers for running text;
    records: the table as plain numbers, one mapping per row of the CSV file; warnings: missing runs and figures.
    runs_in: the section that lists its runs, where it does not do so itself.
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
    runs: tuple[RunLine, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    macros: tuple[tuple[MacroName, Value], ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    runs_in: str = ""

    @property
    def has_tasks(self) -> bool:
        """Whether its runs are of several tasks, so that each has to say which."""
        return any(run.task for run in self.runs)


@dataclass(frozen=True)
class Page:
    """Sections on one page. lead: a paragraph before the first; left_out: results that could not be shown, and why."""

    name: str
    title: str
    sections: tuple[Section, ...]
    lead: str = ""
    left_out: tuple[str, ...] = ()

    def is_own(self, section: Section) -> bool:
        """Whether the page is about this section, so that title and folder of the page are those of the section."""
        return len(self.sections) == 1 or section.name == self.name

    def __post_init__(self) -> None:
        names = [section.name for section in self.sections]
        if len(set(names)) < len(names):  # files, anchors and macros are named by them
            raise ValueError(f"several sections of page {self.name} have one name: {sorted(names)}")
