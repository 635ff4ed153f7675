"""Accuracy against computation, a marker or circle per arm (AAAI Fig. 2), with the papers' own points if asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reports.figures import lines, style
from reports.figures.bubbles import ModelPoint, draw_bubbles
from reports.figures.labels import Box, LabelledPoint, beside_points
from results import papers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.content.table import ArmRow, TaskTable
    from reports.specification import Figure, Published

PANEL = (5.4, 3.7)  # inches
PAPERS_PANEL = 3.9  # inches of width
MARKER = 7  # points of diameter


def draw(table: TaskTable, figure: Figure) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None while no arm has a result and a FLOP count.

    On the papers' own protocol their points stand among ours; elsewhere in a panel of their own, as its scale is.
    """
    import pandas as pd

    rows = [row for row in table.rows if row.mean is not None and row.flops_g is not None]
    measured = [_measured(row) for row in rows if not figure.circles or row.params_m is not None]
    if not measured:
        return None
    printed = _printed(table, figure) if figure.papers else []
    apart = bool(printed) and not table.is_papers_protocol
    canvas = style.new_figure(PANEL[0] + apart * PAPERS_PANEL, PANEL[1])
    widths = [PANEL[0], PAPERS_PANEL] if apart else [1.0]
    panels = canvas.subplots(1, len(widths), squeeze=False, width_ratios=widths, gridspec_kw={"wspace": 0.22})[0]
    label = _axis_label(table, table.protocol) + lines.axis_words([len(row.values) for row in rows], "bars")
    _panel(panels[0], measured if apart else measured + printed, label, table, figure)
    if apart and table.papers:
        _panel(panels[1], printed, _axis_label(table, table.papers.protocol), table, figure)
        panels[0].set_title(f"Ours, protocol {table.protocol}", loc="left", fontweight="bold")
        panels[1].set_title(f"Papers, {table.papers.label}", loc="left", fontweight="bold")
    shown = [
        (row.arm, row.label, row.flops_g, row.mean, row.sd, row.interval.low, row.interval.high, row.interval.n)
        for row in rows
        if row.interval
    ]
    data = pd.DataFrame(shown, columns=["arm", "label", "flops_g", "mean", "sd", "low", "high", "n"]).round(4)
    if figure.papers:
        theirs = [{"label": p.label, "flops_g": p.flops_g, "mean": p.accuracy, "source": "papers"} for p in printed]
        data = pd.concat([data.assign(source="ours"), pd.DataFrame(theirs).round(4)]).astype({"n": "Int64"})
    return canvas, data, "Accuracy against computation", _caption(table, figure, printed)


def _measured(row: ArmRow) -> ModelPoint:
    assert row.interval is not None and row.flops_g is not None
    params = math.nan if row.params_m is None else row.params_m
    return ModelPoint(row.label, row.flops_g, params, row.interval.mean, row.interval.half, row.label, True)


def _printed(table: TaskTable, figure: Figure) -> list[ModelPoint]:
    """The papers' points of the table's arms, as far as accuracy, FLOPs and, for circles, parameters are printed."""
    points: dict[tuple[str, str, float], ModelPoint] = {}
    for row in table.rows:
        for reference in row.references:
            place, number = reference.place, reference.number
            flops, params = _printed_flops(place, number.head), _number(place, "params_m", number.head)
            if number.value is None or flops is None or (figure.circles and params is None):
                continue
            label = f"{row.label} ({number.model})"
            point = ModelPoint(
                label, flops, math.nan if params is None else params, number.value, None, row.label, False
            )
            points.setdefault((row.arm, number.model, number.value), point)  # both editions print some numbers
    return list(points.values())


def _printed_flops(place: Published, head: str) -> float | None:
    """The FLOPs of a published row, in G: its own, or those of its model with the increase that the row states."""
    own = _number(place, "flops_g", head)
    if own is not None or place.flops_table is None or place.flops_row is None:
        return own
    of_model = _number(replace(place, table=place.flops_table, row=place.flops_row), "flops_g", head)
    increase = _number(place, "flops_increase", head) or 0.0
    return None if of_model is None else of_model * (1 + increase / 100)


def _number(place: Published, metric: str, head: str) -> float | None:
    if metric not in papers.metrics(place.source, place.table, place.row, head):
        return None
    return papers.number(place.source, place.table, place.row, metric, head).value


