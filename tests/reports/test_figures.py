"""Figures show the numbers of the runs, with labels that do not overlap."""

from __future__ import annotations

import io
import math
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from reports import specification, specification_files
from reports.content import build_table
from reports.figures import accuracy_flops, bubbles, draw, forest, labels, learning_curves, lines, reach, style
from reports.figures.labels import Box, LabelledPoint, _spread, beside_points
from results import archive, papers
from results.collect import collect
from results.statistics.estimates import mean_interval
from results.statistics.images import NewImages
from tests.results.synthetic import make_plan, make_runs, run_id


def built(collected, plan):
    """The table of a sweep's one task."""
    return build_table.build(specification_files.of_sweep(plan["sweep"]), collected, plan).first


@pytest.fixture(scope="module")
def drawn(finished):
    plan, _, collected = finished
    drawings, problems = draw(build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan))
    assert problems == []
    return {drawing.name: drawing for drawing in drawings}


def picture(content):
    from matplotlib import image

    return image.imread(io.BytesIO(content), format="png")


def data(drawing):
    return pd.read_csv(io.BytesIO(drawing.files[f"{drawing.name}.csv"]))


def test_every_figure_is_a_picture_with_something_on_it(drawn):
    assert list(drawn) == ["accuracy_flops", "forest", "reach", "examples", "learning_curves"]
    for name, drawing in drawn.items():
        shown = picture(drawing.files[f"{name}.png"])[..., :3]
        assert min(shown.shape[:2]) > 400, name
        inked = (shown < 0.9).any(axis=2)
        assert 0.01 < inked.mean() < 0.9, name
        assert drawing.files[f"{name}.pdf"].startswith(b"%PDF") and b"CreationDate" not in drawing.files[f"{name}.pdf"]
        assert drawing.title and drawing.caption


def test_figures_are_readable_in_grey(finished):
    plan, _, collected = finished
    styles = style.arm_styles(built(collected, plan))
    assert len({look.marker for look in styles.values()}) == 7 and len({look.colour for look in styles.values()}) == 7


def test_accuracy_flops_shows_the_table(drawn, finished):
    shown = data(drawn["accuracy_flops"])
    theirs = shown[shown["source"] == "papers"].set_index("label")
    assert theirs["mean"].to_dict() == {
        "zero (T)": 79.3, "token (T)": 81.3, "axial (T)": 82.0, "axial (xT)": 79.7, "axial, 3 samples (xT)": 79.9
    }  # fmt: skip
    assert theirs.loc["axial, 3 samples (xT)", "flops_g"] == 3.3
    assert "joint (below xT)" in drawn["accuracy_flops"].caption
    shown = shown[shown["source"] == "ours"].set_index("arm")
    finals = finished[2].finals("eval/token_accuracy").groupby("arm")["value"]
    assert shown["mean"].to_dict() == pytest.approx(finals.mean().to_dict(), abs=1e-3)
    assert shown["sd"].to_dict() == pytest.approx(finals.std().to_dict(), abs=1e-3)
    for arm, interval in finals.apply(interval_of).items():
        assert tuple(shown.loc[arm, ["low", "high"]]) == pytest.approx(interval, abs=1e-3)
    assert "95 % t-interval" in drawn["accuracy_flops"].caption


def interval_of(values):
    interval = mean_interval(dict(enumerate(values)))
    return interval.low, interval.high


def test_reach_is_accuracy_by_distance(drawn, finished):
    shown = data(drawn["reach"])
    curves = finished[2].curves
    here = curves.query("arm == 'axial' and direction == 'vertical' and distance == 160")
    expected = 100 * here["correct"] / here["count"]
    point = shown.query("arm == 'axial' and direction == 'vertical' and distance == 160").iloc[0]
    assert (point["mean"], point["low"], point["high"]) == pytest.approx(
        (expected.mean(), *interval_of(expected)), abs=1e-3
    )
    assert point["n"] == 3 and len(shown) == 7 * 2 * 16


