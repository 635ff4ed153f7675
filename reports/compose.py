"""From a report's name and what its runs came back with to the page that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from errors import SuiteError
from reports import ablation, published
from reports.document import Page, Section
from reports.figures import draw_differences
from reports.offsets import gathered
from reports.published import Reproduction
from reports.specification import (
    Collection,
    LearnedOffsets,
    PublishedTable,
    Report,
    Specification,
    SpecificationError,
    load,
)
from reports.table import Table, build, is_papers
from results.collect import Collected, Plan


@dataclass(frozen=True)
class Results:
    """What the runs of one sweep and protocol came back with.

    folder: where they lie, run folders or a measured one; label: what a measured one is called; alias: what these
    results are called on a page where others have their name.
    """

    spec: Specification
    collected: Collected
    plan: Plan
    folder: Path
    label: str | None = None
    alias: str | None = None

    @property
    def name(self) -> str:
        return self.alias or self.label or f"{self.spec.name}-{self.plan['protocol']}"

    def table(self, mixed: bool = False) -> Table:
        """Raises SuiteError for what specification and plan do not have in common, and for mixed code or data."""
        return build(self.spec, self.collected, self.plan, mixed=mixed)


def page(name: str, results: Sequence[Results], *, mixed: bool = False, date: str = "", figures: bool = True) -> Page:
    """The page of report ``name``, of those ``results`` that it is about.

    date: of the runs, where their finished times are not to be taken. Raises SuiteError as ``Results.table`` does for
    the report of one sweep; a page of several is made without what cannot be shown, and says so.
    """
    spec = load(name)
    tables: list[tuple[Results, Table]] = []
    left_out: dict[str, tuple[Results, str]] = {}
    for found in results:
        try:
            tables.append((found, found.table(mixed)))
        except SuiteError as error:
            if isinstance(spec, Specification):
                raise
            left_out[found.name] = (found, f"**{found.name} is left out: {error}.**")
    shown = _Shown(tables, _places(found for found, _ in left_out.values()), mixed, date, figures)
    reports = [load(report) for report in spec.reports] if isinstance(spec, Collection) else [spec]
    sections = [section for report in reports for section in _sections(report, shown)]
    lead = tuple(line for _, line in left_out.values())
    if isinstance(spec, Collection):
        named = {found.name: f"{found.spec.title}: {found.name}" for found in results}  # one sweep may be there twice
        sections = [replace(section, title=named.get(section.name, section.title)) for section in sections]
        if figures and spec.differences:
            sections = [*_differences(spec, tables), *sections]
        return Page(name, spec.title, tuple(sections), (" ".join(spec.lead.split()), *lead))
    title = sections[0].title if len(sections) == 1 else spec.title
    return Page(sections[0].name if len(sections) == 1 else name, title, tuple(sections), lead)


@dataclass(frozen=True)
class _Shown:
    """What the sections of a page are made from."""

    tables: Sequence[tuple[Results, Table]]
    left_out: Mapping[published.Place, str]
    mixed: bool
    date: str
    figures: bool


def _places(left_out: Iterable[Results]) -> dict[published.Place, str]:
    """The published numbers that results would have stood beside, had they not been left out."""
    return {
        (place.source, place.table, place.row, found.spec.papers.metric): found.name
        for found in left_out
        if is_papers(found.spec, found.plan)
        for arm in found.spec.arms.values()
        for place in arm.published
        if place.same_model
    }


def _differences(spec: Collection, tables: Sequence[tuple[Results, Table]]) -> list[Section]:
    """One picture of every difference on the page, where there is any."""
    drawing = draw_differences([table for found, table in tables if found.spec.name in spec.reports])
    return [] if drawing is None else [Section("differences", spec.differences, drawings=(drawing,))]


def _sections(spec: Report, shown: _Shown) -> list[Section]:
    if isinstance(spec, Collection):
        raise SpecificationError(f"report {spec.name} is a collection itself, and cannot be part of another")
    if isinstance(spec, PublishedTable):
        of_papers = [
            Reproduction(table, found.folder, found.label, ablation.configs(table, found.plan))
            for found, table in shown.tables
            if table.is_papers_protocol
        ]
        return [published.section(spec, of_papers, shown.left_out, figures=shown.figures)]
    if isinstance(spec, LearnedOffsets):
        sweeps = {f.name: (f.plan, f.folder) for f, _ in shown.tables if f.spec.sweep in spec.sweeps and not f.label}
        return list(gathered.sections(spec, sweeps, mixed=shown.mixed, figures=shown.figures))
    return [
        ablation.section(
            table, found.collected, found.plan,
            name=found.name, folder=found.folder, label=found.label, date=shown.date, figures=shown.figures,
        )
        for found, table in shown.tables
        if found.spec.name == spec.name
    ]  # fmt: skip
