"""Disturbs runs at random moments: kills and stops them, fills their disk, damages what they wrote."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.config import resolve
from experiments.folder.run_folder import RunFolder
from tests.experiments.processes import assert_equal_runs, fill, finish, frozen, ranks, saved_steps, start

SEED = int(os.environ.get("CHAOS_SEED", "0"))
SIGNALS = {signal.SIGKILL: 2, signal.SIGTERM: 1, signal.SIGUSR2: 1}  # and how often each is sent


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
        process = start(self.folder, fresh=True)
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
            _, said = process.communicate(timeout=300)
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
        limit = time.monotonic() + 300  # the machine may be busy
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


def assert_disturbed_run_equals_undisturbed(
    reference_root: Path,
    root: Path,
    settings: dict[str, Any],
    recipe: str,
    steps: int,
    interruptions: int,
    fillable: bool,
) -> None:
    """Trains a run below ``reference_root`` undisturbed, and the same one below ``root`` with interruptions.

    steps: of the run; fillable: whether ``root`` is a file system of its own, which may be filled up.
    """
    reference = frozen(reference_root, settings, recipe)
    assert finish(reference, fresh=True) == (0, "")
    folder = frozen(root / "runs", settings, recipe)
    chaos = Chaos(folder, resolve(recipe, settings), steps, SEED, fillable)
    for left in reversed(range(interruptions)):
        assert not folder.finished(), f"{chaos}: it ended too early"
        chaos.interrupt(left)
    print(chaos)
    code, said = finish(folder, fresh=True)
    assert code == 0, f"{chaos}: {said}"
    assert_equal_runs(folder, reference)