def test_learning_curves_end_at_the_reported_numbers(drawn):
    shown = data(drawn["learning_curves"])
    last = shown[shown["step"] == 1200].set_index("arm")["mean"].to_dict()
    final = data(drawn["accuracy_flops"]).dropna(subset="arm").set_index("arm")["mean"].to_dict()
    assert last == pytest.approx(final, abs=1e-3)
    assert shown.groupby("arm")["step"].count().to_dict() == dict.fromkeys(last, 20)


def test_learning_curves_have_intervals_of_the_mean(drawn, finished):
    shown = data(drawn["learning_curves"])
    metrics = finished[2].metrics.query("metric == 'eval/token_accuracy' and arm == 'joint' and step == 600")
    expected = mean_interval(dict(zip(metrics["seed"], metrics["value"])))
    point = shown.query("arm == 'joint' and step == 600").iloc[0]
    assert (point["low"], point["high"], point["n"]) == pytest.approx((expected.low, expected.high, 3), abs=1e-3)
    assert drawn["learning_curves"].caption.endswith("band: the 95 % t-interval of the mean over seeds.")


def some_seeds(values):
    rows = [("axial", seed, 100, value) for seed, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["arm", "seed", "step", "value"])


@pytest.mark.parametrize(
    ("values", "bar"),
    [
        ([1.0], (1.0, 1.0)),
        ([1.0, 2.0], (-4.853, 7.853)),
        ([1.0, 2.0, 3.0], (-0.484, 4.484)),
        ([2.0, 2.0, 2.0], (2.0, 2.0)),
    ],
)
def test_bands_and_bars_are_the_interval_of_the_mean_and_nothing_else(values, bar):
    points = some_seeds(values)
    summary = lines.with_intervals(lines.over_seeds(points, ["step"]), points, ["step"])
    assert tuple(summary.loc[0, ["low", "high"]]) == pytest.approx(bar, abs=1e-3)
    half = mean_interval(dict(enumerate(values))).half
    assert half == (None if bar[0] == bar[1] else pytest.approx((bar[1] - bar[0]) / 2, abs=1e-3))


@pytest.mark.parametrize(
    ("seeds", "caption", "axis"),
    [
        ([1, 1], "no band: one seed each", "no band: one seed each"),
        ([2, 3], "band: the 95 % t-interval of the mean over seeds", "band: 95 % interval over seeds"),
        (
            [1, 3],
            "band: the 95 % t-interval of the mean over seeds, none of a single seed",
            "band: 95 % interval over seeds",
        ),
    ],
)
def test_caption_and_figure_say_what_a_band_is(seeds, caption, axis):
    assert lines.seed_words(seeds, "band") == caption and lines.axis_words(seeds, "band") == f"\n{axis}"


def test_every_figure_with_bars_or_bands_says_in_itself_what_they_are(finished):
    plan, _, collected = finished
    made = built(collected, plan)
    for module in (accuracy_flops, reach, learning_curves):
        canvas = module.draw(made, specification.Figure(module.__name__.rpartition(".")[2]))[0]
        assert canvas.axes[0].get_ylabel().endswith(": 95 % interval over seeds")
    legend = forest.forest([forest.of_table(made)]).legends[0]
    assert legend.get_texts()[0].get_text() == "ours, mean and 95 % interval over n pairs of seeds"


def test_a_wide_interval_does_not_stretch_the_learning_curves(finished):
    """Three seeds that differ much at first: their interval exceeds the axis, their curves do not."""
    plan, _, collected = finished
    metrics = collected.metrics.copy()
    early = (metrics["arm"] == "axial") & (metrics["step"] == metrics["step"].min())
    metrics.loc[early, "value"] = metrics.loc[early, "seed"].map({0: 30.0, 1: 45.0, 2: 60.0})
    made = built(replace(collected, metrics=metrics), plan)
    canvas, shown, _, _ = learning_curves.draw(made, made.spec.figures[-1])
    low, high = canvas.axes[0].get_ylim()
    assert shown["low"].min() < low < shown["mean"].min() and shown["mean"].max() < high


