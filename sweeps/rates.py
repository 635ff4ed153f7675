"""How fast a set-up trains and evaluates on some hardware: timed by a probe once, then read from ``prices.json``.

Never imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import atomic_file
from errors import RunFailed, SuiteError
from experiments.config import ROOT, get, write_yaml
from experiments.folder.provenance import processor
from experiments.interrupts import Interrupted, Interrupts
from experiments.launch import environment
from experiments.schema import FIELDS, Config

if TYPE_CHECKING:
    from sweeps.plan import PlannedRun

PRICES = "prices.json"
ON_SLURM = "slurm"  # in place of hardware: partition and constraint decide which nodes a job gets
POLL_SECONDS = 0.1
Setup = dict[str, Any]
Measure = Callable[[Config], Mapping[str, Any]]  # a frozen config to the rate that ``sweeps.probe`` writes

# Set-ups that differ in these settings only are equally fast, and are timed once. Every other setting, also one that is
# added later, counts as deciding speed: timing too often costs seconds, sharing a wrong rate gives a wrong price.
NOT_SPEED = {
    "": ("experiment", "protocol", "seed", "init"),
    "data.": ("bad_image_tolerance",),
    "train.": ("epochs", "eval_every", "lr", "lr_batch", "min_lr", "weight_decay", "warmup_epochs", "warmup_lr",
               "schedule_on", "schedule_lag", "steps", "eval_every_steps", "warmup_steps", "warmup_ratio", "schedule",
               "power", "milestones", "decay_factor", "no_decay", "head_lr_scale"),
    "machine.": ("timeout_minutes", "checkpoint_minutes", "keep_checkpoints", "keep_every_epochs", "failed_saves"),
    "slurm.": ("account", "qos", "time_minutes", "signal_seconds", "max_timeouts", "setup", "shared"),
}  # fmt: skip


@dataclass(frozen=True)
class Rate:
    """The result of a probe: images per second on each device; evaluations are of raw and averaged weights."""

    hardware: str
    train_images_per_s: float
    eval_images_per_s: float
    steps_per_epoch: int
    eval_images: int


class Rates:
    """The known rates, in a file that several commands may add to. Damaged entries count as unknown."""

    def __init__(self, path: Path):
        self.path = path
        self._entries = _entries(path)

    def find(self, setup: Mapping[str, Any]) -> Rate | None:
        entry = self._entries.get(_digest(setup))
        return _rate(entry.get("rate")) if isinstance(entry, dict) else None

    def missing(self, runs: Sequence[PlannedRun], hardware: str | None, fresh: bool) -> list[tuple[Setup, PlannedRun]]:
        """Set-ups without a rate, or with ``fresh`` all set-ups, each with the first run that has it."""
        missing: list[tuple[Setup, PlannedRun]] = []
        for run in runs:
            setup = setup_of(run.config, hardware or hardware_here(run.config))
            if (fresh or self.find(setup) is None) and all(setup != listed for listed, _ in missing):
                missing.append((setup, run))
        return missing

    def add(self, setup: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Stores the result of a probe. Raises RunFailed where that is no rate, WriteError."""
        if _rate(result) is None:
            names = ", ".join(f.name for f in fields(Rate))
            raise RunFailed(f"a probe must give {names}, but gave {dict(result)}")
        entry = {
            "setup": dict(setup),
            "rate": dict(result),
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._entries = _entries(self.path) | {_digest(setup): entry}
        atomic_file.write(self.path, json.dumps(self._entries, indent=1) + "\n")


def setup_of(config: Config, hardware: str) -> Setup:
    """Everything that decides how fast a run is: hardware, torch, and every setting that is not in NOT_SPEED.

    The code is not part of it: a rate stays valid after a change of the code, until it is measured again.
    """
    left_out = {section + name for section, names in NOT_SPEED.items() for name in names}
    settings = {key: get(config, key) for key in FIELDS if key not in left_out}
    if config.data.root is not None:
        settings["data.root"] = str(Path(config.data.root).expanduser().resolve())
    return {"hardware": hardware, "torch": _torch(), **settings}


def hardware_here(config: Config) -> str:
    """The hardware that runs of ``config`` use on this machine: ``NVIDIA H100 80GB HBM3, CPU (AMD EPYC, 16 cores)``."""
    names = [] if config.machine.device == "cpu" else _gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    return ", ".join([*sorted(set(names)), processor()])


def probe_here(config: Config) -> dict[str, Any]:
    """Times a set-up on this machine, in a process of its own.

    Raises SuiteError in one line where the run could not be started either, Interrupted where a signal came.
    """
    with Interrupts() as interrupts, TemporaryDirectory(prefix="atm-price-") as temporary:
        frozen, out, log = (Path(temporary) / name for name in ("config.yaml", "rate.json", "log.txt"))
        frozen.write_text(write_yaml(config.as_dict()))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "sweeps.probe", str(frozen), str(out)],
                cwd=ROOT,
                env=environment(config),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                if interrupts.received:
                    process.send_signal(signal.SIGTERM)
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
        if interrupts.received:
            raise Interrupted(interrupts.received)
        if process.returncode:
            raise _failure(process.returncode, log.read_text(errors="replace"))
        return json.loads(out.read_text())  # type: ignore[no-any-return]


def _failure(code: int, log: str) -> SuiteError:
    if code < 0:
        return RunFailed(f"the probe was killed by {signal.Signals(-code).name}")
    cause = (log.strip().splitlines() or [f"exit code {code}"])[-1]
    return SuiteError(cause) if code == 2 else RunFailed(f"the probe failed: {cause}")


def _entries(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _rate(content: Any) -> Rate | None:
    """None where ``content`` lacks a part of a rate, or has one that is no positive number."""
    if not isinstance(content, Mapping):
        return None
    values: dict[str, Any] = {f.name: content.get(f.name) for f in fields(Rate)}
    numbers = [value for name, value in values.items() if name != "hardware"]
    if not isinstance(values["hardware"], str) or not all(type(n) in (int, float) and n > 0 for n in numbers):
        return None
    return Rate(**values)


def _digest(setup: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(setup, sort_keys=True).encode()).hexdigest()[:16]


def _torch() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


@cache
def _gpus(visible: str | None) -> tuple[str, ...]:
    """Names of the GPUs that this process may use, from the driver; empty where there is no driver."""
    if not shutil.which("nvidia-smi"):
        return ()
    query = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [line.split(", ", 2) for line in done.stdout.splitlines() if done.returncode == 0]
    chosen = None if visible is None else [word.strip() for word in visible.split(",") if word.strip()]
    return tuple(
        name
        for index, uuid, name in (row for row in rows if len(row) == 3)
        if chosen is None or any(word == index or uuid.startswith(word) for word in chosen)
    )
