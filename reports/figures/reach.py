"""Accuracy against the distance of the evidence, along rows and along columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.figures import FigureError, lines, style

if TYPE_CHECKING:
    from reports.content.table import TaskTable
    from reports.specification import Figure

PANEL = 3.2  # inches of width
DRAWN = 0.01  # of a direction's tokens: a distance with a smaller share is left to the CSV file
NEEDED = {"direction", "distance", "correct", "count"}


def draw(table: TaskTable, figure: Figure) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None where no finished run of these arms has a reach curve."""
    curves = table.collected.curves
    curves = curves[curves["curve"] == "reach"]
    if curves.empty:
        return None
    if missing := NEEDED - set(curves.columns):
        raise FigureError(f"the reach curves lack {', '.join(sorted(missing))}")
    counted = curves[curves["count"] > 0]
    summed = counted.groupby(["arm", "seed", "direction", "distance"], as_index=False)[["correct", "count"]].sum()
    summed["value"] = 100 * summed["correct"] / summed["count"]
    places = ["direction", "distance"]
    summary = lines.with_intervals(lines.over_seeds(summed, places), summed, places)
    tokens = summed.groupby(["direction", "distance"])["count"].sum()
    share = tokens / tokens.groupby("direction").transform("sum")
    shown = summary[summary["arm"].isin(figure.arms)] if figure.arms else summary
    if shown.empty:
        return None
    drawn = shown[[share[place] >= DRAWN for place in zip(shown["direction"], shown["distance"])]]
    directions = [d for d in ("horizontal", "vertical") if d in set(summary["direction"])]
    directions += sorted(set(summary["direction"]) - set(directions))
    gutter = lines.label_width(row.label for row in table.rows if row.arm in set(shown["arm"]))
    canvas = style.new_figure(len(directions) * (PANEL + gutter), 3.5)
    panels = []
    for axes, direction in zip(canvas.subplots(1, len(directions), sharey=True, squeeze=False)[0], directions):
        part = drawn[drawn["direction"] == direction]
        panels.append((axes, lines.lines(axes, part, "distance", table)))
        lines.chance_line(axes, table.metric.chance)
        axes.set_title(direction.capitalize(), loc="left", fontweight="bold")
        axes.set_xlabel(figure.axis or "Distance (px)")
        axes.set_xlim(min(0.0, float(part["distance"].min())), float(part["distance"].max()))
    first = panels[0][0]
    style.percent_axis(first, "%")
    first.set_ylabel(f"Accuracy (%){lines.axis_words(drawn['n'], 'band')}")
    width = len(directions) * (PANEL + gutter)
    canvas.subplots_adjust(left=0, right=1 - gutter / width, wspace=gutter / PANEL)
    lines.finish(canvas, panels)
    caption = (
        "Accuracy of the tokens at each distance from the evidence for their class, by direction: mean over finished "
        f"seeds; {lines.seed_words(drawn['n'], 'band')}. Distances of fewer than "
        f"{DRAWN:.0%} of the tokens are not drawn."
    )
    if figure.arms:
        caption += " Some of the arms; the CSV file has all."
    return canvas, summary.round(4), "Reach", caption
