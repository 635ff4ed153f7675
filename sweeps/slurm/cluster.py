"""Queries and commands to Slurm: the only module that runs Slurm's programs.

Except for the ``sbatch`` of a sweep, which submitit runs (``sweeps.slurm.batches``).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ask_program import ask
from errors import SuiteError

ANSWER_SECONDS = 60.0
USUAL_ARRAY_SIZE = 1001  # MaxArraySize unless a site says otherwise
NO_LIMIT = {"UNLIMITED", "NONE", "INFINITE"}
# Slurm's states of jobs that will still run, of those that run or are just ending, and of those that have ended
WAITING = {
    "PENDING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
    "SUSPENDED",
    "STOPPED",
}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"}
ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "PREEMPTED",
    "NODE_FAIL",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
}


class SlurmError(SuiteError):
    """Slurm is not installed, does not answer, or refuses a request."""


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array, as Slurm last described it."""

    id: str  # as squeue and scancel name it: 45, or 45_3 in an array
    name: str
    state: str
    reason: str = ""  # why it waits
    left: str = ""  # until its time limit
    exit_code: str = ""

    @property
    def waiting(self) -> bool:
        return self.state in WAITING

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    @property
    def alive(self) -> bool:
        """Whether the job may still do something; so may a job in a state that is not known."""
        return self.state not in ENDED


@dataclass(frozen=True)
class Partition:
    name: str
    default: bool
    up: bool
    max_minutes: float | None


@dataclass(frozen=True)
class Limits:
    """Limits of the cluster on submissions."""

    max_array_size: int
    partitions: dict[str, Partition]
    hosts: frozenset[str]  # machines of the nodes


@dataclass(frozen=True)
class Situation:
    """The circumstances in which a running job is asked to stop."""

    restarts: int
    preempted: bool
    seconds_left: float | None


