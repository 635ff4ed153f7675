"""Images with their masks, the arms' predictions and what is wrong with them, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.figures import style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES = 4
IGNORED = 255  # a pixel without a label, or beside an image that is smaller than another one
NAMED = 24  # classes in the legend, those with the most pixels
PANEL = 1.7  # inches, width
FADE = 0.75  # how far an image is faded to white below its errors
UNKNOWN = (235, 235, 235)  # colour of a pixel without a label
WRONG = (213, 36, 28)  # colour of an error
MARKS = {"error": WRONG, "no label": UNKNOWN}  # in the legend behind the classes
TALLEST = 1.5  # of a panel's width; a higher image is drawn narrower
GAP, LINE = 0.07, 0.17  # inches, between panels and of a line of words
LEGEND = 1.1  # inches, width of an entry of the legend
Arrays = Mapping[str, Any]


def draw(titles: Mapping[str, str], seed: int, examples: Mapping[str, Arrays]) -> tuple[Any, Any, str, str]:
    """The figure, its data, title and caption. titles: arm → what it is called.

    examples: arm → ``images`` uint8 [N, H, W, 3], ``labels`` and ``predictions`` uint8 [N, H, W], ``palette`` uint8
    [K, 3] and ``class_names`` [K], of the same images for every arm. An image takes two rows: itself above its labels,
    and the prediction of each arm above the errors.
    """
    import pandas as pd

    first = next(iter(examples.values()))
    count = min(IMAGES, len(first["images"]))
    crops = [_extent(first["predictions"][number]) for number in range(count)]
    rows = [row for arm, arrays in examples.items() for row in _records(arm, seed, arrays, crops)]
    named = _most_frequent(rows, [str(name) for name in first["class_names"]])

    in_row = max(1, int((1 + len(examples)) * PANEL / LEGEND))
    heights = [min(TALLEST, crop[0].stop / crop[1].stop) * PANEL for crop in crops]
    legend = LINE * (1 + -(-(len(named) + len(MARKS)) // in_row))
    top = legend + sum(2 * height + GAP + 2 * LINE for height in heights) + LINE
    canvas = style.new_figure((1 + len(examples)) * (PANEL + GAP), top)
    edge = top - LINE  # of the next image, inches from the bottom
    for number, (crop, height) in enumerate(zip(crops, heights)):
        above = edge - height
        below = above - GAP - height
        image, labels = (first[key][number][crop] for key in ("images", "labels"))
        panels = [("image", image, _coloured(labels, first["palette"]), "labels")]
        for arm, arrays in examples.items():
            prediction = arrays["predictions"][number][crop]
            shown = _coloured(prediction, first["palette"])
            panels.append((titles[arm], shown, _errors(image, labels, prediction), _share(labels, prediction)))
        for column, (title, upper, lower, words) in enumerate(panels):
            axes = _panel(canvas, column, above, height, upper)
            if number == 0:
                axes.set_title(title, fontsize=9, pad=4)
            axes = _panel(canvas, column, below, height, lower)
            axes.set_xlabel(words, fontsize=7, labelpad=2, color=style.GREY)
        edge = below - 2 * LINE
    _legend(canvas, named, first["palette"], in_row)
    left_out = len({row["class"] for row in rows}) - len(named)
    caption = (
        f"The first {count} evaluation images, seed {seed}. Each image stands above its labels, each prediction above "
        "its errors in red; pixels without a label are grey and count nowhere. Below each panel of errors: how many of "
        f"the labelled pixels are right.{f' {left_out} rarer classes are not in the legend.' if left_out else ''}"
    )
    return canvas, pd.DataFrame(rows), "Examples", caption


def _extent(prediction: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Rows and columns of an image [H, W]: everything inside it is predicted, and nothing beside it."""
    import numpy as np

    inside = prediction != IGNORED
    height, width = (int(np.flatnonzero(inside.any(axis=axis))[-1]) + 1 for axis in (1, 0))
    return slice(0, height), slice(0, width)


def _coloured(classes: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w] to uint8 [h, w, 3]"""
    import numpy as np

    colours = np.empty((IGNORED + 1, 3), np.uint8)
    colours[:] = UNKNOWN
    colours[: len(palette)] = palette
    colours[IGNORED] = UNKNOWN
    coloured: NDArray[np.uint8] = colours[classes]
    return coloured


def _errors(image: NDArray[np.uint8], labels: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image [h, w, 3] in faint grey, with wrong pixels and those without a label in colours of their own."""
    import numpy as np

    grey = image.astype(float) @ np.array([0.3, 0.59, 0.11])
    shown = np.repeat((grey + (255 - grey) * FADE).astype(np.uint8)[:, :, None], 3, axis=2)
    shown[(labels != IGNORED) & (labels != prediction)] = WRONG
    shown[labels == IGNORED] = UNKNOWN
    return shown


def _share(labels: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> str:
    known = labels != IGNORED
    return f"{100 * float((labels == prediction)[known].mean()):.1f} %" if known.any() else "no labels"


def _panel(canvas: Any, column: int, bottom: float, height: float, pixels: NDArray[np.uint8]) -> Any:
    """Axes with an image in a column, ``bottom`` and ``height`` in inches."""
    width, whole = canvas.get_size_inches()
    axes = canvas.add_axes((column * (PANEL + GAP) / width, bottom / whole, PANEL / width, height / whole))
    axes.imshow(pixels, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bdbdbd", linewidth=0.6)
    return axes


def _legend(canvas: Any, named: Mapping[int, str], palette: NDArray[np.uint8], in_row: int) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=palette[number] / 255, edgecolor="#bdbdbd", linewidth=0.5, label=_short(name))
        for number, name in named.items()
    ]
    patches += [
        Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="#bdbdbd", linewidth=0.5, label=name)
        for name, (red, green, blue) in MARKS.items()
    ]
    canvas.legend(
        handles=patches, loc="lower center", ncols=in_row, fontsize=7, frameon=False, handlelength=1.2,
        columnspacing=1.0, borderpad=0, labelspacing=0.3,
    )  # fmt: skip


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _most_frequent(rows: list[dict[str, Any]], names: list[str]) -> dict[int, str]:
    """Class → name of the NAMED classes with the most labelled and predicted pixels, in the order of classes."""
    pixels = [0] * len(names)
    for row in rows:
        pixels[row["class"]] += row["labelled"] + row["predicted"]
    most = sorted((number for number, many in enumerate(pixels) if many), key=lambda number: -pixels[number])
    return {number: names[number] for number in sorted(most[:NAMED])}


def _records(arm: str, seed: int, arrays: Arrays, crops: list[tuple[slice, slice]]) -> list[dict[str, Any]]:
    """One row per image and class that is labelled or predicted in it, with its pixels in the picture."""
    import numpy as np

    rows = []
    for number, crop in enumerate(crops):
        labels, predictions = arrays["labels"][number][crop], arrays["predictions"][number][crop]
        known = labels != IGNORED
        labels, predictions = labels[known], predictions[known]
        parts = (labels[labels == predictions], labels, predictions)
        counts = np.stack([np.bincount(part, minlength=len(arrays["class_names"])) for part in parts], axis=1)
        rows += [
            {"arm": arm, "seed": seed, "image": number, "class": kind, "name": str(arrays["class_names"][kind]),
             "right": right, "labelled": labelled, "predicted": predicted}
            for kind, (right, labelled, predicted) in enumerate(counts.tolist())
            if labelled or predicted
        ]  # fmt: skip
    return rows
