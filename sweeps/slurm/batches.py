"""Runs are distributed over job arrays, which submitit submits to Slurm."""

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
from experiments.interrupts import handle, restore
from sweeps.plan import PlannedRun
from sweeps.slurm.cluster import SlurmError, refusal
from sweeps.slurm.resources import Resources

# until Python handles them, the signals with which Slurm announces the end of a job would kill it: no requeue
UNHARMED = ["sh", "-c", 'trap "" USR2 TERM; exec "$0" "$@"']
SUBMIT_SECONDS = 300.0  # for an answer of sbatch; signals wait for as long
NEVER = 10**9  # time-outs after which submitit gives up; the job counts them itself


@dataclass(frozen=True)
class JobBatch:
    """The runs that one call of sbatch submits: an array, or a single run."""

    name: str
    resources: Resources
    runs: tuple[str, ...]  # ids, by array index
    code: Path  # the copy of the code that they run
    at_once: int | None = None  # of an array's tasks; None = all
    after: tuple[str, ...] = ()  # names of batches that must have ended, in whatever state
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
    """The batches of all groups, with limits and dependencies so that at most ``max_parallel`` runs run at a time.

    ``max_parallel`` slots are divided among the groups. An array takes all slots of its group, and its own limit fills
    them; a single job takes one slot. Each batch waits for those that had its slots before.
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


def python_command(words: Sequence[str]) -> str:
    """The shell command that starts Python in a job. words: of ``slurm.python``, the last of them the interpreter.

    What goes before it starts a container, whose own program, unlike a shell, hands no ignored signal on: inside, the
    signals are ignored anew.
    """
    *container, interpreter = words or [sys.executable]
    return shlex.join([*UNHARMED, *container, *(UNHARMED if container else []), interpreter])


class Executor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor, which can also give the batch script on a machine without Slurm."""

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
        extra["kill-on-invalid-dep"] = "yes"  # otherwise the job would wait for a failed parent forever
    submitting = Executor(folder, max_num_timeout=NEVER, python=python_command(batch.resources.python))
    submitting.update_parameters(
        job_name=batch.name,
        array_parallelism=batch.at_once or len(batch.runs),
        dependency=",".join(waits) or None,
        additional_parameters=extra,
        **parameters,
    )
    return submitting


class _NoAnswer(Exception):
    """The time limit of a call has passed."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises _NoAnswer in what runs for longer; it ends the program that it waits for."""

    def raise_it(*_: Any) -> None:
        raise _NoAnswer

    previous = signal.signal(signal.SIGALRM, raise_it)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def submit(submitting: Executor, calls: Sequence[Callable[[], Any]]) -> str:
    """Hands a batch to Slurm and returns its job id, of an array without tasks. Raises SlurmError."""
    try:
        with _plain_environment(submitting), _limited(SUBMIT_SECONDS):
            if len(calls) == 1:
                return str(submitting.submit(calls[0]).job_id)
            with submitting.batch():
                jobs = [submitting.submit(call) for call in calls]
            return str(jobs[0].job_id).partition("_")[0]
    except (FailedJobError, FailedSubmissionError, _NoAnswer) as error:
        if isinstance(error, _NoAnswer) or isinstance(error.__cause__, _NoAnswer):
            name = submitting.parameters.get("job_name")
            raise SlurmError(
                f"sbatch has not answered for {SUBMIT_SECONDS:g} s and was ended; the job may exist: "
                f"squeue --name={name} tells, and the next launch finds it"
            ) from None
        raise SlurmError(f"Slurm refuses: {refusal(' '.join(str(error).split()))}") from None
    except OSError as error:
        raise SlurmError(f"cannot write into {submitting.folder}: {atomic_file.reason(error)}") from None


@contextmanager
def unbroken() -> Iterator[None]:
    """Delays signals, for this process and the sbatch that it starts, until submitit has the answer of sbatch.

    Only then does submitit write down what each job is to call; a job without a call can only fail.
    """
    received: list[int] = []
    waiting = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = handle(lambda number, _: received.append(number), waiting)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waiting)  # children inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        restore(previous)
        if received:
            signal.raise_signal(received[0])


@contextmanager
def _plain_environment(submitting: Executor) -> Iterator[None]:
    """Without variables that override the batch script, or belong to a job in which the launch itself runs."""
    inside = "SLURM_JOB_ID" in os.environ
    needed = {"SLURM_CONF", *(() if submitting.parameters.get("account") else ("SBATCH_ACCOUNT",))}
    dropped = {n: v for n, v in os.environ.items() if n.startswith(("SBATCH_", "SUBMITIT_")) and n not in needed}
    configured = {name: os.environ[name] for name in needed if name in os.environ}
    for name in dropped:
        del os.environ[name]
    try:
        with clean_env() if inside else nullcontext():
            os.environ.update(configured)
            yield
    finally:
        os.environ.update(dropped)
