"""Pages of offset interventions show each arm's fall, and what stands in the way of comparing runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports import specification
from reports.content.text import text
from reports.offsets import gathered, interventions
from reports.offsets.measured import MeasuredError
from results.fingerprints import MixedFingerprints
from tests.reports.test_offset_figures import make, plan

TITLES = {"shuffled_tokens": "Shuffled across tokens", "zero": "Zero"}
METRIC = {"name": "top1", "label": "Top-1", "unit": "%", "decimals": 2}


def write(run: Path, own: float, code: str = "c0de", **falls: float) -> Path:
    """A run's file as ``measurements/offsets/effects.py`` leaves it, written without it. falls: by intervention."""
    effects = {
        name: {"title": TITLES[name], "metrics": {"top1": own - fall, "loss": 2.0},
               "differences": {"top1": -fall, "loss": 1.0}, "intervals": {"top1": [-fall - 1, -fall + 1]}}
        for name, fall in falls.items()
    }  # fmt: skip
    about = {
        "name": run.name, "key": {"layer": None}, "metric": METRIC, "images": 50, "dataset": "tiny_imagenet",
        "experiment": "tiny_imagenet", "layers": ["layer_1_1"], "undisturbed": {"top1": own, "loss": 1.0},
        "otherwise": {}, "impossible": {}, "interventions": effects,
        "trained": {"code_fingerprint": code, "data_fingerprint": "da7a"},
    }  # fmt: skip
    file = run / "offsets" / "interventions.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about))
    return file


def edit(file: Path, **changes: object) -> Path:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return file


def cells(section: object) -> list[list[str]]:
    return [[text(cell.value) for cell in row] for row in section.grid.rows]  # type: ignore[attr-defined]


def test_a_sweep_shows_the_mean_fall_of_each_arm_with_its_interval_over_seeds(tmp_path: Path) -> None:
    found: dict[str, Path | str] = {
        "axial-0": write(tmp_path / "axial-0", 60.0, shuffled_tokens=30.0, zero=40.0),
        "axial-1": write(tmp_path / "axial-1", 62.0, shuffled_tokens=34.0, zero=40.0),
        "token-0": write(tmp_path / "token-0", 50.0, shuffled_tokens=5.0),
        "token-1": "that run was not started yet",
        "zero-0": "this model predicts no offsets",
    }
    planned = plan(("zero", 0), ("axial", 0), ("axial", 1), ("token", 0), ("token", 1))
    section = interventions.of_sweep(planned, found)
    assert section.grid.header == ("Arm", "Top-1 (%), own offsets", *TITLES.values())
    # the t quantile of one degree of freedom is 12.706, the standard error sqrt(8) / sqrt(2)
    assert cells(section) == [
        ["axial *", "61.00 ± 12.71 (n = 2)", "−32.00 [−57.41, −6.59] (n = 2)", "−40.00 (n = 2, no interval)"],
        ["token *", "50.00 (1 of 2)", "−5.00 (n = 1, no interval)", "–"],
    ]
    row = next(r for r in section.records if (r["arm"], r["intervention"], r["metric"]) == ("axial", "zero", "top1"))
    assert (row["n"], row["own"], row["disturbed"], row["difference"]) == (2, 61.0, 21.0, -40.0)
    assert {r["metric"] for r in section.records} == {"top1", "loss"}
    assert [run.status for run in section.runs] == [
        "this model predicts no offsets", "measured", "measured", "measured", "that run was not started yet"
    ]  # fmt: skip
    assert "3 of 5 runs" in section.about and "50 images" in section.about
    _, files = interventions.compare(planned, found, tmp_path / "out")
    assert "−32.00 [−57.41, −6.59] (n = 2)" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "table.csv") in files


