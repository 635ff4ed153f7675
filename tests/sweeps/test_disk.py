"""What run folders take, and what ``prune=`` removes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from experiments.config import ROOT
from experiments.folder.parent import weights_of
from experiments.folder.run_folder import RunFolder
from results.measured_runs import MeasuredRun
from run_format import CODE, EXAMPLES, EXCLUSION, METRICS, RECORDS, SUMMARY, WEIGHTS
from sweeps import disk, repeat
from sweeps.plan import load
from tests.ended import end

WORDS = ["protocol=smoke", "seeds=[0]"]
KEPT = (WEIGHTS, METRICS, EXAMPLES, RECORDS)


@pytest.fixture
def plan():
    return load("resolution_384", "smoke", seeds=[0])


def fill(run, runs_dir, finished: bool, checkpoint_bytes: int = 3000) -> RunFolder:
    folder = RunFolder(runs_dir / run.id)
    folder.freeze(run.config)
    for step in (10, 20):
        (folder.checkpoints / f"step-{step:09d}-epoch-0001.pt").write_bytes(bytes(checkpoint_bytes))
        (folder.checkpoints / f"step-{step:09d}-epoch-0001.json").write_text("{}")
    if finished:
        for name in KEPT:
            (folder.path / name).write_bytes(b"content")
        end(folder)
    return folder


def copy_of_code(runs_dir, name, age=7200.0):
    path = runs_dir / "code" / name
    path.mkdir(parents=True)
    (path / "module.py").write_bytes(bytes(500))
    os.utime(path, (time.time() - age,) * 2)
    return path


def command(runs_dir, *words, code=0):
    done = subprocess.run(
        [sys.executable, "run.py", *words, f"runs_dir={runs_dir}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_sizes_of_run_folders_are_listed_with_their_states(plan, tmp_path):
    fill(plan.runs[0], tmp_path, finished=True)
    fill(plan.runs[1], tmp_path, finished=False, checkpoint_bytes=9000)
    copy_of_code(tmp_path, "aaaa")
    usage = json.loads(command(tmp_path, "list", "runs", "--json"))
    assert [(row["run"], row["state"]) for row in usage["runs"]] == [
        (plan.runs[1].id, "not run"),
        (plan.runs[0].id, "done"),
    ]
    assert [row["checkpoint_bytes"] for row in usage["runs"]] == [18004, 6004]
    assert all(row["other_bytes"] > 1000 for row in usage["runs"]) and usage["code_bytes"] == 500
    lines = command(tmp_path, "list", "runs").splitlines()
    assert len(lines) == 1 + 2 + 1 and "6 kB" in lines[2] and "24 kB of it checkpoints" in lines[-1]
    assert "takes runs_dir=PATH" in command(tmp_path, "list", "runs", "seed=1", code=2)
    assert "list runs" in command(tmp_path, "list", "run", code=2)


def test_a_folder_that_is_not_named_as_a_run_is_none(plan, tmp_path, monkeypatch):
    run = fill(plan.runs[0], tmp_path, finished=False)
    for name in ("lost+found", "copy of a run"):
        shutil.copytree(run.path, tmp_path / name)
    assert [folder.id for folder in RunFolder.all_in(tmp_path)] == [run.id]


def test_prune_removes_checkpoints_of_finished_runs_and_only_when_told_to(plan, tmp_path):
    done, going = (fill(run, tmp_path, finished=run is plan.runs[0]) for run in plan.runs)
    other = RunFolder(tmp_path / "another-run-of-another-sweep")
    fill_other = load("ablation_offsets", "smoke", {"train.lr": 1e-2}, [0], ["zero"]).runs[0]
    other = fill(fill_other, tmp_path, finished=True)
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    words = ["prune=resolution_384", *WORDS]
    assert f"would remove 4 checkpoint files of {done.id}" in command(tmp_path, *words)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files, "a dry run changes nothing"
    document = json.loads(command(tmp_path, *words, "--json"))
    assert (document["removed"], list(document["checkpoints"]), document["bytes"]) == (False, [done.id], 6004)
    assert "removed 4 checkpoint files" in command(tmp_path, *words, "--yes")
    removed = files - {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(removed) == 4 and all(path.parent == done.checkpoints for path in removed)
    assert weights_of(done.id, tmp_path) == done.path / WEIGHTS, "a child can start from it"
    assert done.finished() and all((done.path / name).is_file() for name in KEPT), "reports have what they read"
    assert len(list(going.checkpoints.iterdir())) == len(list(other.checkpoints.iterdir())) == 4
    assert disk.removable(plan, tmp_path).bytes == 0


def test_the_checkpoints_of_a_finished_run_without_weights_stay(plan, tmp_path):
    folder = fill(plan.runs[0], tmp_path, finished=True)
    (folder.path / WEIGHTS).unlink()
    assert disk.removable(plan, tmp_path).checkpoints == {}


def test_copies_of_the_code_go_when_no_run_names_them(plan, tmp_path):
    folder = fill(plan.runs[0], tmp_path, finished=True)
    used, unused = copy_of_code(tmp_path, "aaaa"), copy_of_code(tmp_path, "bbbb")
    just_taken = copy_of_code(tmp_path, "cccc", age=60.0)
    folder.write_json(CODE, {"copy": "aaaa"})
    removal = disk.removable(plan, tmp_path)
    assert removal.folders == [unused]
    removal.act()
    assert used.is_dir() and just_taken.is_dir() and not unused.exists()


def test_folders_that_were_set_aside_are_counted(plan, tmp_path):
    assert "set_aside" not in command(tmp_path, "list", "runs")
    for size in (3000, 2000):
        fill(plan.runs[0], tmp_path, finished=True)
        (repeat.set_aside(RunFolder(tmp_path / plan.runs[0].id)) / "more").write_bytes(bytes(size))
    usage = json.loads(command(tmp_path, "list", "runs", "--json"))
    files = [path for path in (tmp_path / "set_aside").rglob("*") if path.is_file()]
    assert (usage["set_aside"], usage["set_aside_bytes"]) == (2, sum(path.stat().st_size for path in files))
    assert usage["runs"] == [] and usage["set_aside_bytes"] > 5000 + 2 * 6000
    assert command(tmp_path, "list", "runs").splitlines()[-1].startswith("2 folders of earlier measurements in ")


@pytest.mark.parametrize(
    ("recorded", "done_again", "removed"),
    [("excluded", True, True), ("measured", True, True), ("measured", False, False), ("nowhere", True, False)],
)
def test_what_was_set_aside_goes_when_the_run_is_done_again_and_its_values_stay_on_record(
    plan, tmp_path, monkeypatch, recorded, done_again, removed
):
    run = plan.runs[0]
    measurement = MeasuredRun("m", "", "", "", frozenset({"2031-01-01"}))
    found = {run.id: [measurement]} if recorded == "measured" else {}
    monkeypatch.setattr("results.measured_runs.find", lambda runs: {key: found[key] for key in runs if key in found})
    first = fill(run, tmp_path, finished=True)
    end(first, finished="2031-01-01")
    if recorded == "excluded":
        first.write_json(EXCLUSION, {"because": "node 7"})
    other = fill(load("ablation_offsets", "smoke", seeds=[7], arms=["zero"]).runs[0], tmp_path, finished=True)
    aside = [repeat.set_aside(folder) for folder in (first, other)]
    again = fill(run, tmp_path, finished=done_again)
    (tmp_path / "set_aside" / "a file").touch()
    if done_again:
        end(again, finished="2032-02-02")
    removal = disk.removable(plan, tmp_path)
    assert removal.folders == aside[:1] * removed
    assert f"would remove {aside[0]}" in removal.lines(False) or not removed
    removal.act()
    assert aside[0].exists() != removed and aside[1].is_dir() and again.path.is_dir()


def test_what_was_set_aside_and_cannot_be_read_stays(plan, tmp_path):
    first = fill(plan.runs[0], tmp_path, finished=True)
    first.write_json(EXCLUSION, {"because": "node 7"})
    end(first, finished="2031-01-01")
    aside = repeat.set_aside(first)
    fill(plan.runs[0], tmp_path, finished=True)
    assert disk.removable(plan, tmp_path).folders == [aside]
    (aside / SUMMARY).write_text("{")
    assert disk.removable(plan, tmp_path).folders == []
