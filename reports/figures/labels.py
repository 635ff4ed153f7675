"""Direct labels that do not overlap: beside points, and at the right ends of lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

from reports.figures.style import INK

RADII = (9, 13, 18, 24, 31, 39, 48, 58, 70, 84, 100)  # points from the marker's centre
ANGLES = (0, 90, -90, 180, 45, -45, 135, -135, 20, -20, 65, -65, 115, -115, 160, -160)
GAP = 1.5  # points of air around a label
Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.top <= other.bottom or other.top <= self.bottom)

    def grown(self, by: float) -> Box:
        return Box(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def within(self, other: Box) -> bool:
        beside = self.left >= other.left and self.right <= other.right
        return beside and self.bottom >= other.bottom and self.top <= other.top

    def crossed_by(self, start: tuple[float, float], end: tuple[float, float]) -> bool:
        """Whether a segment passes through, by clipping it at each pair of edges."""
        first, last = 0.0, 1.0
        for a, b, low, high in ((start[0], end[0], self.left, self.right), (start[1], end[1], self.bottom, self.top)):
            if a == b:
                if not low < a < high:
                    return False
                continue
            enter, leave = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            first, last = max(first, enter), min(last, leave)
        return first < last


@dataclass(frozen=True)
class LabelledPoint:
    """What a label belongs to, in data coordinates; low and high are the ends of its error bar.

    marker: its diameter in points; a point without a text only keeps the labels of others away; bold, ink: its text's.
    """

    x: float
    y: float
    low: float
    high: float
    text: str
    colour: Any
    marker: float = 8
    bold: bool = False
    ink: Any = INK


def beside_points(
    axes: Axes,
    points: Sequence[LabelledPoint],
    obstacles: Sequence[Box] = (),
    lines: Sequence[Line] = (),
    size: float = 8,
) -> list[Box]:
    """Labels every point with a text at the nearest free place, with a thin leader where that is not beside it.

    To be called when the limits of the axes are final. obstacles, lines: what is drawn there already, in pixels; a
    label crosses a line only where all else is worse. size: of the text, in points.
    Returns the labels' boxes in pixels, in the points' order.
    """
    renderer = _renderer(axes)
    pixel = axes.figure.dpi / 72
    frame = Box(*axes.get_window_extent(renderer).extents)
    centres = [_pixels(axes, p.x, p.y) for p in points]
    taken = []
    for point, (x, y) in zip(points, centres):
        half = point.marker / 2 * pixel
        ends = [_pixels(axes, point.x, value)[1] for value in (point.low, point.high)]
        taken.append(Box(x - half, min(y - half, *ends), x + half, max(y + half, *ends)))
    taken += obstacles
    leaders = list(lines)
    placed: dict[int, Box] = {}
    labelled = [index for index, point in enumerate(points) if point.text]
    coloured = all(point.ink == point.colour for point in points)  # then no text is taken for another point's
    for index in sorted(labelled, key=lambda i: (-centres[i][1], centres[i][0])):
        point = points[index]
        text = axes.text(0, 0, point.text, fontsize=size, color=point.ink, ha="center", va="center", zorder=6)
        text.set_fontweight("bold" if point.bold else "normal")
        extent = text.get_window_extent(renderer)
        room = (extent.width + 2 * GAP * pixel, extent.height + 2 * GAP * pixel)
        others = () if coloured else (*centres[:index], *centres[index + 1 :])
        box, anchor, far = _free_place(centres[index], room, frame, taken, leaders, pixel, point.marker / 2 - 4, others)
        taken.append(box)
        placed[index] = box
        middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        text.set_position(tuple(axes.transData.inverted().transform(middle)))
        if far:
            leaders.append((centres[index], anchor))
            xs, ys = zip(*axes.transData.inverted().transform([centres[index], anchor]))
            axes.plot(xs, ys, color=point.colour, linewidth=0.7, zorder=2, scalex=False, scaley=False)
    return [placed[i] for i in labelled]


def at_line_ends(axes: Axes, ends: Sequence[tuple[float, float, str, Any]], height: float = 12.5) -> list[float]:
    """Labels lines at the right, outside the axes: ends are (x, y, text, colour) in data coordinates.

    Labels keep ``height`` points apart and as near to their line as that allows. Returns their y in pixels.
    """
    pixel = axes.figure.dpi / 72
    frame = axes.get_window_extent(_renderer(axes))
    preferred = [_pixels(axes, x, y)[1] for x, y, _, _ in ends]
    order = sorted(range(len(ends)), key=lambda i: (preferred[i], i))
    heights = _spread([preferred[i] for i in order], height * pixel, frame.y0, frame.y1)
    placed = dict(zip(order, heights))
    to_axes = axes.transAxes.inverted()
    for index, (x, y, text, colour) in enumerate(ends):
        label_y = float(to_axes.transform((0, placed[index]))[1])
        start = to_axes.transform(axes.transData.transform((x, y)))
        axes.plot(
            [start[0], 1.012, 1.045], [start[1], start[1], label_y], transform=axes.transAxes, color=colour,
            linewidth=0.8, clip_on=False, zorder=1, scalex=False, scaley=False, solid_capstyle="round",
        )  # fmt: skip
        axes.text(1.055, label_y, text, transform=axes.transAxes, fontsize=8, color=INK, va="center", ha="left")
    return [placed[i] for i in range(len(ends))]


def _renderer(axes: Axes) -> RendererBase:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = axes.figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: RendererBase = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _free_place(
    centre: tuple[float, float],
    size: tuple[float, float],
    frame: Box,
    taken: list[Box],
    leaders: list[Line],
    pixel: float,
    wider: float = 0,
    others: Sequence[tuple[float, float]] = (),
) -> tuple[Box, tuple[float, float], bool]:
    """The first place with nothing in its way; the least bad one if there is none.

    Overlapping weighs more than a leader that runs through something. Returns the box, the end of the leader at it,
    and whether it is so far away as to need one. wider: how much the marker's radius is larger than usual, in points.
    others: centres of other points; a label that is nearer to one of them than to its own is taken for the other's,
    so that it needs a leader too where no other place is left.
    """
    best: tuple[int, Box, tuple[float, float], bool] | None = None
    for box, anchor, far in _places(centre, size, frame, pixel, wider):
        faults = 10 * (sum(box.overlaps(other) for other in taken) + 2 * (not box.within(frame)))
        if best is not None and faults >= best[0]:
            continue
        own = min(math.dist(_nearest(box, centre), centre), RADII[2] * pixel)
        if any(math.dist(_nearest(box, other), other) < own for other in others):
            faults, far = faults + 1, True
        faults += sum(box.crossed_by(*leader) for leader in leaders)
        if far:  # the leader may leave its own marker, but not run through others
            length = math.dist(centre, anchor)
            share = min(1.0, (RADII[0] + wider) * pixel / length)
            start = (centre[0] + share * (anchor[0] - centre[0]), centre[1] + share * (anchor[1] - centre[1]))
            faults += sum(other.crossed_by(start, anchor) for other in taken)
        if faults == 0:
            return box, anchor, far
        if best is None or faults < best[0]:
            best = (faults, box, anchor, far)
    assert best is not None
    return best[1:]


def _places(
    centre: tuple[float, float], size: tuple[float, float], frame: Box, pixel: float, wider: float
) -> Iterator[tuple[Box, tuple[float, float], bool]]:
    """Places for a label, the preferred ones first: rings around the point, then the whole frame, near before far."""
    for radius in (wider + usual for usual in RADII):
        for angle in ANGLES:
            direction = (math.cos(math.radians(angle)), math.sin(math.radians(angle)))
            anchor = (centre[0] + direction[0] * radius * pixel, centre[1] + direction[1] * radius * pixel)
            side = [max(-1.0, min(1.0, 1.5 * part)) for part in direction]  # which edge or corner is at the anchor
            left = anchor[0] + (side[0] - 1) * size[0] / 2
            bottom = anchor[1] + (side[1] - 1) * size[1] / 2
            yield Box(left, bottom, left + size[0], bottom + size[1]), anchor, radius > wider + RADII[1]
    step, boxes = size[1], []
    for row in range(max(0, int((frame.top - frame.bottom) / step))):
        for column in range(max(0, int((frame.right - frame.left - size[0]) / step) + 1)):
            left, bottom = frame.left + column * step, frame.bottom + row * step
            boxes.append(Box(left, bottom, left + size[0], bottom + step))
    for box in sorted(boxes, key=lambda b: math.dist(centre, _nearest(b, centre))):
        yield box, _nearest(box, centre), True


def _nearest(box: Box, point: tuple[float, float]) -> tuple[float, float]:
    """The point of a box that is nearest to a given one."""
    return min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)


def _spread(preferred: list[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending positions at least ``gap`` apart, near ``preferred`` (ascending), within the range if they fit."""
    groups: list[list[float]] = []  # [sum of (preferred - own offset), members]
    for value in preferred:
        groups.append([value, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] + groups[-2][1] * gap > groups[-1][0] / groups[-1][1]:
            total, members = groups.pop()
            groups[-1][0] += total - members * groups[-1][1] * gap
            groups[-1][1] += members
    placed = [total / members + i * gap for total, members in groups for i in range(int(members))]
    for i in range(len(placed) - 1, -1, -1):  # push down from the upper edge, then up from the lower one
        placed[i] = min(placed[i], high - (len(placed) - 1 - i) * gap)
    for i in range(len(placed)):
        placed[i] = max(placed[i], low + i * gap)
    return placed
