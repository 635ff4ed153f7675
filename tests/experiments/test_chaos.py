"""Runs that are killed, damaged and starved of disk at random moments, again and again, end as if nothing had happened.

The moments come from CHAOS_SEED (0 unless the environment says otherwise), which every failure prints.
``pytest -m chaos`` does it 200 times over.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments.config import resolve
from experiments.folder.run_folder import RunFolder
from tests.conftest import write_images
from tests.experiments.processes import (
    EVERYTHING_RANDOM,
    assert_equal_runs,
    fill,
    finish,
    frozen,
    ranks,
    saved_steps,
    start,
)

SEED = int(os.environ.get("CHAOS_SEED", "0"))
SIGNALS = {signal.SIGKILL: 2, signal.SIGTERM: 1, signal.SIGUSR2: 1}  # and how often each is sent


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A run in which everything random happens, a step of which takes some 50 ms and which saves all the time."""
    images = write_images(tmp_path_factory.mktemp("images") / "images", train=40)
    return {**EVERYTHING_RANDOM, "data.root": str(images), "train.eval_every": 3, "machine.checkpoint_minutes": 0.003}


@pytest.fixture
def disk(tmp_path):
    """A folder that can be filled up: a small file system where mounting is allowed, else an ordinary folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount")) and not subprocess.run(mount, capture_output=True).returncode
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Chaos:
    """Starts a run and disturbs it, one way after another, until it has been interrupted often enough."""

    def __init__(self, folder: RunFolder, config, steps: int, seed: int, fillable: bool):
        self.folder, self.config, self.steps, self.fillable = folder, config, steps, fillable
        self.random = random.Random(seed)
        self.done: list[str] = []

    def __str__(self) -> str:
        return f"CHAOS_SEED={SEED}, so far: {self.done}"

    def interrupt(self, left: int) -> None:
        """One start and one end of the run, ``left`` of them still to come."""
        self.config.data.workers = self.random.choice((0, 0, 0, 1, 2))
        self.folder.freeze(self.config)
        filler = self.folder.path.parent.parent / "filler"
        starved = self.fillable and self.random.random() < 0.2
        at = max(saved_steps(self.folder), default=0)
        (number,) = self.random.choices(list(SIGNALS), SIGNALS.values())
        process = start(self.folder)
        try:
            if self.random.random() < 0.1:  # while it is starting
                time.sleep(self.random.uniform(0, 4))
            else:
                # not so far that the run could end before it has been interrupted often enough
                self._wait(process, at + 1 + self.random.uniform(0, 0.8) * (self.steps - at) / (left + 1))
                time.sleep(self.random.uniform(0, 0.15))
            if starved:
                fill(filler)
                time.sleep(self.random.uniform(0.05, 1.0))
            pids = ranks(process) if self.config.machine.devices > 1 else {0: process.pid}
            early = self.folder.read_json("state.json").get("pid") != pids.get(0) and process.poll() is None
            victim = self.random.choice(list(pids)) if number == signal.SIGKILL and pids else None
            with suppress(ProcessLookupError):  # a full disk has ended it meanwhile
                os.kill(process.pid if victim is None else pids[victim], number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            filler.unlink(missing_ok=True)
        expected = {143} if number != signal.SIGKILL else {1} if self.config.machine.devices > 1 else {-9}
        # a signal that comes before it is listened to, or a disk that was full too often, ends the run another way
        expected |= ({-number, 1} if early else set()) | ({1} if starved else set())
        assert process.returncode in expected, f"{self}: {process.returncode}: {said}"
        whom = "" if victim is None or self.config.machine.devices == 1 else f" to process {victim}"
        self.done.append(f"{signal.Signals(number).name}{whom}{' on a full disk' if starved else ''} at {at}")
        if number == signal.SIGKILL and self.random.random() < 0.5:
            self._damage()
        if self.random.random() < 0.3:
            self._tear_log()

    def _wait(self, process, step: float) -> None:
        limit = time.monotonic() + 60
        while max(saved_steps(self.folder), default=0) < step and process.poll() is None:
            assert time.monotonic() < limit, f"{self}: no checkpoint of step {step:.0f} appears: {process.args}"
            time.sleep(0.01)

    def _damage(self) -> None:
        """Truncates the newest checkpoint or flips a bit of it, unless it is the only one that is whole."""
        whole = [path for path in sorted(self.folder.checkpoints.glob("step-*.pt")) if is_whole(path)]
        if len(whole) < 2:
            return
        content = bytearray(whole[-1].read_bytes())
        place = self.random.randrange(len(content))
        if self.random.random() < 0.5:
            content = content[:place]
        else:
            content[place] ^= 1 << self.random.randrange(8)
        whole[-1].write_bytes(content)
        self.done.append("damaged checkpoint")

    def _tear_log(self) -> None:
        """Cuts the log somewhere within its last line."""
        path = self.folder.path / "metrics.jsonl"
        if path.exists() and (lines := path.read_bytes().splitlines(keepends=True)):
            lines[-1] = lines[-1][: self.random.randrange(len(lines[-1]))]
            path.write_bytes(b"".join(lines))
            self.done.append("torn log")


def is_whole(path: Path) -> bool:
    try:
        expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
    except (OSError, ValueError):
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == expected


@pytest.mark.parametrize(
    ("devices", "interruptions", "epochs"),
    [
        pytest.param(1, 12, 16, marks=pytest.mark.timeout(900)),
        pytest.param(2, 4, 6, marks=pytest.mark.timeout(900)),
        pytest.param(1, 200, 110, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),
        pytest.param(2, 40, 30, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),
    ],
)
def test_a_run_disturbed_at_random_moments_ends_like_an_undisturbed_one(
    tmp_path, settings, disk, devices, interruptions, epochs
):
    root, fillable = disk
    settings = {**settings, "train.epochs": epochs, "machine.devices": devices}
    reference = frozen(tmp_path / "reference", settings, "tiny_imagenet")
    assert finish(reference) == (0, "")
    folder = frozen(root / "runs", settings, "tiny_imagenet")
    chaos = Chaos(folder, resolve("tiny_imagenet", settings), 15 * epochs, SEED, fillable)
    for left in reversed(range(interruptions)):
        assert not folder.finished(), f"{chaos}: it ended too early"
        chaos.interrupt(left)
    print(chaos)
    code, said = finish(folder)
    assert code == 0, f"{chaos}: {said}"
    assert_equal_runs(folder, reference)