def _panel(axes: Axes, points: Sequence[ModelPoint], axis_label: str, table: TaskTable, figure: Figure) -> None:
    styles = {row.label: style.arm_styles(table)[row.arm] for row in table.rows}
    if figure.circles:
        draw_bubbles(axes, points, axis_label, colours={label: look.colour for label, look in styles.items()})
        return
    halves = [point.half or 0.0 for point in points]
    labels = [
        LabelledPoint(p.flops_g, p.accuracy, p.accuracy - half, p.accuracy + half, p.label, styles[p.family].colour)
        for p, half in zip(points, halves)
    ]
    _limits(axes, labels, table.metric.unit)
    places = _side_by_side(axes, labels)
    aside = places != [label.x for label in labels]
    labels = [replace(label, x=x) for label, x in zip(labels, places)]
    for point, label, half in zip(points, labels, halves):
        look = styles[point.family]
        axes.errorbar(
            label.x, label.y, yerr=half or None, fmt=look.marker, color=look.colour, markersize=MARKER,
            capsize=2.5, elinewidth=1.1, markeredgecolor="white" if point.ours else look.colour,
            markerfacecolor=look.colour if point.ours else "white", markeredgewidth=0.7 if point.ours else 1.2,
            ecolor=look.colour, zorder=4,
        )  # fmt: skip
    axes.set_xlabel("FLOPs (G)" + aside * "\nmarkers and bars that would hide others stand side by side")
    axes.set_ylabel(axis_label)
    _kinds_legend(axes, points)
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    beside_points(axes, labels)


def _side_by_side(axes: Axes, points: Sequence[LabelledPoint]) -> list[float]:
    """The x of every point, moved where its marker or bar would hide another's, as little as that needs."""
    pixel = axes.figure.dpi / 72
    half, air = MARKER / 2 * pixel, pixel
    places: dict[int, float] = {}
    taken: list[Box] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i].x, points[i].y)):
        point = points[index]
        (x, y), (_, low), (_, high) = axes.transData.transform([(point.x, v) for v in (point.y, point.low, point.high)])
        shifts = (sign * step * pixel for step in range(MARKER * (len(points) + 1)) for sign in (1, -1))
        boxes = (Box(x + s - half, min(y - half, low), x + s + half, max(y + half, high)) for s in shifts)
        box = next(box for box in boxes if not any(box.grown(air).overlaps(other) for other in taken))
        taken.append(box)
        moved = (box.left + box.right) / 2
        places[index] = point.x if moved == x else float(axes.transData.inverted().transform((moved, y))[0])
    return [places[index] for index in range(len(points))]


def _kinds_legend(axes: Axes, points: Sequence[ModelPoint]) -> None:
    """What hollow markers are, and filled ones beside them, in a line above the panel."""
    from matplotlib.lines import Line2D

    kinds = {"measured here": style.GREY, "papers, their model in brackets": "white"}
    shown = [name for name, ours in zip(kinds, (True, False)) if any(point.ours is ours for point in points)]
    if shown == ["measured here"]:
        return
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=MARKER - 1, markerfacecolor=kinds[name],
               markeredgecolor=style.GREY, label=name)
        for name in shown
    ]  # fmt: skip
    axes.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(1.0, -0.23), ncols=2, fontsize=7.5, frameon=False,
        labelcolor=style.GREY, borderpad=0, borderaxespad=0, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _limits(axes: Axes, points: list[LabelledPoint], unit: str) -> None:
    """Room on all sides for the labels."""
    xs, lows, highs = [p.x for p in points], [p.low for p in points], [p.high for p in points]
    width = max(xs) - min(xs) or max(xs) * 0.2 or 1.0
    height = max(highs) - min(lows) or 1.0
    axes.set_xlim(min(xs) - 0.16 * width, max(xs) + 0.24 * width)
    axes.set_ylim(min(lows) - 0.16 * height, max(highs) + 0.14 * height)
    axes.locator_params(axis="x", nbins=6)  # or long numbers touch
    if unit == "%":  # more room above 100 for labels, but no tick there
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100 and axes.get_ylim()[0] <= tick])


def _axis_label(table: TaskTable, protocol: str) -> str:
    metric = table.spec.of_task(table.task, downstream=table.downstream).protocols.get(protocol, table.metric)
    return f"{metric.label} ({metric.unit})"


def _caption(table: TaskTable, figure: Figure, printed: Sequence[ModelPoint]) -> str:
    seeds = [len(row.values) for row in table.rows if row.interval and row.flops_g is not None]
    sentences = [f"{table.metric.label} against FLOPs. {lines.seed_words(seeds, 'Error bars')}."]
    if figure.circles:
        sentences.append("Areas of circles: parameters.")
    else:
        sentences.append("Where markers stand side by side, the CSV file has their FLOPs.")
    if printed:
        sentences.append("Hollow: the papers' numbers, with their model in brackets.")
        if not table.is_papers_protocol:
            sentences.append("They are of another protocol, so the two scales cannot be compared.")
        known = {point.family for point in printed}
        silent = [r for r in table.rows if r.references and r.label not in known]
        if silent:
            words = "; ".join(f"{row.label} ({row.references[0].number.note or 'no FLOPs'})" for row in silent)
            sentences.append(f"Not printed as numbers: {words}.")
    return " ".join(sentences)
