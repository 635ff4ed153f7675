"""Figures of a report, drawn from the same table and runs; each comes as PNG, PDF and the CSV of what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from errors import SuiteError

if TYPE_CHECKING:
    from reports.specification import PublishedTable
    from reports.table import Table
    from results.collect import Collected
    from results.papers import Number
    from results.statistics import Interval


class FigureError(SuiteError):
    """A figure whose data are there but cannot be drawn; the report is made without it and says so."""


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


def draw(table: Table, collected: Collected) -> tuple[list[Drawing], list[str]]:
    """Every figure of the specification that has data, and what to say about those that could not be drawn."""
    from reports.figures import style

    drawings, problems = [], []
    for figure in table.spec.figures:
        module = import_module(f"reports.figures.{figure.kind}")
        try:
            with style.theme():
                drawn = module.draw(table, collected, figure)
                if drawn is not None:
                    canvas, data, title, caption = drawn
                    drawings.append(drawing(figure.kind, canvas, data, figure.title or title, caption))
        except FigureError as error:
            problems.append(f"figure {figure.kind}: {error}")
    return drawings, problems


def draw_published(
    spec: PublishedTable, numbers: Sequence[Number], ours: Mapping[Number, Interval]
) -> tuple[list[Drawing], list[str]]:
    """Every figure of a published table, and what to say about those that could not be drawn."""
    from reports.figures import circles, style

    drawings, problems = [], []
    for figure in spec.figures:
        try:
            with style.theme():
                drawings.append(drawing(figure.kind, *circles.draw(numbers, ours, figure, spec.title)))
        except FigureError as error:
            problems.append(f"figure {figure.kind}: {error}")
    return drawings, problems


def draw_differences(tables: Sequence[Table]) -> Drawing | None:
    """The forest plot of all tables that have a difference; None while there is none."""
    from reports.figures import forest, style

    groups = [group for group in map(forest.of_table, tables) if any(entry.ours for entry in group.entries)]
    if not groups:
        return None
    with style.theme():
        title = "Ours with their intervals, and the papers'"
        return drawing("forest", forest.forest(groups), forest.data(groups), title, forest.caption(groups))


def drawing(name: str, canvas: Any, data: Any, title: str, caption: str) -> Drawing:
    """A figure's files, to be made within the theme it was drawn in."""
    from reports.figures import style

    return Drawing(name, title, caption, style.files(canvas, data, name))
