"""Runs as real processes: finished, repeated, killed, resumed, refused, out of disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from errors import ConfigError, RunFolderError
from experiments.config import ROOT, resolve
from experiments.folder import checkpoint
from experiments.folder.metrics_log import MetricsLog
from experiments.folder.run_folder import RunFolder
from experiments.folder.weights import read as read_weights
from experiments.interrupts import Interrupted
from experiments.training import loop
from results.records import read_records
from tests.experiments.processes import (
    EVERYTHING_RANDOM,
    assert_equal_runs,
    fill,
    finish,
    frozen,
    same,
    saved_steps,
    start,
    wait_for_step,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run, and the settings that make it."""
    settings = {"data.image_size": [64, 64], "data.train_images": 64, "data.eval_images": 4, "train.batch_size": 8,
                "train.epochs": 6, "train.warmup_epochs": 0, "model.drop_path": 0.2, "train.ema_decay": 0.9,
                "machine.threads": 1}  # fmt: skip
    folder = frozen(tmp_path_factory.mktemp("reference") / "runs", settings)
    assert finish(folder)[0] == 0
    return folder, settings


def test_a_finished_run_leaves_everything_a_report_needs(reference):
    folder, _ = reference
    summary = folder.finished()
    assert summary["step"] == 48
    assert summary["params_m"] == pytest.approx(
        sum(t.numel() for t in load_file(folder.path / "weights.safetensors").values()) / 1e6
    )
    assert summary["flops_g"] > 0
    assert set(summary["metrics"]) >= {"eval/token_accuracy", "eval_ema/token_accuracy"}
    rows = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 16, 24, 32, 40, 48]
    assert rows[-1]["eval_ema/token_accuracy"] == summary["metrics"]["eval_ema/token_accuracy"]
    records = read_records(folder.path / "records.npz")
    assert set(records) == {name for name in summary["metrics"] if not name.endswith("/loss")}, (
        "of both sets of weights"
    )
    for name, record in records.items():
        assert len(record.count) == 4 and record.value() == summary["metrics"][name]
    provenance = folder.read_json("provenance.json")
    assert provenance["code_fingerprint"] and provenance["data_fingerprint"]
    assert provenance["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert set(np.load(folder.path / "examples.npz")) >= {"images", "labels", "predictions", "palette"}
    assert folder.read_json("state.json")["state"] == "done"


def test_a_finished_run_is_not_run_again(reference):
    folder, _ = reference

    def times() -> dict[Path, int]:
        files = (path for path in folder.path.rglob("*") if not path.name.startswith("claim-"))
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert finish(folder)[0] == 0
    assert times() == before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, reference, number, code):
    undisturbed, settings = reference
    folder = frozen(tmp_path / "runs", settings)
    process = start(folder)
    wait_for_step(folder, 16, process)
    process.send_signal(number)
    assert process.wait(60) == code
    assert not folder.finished()
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_a_signal_while_an_epoch_is_judged_is_heard_at_once_and_its_row_is_not_lost(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 1, "train.ema_decay": 0.9, "data.eval_images": 400}
    undisturbed, folder = (frozen(tmp_path / name, settings) for name in ("undisturbed", "runs"))
    assert finish(undisturbed)[0] == 0
    process = start(folder)
    while folder.read_json("state.json").get("phase") != "evaluating":
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 143
    assert (folder.path / "metrics.jsonl").exists() is False
    assert saved_steps(folder) == [4], "the trained epoch is kept, though it has not been judged"
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_a_stop_at_any_step_even_the_last_of_an_epoch_loses_nothing(tmp_path, small_scenes, monkeypatch):
    undisturbed = frozen(tmp_path / "undisturbed", small_scenes)
    loop.run(undisturbed)
    folder = frozen(tmp_path / "runs", small_scenes)
    train_step = loop.Training._train_step

    def stopping(self, micro_batches):
        self.interrupts.received = signal.SIGTERM
        return train_step(self, micro_batches)

    monkeypatch.setattr(loop.Training, "_train_step", stopping)
    for step in range(1, 13):  # three epochs of four steps
        with pytest.raises(Interrupted):
            loop.run(folder)
        assert saved_steps(folder)[-1] == step
    loop.run(folder)
    assert_equal_runs(folder, undisturbed)