class Cluster:
    """The Slurm of this machine. Raises SlurmError where there is none, or where it does not answer."""

    def __init__(self) -> None:
        if not shutil.which("sbatch"):
            raise SlurmError("no sbatch on this machine: Slurm answers on the login nodes of a cluster")

    def limits(self) -> Limits:
        config = _answer("scontrol", "show", "config")
        sizes = re.findall(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
        sizes += re.findall(r"\bmax_array_tasks=(\d+)", config)
        nodes = _answer("scontrol", "--all", "show", "nodes", "--oneliner")
        listed = _answer("scontrol", "--all", "show", "partition", "--oneliner")  # hidden partitions can be used, too
        partitions = [_partition(line) for line in listed.splitlines() if line.strip()]
        return Limits(
            max_array_size=max(1, min(map(int, sizes), default=USUAL_ARRAY_SIZE)),  # 0: no arrays
            partitions={partition.name: partition for partition in partitions},
            hosts=frozenset(re.findall(r"NodeHostName=(\S+)", nodes)),
        )

    def jobs(self, ids: Iterable[str]) -> dict[str, Job]:
        """Our jobs by id: all that are queued, and those of ``ids`` (main ids, without array tasks) that ended.

        One call of squeue and one of sacct. Without accounting, jobs that ended some minutes ago are not known any
        more. A job that is alive only according to accounting is gone: the controller has lost it.
        """
        ours = f"--user={os.geteuid()}"
        jobs = _queued(_answer("squeue", "--noheader", "--array", "--states=all", ours, "--format=%i|%T|%r|%L|%j"))
        if listed := ",".join(sorted(ids)):
            columns = "--format=JobID,State,ExitCode,JobName"
            worked, text = _ask("sacct", "--noheader", "--parsable2", "--allocations", columns, f"--jobs={listed}")
            for job in _accounted(text if worked else "").values():
                if job.id in jobs:
                    jobs[job.id] = replace(jobs[job.id], exit_code=job.exit_code)
                elif not job.alive:
                    jobs[job.id] = job
        return jobs

    def check(self, script: Path) -> None:
        """Raises SlurmError where Slurm would never run a batch script: partition, account, time."""
        worked, text = _ask("sbatch", "--test-only", str(script))
        # this message also comes for drained nodes, where jobs would wait: then the submission itself is the test
        if not worked and not re.search("node configuration is not available|node not available", text):
            raise SlurmError(f"Slurm refuses: {refusal(text)}")

    def cancel(self, ids: list[str]) -> None:
        for start in range(0, len(ids), 500):  # the length of a command line is limited
            _answer("scancel", *ids[start : start + 500])


def situation(job: str) -> Situation | None:
    """How Slurm sees a running job that it has just signalled; None where it does not answer."""
    worked, text = _ask("scontrol", "show", "job", "--oneliner", job)
    if not worked or not text:
        return None
    fields = _fields(text.splitlines()[0])
    left = None
    with suppress(KeyError, ValueError):  # no limit, or a format that the site has changed
        left = (datetime.fromisoformat(fields["EndTime"]) - datetime.now()).total_seconds()
    preempted = fields.get("PreemptTime", "None") not in ("None", "N/A")
    restarts = fields.get("Restarts", "0")
    return Situation(int(restarts), preempted, left) if restarts.isdecimal() else None


def requeue(job: str) -> tuple[bool, str]:
    """Whether Slurm will start a running job again, and its complaint where it will not."""
    return _ask("scontrol", "requeue", job)


def _ask(*command: str) -> tuple[bool, str]:
    """Runs a program of Slurm's with its own formats, whatever variables of the shell say about them or sbatch."""
    plain = {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_")}
    return ask(*command, seconds=ANSWER_SECONDS, environment=environment | plain)


def refusal(complaint: str) -> str:
    """The part of a complaint that states the problem, without the names of programs."""
    text = re.sub(
        r"\b(sbatch|squeue|sacct|scontrol|scancel|allocation failure|error|fatal|JobBatch job submission failed):\s*",
        "",
        complaint,
    )
    return text.strip() or "no reason given"


def _answer(*command: str) -> str:
    worked, text = _ask(*command)
    if not worked:
        raise SlurmError(f"Slurm does not answer: {command[0]}: {refusal(text)}")
    return text


def _fields(line: str) -> dict[str, str]:
    """``Key=value`` words of ``scontrol --oneliner``."""
    return dict(re.findall(r"(\S+?)=(\S*)", line))


def _partition(line: str) -> Partition:
    fields = _fields(line)
    try:
        return Partition(
            name=fields["PartitionName"],
            default=fields.get("Default") == "YES",
            up=fields.get("State") == "UP",
            max_minutes=minutes(fields.get("MaxTime", "UNLIMITED")),
        )
    except (KeyError, ValueError):
        raise _not_understood("scontrol", line) from None


def minutes(text: str) -> float | None:
    """A time of Slurm's, ``[D-]HH:MM:SS``, in minutes; None where there is no limit. Raises ValueError."""
    if text in NO_LIMIT:
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if len(parts) > 3:
        raise ValueError(f"{text!r} is no time of Slurm's")
    hours, mins, seconds = [0, 0, 0, *parts][-3:]
    return 1440 * int(days or 0) + 60 * hours + mins + seconds / 60


def _queued(text: str) -> dict[str, Job]:
    jobs = {}
    for numbers, state, reason, left, name in _rows("squeue", text, 5):
        for number in _tasks(numbers, "squeue"):
            jobs[number] = Job(number, name, state, "" if reason == "None" else reason, left)
    return jobs


def _accounted(text: str) -> dict[str, Job]:
    """Rows of sacct."""
    jobs: dict[str, Job] = {}
    for numbers, state, exit_code, name in _rows("sacct", text, 4):
        for number in _tasks(numbers, "sacct"):
            jobs[number] = Job(number, name, state.split()[0], exit_code=exit_code)
    return jobs


def _rows(program: str, text: str, columns: int) -> Iterator[list[str]]:
    """Rows that begin with a job's number and a state, and end with its name; of several lines, with the first.

    Raises SlurmError for anything else: a job that is skipped would be submitted a second time.
    """
    rows: list[list[str]] = []
    for line in text.splitlines():
        if re.match(r"\d[\d_+\[\],:%.-]*\|", line):
            rows.append(line.split("|", columns - 1))
            if len(rows[-1]) < columns or not rows[-1][1].strip():
                raise _not_understood(program, line)
        elif line.strip() and (not rows or "|" in line):  # otherwise the rest of a name
            raise _not_understood(program, line)
    yield from rows


def _not_understood(program: str, answer: str) -> SlurmError:
    return SlurmError(f"an answer of {program} is not understood, so nothing is done on it: {answer[:200]!r}")


def _tasks(numbers: str, program: str) -> list[str]:
    """Ids of the jobs in one row: ``45``, ``45_3``, or tasks that have not started, ``45_[3-6,20-30:2%2]``.

    Raises SlurmError for other numbers. sacct may cut a list off with ``...``; its further tasks are left to squeue.
    """
    job, _, tasks = numbers.partition("_[")
    if not tasks:
        if not re.fullmatch(r"\d+(_\d+)?([+.]\d+)?", numbers):
            raise _not_understood(program, numbers)
        return [numbers]
    ids = []
    for part in tasks.removesuffix("]").partition("%")[0].split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part):
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            ids += [f"{job}_{task}" for task in range(first, last + 1, step)]
        elif not (program == "sacct" and part.endswith("...")):
            raise _not_understood(program, numbers)
    return ids
