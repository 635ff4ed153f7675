"""Takes the jobs of a sweep back from Slurm. What runs saves its state first; the next launch goes on."""

from __future__ import annotations

from pathlib import Path

from sweeps.plan import Plan
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.submissions import find


def cancel(plan: Plan, runs_dir: Path, cluster: Cluster) -> dict[str, str]:
    """Cancels every queued or running job of a plan's runs; returns the jobs by run id."""
    found = find(runs_dir, plan.distinct(), cluster)
    jobs = {run: submitted.id for run, submitted in found.items() if submitted.alive}
    cluster.cancel(list(jobs.values()))
    return jobs
