"""The Slurm jobs that worked on a run, in order: ``attempts.jsonl`` in its folder, which the jobs write."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from experiments.folder.run_folder import RunFolder
from run_format import ATTEMPTS
from untrusted_files import content, is_number

PREEMPTED, TIMED_OUT, LOST_CONTACT = "preempted", "timed out", "lost contact"
RESTARTED = "restarted"  # by Slurm, after an end that it did not announce, e.g. because a node failed
COUNTED = (PREEMPTED, TIMED_OUT, LOST_CONTACT, RESTARTED)


@dataclass(frozen=True)
class Attempts:
    """How often the jobs of a run ended before it did."""

    counts: dict[str, int]

    def __str__(self) -> str:
        return ", ".join(f"{how} ×{count}" for how, count in self.counts.items() if count)


def started(folder: RunFolder, job: str, restarts: int, host: str) -> None:
    _append(folder, {"what": "started", "job": job, "restarts": restarts, "host": host})


def ended(folder: RunFolder, job: str, how: str) -> None:
    _append(folder, {"what": "ended", "job": job, "how": how})


def read(folder: RunFolder, job: str | None = None) -> Attempts:
    """Of all the run's jobs, or of one."""
    counts = dict.fromkeys(COUNTED, 0)
    open_job = None  # a job that started and has no entry about its end
    for row in _rows(folder):
        if job not in (None, row.get("job")):
            continue
        if row.get("what") == "started":
            if row.get("restarts") and open_job == row.get("job"):
                counts[RESTARTED] += 1
            open_job = row.get("job")
        elif row.get("what") == "ended":
            open_job = None
            if row.get("how") in counts:
                counts[row["how"]] += 1
    return Attempts(counts)


def seconds(folder: RunFolder) -> float:
    """Seconds for which jobs held the run's devices, from each start to its end; jobs without a noted end count 0."""
    total, started_at = 0.0, None
    for row in _rows(folder):
        if row.get("what") == "started":
            started_at = row.get("time")
        elif row.get("what") == "ended" and started_at is not None:
            total += row.get("time", started_at) - started_at
            started_at = None
    return total


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    with suppress(OSError), (folder.path / ATTEMPTS).open("a") as file:  # a full disk must not end the run
        file.write(json.dumps({**row, "time": round(time.time(), 1)}) + "\n")


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    try:
        lines = content(folder.path / ATTEMPTS).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError, RecursionError):  # a torn line
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict) and is_number(row.get("time"))]
