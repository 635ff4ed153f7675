"""Figures show what the runs say, with labels that do not overlap."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import specification, table
from reports.figures import draw, style
from reports.figures.labels import Box, Point, _spread, beside_points
from results.collect import collect
from tests.results.synthetic import run_id


@pytest.fixture(scope="module")
def drawn(finished):
    plan, _, collected = finished
    drawings, problems = draw(table.build(specification.of_sweep("ablation_offsets"), collected, plan), collected)
    assert problems == []
    return {drawing.name: drawing for drawing in drawings}


def picture(content):
    from matplotlib import image

    return image.imread(io.BytesIO(content), format="png")


def data(drawing):
    return pd.read_csv(io.BytesIO(drawing.files[f"{drawing.name}.csv"]))


def test_every_figure_is_a_picture_with_something_on_it(drawn):
    assert list(drawn) == ["accuracy_flops", "reach", "examples", "learning_curves"]
    for name, drawing in drawn.items():
        shown = picture(drawing.files[f"{name}.png"])[..., :3]
        assert min(shown.shape[:2]) > 400, name
        inked = (shown < 0.9).any(axis=2)
        assert 0.01 < inked.mean() < 0.9, name
        assert drawing.files[f"{name}.pdf"].startswith(b"%PDF") and b"CreationDate" not in drawing.files[f"{name}.pdf"]
        assert drawing.title and drawing.caption


def test_figures_are_readable_in_grey(finished):
    plan, _, collected = finished
    styles = style.arm_styles(table.build(specification.of_sweep("ablation_offsets"), collected, plan))
    assert len({look.marker for look in styles.values()}) == 7 and len({look.colour for look in styles.values()}) == 7


def test_accuracy_flops_shows_the_table(drawn, finished):
    shown = data(drawn["accuracy_flops"]).set_index("arm")
    finals = finished[2].finals("eval/token_accuracy").groupby("arm")["value"]
    assert shown["mean"].to_dict() == pytest.approx(finals.mean().to_dict(), abs=1e-3)
    assert shown["sd"].to_dict() == pytest.approx(finals.std().to_dict(), abs=1e-3)


def test_reach_is_accuracy_by_distance(drawn, finished):
    shown = data(drawn["reach"])
    curves = finished[2].curves
    here = curves.query("arm == 'axial' and direction == 'vertical' and distance == 160")
    expected = 100 * here["correct"] / here["count"]
    point = shown.query("arm == 'axial' and direction == 'vertical' and distance == 160").iloc[0]
    assert (point["mean"], point["low"], point["high"]) == pytest.approx(
        (expected.mean(), expected.min(), expected.max()), abs=1e-3
    )
    assert point["n"] == 3 and len(shown) == 7 * 2 * 16


def test_learning_curves_end_at_the_reported_numbers(drawn):
    shown = data(drawn["learning_curves"])
    last = shown[shown["step"] == 1200].set_index("arm")["mean"].to_dict()
    assert last == pytest.approx(data(drawn["accuracy_flops"]).set_index("arm")["mean"].to_dict(), abs=1e-3)
    assert shown.groupby("arm")["step"].count().to_dict() == dict.fromkeys(last, 20)


def test_examples_are_of_the_first_seed_and_all_three_arms(drawn, finished):
    shown = data(drawn["examples"])
    assert (
        set(shown["arm"]) == {"zero", "token", "axial"}
        and set(shown["seed"]) == {0}
        and set(shown["scene"]) == {0, 1, 2, 3}
    )
    right = (shown["label"] == shown["prediction"]).groupby(shown["arm"]).mean()
    assert right["zero"] < right["axial"]
    arrays = np.load(finished[1] / run_id("zero", 0) / "examples.npz")
    assert len(shown) == 3 * int((arrays["labels"][:4] >= 0).sum())


def broken_examples(finished, folder, **changes):
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, folder)
    path = folder / run_id("axial", 0) / "examples.npz"
    if changes:
        np.savez(path, **{**np.load(path), **changes})
    else:
        path.write_bytes(b"PK torn")
    collected = collect(plan, folder)
    made = table.build(specification.of_sweep("ablation_offsets"), collected, plan)
    few = replace(made.spec, figures=tuple(f for f in made.spec.figures if f.kind in ("examples", "learning_curves")))
    return draw(replace(made, spec=few), collected)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "cannot be read"),
        ({"predictions": np.zeros((5, 3, 3), np.int8)}, "do not fit together"),
        ({"palette": np.zeros((2, 3), np.uint8)}, "no colour in the palette"),
        ({"images": np.zeros((5, 128, 128, 3), np.uint8)}, "are of other scenes"),
    ],
)
def test_examples_that_cannot_be_shown_are_named_and_the_rest_is_drawn(finished, tmp_path, changes, says):
    drawings, problems = broken_examples(finished, tmp_path / "runs", **changes)
    assert [drawing.name for drawing in drawings] == ["learning_curves"]
    assert len(problems) == 1 and problems[0].startswith("figure examples: ") and says in problems[0]


def test_the_optional_arm_may_be_missing_but_not_a_required_one(finished, tmp_path):
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs")
    (tmp_path / "runs" / run_id("token", 0) / "examples.npz").unlink()
    (tmp_path / "runs" / run_id("axial", 1) / "examples.npz").unlink()
    spec = specification.of_sweep("ablation_offsets")
    spec = replace(spec, figures=tuple(figure for figure in spec.figures if figure.kind == "examples"))
    collected = collect(plan, tmp_path / "runs")
    (drawing,), _ = draw(table.build(spec, collected, plan), collected)
    shown = data(drawing)
    assert set(shown["arm"]) == {"zero", "axial"} and set(shown["seed"]) == {0}
    collected.examples = {run: path for run, path in collected.examples.items() if run != run_id("zero", 0)}
    (drawing,), _ = draw(table.build(spec, collected, plan), collected)
    assert set(data(drawing)["seed"]) == {2}


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_end_labels_keep_apart_and_in_order(wanted):
    placed = _spread(sorted(wanted), 20, 0, 300)
    assert all(b - a >= 20 - 1e-6 for a, b in pairwise(placed))
    assert placed[0] >= -1e-6 and placed[-1] <= 300 + 1e-6


@given(st.floats(30, 250))
def test_a_lone_end_label_is_at_its_line(wanted):
    assert _spread([wanted], 20, 0, 300) == [wanted]


points = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.04))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(points, min_size=1, max_size=8))
def test_labels_beside_points_do_not_overlap(places):
    canvas = style.new_figure(5.4, 3.7)
    axes = canvas.subplots()
    axes.set_xlim(-0.2, 1.3)
    axes.set_ylim(-0.2, 1.2)
    canvas.draw_without_rendering()
    boxes = beside_points(axes, [Point(x, y, y - d, y + d, "axial, 3 samples", "k") for x, y, d in places])
    frame = Box(*axes.get_window_extent().extents)
    assert all(box.within(frame) for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_boxes():
    box = Box(0, 0, 10, 10)
    assert box.overlaps(Box(9, 9, 12, 12)) and not box.overlaps(Box(10, 0, 12, 10))
    assert Box(1, 1, 9, 9).within(box) and not Box(1, 1, 11, 9).within(box)
    assert box.crossed_by((-5, 5), (15, 5)) and not box.crossed_by((-5, 11), (15, 11))
    assert box.crossed_by((5, -5), (5, 5)) and box.crossed_by((2, 2), (3, 3)) and not box.crossed_by((-5, 0), (0, 8))
    assert not box.crossed_by((-9, -2), (-1, 12)) and box.crossed_by((-1, -1), (11, 11))
