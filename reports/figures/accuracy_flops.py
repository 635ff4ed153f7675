"""Accuracy against computation, one marker per arm (AAAI Fig. 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.labels import Point, beside_points

if TYPE_CHECKING:
    from reports.specification import Figure
    from reports.table import Table
    from results.collect import Collected


def draw(table: Table, collected: Collected, figure: Figure) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None while no arm has a result and a FLOP count."""
    import pandas as pd

    rows = [row for row in table.rows if row.mean is not None and row.flops_g is not None]
    if not rows:
        return None
    styles, metric = style.arm_styles(table), table.metric
    canvas = style.new_figure(5.4, 3.7)
    axes = canvas.subplots()
    points = []
    for row in rows:
        assert row.mean is not None and row.flops_g is not None
        look, sd = styles[row.arm], row.sd or 0.0
        axes.errorbar(
            row.flops_g, row.mean, yerr=sd or None, fmt=look.marker, color=look.colour, markersize=7, capsize=2.5,
            elinewidth=1.1, markeredgecolor="white", markeredgewidth=0.7, ecolor=look.colour, zorder=4,
        )  # fmt: skip
        points.append(Point(row.flops_g, row.mean, row.mean - sd, row.mean + sd, row.label, look.colour))
    _limits(axes, points, metric.unit)
    axes.set_xlabel("FLOPs (G)")
    axes.set_ylabel(f"{metric.label} ({metric.unit})")
    canvas.draw_without_rendering()
    beside_points(axes, points)
    shown = [(row.arm, row.label, row.flops_g, row.mean, row.sd, len(row.values)) for row in rows]
    data = pd.DataFrame(shown, columns=["arm", "label", "flops_g", "mean", "sd", "n"]).round(4)
    caption = f"{metric.label} against FLOPs. Error bars: one standard deviation over seeds."
    return canvas, data, "Accuracy against computation", caption


def _limits(axes: Any, points: list[Point], unit: str) -> None:
    """Room on all sides for the labels."""
    xs, lows, highs = [p.x for p in points], [p.low for p in points], [p.high for p in points]
    width = max(xs) - min(xs) or max(xs) * 0.2 or 1.0
    height = max(highs) - min(lows) or 1.0
    axes.set_xlim(min(xs) - 0.16 * width, max(xs) + 0.24 * width)
    axes.set_ylim(min(lows) - 0.16 * height, max(highs) + 0.14 * height)
    if unit == "%":  # more room above 100 for labels, but no tick there
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100 and axes.get_ylim()[0] <= tick])
