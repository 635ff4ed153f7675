"""An image with the objects found in it: boxes, names, scores, masks, and what is wrong where the truth is known."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.figures import style
from reports.figures.labels import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 6.5  # inches, longer side of the image
NARROWEST = 3.0  # inches, width of the figure
OPACITY = 0.4  # of a mask's colour over the image
MOST = 14  # classes in the legend
LEGEND = 1.6  # inches, width of an entry of the legend
LINE = 0.175  # inches, height of its rows
# how the box of a found object that is right, of one that is wrong, and of an object that was not found is drawn
RIGHT, WRONG, MISSED = "right", "wrong", "missed"
WORDS = {RIGHT: "right", WRONG: "wrong", MISSED: "not found"}
DASHES: dict[str, Any] = {RIGHT: "-", WRONG: (0, (3.5, 1.8)), MISSED: (0, (1, 1.2))}
AIR = 0.5  # pixels around a name, which is drawn at whole pixels
WHITE, DARK = "#ffffff", "#111111"
# colour-blind safe, and none of them as dark as the casing of lines or as light as what was missed
COLOURS = (
    "#0077bb", "#ee7733", "#009988", "#ee3377", "#33bbee", "#ddaa33", "#9970ab", "#88aa22", "#cc3311", "#aa7755",
    "#4455aa", "#dd88aa", "#117733", "#887700",
)  # fmt: skip


@dataclass(frozen=True)
class NamedBox:
    """A box to be drawn: x1, y1, x2, y2 in px, its class, the text of its name, and RIGHT, WRONG or MISSED."""

    corners: tuple[float, float, float, float]
    kind: int
    text: str
    mark: str = RIGHT


def draw(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    classes: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    names: Sequence[str],
    *,
    masks: NDArray[np.bool_] | None = None,
    right: NDArray[np.bool_] | None = None,
    missed: tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]] | None = None,
) -> bytes:
    """A PNG of an image [h, w, 3] with the n objects found in it, the best first.

    boxes: [n, 4] as x1, y1, x2, y2 in px; classes, scores: [n]; names: of all classes; masks: [n, h, w]. Where the
    truth is known, right: [n], and missed: boxes [m, 4] and classes [m] of the objects that were not found. A name for
    which there is no room is left out.
    """
    with style.theme():
        found = [
            NamedBox(tuple(box), kind, f"{names[kind]} {score:.2f}", RIGHT if good else WRONG)
            for box, kind, score, good in zip(
                boxes.tolist(), classes.tolist(), scores.tolist(), right.tolist() if right is not None else _endless()
            )
        ]
        lost = [
            NamedBox(tuple(box), kind, names[kind], MISSED)
            for box, kind in (zip(*(part.tolist() for part in missed)) if missed is not None else ())
        ]
        return _png(_figure(image, found, lost, names, masks, right is not None or missed is not None))


def colours_of(kinds: Iterable[int]) -> dict[int, str]:
    """Class → colour, of the classes that a picture shows."""
    return {kind: COLOURS[place % len(COLOURS)] for place, kind in enumerate(sorted(set(kinds)))}


def draw_boxes(axes: Any, boxes: Sequence[NamedBox], colours: dict[int, str], width: float = 1.6) -> None:
    """The lines of boxes, the first on top. width: in points."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for place, box in enumerate(boxes):
        x1, y1, x2, y2 = box.corners
        lost = box.mark == MISSED
        patch = Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=WHITE if lost else colours[box.kind], linewidth=width,
            linestyle=DASHES[box.mark], zorder=3 + (not lost) - place / (len(boxes) + 1), joinstyle="miter",
        )  # fmt: skip
        patch.set_path_effects([withStroke(linewidth=width + (1.6 if lost else 1.0), foreground=DARK)])
        axes.add_patch(patch)


def name_boxes(axes: Any, boxes: Sequence[NamedBox], colours: dict[int, str], size: float = 7) -> list[Box]:
    """Writes the names of boxes, the first ones first, where they cover neither each other nor leave the image.

    To be called when the limits of the axes are final. size: in points. Returns the extents of the names written, in
    pixels; a name without room is left out.
    """
    axes.apply_aspect()  # as drawing does, which makes axes narrower than they were placed
    renderer = axes.figure.canvas.get_renderer()
    frame = Box(*axes.get_window_extent(renderer).extents)
    pad = 0.18 * size * axes.figure.dpi / 72
    placed: list[Box] = []
    for box in boxes:
        colour = DARK if box.mark == MISSED else colours[box.kind]
        text = axes.text(0, 0, box.text, fontsize=size, color=_ink(colour), ha="left", va="bottom", zorder=6)
        extent = text.get_window_extent(renderer)
        room = (extent.width + 2 * (pad + AIR), extent.height + 2 * (pad + AIR))
        corners = axes.transData.transform([box.corners[:2], box.corners[2:]])
        outline = Box(corners[0][0], corners[1][1], corners[1][0], corners[0][1])
        free = (
            place for place in _places(outline, room) if place.within(frame) and not any(map(place.overlaps, placed))
        )
        if (place := next(free, None)) is None:
            text.remove()
            continue
        placed.append(place)
        text.set_position(
            tuple(axes.transData.inverted().transform((place.left + pad + AIR, place.bottom + pad + AIR)))
        )
        text.set_bbox({"facecolor": colour, "linewidth": 0, "pad": pad * 72 / axes.figure.dpi, "alpha": 0.9})
    return placed


