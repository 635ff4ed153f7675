"""Runs as real processes: started, waited for, compared."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from experiments.config import ROOT, resolve
from experiments.folder import checkpoint
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from tests.experiments.forks import RUN, Fork

Process = Fork | subprocess.Popen[str]

# every random choice that training can make, on real JPEGs, at a size at which a step takes some ten milliseconds
EVERYTHING_RANDOM = {
    "data.image_size": [32, 32],
    "data.num_classes": 3,
    "data.workers": 0,
    "model.drop_path": 0.2,
    "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "augment.interpolation": "random",
    "augment.erase": 0.25,
    "augment.mixup": 0.8,
    "augment.cutmix": 1.0,
    "augment.repeats": 3,
    "train.batch_size": 8,
    "train.warmup_epochs": 1,
    "train.clip_grad": 1.0,
    "train.ema_decay": 0.9,
    "machine.threads": 1,
}


def frozen(runs_dir: Path, settings: dict[str, Any], experiment: str = "scenes") -> RunFolder:
    """The folder of a run that can be started."""
    config = resolve(experiment, settings)
    folder = RunFolder(runs_dir / run_id(config))
    folder.freeze(config)
    return folder


def start(folder: RunFolder, *options: str, fresh: bool = False) -> Process:
    """Starts the run of a folder. fresh: in a new Python, which imports torch and has a hash seed of its own."""
    if not fresh:
        return Fork([str(folder.path), *options])
    command = [*RUN, str(folder.path), *options]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(folder: RunFolder, *options: str, fresh: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a run that is left alone. fresh: as for ``start``."""
    process = start(folder, *options, fresh=fresh)
    _, said = process.communicate(timeout=1800)
    return process.returncode, said


def saved_steps(folder: RunFolder) -> list[int]:
    """Steps of the checkpoints that are complete."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.checkpoints.glob("step-*.json"))


def wait_for_step(folder: RunFolder, step: int, process: Process) -> None:
    """Until a checkpoint of at least ``step`` is there."""
    for _ in range(5000):
        if max(saved_steps(folder), default=-1) >= step:
            return
        assert process.poll() is None, "the run ended before it could be interrupted"
        time.sleep(0.02)
    raise AssertionError("no checkpoint appeared")


def ranks(process: Process) -> dict[int, int]:
    """Process ids of a launched run's processes by rank."""
    found = {}
    with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            about = Path(f"/proc/{child}")
            words = [*(about / "environ").read_bytes().split(b"\0"), (about / "comm").read_bytes()]
            found |= {int(word[5:]): int(child) for word in words if word.startswith(b"RANK=")}
    return found


def fill(path: Path) -> None:
    """Leaves no room on the disk of ``path``."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


def assert_equal_runs(folder: RunFolder, reference: RunFolder) -> None:
    """Two finished runs end with the same log, weights, averages, optimizer and results, bit by bit."""
    for name in ("metrics.jsonl", "weights.safetensors", "records.npz"):
        assert (folder.path / name).read_bytes() == (reference.path / name).read_bytes(), name
    ours, theirs = (checkpoint.read(checkpoint.newest_valid(f.checkpoints).path) for f in (folder, reference))
    for part in ("model", "ema", "optimizer", "scaler", "step", "rows", "loss_sum", "last", "log", "ledger"):
        assert same(ours[part], theirs[part]), part
    for part in ("metrics", "curves"):
        assert folder.finished()[part] == reference.finished()[part]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
