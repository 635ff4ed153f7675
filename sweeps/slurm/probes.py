"""Times set-ups where they will run: a short job on one device for each set-up without a rate."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import atomic_file
from errors import RunFailed
from experiments.config import write_yaml
from experiments.interrupts import Interrupted, Interrupts
from sweeps import snapshot
from sweeps.plan import Plan, PlannedRun
from sweeps.price import Price, known
from sweeps.rates import ON_SLURM, PRICES, Rates, Setup
from sweeps.slurm.batches import JobBatch, executor, submit, unbroken
from sweeps.slurm.cluster import Cluster, SlurmError
from sweeps.slurm.job import TimeRun
from sweeps.slurm.launch import refuse_unfit
from sweeps.slurm.resources import Resources
from sweeps.slurm.submissions import Submission

MINUTES = 30  # time limit of a job that takes one or two
POLL_SECONDS = 1.0  # between looks at the files
ASK_SECONDS = 15.0  # between questions to Slurm
LATE_SECONDS = 20.0  # after the end of a job, until its file must be visible


def estimate_on_slurm(
    plan: Plan,
    runs_dir: Path,
    cluster: Cluster,
    max_parallel: int | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Price:
    """``sweeps.price.estimate`` with rates from the nodes that the runs will get.

    max_parallel: probes at a time; probes that share the cores of a machine slow one another down.
    Waits for the jobs; a signal cancels them. Raises SuiteError where a probe cannot be submitted, or fails; rates
    measured by then are kept.
    """
    rates = Rates(runs_dir / PRICES)
    missing = rates.missing(list(plan.distinct().values()), ON_SLURM, fresh)
    if missing:
        refuse_unfit([run for _, run in missing], runs_dir, cluster.limits())
        _measure(missing, rates, snapshot.take(runs_dir), Submission(runs_dir, plan.sweep), cluster, max_parallel, say)
    price = known(plan, runs_dir, ON_SLURM)
    assert price is not None
    return price


def _measure(
    missing: list[tuple[Setup, PlannedRun]],
    rates: Rates,
    code: Path,
    submission: Submission,
    cluster: Cluster,
    max_parallel: int | None,
    say: Callable[[str], None],
) -> None:
    """Submits a probe for each set-up and stores each rate as it arrives."""
    jobs: dict[str, str] = {}  # by run id
    by_name: dict[str, str] = {}
    try:
        with Interrupts() as interrupts:
            for number, (_, run) in enumerate(missing):
                config, out = submission.folder / f"{run.id}.yaml", submission.folder / f"{run.id}.json"
                atomic_file.write(config, write_yaml(run.config.as_dict()))
                resources = Resources.of(run.config).on_one_device(MINUTES)
                batch = JobBatch(f"price.{submission.id}.{number}", resources, (run.id,), code)
                if max_parallel and number >= max_parallel:
                    batch = replace(batch, after=(f"price.{submission.id}.{number - max_parallel}",))
                submitting = executor(batch, submission.folder, by_name, {})
                with unbroken():
                    by_name[batch.name] = jobs[run.id] = submit(submitting, [TimeRun(config, out, Path.cwd())])
                say(f"job {jobs[run.id]} times {run.arm}")
            _wait(missing, rates, jobs, submission.folder, cluster, interrupts)
    finally:
        if jobs:
            cluster.cancel(list(jobs.values()))  # no matter that some have ended


def _wait(
    missing: list[tuple[Setup, PlannedRun]],
    rates: Rates,
    jobs: dict[str, str],
    folder: Path,
    cluster: Cluster,
    interrupts: Interrupts,
) -> None:
    """Waits until every probe has written its rate. Raises RunFailed for probes that ended without one, at the end."""
    waiting = {run.id: (setup, run) for setup, run in missing}
    ended: dict[str, float] = {}  # runs whose jobs were seen to have ended, and when
    failed = []
    asked = float("-inf")
    while waiting:
        if interrupts.received:
            raise Interrupted(interrupts.received)
        os.utime(folder)  # makes a network file system look again for files of the jobs
        for run_id, (setup, run) in list(waiting.items()):
            out = folder / f"{run_id}.json"
            if out.is_file():
                rates.add(setup, json.loads(out.read_text()))
                del waiting[run_id]
            elif time.monotonic() - ended.get(run_id, float("inf")) > LATE_SECONDS:
                failed.append(f"{run.arm} (log: {folder / f'{jobs[run_id]}_0_log.err'})")
                del waiting[run_id]
        if time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            with suppress(SlurmError):  # it is asked again
                known_jobs = cluster.jobs(())
                for run_id in waiting:
                    job = known_jobs.get(jobs[run_id])
                    if job is None or not job.alive:
                        ended.setdefault(run_id, asked)
        time.sleep(POLL_SECONDS)
    if failed:
        raise RunFailed(f"jobs that timed a set-up ended without a result: {', '.join(failed)}")