def test_the_forest_is_the_table(drawn, finished):
    plan, _, collected = finished
    made = built(collected, plan)
    shown = data(drawn["forest"])
    to_zero = shown[shown["against"] == "zero"].set_index("arm")
    assert list(to_zero.index) == [row.arm for row in made.rows if not row.is_baseline]
    for row in made.rows[1:]:
        expected = (row.difference.mean, row.difference.low, row.difference.high, row.difference.n)
        assert tuple(to_zero.loc[row.arm, ["mean", "low", "high", "n"]]) == pytest.approx(expected, abs=1e-3)
    assert to_zero["papers"].dropna().to_dict() == {"token": 2.0, "axial": 2.7}
    elsewhere = shown[shown["against"] != "zero"][["arm", "against", "papers"]].fillna("-").to_numpy().tolist()
    assert elsewhere == [["joint", "axial", "-"], ["axial_x3", "axial", 0.2]], "of joint the papers print no number"


def test_every_row_of_the_forest_has_the_difference_to_the_arm_it_names(finished):
    plan, _, collected = finished
    made = built(collected, plan)
    finals = collected.finals("eval/token_accuracy").pivot(index="seed", columns="arm", values="value")
    arm_of = {label: arm for arm, label in made.label_of.items()}
    entries = forest.of_table(made).entries
    assert [entry.arm for entry in entries if entry.against == "axial"] == ["joint", "axial_x3"] and len(entries) == 8
    for entry in entries:
        differences = finals[entry.arm] - finals[arm_of[entry.against]]
        assert entry.ours.differences == pytest.approx(tuple(differences)), entry.label
        assert entry.ours.mean == pytest.approx(differences.mean()), entry.label


def of_papers_protocol(folder, model="xt"):
    plan = make_plan(protocol="paper", model=model)
    make_runs(folder, plan, metric="eval_ema/top1", examples=False)
    collected = collect(plan, folder)
    return built(collected, plan)


def test_scales_of_two_protocols_never_share_an_axis(finished, tmp_path):
    plan, _, collected = finished
    other = built(collected, plan)
    same = of_papers_protocol(tmp_path)
    figure = other.spec.figures[0]
    assert figure.kind == "accuracy_flops" and figure.papers
    assert len(accuracy_flops.draw(other, figure)[0].axes) == 2
    assert len(accuracy_flops.draw(same, figure)[0].axes) == 1
    assert len(accuracy_flops.draw(other, replace(figure, papers=False))[0].axes) == 1
    assert len(forest.draw([other], figure)[0].axes) == 2
    assert len(forest.draw([same], figure)[0].axes) == 1
    grey = [entry.arm for entry in forest.of_table(same).entries if entry.other_model]
    assert grey == ["token", "axial"]  # printed for T
    assert len(forest.forest([forest.of_table(other), forest.of_table(same)]).axes) == 3


def test_a_forest_without_results_is_not_drawn_and_with_some_says_which(finished):
    plan, _, collected = finished
    made = built(collected, plan)
    rows = tuple(replace(row, difference=None, references=()) for row in made.rows)
    assert forest.draw([replace(made, rows=rows)], made.spec.figures[0]) is None
    rows = (*made.rows[:2], replace(made.rows[2], difference=None), *rows[3:4])
    texts = [text.get_text() for text in forest.forest([forest.of_table(replace(made, rows=rows))]).axes[0].texts]
    assert texts == ["n = 3", "no pair", "no pair"]
    some = replace(made.rows[2], planned=5)
    entries = forest.of_table(replace(made, rows=(*made.rows[:2], some)))
    assert [entry.pairs for entry in entries.entries] == ["n = 3", "3 of 5"], "as the table says it"
    waiting = replace(made.rows[2], difference=None, values={}, interval=None, state="interrupted 40 %")
    entries = forest.of_table(replace(made, rows=(*made.rows[:2], waiting)))
    texts = [text.get_text() for text in forest.forest([entries]).axes[0].texts]
    assert "interrupted 40 %" in texts  # as the table says


