"""Images with their objects, what each arm found in them, and what is wrong with that, box by box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.figures import boxes as pictures
from reports.figures import style
from reports.figures.boxes import MISSED, RIGHT, WORDS, WRONG, NamedBox

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = 4
PANEL = 2.1  # inches, width
TALLEST = 1.3  # of a panel's width; a higher image is drawn narrower
FADE = 0.25  # how far an image is faded to white below what was found
WIDTH, SIZE = 1.2, 5.5  # points, of the lines of boxes and of their names
GAP, LINE = 0.07, 0.17  # inches, between panels and of a line of words
NOTHING = -1  # in place of the object that a found one matches
OBJECT, CROWD, ON_CROWD = "object", "crowd", "on a crowd"
SCENE = ("images", "sizes", "truth_images", "truth_classes", "truth_boxes", "truth_crowd")
# array → kind of its numbers as numpy calls it, and its shape, where letters stand for lengths
SHAPES = {
    "images": ("u", "NHW3"), "sizes": ("i", "N2"), "class_names": ("U", "K"),
    "truth_images": ("i", "M"), "truth_classes": ("i", "M"), "truth_boxes": ("f", "M4"), "truth_crowd": ("b", "M"),
    "prediction_images": ("i", "P"), "prediction_classes": ("i", "P"), "prediction_boxes": ("f", "P4"),
    "prediction_scores": ("f", "P"), "prediction_truths": ("i", "P"),
    "truth_masks": ("u", "NHW"), "prediction_masks": ("u", "NHW"),
}  # fmt: skip
MASKS = ("truth_masks", "prediction_masks")
KEYS = tuple(key for key in SHAPES if key not in MASKS)
COLUMNS = ("arm", "seed", "image", "what", "class", "name", "score", "outcome", "x1", "y1", "x2", "y2")
Arrays = Mapping[str, Any]


def draw(titles: Mapping[str, str], seed: int, examples: Mapping[str, Arrays]) -> tuple[Any, Any, str, str]:
    """The figure, its data, title and caption. titles: arm → what it is called.

    examples: arm → arrays of KEYS, and of MASKS where there are any, as the judge of detection keeps them, of the same
    images for every arm. An image is a row: its objects, and beside them the best-scored objects that each arm found,
    as many as there are to find, so that arms whose scores have other scales are compared alike.
    """
    import pandas as pd

    first = next(iter(examples.values()))
    count = min(IMAGES, len(first["images"]))
    names = [str(name) for name in first["class_names"]]
    best = {arm: [_best(arrays, number) for number in range(count)] for arm, arrays in examples.items()}
    heights = [min(TALLEST, first["sizes"][number][0] / first["sizes"][number][1]) * PANEL for number in range(count)]
    top = sum(height + GAP + LINE for height in heights) + 3 * LINE
    canvas = style.new_figure((1 + len(examples)) * (PANEL + GAP), top)
    edge, marks = top - 1.5 * LINE, set()
    for number, height in enumerate(heights):
        of_arms = {arm: best[arm][number].tolist() for arm in examples}
        panels = _draw_row(canvas, number, edge - height, height, examples, of_arms, names)
        if number == 0:
            for axes, title in zip(panels, ["image", *(titles[arm] for arm in examples)]):
                axes.set_title(title, fontsize=9, pad=4)
        for arm, places in of_arms.items():
            marks |= {box.mark for box in _found(examples[arm], number, places, names)}
        edge -= height + GAP + LINE
    entries = pictures.marks_legend([mark for mark in WORDS if mark in marks], WORDS)
    canvas.legend(
        handles=entries, loc="lower center", ncols=3, fontsize=8, frameon=False, borderpad=0, borderaxespad=0.2
    )
    rows = [
        row
        for arm, arrays in examples.items()
        for number in range(count)
        for row in _records(arm, seed, arrays, number, best[arm][number].tolist(), names)
    ]
    caption = (
        f"The first {count} evaluation images, seed {seed}. Beside the objects of each image: the best-scored objects "
        "that each arm found, as many as there are. Solid boxes are right (IoU of at least 0.5 with an object of their "
        "class that no better one has), dashed ones wrong, white dotted ones objects that are not among those found."
    )
    return canvas, pd.DataFrame(rows, columns=list(COLUMNS)), "Examples", caption


def problem(arrays: Arrays) -> str:
    """What makes the arrays impossible to show; empty where they can be shown."""
    import numpy as np

    lengths: dict[str, int] = {}
    for name, (kind, shape) in SHAPES.items():
        if name in MASKS and name not in arrays:
            continue
        array = arrays[name]
        wanted = [lengths.setdefault(sign, long) if sign.isalpha() else int(sign)
                  for sign, long in zip(shape, array.shape)]  # fmt: skip
        if array.dtype.kind != kind or len(wanted) != len(shape) or list(array.shape) != wanted:
            return f"{name} is {array.dtype} {list(array.shape)}, which does not fit the other arrays"
    for part in ("truth", "prediction"):
        if not _within(arrays[f"{part}_images"], 0, lengths["N"]) or (np.diff(arrays[f"{part}_images"]) < 0).any():
            return f"a {part} belongs to no image, or to an earlier one than that before it"
        if not _within(arrays[f"{part}_classes"], 0, lengths["K"]):
            return f"a {part} has a class without a name"
        if not np.isfinite(arrays[f"{part}_boxes"]).all():
            return f"the box of a {part} is no box"
    if not np.isfinite(arrays["prediction_scores"]).all():
        return "the score of a prediction is no number"
    if not _within(arrays["prediction_truths"], NOTHING, lengths["M"]):
        return "a prediction matches a truth that does not exist"
    if not lengths["N"]:
        return "it has no image"
    fits = all(_within(side, 1, lengths[sign] + 1) for sign, side in zip("HW", arrays["sizes"].T))
    return "" if fits else "an image is larger than its pixels"


def _within(numbers: NDArray[np.int32], low: int, high: int) -> bool:
    return bool(((numbers >= low) & (numbers < high)).all())


def _draw_row(
    canvas: Any,
    number: int,
    bottom: float,
    height: float,
    examples: Mapping[str, Arrays],
    best: Mapping[str, list[int]],
    names: list[str],
) -> list[Any]:
    """Draws an image with its objects, and with what each arm found; returns the axes.

    best: arm → the places of its predictions that are shown; bottom, height: of the panels, in inches.
    """
    first = next(iter(examples.values()))
    objects = [_named(first, "truth", place, names) for place in _places(first, number)]
    found = {arm: _found(arrays, number, best[arm], names) for arm, arrays in examples.items()}
    colours = pictures.colours_of(box.kind for boxes in (objects, *found.values()) for box in boxes)
    left = _panel(canvas, 0, bottom, height, _image(first, number))
    pictures.overlay(left, *_masks(first, "truth", number, _places(first, number), colours))
    pictures.draw_boxes(left, objects, colours, WIDTH)
    pictures.name_boxes(left, objects, colours, SIZE)
    panels, words = [left], ["1 object" if len(objects) == 1 else f"{len(objects)} objects"]
    for column, (arm, boxes) in enumerate(found.items(), 1):
        axes = _panel(canvas, column, bottom, height, _faded(_image(first, number)))
        pictures.overlay(axes, *_masks(examples[arm], "prediction", number, best[arm], colours))
        pictures.draw_boxes(axes, boxes, colours, WIDTH)
        # what is right has its name in the first column
        pictures.name_boxes(axes, [box for box in boxes if box.mark != RIGHT], colours, SIZE)
        wrong, lost = (sum(box.mark == mark for box in boxes) for mark in (WRONG, MISSED))
        words.append(f"{len(objects) - lost} of {len(objects)} found, {wrong} wrong" if objects else "nothing to find")
        panels.append(axes)
    for axes, text in zip(panels, words):
        axes.set_xlabel(text, fontsize=7, labelpad=2, color=style.GREY)
    return panels


def _best(arrays: Arrays, number: int) -> NDArray[np.int64]:
    """The places of the predictions of an image that are shown, the best first; those on crowds are left out."""
    import numpy as np

    objects = int((~arrays["truth_crowd"][arrays["truth_images"] == number]).sum())
    places = np.flatnonzero(arrays["prediction_images"] == number)
    places = places[[_outcome(arrays, place) != ON_CROWD for place in places.tolist()]] if len(places) else places
    best: NDArray[np.int64] = places[np.argsort(-arrays["prediction_scores"][places], kind="stable")][:objects]
    return best


def _outcome(arrays: Arrays, place: int) -> str:
    """RIGHT, WRONG, or ON_CROWD of a prediction."""
    match = int(arrays["prediction_truths"][place])
    if match == NOTHING:
        return WRONG
    return ON_CROWD if arrays["truth_crowd"][match] else RIGHT


def _found(arrays: Arrays, number: int, best: list[int], names: list[str]) -> list[NamedBox]:
    """What is shown of one arm: its predictions, and the objects that none of them matches."""
    found = [_named(arrays, "prediction", place, names, _outcome(arrays, place)) for place in best]
    matched = set(arrays["prediction_truths"][best].tolist())
    lost = [place for place in _places(arrays, number) if place not in matched]
    return found + [_named(arrays, "truth", place, names, MISSED) for place in lost]


def _places(arrays: Arrays, number: int) -> list[int]:
    """The places of the objects of an image that are no crowds."""
    import numpy as np

    places: list[int] = np.flatnonzero((arrays["truth_images"] == number) & ~arrays["truth_crowd"]).tolist()
    return places


def _named(arrays: Arrays, part: str, place: int, names: list[str], mark: str = RIGHT) -> NamedBox:
    kind = int(arrays[f"{part}_classes"][place])
    return NamedBox(tuple(arrays[f"{part}_boxes"][place].tolist()), kind, names[kind], mark)


def _masks(
    arrays: Arrays, part: str, number: int, places: list[int], colours: dict[int, str]
) -> tuple[list[NDArray[np.bool_]], list[str]]:
    """The masks of truths or predictions of an image, and their colours; none where there are no masks."""
    import numpy as np

    if f"{part}_masks" not in arrays:
        return [], []
    height, width = arrays["sizes"][number]
    numbers = arrays[f"{part}_masks"][number, :height, :width]
    before = int(np.searchsorted(arrays[f"{part}_images"], number))
    kinds = arrays[f"{part}_classes"][places].tolist()
    return [numbers == place - before + 1 for place in places], [colours[kind] for kind in kinds]


def _image(arrays: Arrays, number: int) -> NDArray[np.uint8]:
    height, width = arrays["sizes"][number]
    image: NDArray[np.uint8] = arrays["images"][number, :height, :width]
    return image


def _faded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    faded: NDArray[np.uint8] = (image + (255.0 - image) * FADE).astype("uint8")
    return faded


def _panel(canvas: Any, column: int, bottom: float, height: float, pixels: NDArray[np.uint8]) -> Any:
    """Axes with an image in a column, ``bottom`` and ``height`` in inches."""
    width, whole = canvas.get_size_inches()
    axes = canvas.add_axes((column * (PANEL + GAP) / width, bottom / whole, PANEL / width, height / whole))
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xlim(-0.5, pixels.shape[1] - 0.5)
    axes.set_ylim(pixels.shape[0] - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bdbdbd", linewidth=0.6)
    return axes


def _records(
    arm: str, seed: int, arrays: Arrays, number: int, best: list[int], names: list[str]
) -> list[dict[str, Any]]:
    """One row per object of an image, crowds included, and per prediction that is shown."""
    import numpy as np

    def row(part: str, place: int, what: str, outcome: str) -> dict[str, Any]:
        kind, corners = int(arrays[f"{part}_classes"][place]), arrays[f"{part}_boxes"][place].tolist()
        score = round(float(arrays["prediction_scores"][place]), 4) if part == "prediction" else None
        start = {"arm": arm, "seed": seed, "image": number, "what": what, "class": kind, "name": names[kind]}
        return start | {"score": score, "outcome": outcome} | dict(zip(COLUMNS[-4:], (round(x, 1) for x in corners)))

    matched = set(arrays["prediction_truths"][best].tolist())
    rows = []
    for place in np.flatnonzero(arrays["truth_images"] == number).tolist():
        crowd = bool(arrays["truth_crowd"][place])
        outcome = "" if crowd else "found" if place in matched else MISSED
        rows.append(row("truth", place, CROWD if crowd else OBJECT, outcome))
    return rows + [row("prediction", place, "prediction", _outcome(arrays, place)) for place in best]
