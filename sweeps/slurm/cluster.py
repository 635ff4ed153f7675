"""What Slurm says of itself and of our jobs, and what it is told: the one module that runs its programs.

``sbatch`` of a whole sweep is submitit's part (``sweeps.slurm.batches``).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ask_program import ask
from errors import SuiteError

ANSWER_SECONDS = 60.0
USUAL_ARRAY_SIZE = 1001  # MaxArraySize unless a site says otherwise
NO_LIMIT = {"UNLIMITED", "NONE", "INFINITE"}
# Slurm's words for a job that will still run, runs, or is just ending; any other is the word for an end
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
    """Slurm is not there, does not answer, or refuses what it is asked for."""


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array, as Slurm last spoke of it."""

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
        """Whether the job may still do something; a state that is not known counts as one."""
        return self.state not in ENDED


@dataclass(frozen=True)
class Partition:
    name: str
    default: bool
    up: bool
    max_minutes: float | None


@dataclass(frozen=True)
class Limits:
    """What a submission must keep to."""

    max_array_size: int
    partitions: dict[str, Partition]
    hosts: frozenset[str]  # machines that the nodes are


@dataclass(frozen=True)
class Situation:
    """What a running job needs to know when it is asked to stop."""

    restarts: int
    preempted: bool
    seconds_left: float | None


class Cluster:
    """The Slurm that this machine talks to. Raises SlurmError where it has none, or where it does not answer."""

    def __init__(self) -> None:
        if not shutil.which("sbatch"):
            raise SlurmError("no sbatch on this machine: Slurm answers on the login nodes of a cluster")

    def limits(self) -> Limits:
        config = _answer("scontrol", "show", "config")
        sizes = re.findall(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
        sizes += re.findall(r"\bmax_array_tasks=(\d+)", config)
        nodes = _answer("scontrol", "--all", "show", "nodes", "--oneliner")
        listed = _answer("scontrol", "--all", "show", "partition", "--oneliner")  # hidden ones may be used as well
        partitions = [_partition(_fields(line)) for line in listed.splitlines()]
        return Limits(
            max_array_size=max(1, min(map(int, sizes), default=USUAL_ARRAY_SIZE)),  # 0: no arrays
            partitions={partition.name: partition for partition in partitions},
            hosts=frozenset(re.findall(r"NodeHostName=(\S+)", nodes)),
        )

    def jobs(self, ids: Iterable[str]) -> dict[str, Job]:
        """Our jobs by id: all that are queued, and those of ``ids`` (main ids, without array tasks) that ended.

        One call of squeue and one of sacct. Without accounting, what ended some minutes ago is not known any more.
        What only accounting takes for alive is gone: a controller lost it.
        """
        ours = f"--user={os.geteuid()}"
        found = _queued(_answer("squeue", "--noheader", "--array", "--states=all", ours, "--format=%i|%T|%r|%L|%j"))
        if wanted := ",".join(sorted(ids)):
            columns = "--format=JobID,State,ExitCode,JobName"
            worked, said = _ask("sacct", "--noheader", "--parsable2", "--allocations", columns, f"--jobs={wanted}")
            for job in _accounted(said if worked else "").values():
                if job.id in found:
                    found[job.id] = replace(found[job.id], exit_code=job.exit_code)
                elif not job.alive:
                    found[job.id] = job
        return found

    def check(self, script: Path) -> None:
        """Raises SlurmError where Slurm would never run a batch script: partition, account, time."""
        worked, said = _ask("sbatch", "--test-only", str(script))
        # it says so of nodes that are drained, too, whose jobs would wait: then the submission itself is the test
        if not worked and not re.search("node configuration is not available|node not available", said):
            raise SlurmError(f"Slurm refuses: {refusal(said)}")

    def cancel(self, ids: list[str]) -> None:
        for start in range(0, len(ids), 500):  # a command line is not endless
            _answer("scancel", *ids[start : start + 500])


def situation(job: str) -> Situation | None:
    """How Slurm sees a running job that it has just signalled; None where it does not answer."""
    worked, said = _ask("scontrol", "show", "job", "--oneliner", job)
    if not worked or not said:
        return None
    fields = _fields(said.splitlines()[0])
    left = None
    with suppress(KeyError, ValueError):  # no limit, or a format of the site's own
        left = (datetime.fromisoformat(fields["EndTime"]) - datetime.now()).total_seconds()
    preempted = fields.get("PreemptTime", "None") not in ("None", "N/A")
    return Situation(int(fields.get("Restarts", 0)), preempted, left)


def requeue(job: str) -> tuple[bool, str]:
    """Whether Slurm will start a running job again, and its complaint where it will not."""
    return _ask("scontrol", "requeue", job)


def _ask(*command: str) -> tuple[bool, str]:
    """In Slurm's own formats, whatever the shell's variables say of them or of how jobs are to be submitted."""
    plain = {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_")}
    return ask(*command, seconds=ANSWER_SECONDS, environment=kept | plain)


def refusal(said: str) -> str:
    """The part of a complaint that says what is wrong, without the program's name."""
    said = re.sub(
        r"\b(sbatch|squeue|sacct|scontrol|scancel|allocation failure|error|fatal|JobBatch job submission failed):\s*",
        "",
        said,
    )
    return said.strip() or "no reason given"


def _answer(*command: str) -> str:
    worked, said = _ask(*command)
    if not worked:
        raise SlurmError(f"Slurm does not answer: {command[0]}: {refusal(said)}")
    return said


def _fields(line: str) -> dict[str, str]:
    """``Key=value`` words of ``scontrol --oneliner``."""
    return dict(re.findall(r"(\S+?)=(\S*)", line))


def _partition(fields: dict[str, str]) -> Partition:
    return Partition(
        name=fields["PartitionName"],
        default=fields.get("Default") == "YES",
        up=fields.get("State") == "UP",
        max_minutes=minutes(fields.get("MaxTime", "UNLIMITED")),
    )


def minutes(text: str) -> float | None:
    """A time of Slurm's, ``[D-]HH:MM:SS``, in minutes; None where there is no limit."""
    if text in NO_LIMIT:
        return None
    days, _, clock = text.rpartition("-")
    hours, mins, seconds = ([0, 0, 0, *map(int, clock.split(":"))])[-3:]
    return 1440 * int(days or 0) + 60 * hours + mins + seconds / 60


def _queued(text: str) -> dict[str, Job]:
    jobs = {}
    for line in text.splitlines():
        if line.count("|") < 4:
            continue  # the rest of a name with a line break, of a job that is not ours
        number, state, reason, left, name = line.split("|", 4)
        jobs[number] = Job(number, name, state, "" if reason == "None" else reason, left)
    return jobs


def _accounted(text: str) -> dict[str, Job]:
    """Rows of sacct."""
    jobs: dict[str, Job] = {}
    for line in text.splitlines():
        if line.count("|") < 3:
            continue
        numbers, state, exit_code, name = line.split("|", 3)
        for number in _tasks(numbers):
            jobs[number] = Job(number, name, state.split()[0], exit_code=exit_code)
    return jobs


def _tasks(numbers: str) -> list[str]:
    """Ids of the jobs that sacct names in one row: ``45``, ``45_3``, or what never started, ``45_[3-6,20-30:2%2]``."""
    job, _, tasks = numbers.partition("_[")
    if not tasks:
        return [numbers]
    found = []
    for part in tasks.rstrip("]").partition("%")[0].split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):  # else cut short, "..."
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            found += [f"{job}_{task}" for task in range(first, last + 1, step)]
    return found