def test_marks_of_a_forest_are_all_in_its_legend(finished):
    plan, _, collected = finished
    group = forest.of_table(built(collected, plan))
    plain = forest.forest([group]).legends[0].get_texts()
    images = NewImages(1.0, -1.0, 3.0, 0.5, 4.0, 3, 100)
    with_images = replace(group, entries=tuple(replace(entry, new_images=images) for entry in group.entries))
    added = {text.get_text() for text in forest.forest([with_images]).legends[0].get_texts()}
    assert added - {text.get_text() for text in plain} == {"interval over seeds and images"}


def crowd(finished, values):
    """Arms of the same FLOPs and of such accuracies, one seed each where a value is a number."""
    plan, _, collected = finished
    made = built(collected, plan)
    rows = [
        replace(row, flops_g=flops, values=dict(enumerate(of_seeds)), interval=mean_interval(dict(enumerate(of_seeds))))
        for row, (flops, of_seeds) in zip(made.rows, values)
    ]
    return replace(made, rows=tuple(rows))


@pytest.mark.parametrize(
    "values",
    [
        [(1.0, [70.0])] * 4,
        [(1.0, [70.0, 71.0, 72.0])] * 7,
        [(1.0, [70.0]), (1.0, [70.05]), (2.0, [71.0])],
        [(1.0, [70.0, 70.4, 70.8]), (1.001, [70.1, 70.2, 70.7]), (1.002, [71.0, 71.2, 71.1]), (1.5, [60.0, 61.0])],
    ],
)
def test_no_marker_hides_another_and_every_label_is_at_its_own(finished, values, monkeypatch):
    """Of equal FLOPs and accuracies too."""
    boxes = []
    placed = labels.beside_points
    monkeypatch.setattr(accuracy_flops, "beside_points", lambda *given: boxes.extend(placed(*given)))
    made = crowd(finished, values)
    with style.theme():
        axes = accuracy_flops.draw(made, specification.Figure("accuracy_flops"))[0].axes[0]
    half = accuracy_flops.MARKER / 2 * axes.figure.dpi / 72
    markers = [line for line in axes.lines if line.get_marker() in style.MARKERS]
    centres = [axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in markers]
    assert len(centres) == len(boxes) == len(values)
    around = [Box(x - half, y - half, x + half, y + half) for x, y in centres]
    assert not [1 for i, box in enumerate(around) for other in around[:i] if box.overlaps(other)]
    assert not [1 for box in boxes for marker in around if box.overlaps(marker)]
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.overlaps(other)]
    leaders = {line.get_color() for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2}
    for number, (box, line) in enumerate(zip(boxes, markers)):
        away = [math.dist(labels._nearest(box, centre), centre) for centre in centres]
        assert away[number] == min(away) or line.get_color() in leaders, made.rows[number].label


def published_models():
    numbers = papers.load()
    numbers = numbers[
        (numbers["source"] == "AAAI") & (numbers["table"] == "Table 1") & ~numbers["row"].str.contains("†")
    ]
    models = numbers.pivot_table(index="row", columns="metric", values="value", sort=False)
    return [
        bubbles.ModelPoint(name, m["flops_g"], m["params_m"], m["top1"], None, re.split(r"-|\d", name)[0], False)
        for name, m in models.iterrows()
    ]


def test_circles_have_areas_as_the_parameters_and_ours_are_filled():
    ours = bubbles.ModelPoint("xT, ours", 2.2, 15.3, 79.5, 0.2, "ATMNet", True)
    points = [*published_models(), ours]
    assert len(points) > 37
    largest = max(point.params_m for point in points)
    axes = bubbles.bubbles(points, "Top-1 (%)", highlight=["ATMNet"]).axes[0]
    circles = [circle for circle in axes.collections if len(circle.get_offsets())]
    for point in points:
        place, area = (point.flops_g, point.accuracy), bubbles.LARGEST**2 * point.params_m / largest
        (circle,) = (
            c for c in circles if tuple(c.get_offsets()[0]) == place and c.get_sizes()[0] == pytest.approx(area)
        )
        assert (tuple(circle.get_facecolor()[0]) == (1, 1, 1, 1)) is not point.ours
    labels = {text.get_text() for text in axes.texts}
    assert {"ATMNet-xT", "ATMNet-L", "xT, ours", "Swin", "ViP", "DeiT III"} <= labels and "Swin-T" not in labels