def marks_legend(marks: Iterable[str], words: dict[str, str]) -> list[Any]:
    """Entries of a legend for the lines of ``marks``."""
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    entries = []
    for mark in marks:
        lost = mark == MISSED
        line = Line2D([], [], color=WHITE if lost else style.GREY, linestyle=DASHES[mark], linewidth=1.8)
        line.set_label(words[mark])
        line.set_path_effects([withStroke(linewidth=3.4 if lost else 2.2, foreground=DARK)])
        entries.append(line)
    return entries


def overlay(axes: Any, masks: Sequence[NDArray[np.bool_]], colours: Sequence[str], extent: Any = None) -> None:
    """Fills and outlines masks [h, w], the first on top; extent: as of ``imshow``."""
    import numpy as np
    from matplotlib.colors import to_rgb

    if not len(masks):
        return
    fill = np.zeros((*masks[0].shape, 4))
    for mask, colour in zip(reversed(masks), reversed(colours)):
        fill[mask] = (*to_rgb(colour), OPACITY)
    axes.imshow(fill, interpolation="nearest", zorder=1, extent=extent)
    for mask, colour in zip(masks, colours):
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9, zorder=2)


def _figure(
    image: Any, found: list[NamedBox], lost: list[NamedBox], names: Sequence[str], masks: Any, known: bool
) -> Any:
    height, width = image.shape[:2]
    scale = LONGEST / max(height, width)
    wide, high = max(NARROWEST, width * scale), height * scale
    colours = colours_of(box.kind for box in [*found, *lost])
    counts = Counter(box.kind for box in found).most_common()
    in_row = max(1, int(wide / LEGEND))
    marks = [mark for mark in DASHES if any(box.mark == mark for box in [*found, *lost])] if known else []
    rows = -(-(min(len(counts), MOST + 1) + len(marks)) // in_row)
    below = LINE * max(1, rows) + 0.12
    canvas = style.new_figure(wide, high + below)
    axes = canvas.add_axes(
        ((wide - width * scale) / 2 / wide, below / (high + below), width * scale / wide, high / (high + below))
    )
    axes.imshow(image)
    axes.set_axis_off()
    if masks is not None:
        overlay(axes, list(masks), [colours[box.kind] for box in found])
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    draw_boxes(axes, [*found, *lost], colours)
    name_boxes(axes, [*found, *lost], colours)
    entries = _classes(counts, names, colours)
    amounts = Counter(box.mark for box in [*found, *lost])
    entries += marks_legend(marks, {mark: f"{WORDS[mark]}: {amounts[mark]}" for mark in marks})
    if not entries:
        canvas.text(0.01, 0.02, "nothing was found", fontsize=8, color=style.GREY)
    canvas.legend(
        handles=entries, loc="lower left", ncols=in_row, frameon=False, fontsize=8, borderaxespad=0.1, handlelength=1.8
    )
    return canvas


def _classes(counts: list[tuple[int, int]], names: Sequence[str], colours: dict[int, str]) -> list[Any]:
    from matplotlib.patches import Patch

    entries: list[Any] = [
        Patch(color=colours[kind], label=f"{_short(names[kind])}: {count}") for kind, count in counts[:MOST]
    ]
    if rest := counts[MOST:]:
        entries.append(Patch(alpha=0, label=f"{len(rest)} more: {sum(count for _, count in rest)}"))
    return entries


def _places(outline: Box, room: tuple[float, float]) -> Iterator[Box]:
    """Where the name of a box may stand, the usual places first: above, inside and below it, then beside it."""
    width, height = room
    ends = (outline.left, outline.right - width)
    above, below = outline.top, outline.bottom - height
    inside = (outline.top - height, outline.bottom)
    spots = [(ends[0], above), (ends[0], inside[0]), (ends[1], above), (ends[0], below), (ends[1], inside[0])]
    spots += [(ends[0], inside[1]), (ends[1], below), (ends[1], inside[1])]
    spots += [(outline.right, inside[0]), (outline.left - width, inside[0]), (outline.right, inside[1])]
    steps = range(1, int((outline.top - outline.bottom) / height))
    spots += [(left, outline.top - (step + 1) * height) for step in steps for left in ends]
    for left, bottom in spots:
        yield Box(left, bottom, left + width, bottom + height)


def _ink(colour: str) -> str:
    """Dark or white, whichever is easier to read on a colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return DARK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else WHITE


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _endless() -> Iterator[bool]:
    while True:
        yield True


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=style.DPI, metadata={"Software": None}, bbox_inches="tight", pad_inches=0.04
    )
    return buffer.getvalue()
