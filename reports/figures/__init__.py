"""Figures of a report, drawn from its tables and runs; each comes as PNG, PDF and the CSV of the data it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from errors import SuiteError

if TYPE_CHECKING:
    from reports.content.findings import JudgedEvidence
    from reports.content.profile import ProfileLine
    from reports.content.table import Ablation, TaskTable
    from reports.specification import Figure, Profile, PublishedTable
    from results.papers import Number
    from results.statistics.estimates import Interval


class FigureError(SuiteError):
    """A figure whose data exist but cannot be drawn; the report is made without it and says so."""


@dataclass(frozen=True)
class Drawing:
    """A drawn figure. files: name → content; ``file`` is the one a page shows."""

    name: str
    title: str
    caption: str
    files: dict[str, bytes]

    @property
    def file(self) -> str:
        return f"{self.name}.png"


def draw(ablation: Ablation) -> tuple[list[Drawing], list[str]]:
    """Every figure of the specification that has data, and a sentence about each that could not be drawn.

    The forest plot shows all tasks; every other figure is drawn once per task.
    """
    drawings, problems = [], []
    for figure in ablation.spec.figures:
        tables = ablation.tables[:1] if figure.kind == "forest" else ablation.tables
        for table in tables:
            try:
                shown = ablation.tables if figure.kind == "forest" else table
                if (drawing := _of_sweep(figure, shown, table.task if table.downstream else "")) is not None:
                    drawings.append(drawing)
            except FigureError as error:
                problems.append(f"figure {figure.kind}: {error}")
    return drawings, problems


def draw_published(
    spec: PublishedTable, numbers: Sequence[Number], ours: Mapping[Number, Interval]
) -> tuple[list[Drawing], list[str]]:
    """Every figure of a published table, and a sentence about each that could not be drawn."""
    from reports.figures import circles, style

    drawings, problems = [], []
    for figure in spec.figures:
        try:
            with style.theme():
                drawings.append(drawing(figure.kind, *circles.draw(numbers, ours, figure, spec.title)))
        except FigureError as error:
            problems.append(f"figure {figure.kind}: {error}")
    return drawings, problems


def draw_differences(tables: Sequence[TaskTable]) -> Drawing | None:
    """The forest plot of all tables that have a difference; None while there is none."""
    from reports.figures import forest, style

    groups = [group for group in map(forest.of_table, tables) if any(entry.ours for entry in group.entries)]
    if not groups:
        return None
    with style.theme():
        title = "Ours with their intervals, and the papers'"
        return drawing("forest", forest.forest(groups), forest.data(groups), title, forest.caption(groups))


def draw_profile(
    spec: Profile, lines: Sequence[ProfileLine], of_distances: Mapping[str, TaskTable | None]
) -> tuple[list[Drawing], list[str]]:
    """The map of a profile and its curves by distance, and a sentence about each that could not be drawn.

    of_distances: by figure, the table whose curves it shows.
    """
    from reports.figures import profile_map, reach, style
    from reports.specification import Figure

    drawings, problems = [], []
    with style.theme():
        if drawn := profile_map.draw(spec, lines):
            drawings.append(drawing("map", *drawn))
    for each in spec.distances:
        if (table := of_distances[each.name]) is None:
            continue
        try:
            with style.theme():
                if drawn := reach.draw(table, Figure("reach", each.title, each.axis, each.arms)):
                    canvas, data, _, caption = drawn
                    drawings.append(drawing(each.name, canvas, data, each.title, caption))
        except FigureError as error:
            problems.append(f"figure {each.name}: {error}")
    return drawings, problems


def draw_findings(found: Sequence[JudgedEvidence]) -> list[Drawing]:
    """The differences of a page of findings, a panel per sweep; none while there is none."""
    from reports.figures import forest, style

    if not (groups := forest.of_findings(found)):
        return []
    with style.theme():
        canvas, data, caption = forest.forest(groups), forest.data(groups), forest.caption(groups)
        return [drawing("forest", canvas, data, "The differences that were found", caption)]


def drawing(name: str, canvas: Any, data: Any, title: str, caption: str) -> Drawing:
    """A figure's files, to be made within the theme it was drawn in."""
    from reports.figures import style

    return Drawing(name, title, caption, style.files(canvas, data, name))


def _of_sweep(figure: Figure, shown: Any, task: str) -> Drawing | None:
    from reports.figures import style

    module = import_module(f"reports.figures.{figure.kind}")
    with style.theme():
        drawn = module.draw(shown, figure)
        if drawn is None:
            return None
        canvas, data, title, caption = drawn
        name, end = (f"{figure.kind}_{task}", f": {task}") if task else (figure.kind, "")
        return drawing(name, canvas, data, f"{figure.title or title}{end}", caption)
