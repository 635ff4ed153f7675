"""The picture of masks: what it shows is what the runs kept, for images of unequal size."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reports import specification_files
from reports.content import build_table
from reports.figures import draw, masks
from results.collect import collect
from tests.results.synthetic import run_id

NAMES = ("wall", "sky", "a tree with a very long name")
PALETTE = np.array([[120, 120, 120], [6, 230, 230], [4, 200, 3]], np.uint8)
SIZES = ((40, 60), (60, 32), (20, 20), (33, 60), (50, 50), (8, 8))


def mask_examples(error: float) -> dict[str, np.ndarray]:
    """Six images of unequal size in arrays of the largest, as judges keep them."""
    images = np.full((6, 60, 60, 3), 255, np.uint8)
    labels, predictions = (np.full((6, 60, 60), 255, np.uint8) for _ in range(2))
    for number, (height, width) in enumerate(SIZES):
        random = np.random.default_rng(number)
        true = random.integers(0, 2, (height, width))
        wrong = random.random((height, width)) < error
        predictions[number, :height, :width] = np.where(wrong, 2, true)
        true[: height // 4] = 255
        labels[number, :height, :width] = true
        images[number, :height, :width] = random.integers(0, 256, (height, width, 3))
    arrays = {"images": images, "labels": labels, "predictions": predictions}
    return {**arrays, "palette": PALETTE, "class_names": np.array(NAMES)}


ERRORS = {"zero": 0.4, "token": 0.2, "axial": 0.1}


def drawn(finished, folder, **changes):
    """The figure of examples where every run has masks; ``changes`` are of those of axial, seed 0."""
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, folder)
    for arm, error in ERRORS.items():
        for path in folder.glob(f"{run_id(arm, 0)}/examples.npz"):
            np.savez(path, **mask_examples(error) | (changes if arm == "axial" else {}))
    spec = specification_files.of_sweep("ablation_offsets")
    spec = replace(spec, figures=tuple(figure for figure in spec.figures if figure.kind == "examples"))
    return draw(build_table.build(spec, collect(plan, folder), plan))


def test_the_data_of_the_picture_are_the_pixels_of_its_images(finished, tmp_path):
    (drawing,), problems = drawn(finished, tmp_path / "runs")
    assert problems == [] and "The first 4 evaluation images, seed 0" in drawing.caption
    assert drawing.files["examples.png"].startswith(b"\x89PNG") and drawing.files["examples.pdf"].startswith(b"%PDF")
    shown = pd.read_csv(io.BytesIO(drawing.files["examples.csv"]))
    assert set(shown["arm"]) == set(ERRORS) and set(shown["image"]) == {0, 1, 2, 3}
    for row in shown.itertuples():
        arrays = mask_examples(ERRORS[row.arm])
        right = labelled = predicted = 0
        for true, guess in zip(arrays["labels"][row.image].ravel(), arrays["predictions"][row.image].ravel()):
            if true != 255:
                labelled += true == row._4
                predicted += guess == row._4
                right += true == guess == row._4
        assert (row.right, row.labelled, row.predicted) == (right, labelled, predicted)
        assert row.name == NAMES[row._4]


def test_colours_are_those_of_classes_and_errors_are_red():
    labels = np.array([[0, 1, 255], [2, 2, 0]], np.uint8)
    prediction = np.array([[0, 2, 1], [2, 1, 0]], np.uint8)
    coloured = masks._coloured(labels, PALETTE)
    grey = list(masks.UNKNOWN)
    assert coloured.tolist() == [
        [PALETTE[0].tolist(), PALETTE[1].tolist(), grey],
        [PALETTE[2].tolist(), PALETTE[2].tolist(), PALETTE[0].tolist()],
    ]
    errors = masks._errors(np.zeros((2, 3, 3), np.uint8), labels, prediction)
    red = [list(masks.WRONG) == pixel for row in errors.tolist() for pixel in row]
    assert red == [False, True, False, False, True, False] and errors[0, 2].tolist() == grey
    assert masks._share(labels, prediction) == "60.0 %"
    assert masks._share(np.full((2, 2), 255), prediction[:, :2]) == "no labels"


def test_panels_end_where_images_end():
    arrays = mask_examples(0.1)
    for number, (height, width) in enumerate(SIZES):
        assert masks._extent(arrays["predictions"][number]) == (slice(0, height), slice(0, width))


def test_the_legend_names_the_classes_with_the_most_pixels():
    rows = [{"class": number, "labelled": 100 - number, "predicted": number % 2} for number in range(40)]
    named = masks._most_frequent(rows, [f"class {number}" for number in range(50)])
    assert list(named) == list(range(24)) and named[3] == "class 3"


def test_texts_do_not_overlap_and_lie_on_the_figure():
    examples = {arm: mask_examples(error) for arm, error in ERRORS.items()}
    many = {**examples["zero"], "class_names": np.array([f"class number {n}" for n in range(40)])}
    many["palette"] = np.random.default_rng(0).integers(0, 256, (40, 3), dtype=np.uint8)
    many["labels"] = np.where(many["labels"] == 255, 255, np.arange(60)[:, None] % 40).astype(np.uint8)
    for shown in (examples, {"zero": many}):
        canvas, _, _, caption = masks.draw({arm: f"{arm} offsets" for arm in shown}, 0, shown)
        canvas.draw_without_rendering()
        texts = [text for legend in canvas.legends for text in legend.get_texts()]
        texts += [text for axes in canvas.axes for text in (axes.title, axes.xaxis.label) if text.get_text()]
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) > 8 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        panels = [axes.get_window_extent() for axes in canvas.axes]
        assert not any(box.overlaps(panel) for box in boxes for panel in panels)
        assert not any(a.overlaps(b) for i, a in enumerate(panels) for b in panels[:i])
        assert all(box.x0 >= 0 and box.x1 <= canvas.bbox.x1 and box.y0 >= 0 for box in boxes)
    assert "16 rarer classes" in caption


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": np.array(NAMES[:2])}, "does not name each class"),
        ({"predictions": np.full((6, 60, 60), 3, np.uint8)}, "no colour in the palette"),
        ({"predictions": np.full((6, 60, 60), 255, np.uint8)}, "an image has no prediction"),
        ({"labels": np.zeros((6, 60, 60), np.uint8)}, "are of other scenes"),
    ],
)
def test_masks_that_cannot_be_shown_are_named(finished, tmp_path, changes, message):
    drawings, problems = drawn(finished, tmp_path / "runs", **changes)
    assert drawings == [] and len(problems) == 1 and message in problems[0]
