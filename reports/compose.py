"""From a report's name and what its runs came back with to the page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import ablation, published
from reports.document import Page, Section
from reports.published import Reproduction
from reports.specification import Collection, PublishedTable, Specification, load
from reports.table import Table, build
from results.collect import Collected, Plan


@dataclass(frozen=True)
class Results:
    """What the runs of one sweep and protocol came back with.

    folder: where they lie, run folders or a measured one; label: what a measured one is called.
    """

    spec: Specification
    collected: Collected
    plan: Plan
    folder: Path
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label or f"{self.spec.name}-{self.plan['protocol']}"

    def table(self, mixed: bool = False) -> Table:
        """Raises SuiteError for what specification and plan do not have in common, and for mixed code or data."""
        return build(self.spec, self.collected, self.plan, mixed=mixed)


def page(name: str, results: Sequence[Results], *, mixed: bool = False, date: str = "", figures: bool = True) -> Page:
    """The page of report ``name``, of those ``results`` that it is about.

    date: of the runs, where their finished times are not to be taken. Raises SuiteError as ``Results.table`` does.
    """
    spec = load(name)
    sections = _sections(spec, results, mixed=mixed, date=date, figures=figures)
    if isinstance(spec, Collection):
        return Page(name, spec.title, tuple(sections), (" ".join(spec.lead.split()),))
    return Page(sections[0].name, sections[0].title, tuple(sections))


def _sections(
    spec: Specification | PublishedTable | Collection,
    results: Sequence[Results],
    *,
    mixed: bool,
    date: str,
    figures: bool,
) -> list[Section]:
    if isinstance(spec, Collection):
        return [section for report in spec.reports for section in _sections(
            load(report), results, mixed=mixed, date=date, figures=figures)]  # fmt: skip
    if isinstance(spec, PublishedTable):
        papers = [found for found in results if found.plan["protocol"] == found.spec.papers.protocol]
        return [published.section(spec, [Reproduction(f.table(mixed), f.folder, f.label) for f in papers])]
    return [
        ablation.section(
            found.table(mixed), found.collected, found.plan,
            name=found.name, folder=found.folder, label=found.label, date=date, figures=figures,
        )
        for found in results
        if found.spec.name == spec.name
    ]  # fmt: skip
