"""Which code the runs of a sweep are started from, whatever becomes of the checkout and of the launcher meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run_format import CODE, DONE, PROVENANCE
from sweeps import launches, run_code
from sweeps.status import state_of
from tests.experiments.processes import assert_equal_runs
from tests.sweeps.test_sweeps import WORDS

LEFT_OUT = (".*", "runs", "tests", "docs", "__pycache__", "site.yaml", "pages", "published", "measured")
SLOW = ["train.epochs=60"]  # long enough to be caught in the middle
COMPUTES = Path("experiments/tasks/network.py")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout that a test may edit, with a history of its own."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    commit(copy, "first")
    return copy


def commit(checkout: Path, message: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()


def run(checkout: Path, *words: str, code: int = 0) -> str:
    same = ["protocol=smoke", "seeds=[0]", "arms=[zero,token]", *WORDS]
    done = subprocess.run(
        [sys.executable, "run.py", words[0], *same, *words[1:]],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def edit(checkout: Path) -> None:
    """Changes what is computed, so that every run would refuse to go on with it."""
    with (checkout / COMPUTES).open("a") as file:
        file.write("\nEDITED = 1\n")


def wait(until, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def folders(runs_dir: Path) -> list[RunFolder]:
    return sorted((RunFolder(path.parent) for path in runs_dir.glob("*/config.yaml")), key=lambda folder: folder.id)


def kill_launcher(runs_dir: Path) -> launches.Launch:
    ((launch, launcher),) = launches.alive(runs_dir, [folder.id for folder in folders(runs_dir)])
    os.kill(launcher.pid, signal.SIGKILL)
    wait(lambda: not launch.launcher)
    return launch


def test_a_killed_background_sweep_goes_on_from_its_copy_of_the_code_when_the_checkout_was_edited(checkout, tmp_path):
    disturbed, reference = tmp_path / "runs", tmp_path / "reference"
    sweep = ["sweep=ablation_offsets", "--jobs", "1", *SLOW]
    started = time.monotonic()
    text = run(checkout, *sweep, "--background", f"runs_dir={disturbed}")
    (log,) = (disturbed / "launches").glob("*/log.txt")
    assert str(log) in text and time.monotonic() - started < 60
    wait(lambda: any(run_code.has_begun(folder) for folder in folders(disturbed)))
    words = ["status=ablation_offsets", *SLOW, f"runs_dir={disturbed}"]
    (launcher,) = json.loads(run(checkout, *words, "--json"))["launchers"]
    assert launcher["log"] == str(log) and str(launcher["pid"]) in run(checkout, *words)
    refusal = run(checkout, *sweep, f"runs_dir={disturbed}", code=2)
    assert str(launcher["pid"]) in refusal and "cancel=ablation_offsets" in refusal

    kill_launcher(disturbed)
    (first,) = (folder for folder in folders(disturbed) if folder.holder())
    edit(checkout)
    commit(checkout, "second")
    os.kill(first.holder().pid, signal.SIGKILL)
    wait(lambda: not first.holder())
    text = run(checkout, *sweep, f"runs_dir={disturbed}")
    (copy,) = {folder.read_json(CODE)["copy"] for folder in folders(disturbed)}
    assert f"2 runs use the code in {disturbed / 'code' / copy}" in text and "--new-code" in text
    assert {state_of(folder)[0] for folder in folders(disturbed)} == {DONE}

    subprocess.run(["git", "checkout", "--quiet", "HEAD~1"], cwd=checkout, check=True)
    run(checkout, *sweep, f"runs_dir={reference}")
    for one, other in zip(folders(disturbed), folders(reference)):
        assert_equal_runs(one, other)
    provenances = [folder.read_json(PROVENANCE) for folder in folders(disturbed) + folders(reference)]
    assert len(provenances) == 4 and len({p["code_fingerprint"] for p in provenances}) == 1
    assert len({p["commit"] for p in provenances}) == 1
