"""The state of each planned run. Reads only, whatever it encounters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import UnreadableError
from experiments.folder.run_folder import RunFolder
from results.run_folders.summary_file import broken
from run_format import (
    CANCELLED,
    DEAD_ENDS,
    DONE,
    EXCLUDED,
    EXCLUSION,
    FAILED,
    INTERRUPTED,
    MEASURED,
    NOT_RUN,
    QUEUED,
    REFUSED,
    RUNNING,
    STATE,
    UNKNOWN,
    UNREADABLE,
)
from sweeps.plan import Plan
from sweeps.slurm import attempts
from untrusted_files import listed

if TYPE_CHECKING:
    from sweeps.measured import MeasuredRuns
    from sweeps.slurm.cluster import Job
    from sweeps.slurm.submissions import SubmittedRun

BROKEN = ("OUT_OF_MEMORY", "DEADLINE")  # ends of a Slurm job that another start would not avoid
AGAIN = "; starting it again resumes it"


@dataclass(frozen=True)
class RunStatus:
    run: str
    arm: str
    seed: int
    task: str
    state: str
    detail: str
    share: float  # of its steps, 0 to 1
    job: str | None = None  # the newest of its Slurm jobs

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe(
    plan: Plan,
    runs_dir: Path,
    submitted: Mapping[str, SubmittedRun] | None = None,
    measured: MeasuredRuns | None = None,
) -> list[RunStatus]:
    """The state of every planned run; for a run that was never started, the detail names the run it waits for.

    submitted: the newest Slurm jobs of runs, by run id. measured: runs that were collected earlier.
    """
    submitted = submitted or {}
    known: dict[str, tuple[str, str, float]] = {}
    for run in plan.distinct().values():  # parents first
        known[run.id] = state_of(RunFolder(runs_dir / run.id), submitted.get(run.id))
        if measured:
            known[run.id] = measured.state(run.id, known[run.id], submitted.get(run.id))
        if run.parent and known[run.id][0] in (NOT_RUN, QUEUED, CANCELLED) and known[run.parent][0] != DONE:
            known[run.id] = (*_behind(run.parent, known[run.parent][0], known[run.id]), 0.0)
    jobs = {run: newest.id for run, newest in submitted.items()}
    return [RunStatus(run.id, run.arm, run.seed, run.task, *known[run.id], jobs.get(run.id)) for run in plan.runs]


def _behind(parent: str, state: str, own: tuple[str, str, float]) -> tuple[str, str]:
    """(state, detail) of a run that has not started and whose parent is in ``state``, which is not done."""
    if state == MEASURED:
        return own[0], f"waits for {parent}, whose weights are gone and which is trained again for it"
    if state in DEAD_ENDS:
        end = state if state == FAILED else f"was {state}"
        return CANCELLED, f"its parent {parent} {end}; the next launch starts this run once the parent is done"
    return own[0], f"waits for {parent}" + (f", {own[1]}" if own[1] else "")


def state_of(folder: RunFolder, submitted: SubmittedRun | None = None) -> tuple[str, str, float]:
    """(state, one line of detail, share done) of a run folder that may not exist, and of the run's newest Slurm job."""
    try:
        return _readable(folder, submitted)
    except UnreadableError as error:
        return UNREADABLE, str(error), 0.0


def _readable(folder: RunFolder, submitted: SubmittedRun | None) -> tuple[str, str, float]:
    listed(folder.path)  # a claim shows only there
    if because := folder.read_json(EXCLUSION).get("because"):
        return EXCLUDED, str(because), 1.0
    if summary := folder.summary():
        if why := broken(summary):
            return FAILED, why, 1.0
        return DONE, "  ".join(f"{name} {value:.2f}" for name, value in summary["metrics"].items()), 1.0
    record = folder.read_json(STATE)
    steps = record.get("steps") or 0
    share = (record.get("step") or 0) / steps if steps else 0.0
    holder = folder.holder()
    job = submitted.job if submitted else None
    if job is not None and job.alive:
        return *_alive(folder, record, job, live=holder is not None), share
    if holder and not (job and holder.job == job.id):  # a claim outlives its process for a minute
        return RUNNING, f"{_progress(record)}, by {holder}", share
    if record.get("state") in (FAILED, REFUSED):
        return record["state"], f"{record.get('cause')} (log: {folder.log})", share
    if submitted and not submitted.asked:
        return UNKNOWN, f"job {submitted.id}: Slurm does not answer", share
    if record.get("state") == INTERRUPTED:
        cause = str(record.get("cause"))
        return INTERRUPTED, (f"by {cause}" if cause.startswith("SIG") else cause) + _history(folder) + AGAIN, share
    if record and record.get("state") != RUNNING:
        return UNKNOWN, f"{STATE} says {record.get('state')!r}", share
    if submitted and job is None and not record:
        return UNKNOWN, f"job {submitted.id}: Slurm no longer knows it; the next launch submits it again", share
    if submitted and job:
        return *_ended(folder, bool(record), job, submitted.log), share
    if record:
        age = max(0.0, time.time() - (record.get("updated") or 0.0))
        return INTERRUPTED, f"its process died, last heard of {span(age)} ago" + AGAIN, share
    return NOT_RUN, "", 0.0


def _alive(folder: RunFolder, record: dict[str, Any], job: Job, live: bool) -> tuple[str, str]:
    """(state, detail) of a run whose job is in the queue. live: a process holds the run."""
    if job.waiting:
        if job.reason == "DependencyNeverSatisfied":
            return CANCELLED, f"job {job.id}: its parent failed"
        return QUEUED, f"({job.reason or job.state}) job {job.id}" + _history(folder)
    if job.running:
        limit = f", {job.left} to its limit" if job.left and job.left != "UNLIMITED" else ""
        progress = _progress(record) if live else "starting"
        return RUNNING, f"{progress}, job {job.id}{limit}" + _history(folder)
    return UNKNOWN, f"Slurm reports state {job.state} for job {job.id}"


def _ended(folder: RunFolder, began: bool, job: Job, log: Path) -> tuple[str, str]:
    """(state, detail) of a run whose job ended without a word of the run itself. began: the run had started."""
    how = f"{job.state}, exit code {job.exit_code}" if job.exit_code not in ("", "0:0") else job.state
    if job.state in BROKEN or (job.state == "FAILED" and not began):
        return FAILED, f"job {job.id} ended: {how} (log: {log})"
    if began:
        return INTERRUPTED, f"job {job.id} ended: {how}" + _history(folder) + AGAIN
    return CANCELLED, f"job {job.id} ended before the run began: {how}; the next launch submits it again"


def _history(folder: RunFolder) -> str:
    """How earlier jobs ended, to be appended to a detail."""
    past = str(attempts.read(folder))
    return f", {past}" if past else ""


def _progress(record: dict[str, Any]) -> str:
    """``training epoch 3/10, 812 img/s, 5 min left``; steps where the run does not count epochs."""
    if record.get("epochs"):
        where = f"epoch {record.get('epoch')}/{record['epochs']}"
    elif record.get("phase"):
        where = f"step {record.get('step', 0)}/{record.get('steps')}"
    else:
        return "starting"
    left, problem = record.get("seconds_left"), record.get("problem")
    return (
        f"{record.get('phase', 'training')} {where}, {record.get('images_per_s') or 0:.0f} img/s"
        + (f", {span(left)} left" if left is not None else "")
        + (f", {problem}" if problem else "")
    )


def span(seconds: float) -> str:
    """``40 s``, ``12 min``, ``1.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
