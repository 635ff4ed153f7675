"""Cancels the Slurm jobs of a sweep. Running jobs save their state first; the next launch resumes them."""

from __future__ import annotations

from pathlib import Path

from sweeps.plan import Plan
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.submissions import find


def cancel(plan: Plan, runs_dir: Path, cluster: Cluster) -> dict[str, str]:
    """Cancels every queued or running job of a plan's runs; returns the jobs by run id."""
    submitted = find(runs_dir, plan.distinct(), cluster)
    jobs = {run: newest.id for run, newest in submitted.items() if newest.alive}
    cluster.cancel(list(jobs.values()))
    return jobs