@pytest.mark.parametrize(
    ("params", "shown"),
    [([15, 27, 88], [10, 20, 50]), ([0.44, 0.68], [0.5]), ([7], [5]), ([1, 300], [50, 100, 200]), ([0.9, 1.1], [1])],
)
def test_sizes_of_the_legend_are_round_and_within_the_models(params, shown):
    assert bubbles._nice_sizes(params) == shown


def test_models_below_the_axis_are_left_out():
    models = published_models()
    axes = bubbles.bubbles(models, "Top-1 (%)", bottom=76).axes[0]
    assert axes.get_ylim()[0] == 76 and not {"ResNet18"} & {text.get_text() for text in axes.texts}
    drawn = [circle for circle in axes.collections if len(circle.get_offsets())]
    assert len(drawn) == len([model for model in models if model.accuracy >= 76]) == len(models) - 1


def overlapping(canvas):
    """Pairs of texts that overlap, ticks and titles included."""
    canvas.draw_without_rendering()
    texts = [*canvas.texts, *(text for legend in canvas.legends for text in legend.get_texts())]
    for axes in canvas.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title]
        legend = axes.get_legend()
        texts += [*legend.get_texts(), legend.get_title()] if legend else []
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [(text.get_text(), Box(*text.get_window_extent().extents)) for text in texts if text.get_text()]
    assert len(boxes) > 5
    return [(a, b) for i, (a, box) in enumerate(boxes) for b, before in boxes[:i] if box.overlaps(before)]


def test_no_two_texts_overlap(finished, tmp_path):
    plan, _, collected = finished
    other = built(collected, plan)
    same = of_papers_protocol(tmp_path)
    archived = archive.read(archive.folder("ablation_peg-tiny-50-classes"))
    peg = built(archived, archive.plan_of(archived))
    figure = specification.Figure("accuracy_flops", papers=True)
    circles = specification.Figure("accuracy_flops", circles=True)
    with style.theme():
        canvases = [forest.forest([forest.of_table(made) for made in (other, same, peg)])]
        canvases += [forest.draw([made], figure)[0] for made in (other, same, peg)]
        for made in (other, same, peg):
            canvases += [accuracy_flops.draw(made, kind)[0] for kind in (figure, circles)]
        canvases.append(bubbles.bubbles(published_models(), "Top-1 (%)", highlight=["ATMNet"]))
        canvases.append(bubbles.bubbles(published_models(), "Top-1 (%)", highlight=["ATMNet"], bottom=76))
        assert [overlapping(canvas) for canvas in canvases] == [[]] * len(canvases)


def test_examples_are_of_the_first_seed_and_all_three_arms(drawn, finished):
    shown = data(drawn["examples"])
    assert (
        set(shown["arm"]) == {"zero", "token", "axial"}
        and set(shown["seed"]) == {0}
        and set(shown["image"]) == {0, 1, 2, 3}
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
    made = build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)
    few = replace(made.spec, figures=tuple(f for f in made.spec.figures if f.kind in ("examples", "learning_curves")))
    return draw(replace(made, tables=(replace(made.first, spec=few),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "cannot be read"),
        ({"predictions": np.zeros((5, 3, 3), np.int8)}, "do not fit together"),
        ({"palette": np.zeros((2, 3), np.uint8)}, "no colour in the palette"),
        ({"images": np.zeros((5, 128, 128, 3), np.uint8)}, "are of other scenes"),
    ],
)
def test_examples_that_cannot_be_shown_are_named_and_the_rest_is_drawn(finished, tmp_path, changes, message):
    drawings, problems = broken_examples(finished, tmp_path / "runs", **changes)
    assert [drawing.name for drawing in drawings] == ["learning_curves"]
    assert len(problems) == 1 and problems[0].startswith("figure examples: ") and message in problems[0]


