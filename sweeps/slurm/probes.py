"""Times set-ups where they will run: one short job for each that has not been timed, all of them as an array."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFailed
from experiments.config import write_yaml
from experiments.identity import run_id
from experiments.interrupts import Interrupted, Interrupts
from sweeps.plan import Plan, PlannedRun
from sweeps.price import Price, estimate
from sweeps.rates import ON_SLURM, PRICES, Rates
from sweeps.slurm import snapshot
from sweeps.slurm.batches import Batch, executor, submit
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.job import TimeRun
from sweeps.slurm.launch import refuse_unfit
from sweeps.slurm.resources import Resources
from sweeps.slurm.submissions import FOLDER, Submission

MINUTES = 30  # at most, of a job that takes one or two
POLL_SECONDS = 2.0


def estimate_on_slurm(
    plan: Plan, runs_dir: Path, cluster: Cluster, fresh: bool = False, say: Callable[[str], None] = lambda line: None
) -> Price:
    """``sweeps.price.estimate`` with rates from the nodes that the runs will get.

    Waits for the jobs; a signal cancels them. Raises SuiteError where a probe cannot be submitted, or fails.
    """
    missing = Rates(runs_dir / PRICES).missing(list(plan.distinct().values()), ON_SLURM, fresh)
    runs = [run for _, run in missing]
    found = _measure(plan.sweep, runs, runs_dir, cluster, say) if runs else {}
    return estimate(plan, runs_dir, lambda config: found[run_id(config)], ON_SLURM, fresh)


def _measure(
    sweep: str, runs: list[PlannedRun], runs_dir: Path, cluster: Cluster, say: Callable[[str], None]
) -> dict[str, Mapping[str, Any]]:
    """What the probe of each run found, by run id."""
    refuse_unfit(runs, runs_dir, cluster.limits())
    submission = Submission(runs_dir, f"price of {sweep}", snapshot.take(runs_dir / FOLDER / "code"))
    jobs: dict[str, str] = {}
    try:
        with Interrupts() as interrupts:
            for number, run in enumerate(runs):
                config, out = submission.folder / f"{run.id}.yaml", submission.folder / f"{run.id}.json"
                atomic_file.write(config, write_yaml(run.config.as_dict()))
                batch = Batch(f"price.{submission.id}.{number}", _one_device(Resources.of(run.config)), (run.id,))
                made = executor(batch, submission.folder, submission.code, {}, {})
                jobs[run.id] = submit(made, [TimeRun(config, out, Path.cwd())])
                say(f"job {jobs[run.id]} times {run.arm}")
            return _wait(runs, jobs, submission.folder, cluster, interrupts)
    finally:
        alive = cluster.jobs(())
        cluster.cancel([job for job in jobs.values() if job in alive and alive[job].alive])


def _one_device(resources: Resources) -> Resources:
    """A probe trains one device's share of the batch."""
    return replace(
        resources,
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=min(1, resources.gpus_per_node),
        time_minutes=min(MINUTES, resources.time_minutes),
        signal_seconds=min(30, resources.signal_seconds),
    )


def _wait(
    runs: list[PlannedRun], jobs: dict[str, str], folder: Path, cluster: Cluster, interrupts: Interrupts
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    while len(found) < len(runs):
        if interrupts.received:
            raise Interrupted(interrupts.received)
        known = cluster.jobs(())
        for run in runs:
            out, job = folder / f"{run.id}.json", known.get(jobs[run.id])
            if out.is_file():
                found[run.id] = json.loads(out.read_text())
            elif run.id not in found and (job is None or not job.alive):
                log = folder / f"{jobs[run.id]}_0_log.err"
                raise RunFailed(f"the job that was to time {run.arm} ended without a result (log: {log})")
        time.sleep(POLL_SECONDS)
    return found
