"""From a report's name and what its runs came back with to the page that shows it."""

from __future__ import annotations

from pathlib import Path

from reports import ablation
from reports.document import Page
from reports.specification import of_sweep
from reports.table import build
from results.collect import Collected, Plan


def ablation_page(
    spec_name: str,
    collected: Collected,
    plan: Plan,
    folder: Path,
    *,
    mixed: bool = False,
    label: str | None = None,
    date: str = "",
    figures: bool = True,
) -> Page:
    """The page of one sweep's report; see ``ablation.section`` for ``folder``, ``label`` and ``date``.

    Raises SuiteError for what the specification and the plan do not have in common, and for runs of different code or
    data unless ``mixed``.
    """
    table = build(of_sweep(spec_name), collected, plan, mixed=mixed)
    name = label or f"{spec_name}-{plan['protocol']}"
    section = ablation.section(
        table, collected, plan, name=name, folder=folder, label=label, date=date, figures=figures
    )
    return Page(name, section.title, (section,))
