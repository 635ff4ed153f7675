"""Pictures of found objects: they show what the runs kept, names are legible, and marks need no colour."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.tasks import box_examples
from reports import specification_files
from reports.content import build_table
from reports.figures import box_errors, boxes, draw, style
from reports.figures.boxes import MISSED, RIGHT, WRONG, NamedBox
from results.collect import collect
from tests.results.synthetic import run_id

NAMES = ("person", "tie", "an animal with a very long name")
SIZES = ((60, 90), (90, 40), (30, 30), (50, 90), (60, 60), (64, 64))
OBJECTS = (3, 1, 0, 2, 2, 1)
ARMS = {"zero": 1, "token": 2, "axial": 3}  # and how many objects of an image an arm finds at most


def box_arrays(right: int, masks: bool = True) -> dict[str, np.ndarray]:
    """Six images as the judge keeps them: the first ``right`` objects of each are found, and two false ones.

    The second false one has a lower score than everything else. The last object of the first image is a crowd.
    """
    random = np.random.default_rng(0)
    images = np.full((6, 90, 90, 3), 255, np.uint8)
    truth, found = [], []
    for number, (height, width) in enumerate(SIZES):
        images[number, :height, :width] = random.integers(0, 256, (height, width, 3))
        objects = [(number, place % 3, (4 + 9 * place, 5, 20 + 9 * place, 25), number == place - 2 == 0)
                   for place in range(OBJECTS[number])]  # fmt: skip
        found += [(number, kind, corners, 0.9 - 0.01 * place, len(truth) + place)
                  for place, (_, kind, corners, _) in enumerate(objects[:right])]  # fmt: skip
        found += [(number, 1, (2, 8, 28, 28), 0.5, -1), (number, 0, (1, 1, 9, 9), 0.1, -1)]
        truth += objects
    arrays = {"images": images, "sizes": np.array(SIZES, np.int32), "class_names": np.array(NAMES)}
    kinds = {"images": np.int32, "classes": np.int32, "boxes": np.float32}
    for part, rows, more in (
        ("truth", truth, {"crowd": np.bool_}), ("prediction", found, {"scores": np.float32, "truths": np.int32}),
    ):  # fmt: skip
        for name, column in zip({**kinds, **more}, zip(*rows)):
            arrays[f"{part}_{name}"] = np.array(column, {**kinds, **more}[name])
        if masks:
            arrays[f"{part}_masks"] = np.zeros((6, 90, 90), np.uint8)
            for number in range(6):
                own = [corners for owner, _, corners, *_ in rows if owner == number]
                for place, (x1, y1, x2, y2) in reversed([*enumerate(own, 1)]):
                    arrays[f"{part}_masks"][number, y1:y2, x1:x2] = place
    return arrays


def drawn(finished, folder, **changes):
    """The figure of examples where every run has boxes; ``changes`` are of those of axial, seed 0."""
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, folder)
    for arm, right in ARMS.items():
        for path in folder.glob(f"{run_id(arm, 0)}/examples.npz"):
            np.savez(path, **box_arrays(right) | (changes if arm == "axial" else {}))
    spec = specification_files.of_sweep("ablation_offsets")
    spec = replace(spec, figures=tuple(figure for figure in spec.figures if figure.kind == "examples"))
    return draw(build_table.build(spec, collect(plan, folder), plan))


def test_the_data_of_the_picture_are_its_objects_and_what_is_shown_of_the_found_ones(finished, tmp_path):
    (drawing,), problems = drawn(finished, tmp_path / "runs")
    assert problems == [] and "The first 4 evaluation images, seed 0" in drawing.caption
    assert drawing.files["examples.png"].startswith(b"\x89PNG") and drawing.files["examples.pdf"].startswith(b"%PDF")
    shown = pd.read_csv(io.BytesIO(drawing.files["examples.csv"]))
    assert set(shown["arm"]) == set(ARMS) and set(shown["image"]) == {0, 1, 3}, "nothing is in one of the four"
    for arm, right in ARMS.items():
        first = shown[(shown["arm"] == arm) & (shown["image"] == 0)]
        objects, found = first[first["what"] == "object"], first[first["what"] == "prediction"]
        assert first["what"].eq("crowd").sum() == 1 and len(objects) == 2
        hits = min(right, 2)
        assert objects["outcome"].tolist() == ["found"] * hits + [MISSED] * (2 - hits)
        # as many predictions as objects, without that on the crowd
        assert found["outcome"].tolist() == [RIGHT] * hits + [WRONG] * (2 - hits)
        assert found["name"].tolist() == [NAMES[0], NAMES[1]], "the false one is of class 1, too"
        assert found["score"].tolist() == [0.9, 0.89 if hits == 2 else 0.5]
        assert objects[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[4, 5, 20, 25], [13, 5, 29, 25]]


@pytest.mark.parametrize("masks", [False, True])
def test_lines_tell_right_wrong_and_missed_apart_without_colours(masks):
    examples = {arm: box_arrays(right, masks) for arm, right in ARMS.items()}
    with style.theme():
        canvas, _, _, _ = box_errors.draw({arm: arm for arm in ARMS}, 0, examples)
    panels = canvas.axes[:4]
    lines = [[patch.get_linestyle() for patch in axes.patches] for axes in panels]
    told = [[boxes_style(line) for line in of_panel] for of_panel in lines]
    assert told[0] == ["-", "-"], "the objects but the crowd"
    assert told[1] == ["-", "--", ":"] and told[2] == ["-", "-"] == told[3]
    assert [axes.get_xlabel() for axes in panels] == [
        "2 objects", "1 of 2 found, 1 wrong", "2 of 2 found, 0 wrong", "2 of 2 found, 0 wrong",
    ]  # fmt: skip
    assert canvas.axes[9].get_xlabel() == "nothing to find"
    assert [entry.get_text() for entry in canvas.legends[0].get_texts()] == ["right", "wrong", "not found"]
    assert [len(axes.images) for axes in panels] == ([2, 2, 2, 2] if masks else [1, 1, 1, 1])


def boxes_style(dash):
    """The kind of line that a style of the module is."""
    return {"-": "-", boxes.DASHES[WRONG]: "--", boxes.DASHES[MISSED]: ":"}[dash]


def test_a_mask_is_filled_where_its_object_is_seen():
    arrays = box_arrays(3)
    masks, colours = box_errors._masks(arrays, "truth", 3, [4, 5], {0: "#ff0000", 1: "#0000ff"})
    assert colours == ["#ff0000", "#0000ff"] and [mask.shape for mask in masks] == [SIZES[3]] * 2
    assert masks[0][5:25, 4:20].all() and masks[0].sum() == 320
    assert masks[1].sum() == 20 * 9, "the better one lies on top of it"
    assert box_errors._masks(box_arrays(3, masks=False), "truth", 3, [4, 5], {}) == ([], [])


def test_names_do_not_overlap_and_lie_on_their_image():
    random = np.random.default_rng(3)
    corners = random.uniform(0, 500, (60, 4))
    found = [NamedBox((x, y, x + w / 4 + 5, y + h / 4 + 5), place % 3, f"{NAMES[place % 3]} 0.{place}")
             for place, (x, y, w, h) in enumerate(corners.tolist())]  # fmt: skip
    with style.theme():
        canvas = style.new_figure(6, 6)
        axes = canvas.add_axes((0, 0.1, 1, 0.9))
        axes.imshow(np.zeros((640, 640, 3), np.uint8))
        colours = boxes.colours_of(range(3))
        placed = boxes.name_boxes(axes, found, colours)
        canvas.draw_without_rendering()
        names = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
        frame = axes.get_window_extent()
    assert 20 < len(placed) == len(names) < 60, "where there is no room, a name is left out"
    assert [text.get_text() for text in axes.texts][:3] == [box.text for box in found[:3]], "the best ones have a name"
    assert not any(a.overlaps(b) for i, a in enumerate(names) for b in names[:i])
    assert all(frame.x0 - 1 <= n.x0 and n.x1 <= frame.x1 + 1 and frame.y0 - 1 <= n.y0 for n in names)


def test_the_figure_of_a_report_has_no_text_over_another_one():
    examples = {arm: box_arrays(right) for arm, right in ARMS.items()}
    with style.theme():
        canvas, _, _, _ = box_errors.draw({arm: f"{arm} offsets" for arm in ARMS}, 0, examples)
        canvas.draw_without_rendering()
        texts = [text for legend in canvas.legends for text in legend.get_texts()]
        texts += [text for axes in canvas.axes for text in (axes.title, axes.xaxis.label) if text.get_text()]
        extents = [text.get_window_extent() for text in texts]
        panels = [axes.get_window_extent() for axes in canvas.axes]
    assert len(extents) > 16 and not any(a.overlaps(b) for i, a in enumerate(extents) for b in extents[:i])
    assert not any(extent.overlaps(panel) for extent in extents for panel in panels)
    assert not any(a.overlaps(b) for i, a in enumerate(panels) for b in panels[:i])
    assert all(e.x0 >= 0 and e.x1 <= canvas.bbox.x1 and e.y0 >= 0 and e.y1 <= canvas.bbox.y1 for e in extents)


def one_picture(**more):
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    corners = np.array([[5, 20, 50, 60], [60, 20, 90, 70], [61, 21, 90, 70]], np.float32)
    return boxes.draw(image, corners, np.array([1, 0, 0]), np.array([0.9, 0.55, 0.5]), NAMES, **more)


def test_a_picture_of_one_image_says_what_was_found_and_what_of_that_is_right(monkeypatch):
    figures = []
    monkeypatch.setattr(boxes, "_png", lambda figure: figures.append(figure) or b"")
    missed = np.array([[100, 5, 118, 70]]), np.array([2])
    one_picture(), one_picture(right=np.array([True, True, False]), missed=missed, masks=np.ones((3, 80, 120), bool))
    blind, judged = figures
    assert [text.get_text() for text in blind.axes[0].texts][:2] == ["tie 0.90", "person 0.55"]
    assert [entry.get_text() for entry in blind.legends[0].get_texts()] == ["person: 2", "tie: 1"]
    assert [boxes_style(patch.get_linestyle()) for patch in judged.axes[0].patches] == ["-", "-", "--", ":"]
    assert [entry.get_text() for entry in judged.legends[0].get_texts()] == [
        "person: 2", "tie: 1", "right: 2", "wrong: 1", "not found: 1",
    ]  # fmt: skip
    assert NAMES[2] in [text.get_text() for text in judged.axes[0].texts]
    assert (len(blind.axes[0].images), len(judged.axes[0].images)) == (1, 2), "masks are laid over the image"


def test_pictures_are_the_same_bytes_every_time_and_may_show_nothing():
    assert one_picture() == one_picture() and one_picture().startswith(b"\x89PNG")
    nothing = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)
    empty = boxes.draw(np.zeros((40, 30, 3), np.uint8), *nothing, NAMES, masks=np.zeros((0, 40, 30), bool))
    assert empty.startswith(b"\x89PNG")


def test_many_classes_are_summed_up_in_the_legend():
    names = [f"class number {number}" for number in range(40)]
    counts = [(number, 40 - number) for number in range(40)]
    colours = boxes.colours_of(range(40))
    entries = boxes._classes(counts, names, colours)
    assert len(entries) == boxes.MOST + 1 and entries[0].get_label() == "class number 0: 40"
    assert entries[-1].get_label() == f"26 more: {sum(range(1, 27))}"
    assert len(set(list(colours.values())[: boxes.MOST])) == boxes.MOST


def test_reports_read_what_the_judge_of_detection_keeps():
    """The arrays of the one, the keys and the sign for nothing of the other."""
    assert box_errors.NOTHING == box_examples.NOTHING
    assert set(box_arrays(2)) == {*box_errors.KEYS, *box_errors.MASKS}
    assert box_errors.problem(box_arrays(2)) == "" == box_errors.problem(box_arrays(0, masks=False))


LATER = np.array([1, 0, 0, 3, 3, 4, 4, 5, 5], np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": np.array(NAMES[:2])}, "a truth has a class without a name"),
        ({"truth_images": np.full(9, 6, np.int32)}, "a truth belongs to no image"),
        ({"truth_images": LATER}, "or to an earlier one"),
        ({"truth_boxes": np.zeros((9, 2), np.float32)}, "truth_boxes is float32 [9, 2], which does not fit"),
        ({"prediction_truths": np.full(21, 9, np.int32)}, "a truth that does not exist"),
        ({"prediction_scores": np.zeros(3, np.float32)}, "prediction_scores is float32 [3]"),
        ({"truth_crowd": np.zeros(3, bool)}, "truth_crowd is bool [3]"),
        ({"prediction_masks": np.zeros((6, 9, 9), np.uint8)}, "prediction_masks is uint8 [6, 9, 9]"),
        ({"sizes": np.full((6, 2), 91, np.int32)}, "an image is larger than its pixels"),
        ({"images": np.zeros((0, 9, 9, 3), np.uint8)}, "sizes is int32 [6, 2]"),
        ({"truth_classes": np.zeros(9)}, "truth_classes is float64 [9]"),
        ({"class_names": np.array("person")}, "class_names is <U6 []"),
        ({"truth_boxes": np.full((9, 4), np.nan, np.float32)}, "the box of a truth is no box"),
        ({"prediction_scores": np.full(21, np.inf, np.float32)}, "the score of a prediction is no number"),
        ({"truth_crowd": np.ones(9, bool)}, "are of other scenes"),
    ],
)
def test_boxes_that_cannot_be_shown_are_named(finished, tmp_path, changes, message):
    drawings, problems = drawn(finished, tmp_path / "runs", **changes)
    assert drawings == [] and len(problems) == 1 and message in problems[0]
