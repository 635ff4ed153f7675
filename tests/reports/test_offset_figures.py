"""Pages of learned offsets show the measurements, without overlapping labels, and never load torch."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reports import specification_files
from reports.figures import style
from reports.offsets import comparison, depth, gathered, histograms, overlays, page
from reports.offsets.measured import read
from results.fingerprints import MixedFingerprints
from results.run_folders.measurement_file import MeasuredError

ROOT = Path(__file__).resolve().parents[2]
LAYERS = (
    "layer_1_1",
    "layer_2_1",
    "layer_2_7",
    "layer_3_1",
    "layer_3_7",
    "layer_3_13",
    "layer_3_19",
    "layer_3_25",
    "layer_4_1",
)
ROWS, COLUMNS = (32, 16, 16, 8, 8, 8, 8, 8, 4), (48, 24, 24, 12, 12, 12, 12, 12, 6)


def make(
    folder: Path, offsets: str = "axial", scale: float = 1.0, layers: int = 9, code: str = "c0de", name: str = "byhand"
) -> Path:
    """Files as ``measurements/offsets/measure.py`` leaves them, written without it: B's nine layers on maps wider than high.

    The centre token of the last layer reads at +1 with 30 channels, beyond the map with 10, vertically at 0 with 40.
    """
    folder.mkdir(parents=True)
    strides = [2 ** (int(name.split("_")[1]) + 1) for name in LAYERS]
    described = [
        {"layer": name, "map": [rows, columns], "stride": stride}
        for name, rows, columns, stride in zip(LAYERS, ROWS, COLUMNS, strides)
    ][:layers]
    about = {"name": name, "images": 4, "image_size": [128, 192], "dataset": "scenes", "split": "evaluation scenes",
             "data_fingerprint": "d" * 16, "experiment": "scenes", "model": "b", "offsets": offsets, "layers": described,
             "overlay_layer": "layer_3_1", "weights": "w.pth", "weights_sha256": "a" * 64, "code_fingerprint": "c" * 16, "trained": {"code_fingerprint": code, "data_fingerprint": "da7a"}}  # fmt: skip
    statistics, bins = [], []
    for number, layer in enumerate(described):
        for direction, size in (("horizontal", layer["map"][1]), ("vertical", layer["map"][0])):
            for scope in ("all", "centre"):
                mean = scale * (number + 1) / 10
                statistics.append(
                    {
                        "layer": layer["layer"],
                        "channels": 64,
                        "sharing": 4,
                        "samples": 1,
                        "stride": layer["stride"],
                        "direction": direction,
                        "scope": scope,
                        "extent": size,
                        "reads": 100,
                        "mean": 0.0,
                        "mean_abs": mean,
                        "mean_abs_px": mean * layer["stride"],
                        "mean_abs_share": 100 * mean / size,
                        "spread": mean,
                        "variation": 0.1,
                        "outside": 12.5 * scale,
                        "nothing": 0.0,
                        "min": -1.5,
                        "max": 1.5,
                    }
                )
            low, high = -(size // 2), size - 1 - size // 2
            edges = np.arange(low, high + 0.25, 0.25)
            held = {1.0: 30} if direction == "horizontal" else {0.0: 40}
            bins.append({"layer": layer["layer"], "direction": direction, "left": -np.inf, "right": low, "reads": 0})
            bins += [
                {
                    "layer": layer["layer"],
                    "direction": direction,
                    "left": left,
                    "right": right,
                    "reads": held.get(left, 0),
                }
                for left, right in itertools.pairwise(edges)
            ]
            beyond = 10 if direction == "horizontal" else 0
            bins.append(
                {"layer": layer["layer"], "direction": direction, "left": high, "right": np.inf, "reads": beyond}
            )
    pd.DataFrame(statistics).to_csv(folder / "statistics.csv", index=False)
    pd.DataFrame(bins).to_csv(folder / "histograms.csv", index=False)
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 192, 3), dtype=np.uint8)
    # 8 × 12 tokens; the second query is the last token
    horizontal = np.array([[[0.0, -0.4, -0.6, 0.6], [0.0, 0.01, 1.0, -11.0]]] * 2, dtype=np.float32)
    vertical = np.array([[[2.0, 2.0, 2.0, -9.0], [0.0, 0.0, -7.0, -8.0]]] * 2, dtype=np.float32)
    np.savez(folder / "overlays.npz", images=images, indices=[0, 3], map=[8, 12], queries=[[4, 6], [7, 11]],
             horizontal=horizontal, vertical=vertical)  # fmt: skip
    write_about(folder, about)
    return folder


def write_about(folder: Path, about: dict) -> None:
    """With the hashes of the files as they are."""
    files = ("statistics.csv", "histograms.csv", "overlays.npz")
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    (folder / "about.json").write_text(json.dumps({**about, "files": hashes}))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return read(make(tmp_path_factory.mktemp("offsets") / "axial"))


def plan(*runs: tuple[str, int]) -> dict:
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    return {
        "sweep": "ablation_offsets", "protocol": "smoke", "arms": [{"name": arm, "label": f"{arm} *"} for arm in arms],
        "runs": [{"arm": arm, "seed": seed, "run": f"{arm}-{seed}", "parent": None} for arm, seed in runs],
    }  # fmt: skip


def tables(text: str) -> list[list[str]]:
    return [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.mark.slow
def test_the_page_is_whole_made_without_torch_and_the_same_when_made_again(tmp_path):
    folder = make(tmp_path / "axial", layers=4)
    code = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from reports.offsets import page, terminal
measured, files = page.write(Path({str(folder)!r}))
terminal.to_json(measured, files); terminal.show(measured)
assert "matplotlib" in sys.modules
assert not {{"torch", "timm", "atm", "experiments", "sweeps"}} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # pytest sets it
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "layer_3_1" in done.stdout and "layer_3_7" not in done.stdout
    text = (folder / "report.md").read_text()
    assert text.startswith("# Learned offsets of byhand\n\natmnet_b, offsets axial")
    shown = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert shown == ["offset_histograms.png", "sampled_positions.png", "offsets_by_depth.png"]
    (table,) = tables(text)
    assert len(table) == 2 + 4 * 2 * 2
    assert {len(cells(line)) for line in table} == {11}
    assert cells(table[2]) == [
        "layer\\_1\\_1", "horizontal", "all", "0.10", "0.4", "0.2", "0.10", "0.10", "12.5", "0.0", "−1.5 … 1.5"
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in folder.iterdir()}
    _, files = page.write(folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    page_files = {"report.md", "report.html", "macros.tex", "table.tex", "table_alone.tex", "table.csv"}
    assert {path.name for path in files} == page_files | {
        Path(name).with_suffix(suffix).name for name in shown for suffix in (".png", ".pdf", ".csv")
    }


def test_histograms_are_drawn_over_the_range_that_the_centre_can_reach(measured):
    with style.theme():
        canvas, data, _, caption = histograms.draw(measured)
    panels = [axes for axes in canvas.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == list(LAYERS)
    assert panels[0].get_xlim() == (-24, 23) and panels[-1].get_xlim() == (-3, 2), "the wider of the two directions"
    for axes, rows, columns in zip(panels, ROWS, COLUMNS):
        assert axes.texts[0].get_text().endswith("outside 25.0 %, 0.0 %")
        assert axes.texts[0].get_text().startswith(f"{rows} × {columns} tokens of")
        horizontal, vertical = axes.patches
        values, edges, _ = horizontal.get_data()
        # 75 % of the reads in one bin
        assert (values.max(), edges[values.argmax()]) == (75, 1.0)
        values, edges, _ = vertical.get_data()
        assert (values.max(), edges[values.argmax()]) == (100, 0.0)
        assert horizontal.get_fill() and not vertical.get_fill(), "distinguishable without colour"
    assert data.groupby(["layer", "direction"])["share"].sum().round(6).eq(100).all()
    assert "4 images" in caption


def test_circles_stand_on_the_tokens_that_are_read(measured):
    with style.theme():
        canvas, data, _, caption = overlays.draw(measured)
    first = data[(data["image"] == 3) & (data["query"] == 0)]
    reads = {(r.direction, r.row, r.column, r.inside): r.reads for r in first.itertuples()}
    # each offset is read by 4 channels; -0.4 rounds to the own column of the query, -0.6 to the one before
    assert reads == {
        ("horizontal", 4, 6, True): 8, ("horizontal", 4, 5, True): 4, ("horizontal", 4, 7, True): 4,
        ("vertical", 6, 6, True): 12, ("vertical", -5, 6, False): 4,
    }  # fmt: skip
    last = data[(data["image"] == 0) & (data["query"] == 1)]
    assert {(r.direction, r.row, r.column, r.inside): r.reads for r in last.itertuples()} == {
        ("horizontal", 7, 11, True): 4, ("horizontal", 7, 11, False): 4, ("horizontal", 7, 12, False): 4,
        ("horizontal", 7, 0, True): 4,
        ("vertical", 7, 11, True): 8, ("vertical", 0, 11, True): 4, ("vertical", -1, 11, False): 4,
    }  # fmt: skip
    axes = canvas.axes[0]
    circles = {
        (round(line.get_xdata()[0]), round(line.get_ydata()[0])): line
        for line in axes.lines
        if line.get_marker() == "o"
    }
    assert set(circles) == {(104, 72), (88, 72), (120, 72), (104, 104)}, "tokens of 16 px, column then row"
    opacity = {place: line.get_markerfacecolor()[1] for place, line in circles.items()}
    assert opacity[104, 104] == 1.0 and opacity[104, 72] > opacity[88, 72] > overlays.FAINTEST
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (104, 72)
    assert [axes.get_xlabel() for axes in canvas.axes[:2]] == ["outside: → 0 %, ↓ 25 %", "outside: → 50 %, ↓ 25 %"]
    assert "layer_3_1" in caption and "Images 0, 3" in caption and "tokens of 16 px" in caption


def test_joint_offsets_are_points_of_the_plane(tmp_path):
    with style.theme():
        canvas, data, _, caption = overlays.draw(read(make(tmp_path / "joint", offsets="joint")))
    first = data[(data["image"] == 0) & (data["query"] == 0)]
    assert {(r.direction, r.row, r.column, r.inside): r.reads for r in first.itertuples()} == {
        ("joint", 6, 6, True): 8, ("joint", 6, 5, True): 4, ("joint", -5, 7, False): 4,
    }  # fmt: skip
    assert canvas.axes[0].get_xlabel() == "outside: 25 %"
    assert "orange" not in caption


def test_arms_are_compared_by_means_over_their_seeds(tmp_path):
    folders = {f"axial-{seed}": make(tmp_path / f"axial-{seed}", scale=scale) for seed, scale in ((0, 1.0), (1, 2.0))}
    folders["token-0"] = make(tmp_path / "token-0", offsets="token", layers=4)
    folders |= {
        "token-1": "that run was not started yet",
        "zero-0": "predicts no offsets",
        "zero-1": "predicts no offsets",
    }
    planned = plan(("zero", 0), ("axial", 0), ("token", 0), ("zero", 1), ("axial", 1), ("token", 1))
    summary, _ = page.compare(planned, folders, tmp_path / "out")
    assert list(dict.fromkeys(summary["arm"])) == ["axial", "token"]
    chosen = summary[
        (summary["layer"] == "layer_3_1") & (summary["direction"] == "vertical") & (summary["scope"] == "all")
    ]
    rows = chosen.set_index("arm")
    assert rows.loc["axial", ["n", "mean_abs_mean", "mean_abs_low", "mean_abs_high"]].tolist() == [2, 0.6, 0.4, 0.8]
    assert rows.loc["token", ["n", "mean_abs_mean", "mean_abs_low", "mean_abs_high"]].tolist() == [1, 0.4, 0.4, 0.4]
    text = (tmp_path / "out" / "report.md").read_text()
    compared, runs = tables(text)
    assert len(compared) == 2 + 2 * (9 + 4) and {len(cells(line)) for line in compared} == {10}
    assert "| axial \\* | layer\\_3\\_1 | vertical | 2 | 0.60 [0.40, 0.80] |" in text
    assert "| token \\* | layer\\_3\\_1 | vertical | 1 | 0.40 |" in text
    assert [cells(line)[3] for line in runs[2:]] == [
        "predicts no offsets", "measured", "measured", "predicts no offsets", "measured", "that run was not started yet"
    ]  # fmt: skip
    saved = pd.read_csv(io.BytesIO((tmp_path / "out" / "offsets_by_arm.csv").read_bytes()))
    pd.testing.assert_frame_equal(saved, summary, check_dtype=False)
    assert "3 of 6 runs, 4 images each of scenes" in text
    with pytest.raises(MeasuredError, match="no run of ablation_offsets, protocol smoke, has offsets: predicts no"):
        page.compare(plan(("zero", 0)), {"zero-0": "predicts no offsets"}, tmp_path / "none")


def test_downstream_runs_are_not_averaged_with_those_they_start_from(tmp_path):
    planned = plan(("axial", 0), ("axial", 0))
    planned["tasks"] = [{"name": "classification"}, {"name": "detection"}]
    for entry, task in zip(planned["runs"], planned["tasks"]):
        entry |= {"task": task["name"], "run": task["name"]}
    folders = {"classification": make(tmp_path / "a"), "detection": make(tmp_path / "b", scale=2.0)}
    summary, section = page.of_sweep(planned, folders)
    assert set(summary["n"]) == {1} and [run.id for run in section.runs] == ["classification"]


def test_runs_of_different_code_are_averaged_only_with_mixed(tmp_path):
    folders = {
        f"axial-{seed}": make(tmp_path / str(seed), layers=4, code=code) for seed, code in ((0, "c0de"), (1, "else"))
    }
    planned = plan(("axial", 0), ("axial", 1))
    with pytest.raises(MixedFingerprints, match="different code would be averaged"):
        page.compare(planned, folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    page.compare(planned, folders, tmp_path / "out", mixed=True)
    assert "**Runs of different code are averaged here" in (tmp_path / "out" / "report.md").read_text()


def test_no_label_stands_on_another(measured, tmp_path):
    arms = ("axial", "token", "joint", "axial_x3")
    folders = {f"{arm}-0": make(tmp_path / arm) for arm in arms}
    planned = plan(*((arm, 0) for arm in arms))
    summary = comparison.over_seeds(planned, {run: read(folder) for run, folder in folders.items()})
    with style.theme():
        drawn = [module.draw(measured)[0] for module in (histograms, overlays, depth)]
        drawn.append(comparison.draw(planned, summary)[0])
        for canvas in drawn:
            canvas.draw_without_rendering()
            boxes = visible_texts(canvas)
            assert len(boxes) >= 4
            for number, (text, box) in enumerate(boxes):
                for other, second in boxes[number + 1 :]:
                    assert not box.shrunk(0.98, 0.9).overlaps(second.shrunk(0.98, 0.9)), (text, other)


def visible_texts(canvas) -> list:
    """All texts with their boxes as drawn; axes keep hidden tick labels beyond their limits, which are left out."""
    texts = [*canvas.texts, *(text for legend in canvas.legends for text in legend.get_texts())]
    for axes in canvas.axes:
        if axes.axison:
            texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
            texts += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_visible() and t.get_text().strip()]


def test_damaged_files_are_named(tmp_path):
    folder = make(tmp_path / "axial")
    (folder / "overlays.npz").write_bytes(b"torn")
    with pytest.raises(MeasuredError, match=r"overlays\.npz cannot be read .*--fresh measures again"):
        read(folder)
    (folder / "statistics.csv").unlink()
    with pytest.raises(MeasuredError, match=r"statistics\.csv cannot be read"):
        read(folder)


ABOUTS = {  # an edit of about.json, the message about it
    "nothing": (lambda about: {}, "it has no name"),
    "a list": (lambda about: [about], "it is not a mapping"),
    "without hashes": (lambda about: {k: v for k, v in about.items() if k != "files"}, "it has no files"),
    "hashes as a list": (lambda about: {**about, "files": list(about["files"])}, "it has a wrong files"),
    "no hash of one file": (lambda about: {**about, "files": {}}, "files has no statistics.csv"),
    "trained as a list": (lambda about: {**about, "trained": ["c0de"]}, "it has a wrong trained"),
    "nothing of its training": (lambda about: {**about, "trained": {}}, "trained has no code_fingerprint"),
    "layers as names": (lambda about: {**about, "layers": ["layer_3_1"]}, "layer 1 is not a mapping"),
    "a size of one side": (lambda about: {**about, "image_size": [128]}, r"\[128\] is not a size"),
    "a layer that is none": (
        lambda about: {**about, "overlay_layer": "layer_9_1"},
        "its overlay_layer layer_9_1 is not among",
    ),
}


@pytest.mark.parametrize("case", ABOUTS)
def test_an_edited_about_is_named(tmp_path, case):
    folder = make(tmp_path / "axial", layers=4)
    edit, message = ABOUTS[case]
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps(edit(about)))
    with pytest.raises(MeasuredError, match=rf"about\.json cannot be read \({message}.*\); --fresh measures again"):
        read(folder)


@pytest.mark.parametrize("name", ["statistics.csv", "histograms.csv", "overlays.npz"])
def test_files_that_were_not_measured_together_are_not_believed(tmp_path, name):
    folder, other = make(tmp_path / "axial", layers=4), make(tmp_path / "other", layers=4, scale=2.0)
    content = (other / name).read_bytes()
    (folder / name).write_bytes(content.replace(b"0.1", b"0.2") if name != "overlays.npz" else content + b" ")
    if name == "histograms.csv":
        (folder / name).write_bytes(content.replace(b",30", b",31"))
    with pytest.raises(MeasuredError, match=rf"{name} cannot be read \(its SHA-256 is not the one in about\.json\)"):
        read(folder)


def test_half_an_archive_is_named_even_where_its_hash_is_right(tmp_path):
    folder = make(tmp_path / "axial", layers=4)
    path = folder / "overlays.npz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_about(folder, json.loads((folder / "about.json").read_text()))
    with pytest.raises(MeasuredError, match=r"overlays\.npz cannot be read .*--fresh measures again"):
        read(folder)


def test_measurements_of_another_run_are_not_shown(tmp_path):
    spec = specification_files.load("learned_offsets")
    planned = plan(("axial", 0), ("axial", 1), ("axial", 2))
    for run, name in (("axial-0", "axial-0"), ("axial-1", "axial-0"), ("axial-2", "axial-2")):
        make(tmp_path / run / "offsets", layers=4, name=name)
    trained = {"code_fingerprint": "c0de", "data_fingerprint": "da7a"}
    (tmp_path / "axial-0" / "provenance.json").write_text(json.dumps(trained))
    (tmp_path / "axial-2" / "provenance.json").write_text(json.dumps({**trained, "code_fingerprint": "0dd"}))
    (section,) = gathered.sections(
        spec, {"ablation_offsets-smoke": (planned, tmp_path)}, {}, mixed=False, figures=False
    )
    assert [run.status for run in section.runs] == [
        "measured", "measured of another run, axial-0",
        "measured of another run: this run was trained with other code or data; --fresh measures again",
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "axial-0")
    (nothing,) = gathered.sections(
        spec, {"ablation_offsets-smoke": (planned, tmp_path)}, {}, mixed=False, figures=False
    )
    assert "Nothing has been measured yet" in nothing.about
    assert nothing.cautions[0] == "axial-1: measured of another run, axial-0" and len(nothing.cautions) == 2


@pytest.mark.slow
def test_measurements_of_sweeps_are_collected_and_missing_ones_are_named(tmp_path):
    spec = specification_files.load("learned_offsets")
    planned = plan(("zero", 0), ("axial", 0), ("axial", 1))
    sweeps = {"ablation_offsets-smoke": (planned, tmp_path / "runs"), "variants-paper": (planned, tmp_path / "none")}
    (nothing,) = gathered.sections(spec, sweeps, {}, mixed=False, figures=True)
    assert nothing.grid is None and "Nothing has been measured yet; `python run.py offsets=variants`" in nothing.about
    make(tmp_path / "runs" / "axial-0" / "offsets", layers=4, name="axial-0")
    make(tmp_path / "runs" / "axial-1" / "offsets", layers=4, name="axial-1")
    (tmp_path / "runs" / "axial-1" / "offsets" / "statistics.csv").unlink()
    (section,) = gathered.sections(spec, sweeps, {}, mixed=False, figures=True)
    assert section.name == "learned_offsets-ablation_offsets-smoke"
    assert [drawing.name for drawing in section.drawings] == [
        "offsets_by_arm", "axial_offset_histograms", "axial_sampled_positions"
    ]  # fmt: skip
    assert [drawing.title for drawing in section.drawings][1].endswith(": axial *")
    states = [run.status for run in section.runs]
    assert states[:2] == ["not measured", "measured"] and "statistics.csv cannot be read" in states[2]
    assert [source.path.name for source in section.runs[1].sources] == ["statistics.csv", "histograms.csv"]
    assert len(section.grid.rows) == 4 * 2
