"""A published table as a picture: accuracy against FLOPs, circle area = parameters (v1 Fig. 1), ours filled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reports.figures import FigureError, lines
from reports.figures.bubbles import ModelPoint, bubbles

if TYPE_CHECKING:
    from reports.specification import Figure
    from results.papers import Number
    from results.statistics.estimates import Interval

NEEDED = ("flops_g", "params_m")


def draw(
    numbers: Sequence[Number], ours: Mapping[Number, Interval], figure: Figure, title: str
) -> tuple[Any, Any, str, str]:
    """The figure, its data, title and caption. ours: our means, by the printed number that they stand beside.

    Raises FigureError where the table does not print what the figure needs.
    """
    import pandas as pd

    points = _points(numbers, ours, figure)
    if not points:
        raise FigureError(f"no row prints {', '.join((figure.metric, *NEEDED))} at {figure.protocol}")
    shown = [point for point in points if figure.bottom is None or point.accuracy >= figure.bottom]
    # ours stand beside the printed one of their name, filled: a second label would only be in the way
    unlabelled = [replace(point, label="") if point.ours else point for point in points]
    seeds = [interval.n for interval in ours.values()]
    axis = figure.axis + (lines.axis_words(seeds, "bars") if seeds else "")
    canvas = bubbles(unlabelled, axis, highlight=figure.highlight, bottom=figure.bottom)
    data = pd.DataFrame([{**vars(point), "source": "ours" if point.ours else "papers"} for point in points])
    data = data.drop(columns="ours").rename(columns={"accuracy": figure.metric}).round(4)
    clauses = [f"{figure.axis} against FLOPs at {figure.protocol}, as printed (hollow)"]
    if any(point.ours for point in points):
        clauses.append(f"and as measured here (filled; {lines.seed_words(seeds, 'error bars')})")
    caption = " ".join(clauses) + ". Areas of circles: parameters; lines join models of one family."
    if len(shown) < len(points):
        below = ", ".join(f"{point.label} ({point.accuracy:g})" for point in points if point not in shown)
        caption += f" Below the axis: {below}."
    return canvas, data, figure.title or title, caption


def _points(numbers: Sequence[Number], ours: Mapping[Number, Interval], figure: Figure) -> list[ModelPoint]:
    rows: dict[str, dict[str, Number]] = {}
    for number in numbers:
        if number.metric == figure.metric or number.protocol == figure.protocol:
            rows.setdefault(number.row, {}).setdefault(number.metric, number)
    points = []
    for label, row in rows.items():
        if any(row.get(metric) is None or row[metric].value is None for metric in (*NEEDED, figure.metric)):
            continue
        flops, params, accuracy = (float(row[metric].value or 0) for metric in (*NEEDED, figure.metric))
        points.append(ModelPoint(label, flops, params, accuracy, None, family(label), False))
        if (mean := ours.get(row[figure.metric])) is not None:
            points.append(ModelPoint(label, flops, params, mean.mean, mean.half, family(label), True))
    return points


def family(model: str) -> str:
    """``Swin-T`` and ``Swin-B`` are Swin; ``ResNet18`` and ``ResNet50`` ResNet."""
    return re.match(r"[^\W\d_]+(?: III)?²?[^\W\d_]*", model).group(0)  # type: ignore[union-attr]
