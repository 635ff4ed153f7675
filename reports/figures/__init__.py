"""Figures of a report, drawn from the same table and runs; each comes as PNG, PDF and the CSV of what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from errors import SuiteError

if TYPE_CHECKING:
    from reports.table import Table
    from results.collect import Collected


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
                    files = style.files(canvas, data, figure.kind)
                    drawings.append(Drawing(figure.kind, figure.title or title, caption, files))
        except FigureError as error:
            problems.append(f"figure {figure.kind}: {error}")
    return drawings, problems
