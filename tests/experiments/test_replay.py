"""A resume with other code: replayed from the checkpoint before, compared bit by bit, and accepted or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from experiments.launch import command
from experiments.training.replay import first_difference
from sweeps.plan import load
from sweeps.snapshot import take
from tests.experiments.processes import assert_equal_runs, finish, frozen, saved_steps, start, wait_for_step

EQUAL = ("experiments/training/learner.py", "value += float(loss) * share", "value = value + share * float(loss)")
UNEQUAL = ("experiments/training/learner.py", "loss * (share * group.size)", "loss * (share * group.size * 1.001)")
METRIC = ("experiments/tasks/token_labelling.py", "logits.argmax(1)", "logits.argmin(1)")


def edited_copy(folder: Path, path: str, before: str, after: str) -> Path:
    """A copy of the code with one change."""
    copy = shutil.copytree(take(folder / "code"), folder / "edited")
    source = copy / path
    source.chmod(0o644)
    text = source.read_text()
    assert before in text
    source.write_text(text.replace(before, after))
    return copy


def resume(folder: RunFolder, code: Path, *options: str) -> tuple[int, str]:
    """Exit code and standard error of the run, trained by a copy of the code."""
    words = [sys.executable, "-m", "experiments", str(folder.path), *options]
    done = subprocess.run(words, cwd=code, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


def killed(folder: RunFolder, step: int) -> RunFolder:
    process = start(folder)
    wait_for_step(folder, step, process)
    process.kill()
    process.wait()
    return folder


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    return {"data.image_size": [64, 64], "data.train_images": 32, "data.eval_images": 4, "train.batch_size": 8,
            "train.epochs": 12, "train.warmup_epochs": 1, "train.ema_decay": 0.9, "model.drop_path": 0.2,
            "machine.threads": 1}  # fmt: skip


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, settings) -> RunFolder:
    """A run that was killed after some of its checkpoints; tests work on copies of it."""
    return killed(frozen(tmp_path_factory.mktemp("interrupted"), settings), 12)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, settings) -> RunFolder:
    folder = frozen(tmp_path_factory.mktemp("uninterrupted"), settings)
    assert finish(folder) == (0, "")
    return folder


@pytest.fixture
def run(interrupted, tmp_path) -> RunFolder:
    return RunFolder(shutil.copytree(interrupted.path, tmp_path / "runs" / interrupted.id))


def contents(folder: RunFolder) -> dict[str, bytes]:
    """Everything that decides or records numbers, and the checkpoints."""
    names = ["config.yaml", "metrics.jsonl", "provenance.json"]
    return {path.name: path.read_bytes() for path in [*(folder.path / n for n in names), *folder.checkpoints.iterdir()]}


@pytest.mark.slow
def test_code_that_computes_the_same_is_accepted(run, uninterrupted, tmp_path):
    code = edited_copy(tmp_path, *EQUAL)
    older, newest = saved_steps(run)[-2:]
    first_code = run.read_json("provenance.json")["code_fingerprint"]
    before = contents(run)
    exit_code, message = resume(run, code)
    assert exit_code == 2 and "other code" in message and "--replay" in message and "--force" in message
    assert contents(run) == before
    assert resume(run, code, "--replay") == (0, "")
    assert_equal_runs(run, uninterrupted)
    (note,) = run.finished()["notes"]
    assert f"equal over steps {older} to {newest} of this run" in note
    provenance = run.read_json("provenance.json")
    assert provenance["code_fingerprint"] == first_code
    (replay,) = provenance["replays"]
    assert (replay["from_step"], replay["to_step"]) == (older, newest) and replay["code"] != first_code


@pytest.mark.slow
def test_code_that_computes_otherwise_is_refused_and_changes_nothing(run, tmp_path):
    code = edited_copy(tmp_path, *UNEQUAL)
    before = contents(run)
    exit_code, message = resume(run, code)
    assert exit_code == 2 and f"({UNEQUAL[0]} changed)" in message and "--replay" in message
    exit_code, message = resume(run, code, "--replay")
    assert exit_code == 2 and len(message.splitlines()) == 1
    assert "model.backbone." in message and "differs" in message and "--force" in message
    assert contents(run) == before
    assert resume(run, code, "--force") == (0, "")
    provenance = run.read_json("provenance.json")
    assert "+" in provenance["code_fingerprint"] and "replays" not in provenance


@pytest.mark.slow
def test_metrics_are_compared_too(run, tmp_path):
    exit_code, message = resume(run, edited_copy(tmp_path, *METRIC), "--replay")
    assert exit_code == 2 and "token_accuracy" in message and len(message.splitlines()) == 1


@pytest.mark.slow
def test_without_an_older_checkpoint_it_replays_from_the_beginning(run, uninterrupted, tmp_path):
    newest = saved_steps(run)[-1]
    for path in run.checkpoints.glob("step-*"):
        if not path.name.startswith(f"step-{newest:09d}"):
            path.unlink()
    assert resume(run, edited_copy(tmp_path, *EQUAL), "--replay") == (0, "")
    assert_equal_runs(run, uninterrupted)
    assert f"equal over steps 0 to {newest} of this run" in run.finished()["notes"][0]


@pytest.mark.slow
def test_a_run_accepted_once_is_resumed_with_that_code(run, uninterrupted, tmp_path):
    code = edited_copy(tmp_path, *EQUAL)
    target = saved_steps(run)[-1] + 8
    words = [sys.executable, "-m", "experiments", str(run.path), "--replay"]
    process = subprocess.Popen(words, cwd=code, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_step(run, target, process)
    process.kill()
    process.wait()
    first_code = run.read_json("provenance.json")["code_fingerprint"]
    assert "+" not in first_code
    assert resume(run, code) == (0, "")
    assert_equal_runs(run, uninterrupted)
    provenance = run.read_json("provenance.json")
    assert provenance["code_fingerprint"] == first_code and len(provenance["replays"]) == 1


@pytest.mark.slow
def test_on_another_number_of_devices_nothing_can_be_compared(run, tmp_path):
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("batch_per_device: null", "batch_per_device: 2"))
    exit_code, message = resume(run, edited_copy(tmp_path, *EQUAL), "--replay")
    assert exit_code == 2 and "1 × 1" in message and "1 × 4" in message and len(message.splitlines()) == 1


@pytest.mark.slow
def test_two_devices_replay_together(tmp_path, settings):
    folder = frozen(tmp_path / "runs", {**settings, "machine.devices": 2})
    process = start(folder)
    wait_for_step(folder, 8, process)
    process.terminate()
    process.wait()
    assert resume(folder, edited_copy(tmp_path, *EQUAL), "--replay") == (0, "")
    assert len(folder.read_json("provenance.json")["replays"]) == 1
    assert "equal over steps" in folder.finished()["notes"][0]


@pytest.mark.slow
def test_the_same_code_and_a_run_without_checkpoints_have_nothing_to_replay(run, tmp_path, settings):
    assert finish(run, "--replay") == (0, "")
    fresh = frozen(tmp_path / "fresh", {**settings, "train.epochs": 2})
    assert finish(fresh, "--replay") == (0, "")
    for folder in (run, fresh):
        assert folder.finished()["notes"] == [] and "replays" not in folder.read_json("provenance.json")


def test_every_bit_counts():
    saved = {"model": {"w": torch.tensor([0.0, float("nan")])}, "ema": None, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "fused": True}]},
             "scaler": {}, "loss_sum": 0.5, "last": {"eval/top1": 50.0}, "log": ["{}"]}  # fmt: skip

    def changed(part: str, value: object) -> str | None:
        return first_difference({**saved, part: value}, saved)

    assert first_difference(saved, saved) is None
    assert changed("optimizer", {**saved["optimizer"], "param_groups": [{"lr": 0.1, "fused": False}]}) is None
    assert changed("model", {"w": torch.tensor([-0.0, float("nan")])}) == "model.w differs"
    assert "float64" in changed("model", {"w": saved["model"]["w"].double()})
    assert "optimizer.state.0.step" in changed(
        "optimizer", {**saved["optimizer"], "state": {0: {"step": torch.tensor(4.0)}}}
    )
    assert "loss_sum" in changed("loss_sum", 0.50000001)
    assert "last.eval/top1" in changed("last", {"eval/top1": 51.0})
    assert "log" in changed("log", [])
    assert "ema" in changed("ema", {"w": torch.tensor([0.0])})


def test_launchers_pass_the_choice_on(tmp_path):
    folder = RunFolder(tmp_path)
    assert command(folder, "replay")[-1] == "--replay" and command(folder, "force")[-1] == "--force"
    assert command(folder)[-1] == str(tmp_path)
    words = [
        sys.executable,
        "run.py",
        "sweep=ablation_peg",
        "protocol=smoke",
        "--force",
        "--replay",
        f"runs_dir={tmp_path / 'runs'}",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--replay" in done.stderr and "--force" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_sweep_replays_its_runs(tmp_path):
    overrides = {"data.train_images": 32, "data.eval_images": 4,
                 "data.image_size": [64, 64], "train.epochs": 12}  # fmt: skip
    (planned,) = load("ablation_peg", "smoke", overrides, [0], ["stage_nopeg"], tasks=["token_labelling"]).runs
    run = RunFolder(tmp_path / "runs" / planned.id)
    run.freeze(planned.config)
    killed(run, 8)
    launch = (
        "import sys, json; from pathlib import Path; from sweeps.local import launch; from sweeps.plan import load\n"
        "plan = load('ablation_peg', 'smoke', json.loads(sys.argv[2]), [0], ['stage_nopeg'], tasks=['token_labelling'])\n"
        "print(launch(plan, Path(sys.argv[1]), 1, other_code='replay').exit_code)"
    )
    words = [sys.executable, "-c", launch, str(tmp_path / "runs"), json.dumps(overrides)]
    checkout = edited_copy(tmp_path, *EQUAL)
    shutil.rmtree(checkout / "results")  # copies of the code hold what runs need, which is less
    shutil.copytree(ROOT / "results", checkout / "results", ignore=shutil.ignore_patterns("runs", "measured", "*.csv"))
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "0", done.stderr
    assert len(run.read_json("provenance.json")["replays"]) == 1
