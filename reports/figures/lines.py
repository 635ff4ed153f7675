"""One line per arm with a band over seeds, labelled at its end: what reach and learning curves are drawn with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.labels import at_line_ends

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from reports.table import Table

MARKED = 9  # markers per line, about


def over_seeds(points: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """mean, low, high, n of ``value`` over seeds, per arm and place; a place counts where every seed has it."""
    grouped = points.groupby(["arm", *by], sort=True)["value"].agg(mean="mean", low="min", high="max", n="count")
    summary = grouped.reset_index()
    return summary[summary["n"] == summary.groupby("arm")["n"].transform("max")].reset_index(drop=True)


def lines(axes: Axes, summary: pd.DataFrame, x: str, table: Table) -> list[tuple[float, float, str, Any]]:
    """Draws ``summary`` and returns the ends of the lines for ``finish``."""
    styles, ends = style.arm_styles(table), []
    for order, row in enumerate(table.rows):
        mine = summary[summary["arm"] == row.arm]
        if mine.empty:
            continue
        look = styles[row.arm]
        xs, ys = mine[x].to_numpy(float), mine["mean"].to_numpy(float)
        band = (mine["low"].to_numpy(float), mine["high"].to_numpy(float))
        axes.fill_between(xs, *band, color=look.colour, alpha=0.16, lw=0)
        every = max(1, round(len(xs) / MARKED))
        axes.plot(
            xs, ys, color=look.colour, marker=look.marker, linestyle=look.dash, linewidth=1.5, markersize=4.6,
            markevery=(order % every, every), markeredgecolor="white", markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        ends.append((float(xs[-1]), float(ys[-1]), row.label, look.colour))
    return ends


def label_width(labels: Iterable[str]) -> float:
    """Inches that end labels need to the right of an axes, to the next one's tick marks."""
    return 0.5 + 0.068 * max(map(len, labels), default=0)


def finish(canvas: Any, panels: list[tuple[Axes, list[tuple[float, float, str, Any]]]]) -> None:
    """Labels the line ends once the limits and the layout are final."""
    canvas.draw_without_rendering()
    for axes, ends in panels:
        at_line_ends(axes, ends)


def chance_line(axes: Axes, chance: float | None) -> None:
    if chance is not None:
        axes.axhline(chance, color=style.GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate(
            "chance", (0, chance), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
            fontsize=7.5, color=style.GREY,
        )  # fmt: skip
