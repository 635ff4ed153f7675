#!/usr/bin/env python3
"""A stand-in for Slurm's programs, whose cluster is a JSON file. Installed under each program's name on a PATH.

Our own decisions are tested against it; tests/slurm tests that a real Slurm behaves this way.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "srun")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY")


class FakeSlurm:
    """The cluster, for a test to read and change."""

    def __init__(self, folder: Path):
        self.bin, self.file = folder / "bin", folder / "cluster.json"
        self.bin.mkdir(parents=True)
        for program in PROGRAMS:
            # with the path of the interpreter, so that PATH needs these programs only
            script = (
                f'#!/bin/sh\nexec "{sys.executable}" -S "{Path(__file__).resolve()}" "{self.file}" {program} "$@"\n'
            )
            (self.bin / program).write_text(script)
            (self.bin / program).chmod(0o755)
        self.write(
            {
                "next": 100,
                "jobs": {},
                "calls": [],
                "scripts": [],
                "accounting": True,
                "lost": [],  # jobs that the controller has forgotten
                "away": False,
                "refuse_after": None,
                "garbled": "",  # what squeue prints before its rows
                "hang": 0,  # seconds for which sbatch does not answer after it has made the job
                "max_array_size": 1001,
                "parameters": "",
                "hosts": ["localhost"],
                "partitions": {
                    "gpu": "Default=YES MaxTime=2-00:00:00 State=UP",
                    "short": "Default=NO MaxTime=00:30:00 State=UP",
                },
            }
        )

    def read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())

    def write(self, content: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(content))

    def set(self, **entries: Any) -> None:
        self.write(self.read() | entries)

    def end(self, job: str, state: str, seconds: int = 60) -> None:
        """Gives a job, or every task of an array, another state."""
        content = self.read()
        for number, known in content["jobs"].items():
            if number == job or number.startswith(f"{job}_"):
                known |= {"state": state, "seconds": seconds, "reason": "None"}
        self.write(content)

    def forget(self) -> None:
        """Forgets ended jobs, as Slurm does after some minutes without accounting."""
        content = self.read()
        content["jobs"] = {n: j for n, j in content["jobs"].items() if j["state"] not in ENDED}
        self.write(content)

    @property
    def jobs(self) -> dict[str, str]:
        return {number: job["state"] for number, job in self.read()["jobs"].items()}

    @property
    def scripts(self) -> list[str]:
        return self.read()["scripts"]

    def calls(self, program: str) -> list[list[str]]:
        return [call[1:] for call in self.read()["calls"] if call[0] == program]


def main(file: Path, program: str, *words: str) -> int:
    content = json.loads(file.read_text())
    content["calls"].append([program, *words])
    content["environment"] = dict(os.environ)
    code = 1 if content["away"] else globals()[program](content, *words)
    if content["away"]:
        print(f"{program}: error: Unable to contact slurm controller (connect failure)", file=sys.stderr)
    write(content)
    return int(code)


def write(content: dict[str, Any]) -> None:
    file = Path(sys.argv[1])
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(file)


def sbatch(content: dict[str, Any], *words: str) -> int:
    text = Path(words[-1]).read_text()
    option = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    if option.get("account") == "nobody":
        return refuse("JobBatch job submission failed: Invalid account or account/partition combination specified")
    if "--test-only" in words:
        return 0
    if content["refuse_after"] is not None and len(content["scripts"]) >= content["refuse_after"]:
        return refuse("JobBatch job submission failed: Job violates accounting/QOS policy (job submit limit)")
    number = str(content["next"])
    content["next"] += 1
    content["scripts"].append(text)
    waits = "Dependency" if "dependency" in option else "Priority"
    last = re.match(r"0-(\d+)", option.get("array", ""))
    for name in [f"{number}_{task}" for task in range(int(last[1]) + 1)] if last else [number]:
        content["jobs"][name] = {"state": "PENDING", "reason": waits, "name": option["job-name"], "seconds": 0}
    if content["hang"]:
        write(content)
        time.sleep(content["hang"])
    print(f"Submitted batch job {number}")
    return 0


def squeue(content: dict[str, Any], *words: str) -> int:
    if content["garbled"]:
        print(content["garbled"])
    for number, job in content["jobs"].items():
        if number not in content["lost"] and (job["state"] not in ENDED or not content["accounting"]):
            print(f"{number}|{job['state']}|{job['reason']}|1:00:00|{job['name']}")
    return 0


def sacct(content: dict[str, Any], *words: str) -> int:
    if not content["accounting"]:
        return refuse("Slurm accounting storage is disabled")
    listed = next(word for word in words if word.startswith("--jobs=")).partition("=")[2].split(",")
    for number, job in content["jobs"].items():
        if number.partition("_")[0] in listed:
            print(f"{number}|{job['state']}|1:0|{job['name']}")
    return 0


def scontrol(content: dict[str, Any], *words: str) -> int:
    words = tuple(word for word in words if word != "--all")
    if words[:2] == ("show", "config"):
        print(f"MaxArraySize            = {content['max_array_size']}\nSchedulerParameters = {content['parameters']}")
    elif words[:2] == ("show", "nodes"):
        print(*(f"NodeName=n NodeHostName={host} State=IDLE" for host in content["hosts"]), sep="\n")
    elif words[:2] == ("show", "partition"):
        print(*(f"PartitionName={name} {rest}" for name, rest in content["partitions"].items()), sep="\n")
    else:
        return refuse(f"unknown: {words}")
    return 0


def scancel(content: dict[str, Any], *words: str) -> int:
    for number in words:
        content["jobs"][number]["state"] = "CANCELLED"
    return 0


def refuse(message: str) -> int:
    print(f"sbatch: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
