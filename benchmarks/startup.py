"""Times the commands a person waits for, each as a process of its own, against starting Python alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "python alone": ["-c", "pass"],
    "--help": ["run.py", "--help"],
    "list": ["run.py", "list"],
    "--dry-run": ["run.py", "sweep=ablation_offsets", "protocol=smoke", "--dry-run"],
    "status=": ["run.py", "status=ablation_offsets", "protocol=smoke"],
}


@dataclass(frozen=True)
class Row:
    """Seconds from start to exit: the median and the fastest of the runs."""

    command: str
    median_s: float
    fastest_s: float


@dataclass(frozen=True)
class Report:
    repeats: int
    load_average: float
    rows: list[Row]


def measure(repeats: int = 7) -> Report:
    """Runs every command ``repeats`` times in turn; a first turn warms the file cache and is not counted."""
    load_average = os.getloadavg()[0]
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeats + 1):
        for name, words in COMMANDS.items():
            start = perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
            if turn:
                times[name].append(perf_counter() - start)
    return Report(repeats, load_average, [Row(name, median(found), min(found)) for name, found in times.items()])
