"""``export=SWEEP|RUN to=csv|tensorboard``: what is logged is in the view, of interrupted runs too, and again the same."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run import main
from run_format import INTERRUPTED, METRICS, PROVENANCE
from sweeps.plan import load
from tests.atm.clients import client

ROWS = [{"step": step, "epoch": step // 2, "train/loss": 2.0 / step} for step in (1, 2, 3)]
EVALUATED = {"step": 3, "eval/token_accuracy": 41.5}


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two interrupted runs of sweep=reach, one of which was cut off in the midst of a line, and one that was planned."""
    plan = load("reach", "smoke", {}, [0], ["zero", "axial"])
    assert len(plan.distinct()) == 2
    for run in plan.distinct().values():
        folder = RunFolder(tmp_path / run.id)
        folder.freeze(run.config)
        folder.set_state(INTERRUPTED, step=3, steps=10)
        folder.write_json(
            PROVENANCE, {"commit": "abc", "created": "2026-01-02T03:04:05+00:00", "code_fingerprint": "c0"}
        )
        lines = "".join(json.dumps(row) + "\n" for row in [*ROWS, EVALUATED])
        (folder.path / METRICS).write_text(lines + '{"step": 4, "tr')
    return tmp_path


def export(runs: Path, *words: str) -> list[str]:
    return ["export=reach", "protocol=smoke", "seeds=[0]", "arms=[zero,axial]", f"runs_dir={runs}", *words]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_logged_number_and_setting_of_interrupted_runs(runs, capsys):
    assert main(export(runs, "to=csv", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    folder = runs / "exports" / "reach-smoke-csv"
    assert {Path(path) for path in document["written"]} == {folder, *(folder / name for name in contents(folder))}
    assert set(document["runs"].values()) == {INTERRUPTED}
    by_arm = {row["arm"]: row for row in rows(folder / "runs.csv")}
    assert by_arm.keys() == {"zero", "axial"}
    for row in by_arm.values():
        config = RunFolder(runs / row["run"]).config()
        assert float(row["config.train.lr"]) == config.train.lr and row["config.model.offsets"] == config.model.offsets
        assert (row["state"], row["commit"], row["code_fingerprint"], row["seed"]) == (INTERRUPTED, "abc", "c0", "0")
        logged = [each for each in rows(folder / "metrics.csv") if each["run"] == row["run"]]
        losses = [(int(each["step"]), float(each["value"])) for each in logged if each["metric"] == "train/loss"]
        assert losses == [(each["step"], each["train/loss"]) for each in ROWS]
        accuracy = [(each["step"], each["value"]) for each in logged if each["metric"] == "eval/token_accuracy"]
        assert accuracy == [("3", "41.5")]


def test_exported_again_it_is_the_same_or_has_what_was_logged_since(runs, tmp_path):
    folder = runs / "exports" / "reach-smoke-csv"
    assert main(export(runs, "to=csv")) == 0
    first = contents(folder)
    assert main(export(runs, "to=csv")) == 0
    assert contents(folder) == first
    assert not [path for path in folder.parent.iterdir() if path != folder]
    (run,) = [run for run in RunFolder.all_in(runs)][:1]
    (run.path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"step": 9, "train/loss": 0.5}]))
    assert main(export(runs, "to=csv")) == 0
    assert [row["step"] for row in rows(folder / "metrics.csv") if row["value"] == "0.5"] == ["9"]


def test_one_run_by_a_part_of_its_id_into_a_folder(runs, tmp_path):
    run, *_ = RunFolder.all_in(runs)
    into = tmp_path / "view"
    assert main([f"export={run.id[:-2]}", "to=csv", f"into={into}", f"runs_dir={runs}"]) == 0
    assert [row["run"] for row in rows(into / "runs.csv")] == [run.id]


def test_a_folder_of_something_else_is_refused_and_left_alone(runs, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    assert main(export(runs, "to=csv", f"into={mine}")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(mine) in said
    assert contents(mine) == {"thesis.txt": b"all of it"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["export=reach", "protocol=smoke", "to=csv"], "no run has begun"),
        (["export=reach", "protocol=smoke", "to=cvs"], "csv"),
        (["export=reach", "protocol=smoke"], "tensorboard"),
        pytest.param(["export=reach", "protocol=smoke", "to=hub", "into=x"], "one run", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(tmp_path, capsys, words, says):
    assert main([*words, f"runs_dir={tmp_path / 'none'}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and says in said


def test_without_tensorboard_the_package_is_named(runs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(export(runs, "to=tensorboard")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install tensorboard" in said
    assert not (runs / "exports").exists()


def test_tensorboard_reads_the_scalars_and_settings(runs):
    client("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = runs / "exports" / "reach-smoke-tensorboard"
    assert main(export(runs, "to=tensorboard")) == 0
    for run in RunFolder.all_in(runs):
        events = EventAccumulator(str(folder / run.id))
        events.Reload()
        losses = [(each.step, each.value) for each in events.Scalars("train/loss")]
        assert losses == [(row["step"], pytest.approx(row["train/loss"])) for row in ROWS]
        settings = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found = HParamsPluginData.FromString(settings).session_start_info.hparams
        assert found["model.offsets"].string_value == run.config().model.offsets
    first = contents(folder)
    again = [sys.executable, "run.py", *export(runs, "to=tensorboard")]
    subprocess.run(again, cwd=ROOT, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert contents(folder) == first


def test_diff_names_what_differs_and_nothing_else(runs, capsys):
    zero, axial = sorted(RunFolder.all_in(runs), key=lambda run: run.config().model.offsets != "zero")
    axial.write_json(PROVENANCE, {**axial.read_json(PROVENANCE), "commit": "def", "packages": {"torch": "9.9"}})
    (axial.path / METRICS).write_text(json.dumps({"step": 3, "train/loss": 0.25, "eval/token_accuracy": 41.5}) + "\n")
    words = [f"diff={zero.id},{axial.id}", f"runs_dir={runs}"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert found["settings"]["model.offsets"] == ["zero", axial.config().model.offsets]
    assert "train.lr" not in found["settings"] and "seed" not in found["settings"]
    assert found["code"] == {"commit": ["abc", "def"]}
    assert found["packages"]["packages.torch"] == [None, "9.9"]
    assert found["metrics"] == {"train/loss": [pytest.approx(2 / 3), 0.25]}
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "model.offsets" in out and "abc" in out and "def" in out and "train.lr" not in out
    assert main([f"diff={zero.id},{zero.id}", f"runs_dir={runs}"]) == 0
    assert "differ in nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["scenes", "a,b,c", "a,"])
def test_diff_of_anything_but_two_runs_is_refused(tmp_path, capsys, name):
    assert main([f"diff={name}", f"runs_dir={tmp_path}"]) == 2
    assert "diff=RUN,RUN" in capsys.readouterr().err
