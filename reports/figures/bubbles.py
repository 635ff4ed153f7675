"""Accuracy against computation as in v1 Fig. 1: a circle per model, its area the parameters; lines join families."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.labels import Box, LabelledPoint, Line, beside_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LARGEST = 17.0  # points, diameter of the largest circle
SMALLEST = 2.5  # points: smaller ones would not be seen; only far below the largest model
SIZES = 3  # circles in the legend
CORNERS: tuple[Any, ...] = ("lower right", "lower left", "upper left", "upper right")  # for the legend, in this order
FAINT = 0.85  # width of a family's lines and outlines; those of a highlighted one are twice as wide


@dataclass(frozen=True)
class ModelPoint:
    """One model. accuracy, and half of its interval, in the axis' unit; models of one family are joined; ours:
    measured, not printed."""

    label: str
    flops_g: float
    params_m: float
    accuracy: float
    half: float | None
    family: str
    ours: bool


def bubbles(
    points: Sequence[ModelPoint],
    axis_label: str,
    *,
    highlight: Collection[str] = (),
    bottom: float | None = None,
    size: tuple[float, float] = (6.4, 4.6),
) -> Figure:
    """Our own points are filled, printed ones hollow.

    Every point of ours and of a family in ``highlight`` has its label; of another family one point has the family's.
    bottom: where the accuracy axis begins; models below are not shown, which the caption should say.
    """
    canvas = style.new_figure(*size)
    draw_bubbles(canvas.subplots(), points, axis_label, highlight=highlight, bottom=bottom)
    return canvas


def draw_bubbles(
    axes: Axes,
    points: Sequence[ModelPoint],
    axis_label: str,
    *,
    highlight: Collection[str] = (),
    bottom: float | None = None,
    colours: dict[str, Any] | None = None,
) -> None:
    """``bubbles`` in given axes.

    colours: family → colour, where something else has fixed them; they need not be dark enough for labels.
    """
    points = [point for point in points if bottom is None or point.accuracy >= bottom]
    ink = style.INK if colours else None
    colours = colours or _colours(list(dict.fromkeys(point.family for point in points)), highlight)
    scale = LARGEST**2 / max(point.params_m for point in points)
    diameters = [max(SMALLEST, math.sqrt(scale * point.params_m)) for point in points]
    _limits(axes, points, bottom)
    for order, family in enumerate(colours):
        dash = "-" if family in highlight else style.DASHES[order % len(style.DASHES)]  # families apart in grey, too
        for ours in (False, True):
            of_family = sorted((p for p in points if (p.family, p.ours) == (family, ours)), key=lambda p: p.flops_g)
            xs, ys = [p.flops_g for p in of_family], [p.accuracy for p in of_family]
            width = 2 * FAINT if family in highlight else FAINT
            axes.plot(xs, ys, color=colours[family], linewidth=width, linestyle=dash, zorder=2.5)
    # large circles below small ones, so that none is hidden
    for point, diameter in sorted(zip(points, diameters), key=lambda pair: -pair[1]):
        strong = point.family in highlight
        axes.scatter(
            point.flops_g, point.accuracy, s=diameter**2, zorder=4 if strong else 3,
            facecolor=colours[point.family] if point.ours else "white",
            edgecolor="white" if point.ours else colours[point.family],
            linewidth=0.7 if point.ours else FAINT * (1 + strong),
        )  # fmt: skip
        if point.half:
            axes.errorbar(
                point.flops_g, point.accuracy, yerr=point.half, color=colours[point.family], capsize=2.5,
                elinewidth=1.1, zorder=3.5,
            )  # fmt: skip
    axes.set_xlabel("FLOPs (G)")
    axes.set_ylabel(axis_label)
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    legend = _legend(axes, points, scale)
    labels = _labels(axes, points, diameters, colours, highlight, ink)
    beside_points(axes, labels, [legend], _family_lines(axes, points), size=7.5)


def _labels(
    axes: Axes,
    points: Sequence[ModelPoint],
    diameters: Sequence[float],
    colours: dict[str, Any],
    highlight: Collection[str],
    ink: Any,
) -> list[LabelledPoint]:
    pixels = {id(point): axes.transData.transform((point.flops_g, point.accuracy)) for point in points}
    texts = {id(point): point.label for point in points if point.ours or point.family in highlight}
    for family in dict.fromkeys(point.family for point in points):
        of_family = [point for point in points if point.family == family]
        if not any(id(point) in texts for point in of_family):
            others = [point for point in points if point.family != family]
            lonely = max(
                of_family, key=lambda p: min((math.dist(pixels[id(p)], pixels[id(o)]) for o in others), default=0)
            )
            texts[id(lonely)] = family if len(of_family) > 1 else lonely.label
    labels = []
    for point, diameter in zip(points, diameters):
        half, strong = point.half or 0.0, point.family in highlight
        labels.append(
            LabelledPoint(
                point.flops_g, point.accuracy, point.accuracy - half, point.accuracy + half, texts.get(id(point), ""),
                colours[point.family], marker=diameter + 1, bold=strong, ink=ink or colours[point.family],
            )
        )  # fmt: skip
    return labels


def _colours(families: Sequence[str], highlight: Collection[str]) -> dict[str, Any]:
    """Dark enough to read a label in; a highlighted family is black, all others differ in hue."""
    import seaborn

    others = [family for family in families if family not in highlight]
    palette = seaborn.husl_palette(len(others), s=0.9, l=0.48) if others else []
    # neighbours in the list get hues far apart
    step = next(k for k in range(max(1, len(others) // 3), len(others) + 2) if math.gcd(k, max(1, len(others))) == 1)
    colours = {family: palette[(i * step) % len(others)] for i, family in enumerate(others)}
    return {family: colours.get(family, style.INK) for family in families}


def _limits(axes: Axes, points: Sequence[ModelPoint], bottom: float | None) -> None:
    """Room for the largest circle and the labels on all sides."""
    xs, ys = [point.flops_g for point in points], [point.accuracy for point in points]
    halves = [point.half or 0.0 for point in points]
    width = max(xs) - min(xs) or max(xs) * 0.2 or 1.0
    low, high = min(y - half for y, half in zip(ys, halves)), max(y + half for y, half in zip(ys, halves))
    height = high - low or 1.0
    axes.set_xlim(min(xs) - 0.16 * width, max(xs) + 0.12 * width)
    axes.set_xticks(
        [tick for tick in axes.get_xticks() if tick >= 0 and axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    )
    axes.set_ylim(low - 0.1 * height if bottom is None else bottom, high + 0.1 * height)


def _legend(axes: Axes, points: Sequence[ModelPoint], scale: float) -> Box:
    """A few circles with their parameters, and what filled and hollow ones are, in a corner without models: the lower
    right if possible, as models of much computation are rarely there."""
    params, kinds = [point.params_m for point in points], {"measured here": True, "as printed": False}
    handles = [
        axes.scatter(
            [], [], s=scale * value, facecolor="white", edgecolor=style.GREY, linewidth=0.8, label=f"{value:g} M"
        )
        for value in _nice_sizes(params)
    ]
    handles += [
        axes.scatter([], [], s=36, facecolor=style.GREY if ours else "white", edgecolor=style.GREY, label=name)
        for name, ours in kinds.items()
        if any(point.ours is ours for point in points)
    ]
    reach = LARGEST / 2 * axes.figure.dpi / 72
    centres = axes.transData.transform([(point.flops_g, point.accuracy) for point in points])
    circles = [Box(x, y, x, y).grown(reach) for x, y in centres]
    box = Box(0, 0, 0, 0)
    for corner in (*CORNERS, CORNERS[0]):  # the first one again, where none is free
        legend = axes.legend(
            handles=handles, title="Parameters", loc=corner, fontsize=7.5, title_fontsize=7.5, frameon=False,
            labelcolor=style.GREY, labelspacing=0.8, borderpad=0.3, handletextpad=0.6,
        )  # fmt: skip
        legend.get_title().set_color(style.GREY)
        axes.figure.draw_without_rendering()  # type: ignore[union-attr]
        box = Box(*legend.get_window_extent().extents)
        if not any(box.overlaps(circle) for circle in circles):
            break
    return box


def _nice_sizes(params: Sequence[float]) -> list[float]:
    """1, 2 or 5 times a power of ten within the models' range, at most ``SIZES`` and never none, ascending."""
    exponents = range(math.floor(math.log10(min(params))) - 1, math.ceil(math.log10(max(params))) + 1)
    series = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 5)]
    below = [value for value in series if value <= max(params)]
    return [round(value, 6) for value in below if value >= 0.6 * min(params)][-SIZES:] or [round(below[-1], 6)]


def _family_lines(axes: Axes, points: Sequence[ModelPoint]) -> list[Line]:
    """The lines between the models of a family, in pixels."""
    lines: list[Line] = []
    for family in dict.fromkeys(point.family for point in points):
        of_family = sorted((p for p in points if p.family == family), key=lambda p: p.flops_g)
        pixels = [tuple(map(float, axes.transData.transform((p.flops_g, p.accuracy)))) for p in of_family]
        lines += [((a[0], a[1]), (b[0], b[1])) for a, b in pairwise(pixels)]
    return lines