def test_an_end_between_the_records_and_the_summary_leaves_a_run_that_is_judged_again(
    tmp_path, small_scenes, monkeypatch
):
    undisturbed, folder = (frozen(tmp_path / name, small_scenes) for name in ("undisturbed", "runs"))
    loop.run(undisturbed)

    def stop(*arguments):
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("experiments.training.summary.weights.export", stop)
        with pytest.raises(Interrupted):
            loop.run(folder)
    assert (folder.path / "records.npz").is_file() and not folder.finished()
    (folder.path / "records.npz").write_bytes(b"of other code")
    loop.run(folder)
    assert_equal_runs(folder, undisturbed)


def killed(folder: RunFolder, step: int) -> RunFolder:
    """``folder`` after its run was killed, with checkpoints of ``step`` or later."""
    process = start(folder)
    wait_for_step(folder, step, process)
    process.kill()
    process.communicate()
    return folder


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, reference):
    undisturbed, settings = reference
    folder = killed(frozen(tmp_path / "runs", settings), 24)
    newest = max(folder.checkpoints.glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with (folder.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 40, "ep')
    assert finish(folder)[0] == 0
    note = f"checkpoint {newest.name} is damaged (its checksum differs): resumed from the one before"
    assert note in folder.log.read_text()
    assert folder.finished()["notes"] == [note]
    assert not list(folder.checkpoints.glob("*.damaged")), "set aside until the next checkpoint, no longer"
    assert_equal_runs(folder, undisturbed)


def test_without_a_valid_checkpoint_a_run_fails_rather_than_starting_over(tmp_path, reference):
    _, settings = reference
    folder = killed(frozen(tmp_path / "runs", settings), 16)
    paths = list(folder.checkpoints.glob("step-*.pt"))
    for path in paths:
        path.write_bytes(b"")
    code, said = finish(folder)
    assert code == 2
    assert re.search(r"none of its \d checkpoints is valid; delete the folder to start over", said)
    assert not folder.finished()
    assert all(path.exists() for path in paths)


def test_stale_temporaries_are_swept_and_a_first_checkpoint_that_was_not_completed_is_none(tmp_path, small_scenes):
    folder = frozen(tmp_path / "runs", small_scenes)
    (folder.checkpoints / ".step-000000004-epoch-0001.pt.0abc.tmp").write_bytes(b"half")
    (folder.checkpoints / "step-000000004-epoch-0001.pt").write_bytes(b"no checksum yet")
    assert loop.run(folder)["step"] == 12
    assert not list(folder.checkpoints.glob(".*"))


def test_checkpoints_are_kept_as_asked(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 7, "machine.keep_checkpoints": 2, "machine.keep_every_epochs": 3}
    folder = frozen(tmp_path / "runs", settings)
    loop.run(folder)
    assert saved_steps(folder) == [3 * 4, 6 * 4, 7 * 4]
    assert {path.suffix for path in folder.checkpoints.iterdir()} == {".pt", ".json"}


class Exploit:
    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, small_scenes):
    folder = frozen(tmp_path / "runs", small_scenes)
    checkpoint.save(folder.checkpoints, {"model": Exploit(tmp_path / "pwned"), "step": 4}, "step-000000004-epoch-0001")
    code, said = finish(folder)
    assert code == 2
    assert "not a checkpoint that can be read safely" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"model.offsets": "token"}, "its model.offset_sharing is None, not"),
        ({"protocol": "tiny"}, "its protocol is tiny, not smoke"),
        ({"seed": 1}, "its seed is 1, not 0"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, small_scenes, other, says):
    foreign = frozen(tmp_path / "runs", {**small_scenes, "train.epochs": 1, **other})
    loop.run(foreign)
    folder = frozen(tmp_path / "runs", {**small_scenes, "train.epochs": 1})
    shutil.copytree(foreign.checkpoints, folder.checkpoints, dirs_exist_ok=True)
    with pytest.raises(RunFolderError, match=says):
        loop.run(folder)
    assert not folder.finished()


