"""What has become of each planned run. Reads only, whatever it finds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.run_folder import RunFolder
from sweeps.plan import Plan

DONE, FAILED, REFUSED, RUNNING = "done", "failed", "refused", "running"
INTERRUPTED, NOT_RUN = "interrupted", "not run"
CANCELLED = "cancelled"  # never started, and the run it is to start from failed
LOST = (FAILED, REFUSED, CANCELLED)  # of a parent: its children cannot be started


@dataclass(frozen=True)
class RunStatus:
    run: str
    arm: str
    seed: int
    state: str
    detail: str
    share: float  # of its steps, 0 to 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe(plan: Plan, runs_dir: Path) -> list[RunStatus]:
    """The state of every planned run; one that was never started says which run it waits for."""
    known: dict[str, tuple[str, str, float]] = {}
    for run in plan.distinct().values():  # parents first
        known[run.id] = state_of(RunFolder(runs_dir / run.id))
        if run.parent and known[run.id][0] == NOT_RUN and known[run.parent][0] != DONE:
            known[run.id] = (*_behind(run.parent, known[run.parent][0]), 0.0)
    return [RunStatus(run.id, run.arm, run.seed, *known[run.id]) for run in plan.runs]


def _behind(parent: str, state: str) -> tuple[str, str]:
    """(state, detail) of a run whose parent is in ``state``, which is not done."""
    if state not in LOST:
        return NOT_RUN, f"waits for {parent}"
    said = state if state == FAILED else f"was {state}"
    return CANCELLED, f"its parent {parent} {said}; it is picked up by the next launch once that is done"


def state_of(folder: RunFolder) -> tuple[str, str, float]:
    """(state, one line of detail, share done) of a run folder that may not exist."""
    if summary := folder.finished():
        metrics = "  ".join(f"{name} {value:.2f}" for name, value in summary.get("metrics", {}).items())
        return DONE, metrics, 1.0
    noted = folder.read_json("state.json")
    steps = noted.get("steps") or 0
    share = noted.get("step", 0) / steps if steps else 0.0
    if holder := folder.holder():
        return RUNNING, f"{_progress(noted)}, by {holder}", share
    if noted.get("state") in (FAILED, REFUSED):
        return noted["state"], f"{noted.get('cause')} (log: {folder.log})", share
    if noted.get("state") == INTERRUPTED:
        cause = str(noted.get("cause"))
        by = f"by {cause}" if cause.startswith("SIG") else cause
        return INTERRUPTED, f"{by}; starting it again resumes it", share
    if noted.get("state") == RUNNING:
        age = max(0.0, time.time() - noted.get("updated", 0.0))
        return INTERRUPTED, f"its process died, last heard of {_span(age)} ago; starting it again resumes it", share
    if noted:
        return "unknown", f"state.json says {noted.get('state')!r}", share
    return NOT_RUN, "", 0.0


def _progress(noted: dict[str, Any]) -> str:
    if "epoch" not in noted:
        return "starting"
    left, problem = noted.get("seconds_left"), noted.get("problem")
    return (
        f"{noted.get('phase', 'training')} epoch {noted['epoch']}/{noted['epochs']}, "
        f"{noted.get('images_per_s', 0):.0f} img/s"
        + (f", {_span(left)} left" if left is not None else "")
        + (f", {problem}" if problem else "")
    )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
