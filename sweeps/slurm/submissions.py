"""What was submitted, on disk: one folder below ``runs_dir/slurm`` for each launch. Job numbers name nothing else."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atomic_file
from sweeps.slurm.cluster import Cluster, Job, SlurmError

if TYPE_CHECKING:  # it imports submitit, which only a launch needs
    from sweeps.slurm.batches import Batch

FOLDER = "slurm"
FILE = "submission.json"


@dataclass(frozen=True)
class SubmittedRun:
    """The newest job of a run. ``job`` is None where Slurm knows nothing of it any more."""

    id: str
    job: Job | None
    folder: Path  # of the submission

    @property
    def log(self) -> Path:
        """What the first process of the job said."""
        return self.folder / f"{self.id}_0_log.err"


class Submission:
    """A launch: written before anything is submitted, so that jobs are found again if it dies half-way."""

    def __init__(self, runs_dir: Path, sweep: str, code: Path):
        self.id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self.folder = runs_dir / FOLDER / self.id
        self.sweep, self.code = sweep, code

    def write(self, batches: Iterable[Batch], jobs: Mapping[str, str]) -> None:
        described = [{"name": batch.name, "job": jobs.get(batch.name), "runs": list(batch.runs)} for batch in batches]
        content = {"sweep": self.sweep, "code": str(self.code), "batches": described}
        atomic_file.write(self.folder / FILE, json.dumps(content, indent=1) + "\n")


def find(runs_dir: Path, runs: Collection[str], cluster: Cluster | None) -> dict[str, SubmittedRun]:
    """The newest job of each run that has one; nothing is asked of Slurm where none has.

    cluster: None where Slurm is not to be asked, or does not answer.
    """
    rows = list(_rows(runs_dir, set(runs)))
    if not rows:
        return {}
    jobs = cluster.jobs({row["job"] for row, _ in rows if row["job"]}) if cluster else {}
    by_name = {job.name: job.id.partition("_")[0] for job in jobs.values()}
    found: dict[str, SubmittedRun] = {}
    for row, folder in rows:  # newest first
        # a launch that died after sbatch and before it could write down what it had been told
        number = row["job"] or by_name.get(row["name"])
        if number is None:
            continue
        for place, run in enumerate(row["runs"]):
            if run in runs and run not in found:
                own = f"{number}_{place}" if len(row["runs"]) > 1 else number
                # tasks that were cancelled before they started are one record, of the whole array
                found[run] = SubmittedRun(own, jobs.get(own) or jobs.get(number), folder)
    return found


def known(runs_dir: Path, runs: Collection[str]) -> tuple[dict[str, SubmittedRun], str | None]:
    """``find`` for whoever only looks: where Slurm does not answer, what is on disk, and the complaint."""
    if not any(_rows(runs_dir, set(runs))):
        return {}, None
    try:
        return find(runs_dir, runs, Cluster()), None
    except SlurmError as error:
        return find(runs_dir, runs, None), str(error)


def _rows(runs_dir: Path, runs: set[str]) -> Iterator[tuple[dict[str, Any], Path]]:
    """Batches that hold one of the runs, the newest first; what cannot be read is left out."""
    for path in sorted((runs_dir / FOLDER).glob(f"*/{FILE}"), reverse=True):
        with suppress(OSError, ValueError, KeyError, TypeError):
            batches = json.loads(path.read_text())["batches"]
            yield from [(batch, path.parent) for batch in reversed(batches) if not runs.isdisjoint(batch["runs"])]