@pytest.mark.slow
def test_a_checkpoint_of_other_code_is_refused_unless_forced(tmp_path, small_scenes, monkeypatch):
    folder = killed(frozen(tmp_path / "runs", {**small_scenes, "train.epochs": 20}), 4)
    before = sorted(folder.checkpoints.iterdir())
    monkeypatch.setattr(loop, "run_fingerprint", lambda config: "another")
    with pytest.raises(RunFolderError, match=r"was written by other code.* --force"):
        loop.run(folder)
    assert sorted(folder.checkpoints.iterdir()) == before
    assert loop.run(folder, other_code="force")["notes"] == ["resumed with other code than it started with"]
    assert folder.read_json("provenance.json")["code_fingerprint"].endswith("+another")


@pytest.mark.slow
def test_other_packages_are_noted_when_a_run_is_resumed(tmp_path, small_scenes):
    folder = killed(frozen(tmp_path / "runs", {**small_scenes, "train.epochs": 20}), 4)
    provenance = folder.read_json("provenance.json")
    provenance["packages"]["pillow"] = "1.0"
    folder.write_json("provenance.json", provenance)
    note = loop.run(folder)["notes"][0]
    assert note.startswith("resumed with pillow ") and note.endswith("before 1.0")


def test_the_final_weights_are_loaded_by_timm(tmp_path, shared_images):
    settings = {**EVERYTHING_RANDOM, "data.root": str(shared_images), "train.epochs": 1, "train.warmup_epochs": 0}
    folder = frozen(tmp_path / "runs", settings, "tiny_imagenet")
    loop.run(folder)
    weights = folder.path / "weights.safetensors"
    model = timm.create_model("atmnet_nano", num_classes=3, checkpoint_path=str(weights))
    averaged = checkpoint.read(checkpoint.newest_valid(folder.checkpoints).path)["ema"]
    assert same(dict(model.state_dict()), averaged)
    newest = checkpoint.newest_valid(folder.checkpoints).path
    assert same(read_weights(newest), averaged), "init=PATH of a checkpoint starts from averages, too"
    other = timm.create_model("atmnet_nano", num_classes=3)
    assert not same(dict(other.state_dict()), averaged)


def test_a_non_finite_loss_stops_the_run_and_names_the_step(tmp_path, small_scenes):
    folder = frozen(tmp_path / "runs", small_scenes | {"train.lr": 1e30, "train.min_lr": 1e30})
    code, said = finish(folder)
    assert code == 1
    assert "non-finite loss at step" in said
    assert folder.read_json("state.json")["state"] == "failed"
    assert not folder.finished()
    assert len(said.splitlines()) == 1


def test_one_run_is_held_by_one_process(tmp_path, small_scenes):
    folder = frozen(tmp_path / "runs", small_scenes)
    with folder.claim():
        assert folder.holder()
        code, said = finish(folder)
    assert code == 2
    assert f"process {os.getpid()}" in said
    assert not folder.holder()


# forks, because only processes that have all been imported before start at the same instant
RACE = """
import os, sys, time
import experiments.training.loop
from experiments.__main__ import main

for folder in sys.argv[1:]:
    start, racers = time.monotonic() + 0.05, []
    for _ in range(2):
        racers.append(os.fork())
        if racers[-1] == 0:
            time.sleep(max(0, start - time.monotonic()))
            os._exit(main([folder]))
    codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in racers}
    print(*[pid for pid, code in codes.items() if code == 0], "|", *sorted(codes.values()), flush=True)
"""