@pytest.mark.slow
def test_examples_of_a_probe_have_arrows_to_the_places_that_tokens_name(finished, tmp_path, monkeypatch):
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs")
    for path in (tmp_path / "runs").glob("*/examples.npz"):
        arrays = dict(np.load(path))
        asked = arrays["labels"] >= 0
        places = np.full((*asked.shape, 2, 2), -1, np.int8)
        places[asked] = np.stack([np.argwhere(asked)[:, 1:], [0, 1] + 0 * np.argwhere(asked)[:, 1:]], 1)
        parts = np.stack([arrays["palette"], arrays["palette"][::-1]], 1)
        np.savez(path, **{**arrays, "places": places, "palette": parts})
    drawn_arrows = []
    monkeypatch.setattr(Axes, "annotate", recorded(drawn_arrows, Axes.annotate))
    spec = specification_files.of_sweep("ablation_offsets")
    spec = replace(spec, figures=tuple(figure for figure in spec.figures if figure.kind == "examples"))
    (drawing,), problems = draw(build_table.build(spec, collect(plan, tmp_path / "runs"), plan))
    assert problems == [] and "Arrows" in drawing.caption
    shown = data(drawing)
    assert (shown["places"] == [f"{row},{column} 0,1" for row, column in zip(shown["row"], shown["column"])]).all()
    size, tokens = arrays["images"].shape[1], arrays["labels"].shape[1]
    centre = ((1.5) * size / tokens, 0.5 * size / tokens)
    assert drawn_arrows and drawn_arrows[1::2] == [centre] * (len(drawn_arrows) // 2)


def recorded(into, function):
    def annotate(*args, **kwargs):
        if kwargs.get("arrowprops"):
            into.append(tuple(map(float, kwargs["xy"])))
        return function(*args, **kwargs)

    return annotate


def test_the_optional_arm_may_be_missing_but_not_a_required_one(finished, tmp_path):
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs")
    (tmp_path / "runs" / run_id("token", 0) / "examples.npz").unlink()
    (tmp_path / "runs" / run_id("axial", 1) / "examples.npz").unlink()
    spec = specification_files.of_sweep("ablation_offsets")
    spec = replace(spec, figures=tuple(figure for figure in spec.figures if figure.kind == "examples"))
    collected = collect(plan, tmp_path / "runs")
    (drawing,), _ = draw(build_table.build(spec, collected, plan))
    shown = data(drawing)
    assert set(shown["arm"]) == {"zero", "axial"} and set(shown["seed"]) == {0}
    collected.examples = {run: path for run, path in collected.examples.items() if run != run_id("zero", 0)}
    (drawing,), _ = draw(build_table.build(spec, collected, plan))
    assert set(data(drawing)["seed"]) == {2}


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_end_labels_keep_apart_and_in_order(heights):
    placed = _spread(sorted(heights), 20, 0, 300)
    assert all(b - a >= 20 - 1e-6 for a, b in pairwise(placed))
    assert placed[0] >= -1e-6 and placed[-1] <= 300 + 1e-6


@given(st.floats(30, 250))
def test_a_lone_end_label_is_at_its_line(height):
    assert _spread([height], 20, 0, 300) == [height]


points = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.04))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(points, min_size=1, max_size=8))
def test_labels_beside_points_do_not_overlap(places):
    canvas = style.new_figure(5.4, 3.7)
    axes = canvas.subplots()
    axes.set_xlim(-0.2, 1.3)
    axes.set_ylim(-0.2, 1.2)
    canvas.draw_without_rendering()
    boxes = beside_points(axes, [LabelledPoint(x, y, y - d, y + d, "axial, 3 samples", "k") for x, y, d in places])
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
