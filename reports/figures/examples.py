"""Input images, their true token labels and the arms' predictions, token by token, with arrows to what tokens name.

Where pixels and not tokens are labelled, ``reports.figures.masks`` draws them, and where objects are,
``reports.figures.box_errors``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.figures import FigureError, box_errors, masks, style

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reports.content.table import TaskTable
    from reports.specification import Figure
    from results.collect import Collected

SCENES = 4
IGNORED = -1
PANEL = 1.4  # inches, width of a square scene
FADE = 0.62  # how far the scene is faded to white below the tiles
INSET = 0.09  # of a tile's side, left free at each edge
LEGEND = 0.25  # inches, height
ARROWS = 16  # per image, so that each can be followed; from the top left on, evenly among the labelled tokens
Arrays = dict[str, Any]


def draw(table: TaskTable, figure: Figure) -> tuple[Any, Any, str, str] | None:
    """The figure, its data, title and caption; None where no seed has examples of every required arm."""
    import pandas as pd

    seed, examples = _first_seed(table.collected, figure)
    if seed is None:
        return None
    truth = examples[figure.required[0] if figure.required else next(iter(examples))]
    if _is_of_boxes(truth):
        return box_errors.draw(table.label_of, seed, examples)
    if _is_of_pixels(truth):
        return masks.draw(table.label_of, seed, examples)
    columns: list[tuple[str, NDArray[np.int8] | None]] = [("image", None), ("labels", truth["labels"])]
    columns += [(table.label_of[arm], arrays["predictions"]) for arm, arrays in examples.items()]
    count = min(SCENES, len(truth["images"]))
    height, width = truth["images"].shape[1:3]
    panel = PANEL * min(1.6, max(1.0, width / height))  # inches of width
    tall, caption_room = panel * height / width, 0.2
    whole = count * (tall + caption_room) + LEGEND
    canvas = style.new_figure(len(columns) * panel * 1.05, whole)
    grid = canvas.subplots(count, len(columns), squeeze=False)
    for scene in range(count):
        for column, (title, tokens) in enumerate(columns):
            axes = grid[scene][column]
            _panel(axes, truth, scene, tokens, judged=column > 1, cross=0.42 * 72 * tall / truth["labels"].shape[1])
            if column == 1 and "places" in truth:
                draw_arrows(axes, truth, scene)
            if scene == 0:
                axes.set_title(title, fontsize=9, pad=4)
    arrows = " Arrows lead from some of the tokens to the places that they name." if "places" in truth else ""
    bottom = (caption_room + LEGEND) / whole
    _legend(canvas, "places" in truth)
    canvas.subplots_adjust(left=0, right=1, top=1, bottom=bottom, wspace=0.05, hspace=caption_room / tall)
    rows = [row for arm, arrays in examples.items() for row in _records(arm, seed, arrays, count)]
    caption = (
        f"The first {count} evaluation images, seed {seed}. Tiles are tokens in the colour of their class; tokens "
        "without a label are left blank, wrong predictions are crossed. Below each panel: how many are right."
        f"{arrows}"
    )
    return canvas, pd.DataFrame(rows), "Examples", caption


def _first_seed(collected: Collected, figure: Figure) -> tuple[int | None, dict[str, Arrays]]:
    """The smallest seed with examples of every required arm, and the examples of all arms that show its scenes."""
    import numpy as np

    runs = collected.runs
    for seed in sorted(map(int, runs["seed"].unique())):
        of_seed = runs[runs["seed"] == seed].set_index("arm")["run"].to_dict()
        paths = {arm: collected.examples[of_seed[arm]] for arm in figure.arms if of_seed.get(arm) in collected.examples}
        if not paths or not set(figure.required) <= set(paths):
            continue
        examples = {arm: _read(path) for arm, path in paths.items()}
        reference = examples[figure.required[0] if figure.required else next(iter(examples))]
        scene = box_errors.SCENE if _is_of_boxes(reference) else ("images", "labels")
        for arm, arrays in examples.items():
            if not all(key in arrays and np.array_equal(arrays[key], reference[key]) for key in scene):
                raise FigureError(f"the examples of arm {arm}, seed {seed}, are of other scenes")
        return seed, examples
    return None, {}


def _read(path: Path) -> Arrays:
    import numpy as np

    where = f"{path.parent.name}/{path.name}"
    try:
        with np.load(path, allow_pickle=False) as file:
            of_boxes = _is_of_boxes(file)
            needed = box_errors.KEYS if of_boxes else ("images", "labels", "predictions", "palette")
            arrays = {key: file[key] for key in needed}
            arrays |= {key: file[key] for key in ("places", "class_names", *box_errors.MASKS) if key in file}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise FigureError(f"{where} cannot be read: {error}") from None
    if of_boxes:
        if wrong := box_errors.problem(arrays):
            raise FigureError(f"{where}: {wrong}")
        return arrays
    images, labels, palette = arrays["images"], arrays["labels"], arrays["palette"]
    good = images.ndim == 4 and labels.ndim == 3 and labels.shape == arrays["predictions"].shape
    good = good and ("places" not in arrays or arrays["places"].shape[:3] == labels.shape)
    if not good or len(images) != len(labels) or not len(images) or palette.ndim not in (2, 3):
        raise FigureError(f"{where}: shapes of images, labels and predictions do not fit together")
    of_pixels = _is_of_pixels(arrays)
    if of_pixels and not (arrays["predictions"] != masks.IGNORED).any(axis=(1, 2)).all():
        raise FigureError(f"{where}: an image has no prediction")
    ignored = masks.IGNORED if of_pixels else IGNORED
    if any(part[part != ignored].max(initial=0) >= len(palette) for part in (labels, arrays["predictions"])):
        raise FigureError(f"{where}: a class has no colour in the palette")
    if of_pixels and len(arrays.get("class_names", ())) != len(palette):
        raise FigureError(f"{where}: it does not name each class of the palette")
    return arrays


def _is_of_boxes(arrays: Any) -> bool:
    """Whether objects, and neither tokens nor pixels, are to be found."""
    return "truth_boxes" in arrays


def _is_of_pixels(arrays: Arrays) -> bool:
    """Whether every pixel, and not every token, has a label."""
    return bool(arrays["labels"].shape == arrays["images"].shape[:3])


def _panel(
    axes: Any, arrays: Arrays, scene: int, tokens: NDArray[np.int8] | None, *, judged: bool, cross: float
) -> None:
    """One scene, with its tokens as tiles; where they are judged, wrong ones have a cross of ``cross`` points."""
    import numpy as np

    image, labels = arrays["images"][scene].astype(float) / 255, arrays["labels"][scene]
    height, width = image.shape[:2]
    if tokens is not None:
        image = image + (1 - image) * FADE
    axes.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    if tokens is not None:
        from matplotlib.patches import FancyBboxPatch

        step_y, step_x = height / labels.shape[0], width / labels.shape[1]
        inset = INSET * min(step_x, step_y)
        for y, x in np.argwhere(labels != IGNORED):
            right = tokens[scene, y, x] == labels[y, x]
            colours = arrays["palette"][tokens[scene, y, x]].reshape(-1, 3) / 255  # side by side, one for each part
            for part, colour in enumerate(colours):
                corner = ((x + part / len(colours)) * step_x + 2 * inset, y * step_y + 2 * inset)
                size, shape = (step_x / len(colours) - 4 * inset, step_y - 4 * inset), f"round,pad={inset}"
                axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=shape, facecolor=colour, linewidth=0))
            if judged and not right:
                ink = "black" if float(colours.mean(0) @ [0.3, 0.59, 0.11]) > 0.45 else "white"
                axes.plot((x + 0.5) * step_x, (y + 0.5) * step_y, "x", color=ink, markersize=cross, mew=cross / 4)
    if judged and tokens is not None:
        known = labels != IGNORED
        right = int((tokens[scene] == labels)[known].sum())
        axes.set_xlabel(f"{right} of {int(known.sum())} right", fontsize=7, labelpad=2, color=style.GREY)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bdbdbd", linewidth=0.6)


def draw_arrows(axes: Any, arrays: Arrays, scene: int, most: int = ARROWS, colour: str = "black") -> None:
    """Arrows from at most ``most`` labelled tokens of an image to the places that they name."""
    import numpy as np
    from matplotlib.patheffects import withStroke

    outline = withStroke(linewidth=2.2, foreground="white" if colour == "black" else "black")  # legible on any tile
    labels, places = arrays["labels"][scene], arrays["places"][scene]
    step_y, step_x = (side / tokens for side, tokens in zip(arrays["images"].shape[1:3], labels.shape))
    asked = np.argwhere(labels != IGNORED)
    for y, x in asked[np.linspace(0, len(asked) - 1, min(most, len(asked))).astype(int)]:
        for row, column in places[y, x]:
            line = axes.annotate(
                "",
                xy=((column + 0.5) * step_x, (row + 0.5) * step_y),
                xytext=((x + 0.5) * step_x, (y + 0.5) * step_y),
                arrowprops={
                    "arrowstyle": "-|>",
                    "linewidth": 1,
                    "color": colour,
                    "mutation_scale": 6,
                    "shrinkA": 0,
                    "shrinkB": 0,
                },
            )
            line.arrow_patch.set_path_effects([outline])


def _legend(canvas: Any, arrows: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(color=style.GREY, label="token, in the colour of its class"),
        Line2D([], [], linestyle="none", marker="x", color=style.INK, label="wrong prediction"),
    ]
    if arrows:
        handles.append(Line2D([], [], color=style.INK, marker=">", markevery=[1], label="place that a token names"))
        handles[-1].set_data([0, 1], [0, 0])
    canvas.legend(
        handles=handles, loc="lower left", ncols=3, fontsize=7.5, frameon=False, borderpad=0, borderaxespad=0,
        handlelength=1.6, columnspacing=1.4,
    )  # fmt: skip


def _records(arm: str, seed: int, arrays: Arrays, count: int) -> list[dict[str, Any]]:
    import numpy as np

    return [
        {"arm": arm, "seed": seed, "image": int(n), "row": int(y), "column": int(x),
         "label": int(arrays["labels"][n, y, x]), "prediction": int(arrays["predictions"][n, y, x]),
         **_places(arrays, n, y, x)}
        for n, y, x in np.argwhere(arrays["labels"][:count] != IGNORED)
    ]  # fmt: skip


def _places(arrays: Arrays, n: int, y: int, x: int) -> dict[str, str]:
    """Row and column of the places that a token names, e.g. ``3,4 3,9``."""
    if "places" not in arrays:
        return {}
    return {"places": " ".join(f"{row},{column}" for row, column in arrays["places"][n, y, x].tolist())}
