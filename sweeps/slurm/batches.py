"""Runs dealt out to job arrays, and the arrays handed to Slurm by submitit."""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

import atomic_file
from sweeps.plan import PlannedRun
from sweeps.slurm.cluster import SlurmError, refusal
from sweeps.slurm.resources import Resources

# until Python listens, the signals by which Slurm announces an end would end the job: it would not be requeued
PYTHON = shlex.join(["sh", "-c", 'trap "" USR2 TERM; exec "$0" "$@"', sys.executable])
NEVER = 10**9  # time-outs after which submitit gives up: the job itself counts them


@dataclass(frozen=True)
class JobBatch:
    """What one call of sbatch submits: an array of runs, or a single one."""

    name: str
    resources: Resources
    runs: tuple[str, ...]  # ids, by array index
    code: Path  # the copy of the code that they run
    at_once: int | None = None  # of an array's tasks; None = all
    after: tuple[str, ...] = ()  # names of batches that must have ended, whatever became of them
    parents: tuple[str, ...] = ()  # runs that must be done

    def job_of(self, run: str, job: str) -> str:
        """The id of a run's job as squeue spells it, given the id that sbatch returned."""
        return f"{job}_{self.runs.index(run)}" if len(self.runs) > 1 else job


def deal(
    runs: Sequence[PlannedRun],
    copies: Mapping[str, Path],
    waits: Mapping[str, str],
    largest: int,
    max_parallel: int | None,
    prefix: str,
) -> list[JobBatch]:
    """Batches in the order in which they are to be submitted.

    One array for all runs with the same resources and the same copy of the code, split at ``largest`` tasks. waits:
    runs that wait for another run; Slurm knows dependencies between jobs only, so each of these runs is a batch of its
    own. At most ``max_parallel`` runs at a time: batches that cannot share the limit of an array wait for one another.
    """
    groups: list[list[JobBatch]] = []
    kinds = {run.id: (Resources.of(run.config), copies[run.id]) for run in runs}
    for resources, code in dict.fromkeys(kinds.values()):
        alike = [run.id for run in runs if run.id not in waits and kinds[run.id] == (resources, code)]
        parts = [tuple(alike[start : start + largest]) for start in range(0, len(alike), largest)]
        groups.append([JobBatch("", resources, part, code) for part in parts])
    late = [run.id for run in runs if run.id in waits]
    groups.append([JobBatch("", kinds[run][0], (run,), kinds[run][1], parents=(waits[run],)) for run in late])
    number = itertools.count()
    named = [[replace(batch, name=f"{prefix}.{next(number)}") for batch in group] for group in groups if group]
    return _throttled(named, max_parallel) if max_parallel else list(itertools.chain(*named))


def _throttled(groups: list[list[JobBatch]], max_parallel: int) -> list[JobBatch]:
    """The groups' batches, with limits and an order by which all together run ``max_parallel`` at a time.

    Think of as many slots, divided among the groups: an array takes all slots of its group and fills them by its own
    limit, a single job takes one, and each waits for what had them before.
    """
    lanes = [list[str | None]() for _ in range(min(max_parallel, len(groups)))]
    for slot in range(max_parallel):
        lanes[slot % len(lanes)].append(None)
    ordered = []
    for slots, group in zip(itertools.cycle(lanes), groups):
        for place, batch in enumerate(group):
            taken = range(len(slots)) if len(batch.runs) > 1 else [place % len(slots)]
            after = tuple(dict.fromkeys(name for slot in taken if (name := slots[slot])))
            for slot in taken:
                slots[slot] = batch.name
            at_once = len(slots) if len(batch.runs) > 1 else None
            ordered.append(replace(batch, at_once=at_once, after=after))
    return ordered


class Executor(SlurmExecutor):  # type: ignore[misc]
    """submitit's, which can also say what it would submit where there is no Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 1

    def text(self, tasks: int) -> str:
        """The batch script for so many tasks."""
        if tasks > 1:
            self.parameters["map_count"] = tasks
        return str(self._make_submission_file_text(self._submitit_command_str, "text"))


def executor(batch: JobBatch, folder: Path, jobs: Mapping[str, str], run_jobs: Mapping[str, str]) -> Executor:
    """Submits a batch. jobs: batch names to job ids; run_jobs: run ids to job ids, for its dependencies."""
    parameters = batch.resources.parameters()
    waits = [f"afterany:{jobs[name]}" for name in batch.after]
    waits += [f"afterok:{run_jobs[run]}" for run in batch.parents]
    extra = {**parameters.pop("additional_parameters"), "chdir": str(batch.code)}
    if batch.parents:
        extra["kill-on-invalid-dep"] = "yes"  # else it would wait for a failed parent for ever
    made = Executor(folder, max_num_timeout=NEVER, python=PYTHON)
    made.update_parameters(
        job_name=batch.name,
        array_parallelism=batch.at_once or len(batch.runs),
        dependency=",".join(waits) or None,
        additional_parameters=extra,
        **parameters,
    )
    return made


def submit(made: Executor, calls: Sequence[Callable[[], Any]]) -> str:
    """Hands a batch to Slurm and returns its job id, of an array without tasks. Raises SlurmError."""
    try:
        with _plain_environment(made):
            if len(calls) == 1:
                return str(made.submit(calls[0]).job_id)
            with made.batch():
                jobs = [made.submit(call) for call in calls]
            return str(jobs[0].job_id).partition("_")[0]
    except (FailedJobError, FailedSubmissionError) as error:
        said = " ".join(str(error).split())
        raise SlurmError(f"Slurm refuses: {refusal(said)}") from None
    except OSError as error:
        raise SlurmError(f"cannot write into {made.folder}: {atomic_file.reason(error)}") from None


@contextmanager
def unbroken() -> Iterator[None]:
    """Lets signals wait, for this process and for the sbatch that it starts: submitit must hear its answer.

    submitit gives each job its call only then; a job without one can but fail.
    """
    noted: list[int] = []
    waiting = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda found, _: noted.append(found)) for number in waiting}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)  # is handed on to children
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in previous.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])


@contextmanager
def _plain_environment(made: Executor) -> Iterator[None]:
    """Without what would override the batch script, or is of a job in which the launch itself is running."""
    inside = "SLURM_JOB_ID" in os.environ
    kept = {"SLURM_CONF", *(() if made.parameters.get("account") else ("SBATCH_ACCOUNT",))}
    dropped = {n: v for n, v in os.environ.items() if n.startswith(("SBATCH_", "SUBMITIT_")) and n not in kept}
    configured = {name: os.environ[name] for name in kept if name in os.environ}
    for name in dropped:
        del os.environ[name]
    try:
        with clean_env() if inside else nullcontext():
            os.environ.update(configured)
            yield
    finally:
        os.environ.update(dropped)
