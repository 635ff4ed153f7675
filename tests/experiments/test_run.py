"""Runs as real processes: finished, repeated, killed, resumed, refused, out of disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from errors import ConfigError, RunFolderError
from experiments import checkpoint, engine
from experiments.config import ROOT, resolve
from experiments.identity import run_id
from experiments.run_folder import MetricsLog, RunFolder


def frozen(tmp_path: Path, settings: dict[str, object], name: str = "runs") -> RunFolder:
    config = resolve("scenes", settings)
    folder = RunFolder(tmp_path / name / run_id(config))
    folder.freeze(config)
    return folder


def start(folder: RunFolder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", str(folder.path)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(folder: RunFolder) -> tuple[int, str]:
    process = start(folder)
    _, said = process.communicate(timeout=200)
    return process.returncode, said


def wait_for_step(folder: RunFolder, step: int, process: subprocess.Popen[str]) -> None:
    """Until a checkpoint of at least ``step`` is there."""
    for _ in range(2000):
        if any(int(path.stem[5:]) >= step for path in folder.checkpoints.glob("step-*.json")):
            return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.02)
    raise AssertionError("no checkpoint appeared")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run, and the settings that make it."""
    settings = {"data.image_size": [64, 64], "data.train_images": 64, "data.eval_images": 4, "train.batch_size": 8,
                "train.epochs": 6, "train.warmup_epochs": 0, "model.drop_path": 0.2, "train.ema_decay": 0.9,
                "machine.threads": 1}  # fmt: skip
    folder = frozen(tmp_path_factory.mktemp("reference"), settings)
    assert finish(folder)[0] == 0
    return folder, settings


def assert_equal_runs(folder: RunFolder, reference: RunFolder) -> None:
    assert (folder.path / "metrics.jsonl").read_bytes() == (reference.path / "metrics.jsonl").read_bytes()
    ours, theirs = (load_file(f.path / "weights.safetensors") for f in (folder, reference))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    states = [checkpoint.load(f.checkpoints) for f in (folder, reference)]
    for part in ("model", "ema"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    assert folder.finished()["metrics"] == reference.finished()["metrics"]


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
    provenance = folder.read_json("provenance.json")
    assert provenance["code_fingerprint"] and provenance["data_fingerprint"]
    assert provenance["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert set(np.load(folder.path / "examples.npz")) >= {"images", "labels", "predictions", "palette"}
    assert folder.read_json("state.json")["state"] == "done"


def test_a_finished_run_is_not_run_again(reference):
    folder, _ = reference
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.name != "claim"}
    assert finish(folder)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.name != "claim"} == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, reference, number, code):
    undisturbed, settings = reference
    folder = frozen(tmp_path, settings)
    process = start(folder)
    wait_for_step(folder, 16, process)
    process.send_signal(number)
    assert process.wait(60) == code
    assert not folder.finished()
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, undisturbed)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path, reference):
    undisturbed, settings = reference
    folder = frozen(tmp_path, settings)
    process = start(folder)
    wait_for_step(folder, 24, process)
    process.kill()
    process.wait()
    newest = max(folder.checkpoints.glob("step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with (folder.path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 40, "ep')
    assert finish(folder)[0] == 0
    assert "damaged" in folder.log.read_text()
    assert_equal_runs(folder, undisturbed)


def test_without_a_valid_checkpoint_a_run_fails_rather_than_starting_over(tmp_path, reference):
    _, settings = reference
    folder = frozen(tmp_path, settings)
    process = start(folder)
    wait_for_step(folder, 16, process)
    process.kill()
    process.wait()
    for path in folder.checkpoints.glob("step-*.pt"):
        path.write_bytes(b"")
    code, said = finish(folder)
    assert code == 2
    assert "none of its 2 checkpoints is valid" in said
    assert not folder.finished()


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, small_scenes):
    class Exploit:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "pwned"),))

    folder = frozen(tmp_path, small_scenes)
    checkpoint.save(folder.checkpoints, {"model": Exploit()}, 4)
    code, _ = finish(folder)
    assert code == 1
    assert not (tmp_path / "pwned").exists()


def test_a_non_finite_loss_stops_the_run_and_names_the_step(tmp_path, small_scenes):
    folder = frozen(tmp_path, small_scenes | {"train.lr": 1e30, "train.min_lr": 1e30})
    code, said = finish(folder)
    assert code == 1
    assert "non-finite loss at step" in said
    assert folder.read_json("state.json")["state"] == "failed"
    assert not folder.finished()
    assert len(said.splitlines()) == 1


def test_one_run_is_held_by_one_process(tmp_path, small_scenes):
    folder = frozen(tmp_path, small_scenes)
    with folder.claim():
        assert folder.claimed()
        code, said = finish(folder)
    assert code == 2
    assert f"process {os.getpid()}" in said
    assert not folder.claimed()


def test_a_run_folder_of_another_config_is_refused(tmp_path, small_scenes):
    folder = frozen(tmp_path, small_scenes)
    text = (folder.path / "config.yaml").read_text()
    (folder.path / "config.yaml").write_text(text.replace("epochs: 3", "epochs: 4"))
    with pytest.raises(RunFolderError, match=r"train\.epochs=4, not 3"):
        folder.freeze(resolve("scenes", small_scenes))


def test_an_unwritable_run_folder_is_refused(tmp_path, small_scenes):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write") as caught:
        frozen(tmp_path, small_scenes, name="file")
    assert "\n" not in str(caught.value)


mounts = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@mounts
def test_a_full_disk_fails_the_run_in_one_line_and_leaves_no_result(small_disk, small_scenes, reference):
    folder = frozen(small_disk, small_scenes)
    code, said = finish(folder)
    assert code == 1
    assert "the disk is full" in said
    assert len(said.splitlines()) == 1
    assert not folder.finished()
    assert not (folder.path / "weights.safetensors").exists()


@mounts
def test_a_read_only_disk_is_refused(small_disk, small_scenes):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunFolderError, match="Read-only"):
        frozen(small_disk, small_scenes)


def test_a_log_with_garbage_in_its_middle_is_named_with_its_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2"):
        MetricsLog(path).cut_after(5)


def test_weights_of_one_run_start_another(tmp_path, reference, small_scenes):
    parent, _ = reference
    child = frozen(parent.path.parent.parent, small_scenes | {"init": parent.id})
    assert engine.run(child)["step"] == 12
    other = frozen(parent.path.parent.parent, small_scenes | {"init": parent.id, "model.offsets": "token"})
    with pytest.raises(ConfigError, match="does not fit this model"):
        engine.run(other)
    rubbish = tmp_path / "weights.pth"
    rubbish.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="not a checkpoint that can be read safely"):
        engine.run(frozen(tmp_path, small_scenes | {"init": str(rubbish)}))


def test_another_code_version_is_noted_when_a_run_is_resumed(tmp_path, small_scenes, monkeypatch):
    folder = frozen(tmp_path, small_scenes)
    process = start(folder)
    wait_for_step(folder, 4, process)
    process.kill()
    process.wait()
    monkeypatch.setattr(engine.provenance, "code_fingerprint", lambda: "another")
    assert engine.run(folder)["notes"] == ["resumed with other code than it started with"]
    assert folder.read_json("provenance.json")["code_fingerprint"].endswith("+another")
