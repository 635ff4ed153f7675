"""One line per arm with a band over seeds, labelled at its end, for reach and learning curves."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.labels import at_line_ends
from results.statistics.estimates import LEVEL, mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from reports.content.table import TaskTable

MARKED = 9  # markers per line, about


def over_seeds(points: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """mean, low, high, n of ``value`` over seeds, per arm and place; a place counts where every seed has it.

    low and high are the lowest and the highest seed.
    """
    grouped = points.groupby(["arm", *by], sort=True, observed=True)["value"].agg(
        mean="mean", low="min", high="max", n="count"
    )
    summary = grouped.reset_index()
    return summary[summary["n"] == summary.groupby("arm", observed=True)["n"].transform("max")].reset_index(drop=True)


def with_intervals(summary: pd.DataFrame, points: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """``over_seeds`` with low and high the t-interval of the mean; both are the mean where there is no interval."""
    samples = points.groupby(["arm", *by], observed=True)["value"].agg(list)
    summary = summary.astype({"low": float, "high": float})
    for index, row in summary[summary["n"] > 1].iterrows():
        estimate = mean_interval(dict(enumerate(samples[(row["arm"], *(row[key] for key in by))])))
        if estimate.low is not None:
            summary.loc[index, ["low", "high"]] = estimate.low, estimate.high
    return summary


def seed_words(seeds: Collection[int], mark: str) -> str:
    """What bands and error bars are in every figure, for its caption.

    seeds: their number, of each mean; mark: what shows the interval.
    """
    if max(seeds) < 2:
        return f"no {mark.lower()}: one seed each"
    none = ", none of a single seed" if min(seeds) < 2 else ""
    return f"{mark}: the {100 * LEVEL:.0f} % t-interval of the mean over seeds{none}"


def axis_words(seeds: Collection[int], mark: str) -> str:
    """The same in short, for the figure itself, as a further line of an axis label."""
    return f"\n{mark}: {100 * LEVEL:.0f} % interval over seeds" if max(seeds) > 1 else f"\nno {mark}: one seed each"


def lines(axes: Axes, summary: pd.DataFrame, x: str, table: TaskTable) -> list[tuple[float, float, str, Any]]:
    """Draws ``summary`` and returns the ends of the lines for ``finish``."""
    styles, ends = style.arm_styles(table), []
    for order, row in enumerate(table.rows):
        of_arm = summary[summary["arm"] == row.arm]
        if of_arm.empty:
            continue
        look = styles[row.arm]
        xs, ys = of_arm[x].to_numpy(float), of_arm["mean"].to_numpy(float)
        band = (of_arm["low"].to_numpy(float), of_arm["high"].to_numpy(float))
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
    from matplotlib.patheffects import withStroke

    if chance is not None:
        axes.axhline(chance, color=style.GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        text = axes.annotate(
            "chance", (0, chance), xycoords=("axes fraction", "data"), xytext=(4, 3), textcoords="offset points",
            fontsize=7.5, color=style.GREY, zorder=6,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # legible on lines at chance