def test_runs_that_cannot_be_averaged_are_refused(tmp_path: Path) -> None:
    planned = plan(("axial", 0), ("axial", 1))
    found: dict[str, Path | str] = {
        "axial-0": write(tmp_path / "axial-0", 60.0, zero=30.0),
        "axial-1": write(tmp_path / "axial-1", 62.0, code="else", zero=34.0),
    }
    with pytest.raises(MixedFingerprints, match="different code would be averaged"):
        interventions.of_sweep(planned, found)
    mixed = interventions.of_sweep(planned, found, mixed=True)
    assert "different code are averaged" in mixed.cautions[0]
    edit(write(tmp_path / "axial-1", 62.0, zero=34.0), metric=METRIC | {"label": "Top one"})
    with pytest.raises(MeasuredError, match="several metrics"):
        interventions.of_sweep(planned, found)
    with pytest.raises(MeasuredError, match="no run of ablation_offsets, protocol smoke, has offsets: none yet"):
        interventions.of_sweep(plan(("axial", 0)), {"axial-0": "none yet"})


def test_doubts_about_a_run_are_stated(tmp_path: Path) -> None:
    file = edit(
        write(tmp_path / "axial-0", 60.0, zero=30.0),
        otherwise={"top1": 60.5}, impossible={"shuffled_images": "Shuffled across images: maps differ"},
    )  # fmt: skip
    for section in (
        interventions.of_run(interventions.read(file)),
        interventions.of_sweep(plan(("axial", 0)), {"axial-0": file}),
    ):
        assert section.cautions == (
            "axial-0: Shuffled across images: maps differ.",
            "axial-0, with its own offsets: top1 is 60.0 here, but 60.5 in its summary.",
        )
        assert any("No network saw such offsets in training" in line for line in section.legend)


def test_a_run_shows_intervals_over_images(tmp_path: Path) -> None:
    file = write(tmp_path / "axial-0", 60.0, zero=30.0, shuffled_tokens=0.0)
    about = json.loads(file.read_text())
    about["interventions"]["shuffled_tokens"]["intervals"] = {}
    edit(file, interventions=about["interventions"])
    assert cells(interventions.of_run(interventions.read(file))) == [
        ["Own offsets", "60.00", "–"],
        ["Zero", "30.00", "−30.00 [−31.00, −29.00]"],
        ["Shuffled across tokens", "60.00", "0.00"],
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interventions": []}, "it has a wrong interventions"),
        ({"interventions": {"zero": {"title": "Zero"}}}, "zero has no metrics"),
        ({"undisturbed": {"loss": 1.0}}, "it does not have top1 throughout"),
        ({"metric": {"name": "top1"}}, "metric has no label"),
        ({"trained": {}}, "trained has no code_fingerprint"),
    ],
)
def test_an_edited_file_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    file = edit(write(tmp_path / "axial-0", 60.0, zero=30.0), **changes)
    with pytest.raises(MeasuredError, match=rf"interventions\.json cannot be read \({message}\); --fresh measures"):
        interventions.read(file)
    file.write_text("{")
    with pytest.raises(MeasuredError, match=r"interventions\.json cannot be read"):
        interventions.read(file)


def test_they_are_gathered_beside_the_offsets_of_a_sweep(tmp_path: Path) -> None:
    spec, planned = specification.load("learned_offsets"), plan(("axial", 0), ("axial", 1), ("axial", 2))
    sweeps = {"ablation_offsets-smoke": (planned, tmp_path)}
    write(tmp_path / "axial-0", 60.0, zero=30.0)
    file = write(tmp_path / "axial-1", 62.0, zero=34.0)
    edit(file, name="axial-7")
    (alone,) = gathered.sections(spec, sweeps, mixed=False, figures=False)
    assert alone.name == "learned_offsets-ablation_offsets-smoke-interventions"
    assert [run.status for run in alone.runs] == ["measured", "measured of another run, axial-7", "not measured"]
    assert cells(alone)[0][1:] == ["60.00 (1 of 3)", "−30.00 (n = 1, no interval)"]
    make(tmp_path / "axial-2" / "offsets", layers=4, name="axial-2")
    both = list(gathered.sections(spec, sweeps, mixed=False, figures=False))
    assert [section.name for section in both] == [alone.name.removesuffix("-interventions"), alone.name]
    edit(file, name="axial-1", trained={"code_fingerprint": "else", "data_fingerprint": "da7a"})
    *_, refused = gathered.sections(spec, sweeps, mixed=False, figures=False)
    assert refused.grid is None and "different code would be averaged" in refused.cautions[0]