@pytest.mark.slow
def test_of_two_launchers_started_at_the_same_instant_one_wins_twenty_times(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 1, "data.train_images": 16, "data.eval_images": 1}
    folders = [frozen(tmp_path, {**settings, "seed": seed}) for seed in range(20)]
    command = [sys.executable, "-c", RACE, *(str(folder.path) for folder in folders)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    outcomes, refusals = done.stdout.splitlines(), done.stderr.splitlines()
    assert len(outcomes) == len(refusals) == 20, done.stderr
    for folder, outcome, refusal in zip(folders, outcomes, refusals):
        winner, _, codes = outcome.partition(" | ")
        assert codes == "0 2"
        assert refusal.startswith(f"{folder.id} is being run by process {winner} on ")
        assert folder.finished()["step"] == 2
        assert folder.log.read_text().count(" steps on ") == 1


def test_a_run_folder_of_another_config_is_refused(tmp_path, small_scenes):
    folder = frozen(tmp_path / "runs", small_scenes)
    text = (folder.path / "config.yaml").read_text()
    (folder.path / "config.yaml").write_text(text.replace("epochs: 3", "epochs: 4"))
    with pytest.raises(RunFolderError, match=r"train\.epochs=4, not 3"):
        folder.freeze(resolve("scenes", small_scenes))


def test_an_unwritable_run_folder_is_refused(tmp_path, small_scenes):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write") as caught:
        frozen(tmp_path / "file", small_scenes)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(small_disk, small_scenes, tmp_path):
    settings = {**small_scenes, "train.epochs": 40, "machine.failed_saves": 1000}
    undisturbed = frozen(tmp_path / "runs", settings)
    loop.run(undisturbed)
    folder = frozen(small_disk / "runs", settings)
    process = start(folder)
    wait_for_step(folder, 4, process)
    fill(small_disk / "filler")
    while "the disk is full; failure 2 of 1000 in a row, the newest checkpoint is step-" not in folder.log.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (small_disk / "filler").unlink()
    assert process.wait(200) == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_a_disk_that_stays_full_fails_the_run_after_a_stated_number_of_checkpoints(small_disk, small_scenes):
    folder = frozen(small_disk / "runs", {**small_scenes, "train.epochs": 400, "machine.failed_saves": 3})
    process = start(folder)
    wait_for_step(folder, 4, process)
    fill(small_disk / "filler")
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert "3 checkpoints in a row could not be written" in said and "the disk is full" in said
    assert len(said.splitlines()) == 1
    (small_disk / "filler").unlink()
    assert not folder.finished()
    assert not (folder.path / "weights.safetensors").exists()
    assert checkpoint.newest_valid(folder.checkpoints).path, "what was saved before is still there"


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="starting a run as another user needs root")
def test_a_run_folder_of_another_user_is_refused(small_scenes):
    with tempfile.TemporaryDirectory() as visible:
        Path(visible).chmod(0o755)
        folder = frozen(Path(visible), small_scenes)
        before = sorted(folder.path.rglob("*"))
        # all is imported before the user changes: who starts the tests may have a Python of their own
        as_nobody = (
            "import os, sys, experiments.training.loop; from experiments.__main__ import main\n"
            "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", as_nobody, str(folder.path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        said = done.stderr
        assert done.returncode == 2, said
        assert "it belongs to root and is not writable for nobody" in said and len(said.splitlines()) == 1
        assert sorted(folder.path.rglob("*")) == before


def test_a_read_only_disk_is_refused(small_disk, small_scenes):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunFolderError, match="Read-only"):
        frozen(small_disk / "runs", small_scenes)


@pytest.mark.slow
@pytest.mark.parametrize("rubbish", ["rubbish", "[1, 2]", '{"epoch": 2}'])
def test_a_log_with_garbage_in_its_middle_is_named_with_its_line(tmp_path, small_scenes, rubbish):
    folder = killed(frozen(tmp_path / "runs", {**small_scenes, "train.epochs": 20}), 12)
    path = folder.path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], rubbish, *lines[1:]]) + "\n")
    content = path.read_bytes()
    code, said = finish(folder)
    assert code == 2
    assert "metrics.jsonl:2: not a row of metrics" in said and len(said.splitlines()) == 1
    assert path.read_bytes() == content


def test_a_log_gets_back_what_it_lost_and_loses_what_is_too_much(tmp_path):
    rows = ['{"step": 1}', '{"step": 2}', '{"step": 3}']
    for found in ('{"step": 1}\n', '{"step": 1}\n{"st', "", '{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4}\n'):
        path = tmp_path / "metrics.jsonl"
        path.write_text(found)
        log = MetricsLog(path)
        log.restore(rows)
        log.append({"step": 4})
        assert path.read_text() == "\n".join([*rows, '{"step": 4}\n'])


def test_weights_of_one_run_start_another(tmp_path, reference, small_scenes):
    parent, _ = reference
    child = frozen(parent.path.parent, small_scenes | {"init": parent.id})
    assert loop.run(child)["step"] == 12
    other = frozen(parent.path.parent, small_scenes | {"init": parent.id, "model.offsets": "token"})
    with pytest.raises(ConfigError, match="does not fit this model"):
        loop.run(other)
    rubbish = tmp_path / "weights.pth"
    rubbish.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="not a checkpoint that can be read safely"):
        loop.run(frozen(tmp_path / "runs", small_scenes | {"init": str(rubbish)}))
