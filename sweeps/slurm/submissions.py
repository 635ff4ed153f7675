"""Records of submissions: a folder below ``runs_dir/slurm`` for each launch. Job numbers name nothing else."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import atomic_file
from errors import RunFolderError, UnreadableError
from sweeps.slurm.cluster import Cluster, Job, SlurmError
from untrusted_files import LIST, keys_and_values, listed

if TYPE_CHECKING:  # it imports submitit, which only a launch needs
    from sweeps.slurm.batches import JobBatch

FOLDER = "slurm"
FILE = "submission.json"


@dataclass(frozen=True)
class SubmittedRun:
    """The newest job of a run. ``job`` is None where Slurm no longer knows it, or was not asked."""

    id: str
    job: Job | None
    folder: Path  # of the submission
    asked: bool = True

    @property
    def log(self) -> Path:
        """Output of the first process of the job."""
        return self.folder / f"{self.id}_0_log.err"

    @property
    def alive(self) -> bool:
        return self.job is not None and self.job.alive

    @property
    def has_call(self) -> bool:
        """Whether the job has a call to execute; without one, because the launch was killed, the job will fail."""
        return (self.folder / f"{self.id}_submitted.pkl").is_file()


class Submission:
    """The record of a launch, written before anything is submitted, so that jobs are found if the launch is killed."""

    def __init__(self, runs_dir: Path, sweep: str):
        self.id = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"  # sorts by time
        self.folder = runs_dir / FOLDER / self.id
        self.sweep = sweep

    def write(self, batches: Iterable[JobBatch], jobs: Mapping[str, str]) -> None:
        described = [
            {"name": batch.name, "job": jobs.get(batch.name), "runs": list(batch.runs), "code": str(batch.code)}
            for batch in batches
        ]
        content = {"sweep": self.sweep, "batches": described}
        atomic_file.write(self.folder / FILE, json.dumps(content, indent=1) + "\n")


def find(runs_dir: Path, runs: Collection[str], cluster: Cluster) -> dict[str, SubmittedRun]:
    """The newest job of each run that has one, preferably one that is alive; asks Slurm only where there are jobs.

    A job is a run's only if it has the name that was submitted, too: Slurm begins to count anew some day.

    Raises SlurmError where Slurm does not answer, RunFolderError for a record that cannot be read, whose jobs may be
    in the queue.
    """
    rows = list(_rows(runs_dir, set(runs), strict=True))
    return _matched(rows, runs, cluster) if rows else {}


def exist(runs_dir: Path, runs: Collection[str]) -> bool:
    """Whether any of the runs was ever submitted. Raises RunFolderError for a record that cannot be read."""
    return any(True for _ in _rows(runs_dir, set(runs), strict=True))


def known(runs_dir: Path, runs: Collection[str]) -> tuple[dict[str, SubmittedRun], str | None]:
    """``find`` for reading commands: where Slurm does not answer, the jobs on record, and the complaint."""
    rows = list(_rows(runs_dir, set(runs), strict=False))
    if not rows:
        return {}, None
    try:
        return _matched(rows, runs, Cluster()), None
    except SlurmError as error:
        return _matched(rows, runs, None), str(error)


def _matched(
    rows: list[tuple[dict[str, Any], Path]], runs: Collection[str], cluster: Cluster | None
) -> dict[str, SubmittedRun]:
    jobs = cluster.jobs({row["job"] for row, _ in rows if row["job"]}) if cluster else {}
    by_name = {job.name: job.id.partition("_")[0] for job in jobs.values()}
    newest: dict[str, SubmittedRun] = {}
    for row, folder in rows:  # newest first
        # by name if the launch was killed after sbatch and before it wrote down the number
        number = row["job"] or by_name.get(row["name"])
        if number is None:
            continue
        for place, run in enumerate(row["runs"]):
            own = f"{number}_{place}" if len(row["runs"]) > 1 else number
            # tasks that were cancelled before they started have one common record, that of the array
            job = jobs.get(own) or jobs.get(number)
            if job is not None and job.name != row["name"]:
                job = None  # Slurm has given the number to somebody else's job
            submitted = SubmittedRun(own, job, folder, asked=cluster is not None)
            if run in runs and (run not in newest or (submitted.alive and not newest[run].alive)):
                newest[run] = submitted
    return newest


def _rows(runs_dir: Path, runs: set[str], strict: bool) -> Iterator[tuple[dict[str, Any], Path]]:
    """Batches that contain one of the runs, the newest first."""
    for folder in reversed(listed(runs_dir / FOLDER)):
        try:
            batches = keys_and_values(folder / FILE, {"batches": LIST})["batches"]
            if not all(map(_is_batch, batches)):
                raise TypeError("its batches are not those of a submission")
            yield from [(batch, folder) for batch in reversed(batches) if not runs.isdisjoint(batch["runs"])]
        except FileNotFoundError:
            continue
        except (UnreadableError, KeyError, TypeError) as error:
            if strict:
                raise RunFolderError(
                    f"{folder / FILE} cannot be read, and its jobs may be in the queue: {error}"
                ) from None


def _is_batch(batch: Any) -> bool:
    return (
        isinstance(batch, dict)
        and isinstance(batch.get("name"), str)
        and isinstance(batch.get("job"), str | None)
        and isinstance(runs := batch.get("runs"), list)
        and all(isinstance(run, str) for run in runs)
    )
