"""Sweeps: plans from files, and real launches whose runs fail, are killed, stopped and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

import run as command_line
from errors import ConfigError
from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run_format import DONE, FAILED, INTERRUPTED, NOT_RUN, PROVENANCE, REFUSED
from sweeps import launcher, launches, local, run_code
from sweeps.collection_file import is_collection
from sweeps.plan import load, read_sweep, sweep_names
from sweeps.status import describe, state_of
from sweeps.sweep_file import arms_with
from tests.ended import end

TINY = {
    "data.image_size": [64, 64],
    "data.train_images": 16,
    "data.eval_images": 2,
    "train.batch_size": 8,
    "train.epochs": 1,
    "train.warmup_epochs": 0,
    "machine.threads": 1,
}
WORDS = [f"{key}={json.dumps(value)}" for key, value in TINY.items()]


def tiny_words(*words: str, defaults: Sequence[str] = ()) -> list[str]:
    """``words``, and those of ``defaults`` and TINY whose keys are not among them."""
    given = {word.partition("=")[0] for word in words}
    return [*words, *(word for word in (*defaults, *WORDS) if word.partition("=")[0] not in given)]


SWEEPS = [name for name in sweep_names() if not is_collection(name)]
PLANNED_WITHOUT_DATA = [(n, p) for n in SWEEPS for p in read_sweep(n)["recipes"] if p != "tiny"]


@pytest.mark.parametrize(("name", "protocol"), PLANNED_WITHOUT_DATA)
def test_every_sweep_plans_every_arm_and_seed(name, protocol):
    plan = load(name, protocol)
    sweep = read_sweep(name)
    assert [task.name for task in plan.tasks[1:]] == [t for t, own in sweep["downstream"].items() if protocol in own]
    own, tasks = plan.tasks[0].name, [task.name for task in plan.tasks]
    chosen = {arm: sweep["arms"][arm].get("tasks", tasks) for arm in arms_with(protocol, sweep)}
    number = sum(task == own or task in of_arm for of_arm in chosen.values() for task in tasks)
    assert len(plan.runs) == number * len(sweep["seeds"]) and list(plan.labels) == list(chosen)
    shared = len(plan.runs) - len(plan.distinct())
    if (name, protocol) != ("mixers", "smoke"):  # deform costs nano what axial costs, so it is matched as it is
        assert (shared > 0) == (name == "necks"), "arms that differ in downstream tasks alone share their own runs"
    assert {run.config.protocol for run in plan.runs} == {protocol}
    assert [run.seed for run in plan.runs] == sorted(run.seed for run in plan.runs), "seed by seed"
    assert plan.runs[0].arm in plan.labels and plan.baseline in plan.labels


def test_changes_of_a_protocol_on_the_command_line_are_part_of_the_plan():
    given = {"train.epochs": 1, "model": "t", "model.peg": False, "data.root": "/x", "machine.threads": 1}
    planned = load("ablation_offsets", "paper", given, arms=["zero", "axial"])
    assert planned.as_dict()["changed"] == {"train.epochs": 1, "model.peg": False}
    assert load("ablation_offsets", "paper").as_dict()["changed"] == {}


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_is_a_record(name):
    header = [line for line in (ROOT / "sweeps" / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    for part in ("Reproduces:", "Question:", "Expected:", "Cost:", "Run:"):
        assert sum(line.startswith(f"# {part}") for line in header) == 1


def test_arms_of_different_sweeps_with_one_config_are_one_run():
    settings = {"model": "t"}
    offsets = {run.arm: run.id for run in load("ablation_offsets", "smoke", {"model": "t"}, [0]).runs}
    peg = {run.arm: run.id for run in load("ablation_peg", "smoke", settings, [0], tasks=[]).runs}
    assert offsets["axial"] == peg["k2_peg"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"name": "ablation_offset"}, "ablation_offsets"),
        ({"protocol": "smok"}, "smoke"),
        ({"arms": ["axail"]}, "axial"),
        ({"overrides": {"train.epoch": 2}}, "train.epochs"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(given, names):
    with pytest.raises(ConfigError, match=f"did you mean '{names}'"):
        load(**({"name": "ablation_offsets", "protocol": "smoke"} | given))


def test_a_retry_and_a_look_at_some_arms_need_no_baseline(tmp_path, capsys):
    words = ["protocol=smoke", "seeds=[0]", "arms=[axial]", f"runs_dir={tmp_path}"]
    for command in (
        ["sweep=ablation_offsets", "--retry-failed", "--dry-run"], ["status=ablation_offsets"], ["cancel=ablation_offsets"]
    ):  # fmt: skip
        assert command_line.main([command[0], *words, *command[1:]]) == 0, capsys.readouterr().err
    for command in ("sweep=ablation_offsets", "report=ablation_offsets", "collect=ablation_offsets"):
        assert command_line.main([command, *words, *(["into=x"] if "collect" in command else [])]) == 2
        assert "differences are taken to 'zero', so it must be among them" in capsys.readouterr().err


def test_a_launch_says_when_finished_runs_are_of_other_code(tmp_path, monkeypatch, capsys):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial", "token"])
    zero, axial, token = plan.distinct().values()
    for run, code in ((zero, "other"), (axial, "of the copy")):
        folder = RunFolder(tmp_path / run.id)
        folder.freeze(run.config)
        folder.write_json(PROVENANCE, {"code_fingerprint": code, "commit": "0123456789abcdef"})
        end(folder)
    monkeypatch.setattr("sweeps.run_code.run_fingerprint", lambda config, copy: "of the copy")
    said: list[str] = []
    local.prepare(plan, tmp_path, say=said.append)
    (line,) = [line for line in said if "of other code" in line]
    assert f"1 finished run is of other code, e.g. {zero.id}" in line and "--at 0123456789ab takes" in line
    assert "runs_dir=PATH" in line and "--fresh" in line
    RunFolder(tmp_path / zero.id).write_json(PROVENANCE, {"code_fingerprint": "of the copy"})
    choice = run_code.choose(plan, [token], tmp_path)
    assert not list(choice.about_done(tmp_path, [zero, axial]))


def test_a_launch_without_the_baseline_names_the_report_of_all_arms(tmp_path, capsys):
    words = ["protocol=smoke", "arms=[axial]"]
    for compared, said in ((False, "report=ablation_offsets protocol=smoke\n"), (True, "'arms=[axial]'\n")):
        launch = launches.Launch(tmp_path, "ablation_offsets", 1, None, [], words=words, compared=compared)
        launcher.report_outcome(launcher.Outcome(), launch)
        assert capsys.readouterr().out.endswith(said)


def test_arms_without_the_baseline_are_refused():
    with pytest.raises(ConfigError, match="differences are taken to 'zero'"):
        load("ablation_offsets", "smoke", arms=["token", "axial"])


@pytest.mark.slow
def test_a_failing_run_affects_no_other_and_only_missing_runs_are_run_again(tmp_path, capsys):
    overrides = TINY | {"data.bad_image_tolerance": 0.5}
    plan = load("ablation_offsets", "smoke", overrides, [0], arms=["zero", "token", "axial"])
    runs = {run.arm: RunFolder(tmp_path / run.id) for run in plan.runs}
    runs["token"].freeze(plan.runs[1].config)
    (runs["token"].path / "metrics.jsonl").mkdir()  # a run that cannot write its log
    outcome = local.launch(plan, tmp_path, jobs=2)
    assert sorted(outcome.done) == sorted([runs["zero"].id, runs["axial"].id])
    assert list(outcome.failed) == [runs["token"].id]
    assert outcome.exit_code == 1
    status = {row.arm: row for row in describe(plan, tmp_path)}
    assert (status["zero"].state, status["token"].state) == (DONE, FAILED)
    assert "log.txt" in status["token"].detail

    finished = (runs["axial"].path / "summary.json").stat().st_mtime_ns
    again = local.launch(plan, tmp_path, jobs=2)
    assert again.skipped_failed == [runs["token"].id]
    assert (runs["axial"].path / "summary.json").stat().st_mtime_ns == finished

    (runs["token"].path / "metrics.jsonl").rmdir()
    retried = local.launch(plan, tmp_path, jobs=2, retry_failed=True)
    assert retried.exit_code == 0
    assert len(retried.done) == 3


@pytest.mark.slow
def test_a_refused_run_names_the_cause_and_is_tried_again_by_the_next_launch(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero"])
    folder = RunFolder(tmp_path / plan.runs[0].id)
    folder.freeze(plan.runs[0].config)
    (folder.path / "metrics.jsonl").write_text("garbage\n")
    outcome = local.launch(plan, tmp_path)
    assert outcome.exit_code == 1
    assert "metrics.jsonl:1: not a row of metrics" in outcome.failed[folder.id]
    assert state_of(folder)[0] == REFUSED
    (folder.path / "metrics.jsonl").unlink()
    assert local.launch(plan, tmp_path).exit_code == 0


@pytest.mark.slow
def test_a_killed_run_is_reported_as_dead_and_resumed(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY | {"train.epochs": 40}, [0], arms=["zero"])
    folder = RunFolder(tmp_path / plan.runs[0].id)

    def kill(running):
        if any(folder.checkpoints.glob("step-*.json")) and (holder := folder.holder()):
            assert str(holder) in state_of(folder)[1]
            os.kill(holder.pid, signal.SIGKILL)

    outcome = local.launch(plan, tmp_path, watch=kill)
    assert "killed by SIGKILL" in outcome.failed[folder.id]
    state, detail, share = state_of(folder)
    assert (state, share) == (INTERRUPTED, pytest.approx(share)) and "its process died" in detail
    assert local.launch(plan, tmp_path).exit_code == 0


@pytest.mark.slow
def test_ctrl_c_saves_every_run_and_the_same_command_goes_on(tmp_path):
    words = [
        "sweep=ablation_offsets",
        "protocol=smoke",
        "seeds=[0]",
        "arms=[zero,axial]",
        f"runs_dir={tmp_path}",
        "--jobs",
        "2",
    ]
    command = [sys.executable, "run.py", *tiny_words(*words, "train.epochs=40")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folders = []
    for _ in range(2000):
        folders = [RunFolder(path.parent) for path in tmp_path.glob("*/config.yaml")]
        if len(folders) == 2 and all(any(f.checkpoints.glob("step-*.json")) for f in folders):
            break
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert {state_of(folder)[0] for folder in folders} <= {INTERRUPTED, DONE}
    assert all(state_of(folder)[2] > 0 for folder in folders), "their progress is still known"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert {state_of(folder)[0] for folder in folders} == {DONE}
    assert all(" trains " not in folder.log.read_text().split("interrupted by")[-1] for folder in folders)


@pytest.mark.slow
def test_a_signal_while_a_run_is_being_started_reaches_that_run(tmp_path, monkeypatch):
    plan = load("ablation_offsets", "smoke", TINY | {"train.epochs": 400}, [0], arms=["zero"])
    start = launcher.start

    def start_and_signal(*arguments):
        process = start(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # Python calls the handler here
        return process

    monkeypatch.setattr(launcher, "start", start_and_signal)
    outcome = local.launch(plan, tmp_path)
    assert outcome.interrupted == signal.SIGTERM
    assert state_of(RunFolder(tmp_path / plan.runs[0].id))[0] != DONE


@pytest.mark.slow
def test_a_run_whose_folder_is_removed_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial", "token"])
    first, second, third = plan.distinct()

    def start(folder, *arguments):
        if folder.id == first:
            shutil.rmtree(folder.path)
            shutil.rmtree(tmp_path / second)
        if folder.id == second:
            raise FileNotFoundError(2, "No such file or directory")
        if folder.id == third:
            end(folder)
        return subprocess.Popen(["false"])

    monkeypatch.setattr(launcher, "start", start)
    outcome = local.launch(plan, tmp_path, jobs=1)
    assert outcome.done == [third] and set(outcome.failed) == {first, second}
    for run, cause in outcome.failed.items():
        assert f"its folder {tmp_path / run} was removed" in cause and "the next launch begins it afresh" in cause


def test_status_changes_nothing(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY, [0])
    folder = RunFolder(tmp_path / plan.runs[0].id)
    folder.freeze(plan.runs[0].config)
    folder.set_state("a state of a later version")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    states = [row.state for row in describe(plan, tmp_path)]
    assert states == ["unknown", *[NOT_RUN] * 7]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
