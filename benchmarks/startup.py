"""Times the commands that a person waits for, each in its own process, against starting Python alone."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rich.table import Table

from benchmarks.timing import Times, turns

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "python alone": ["-c", "pass"],
    "--help": ["run.py", "--help"],
    "list": ["run.py", "list"],
    "--dry-run": ["run.py", "sweep=ablation_offsets", "protocol=smoke", "--dry-run"],
    "status=": ["run.py", "status=ablation_offsets", "protocol=smoke"],
}


@dataclass(frozen=True)
class CommandTime:
    """Seconds from start to exit: the median and the fastest of the runs."""

    command: str
    median_s: float
    fastest_s: float


@dataclass(frozen=True)
class CommandReport:
    repeats: int
    load_average: float
    rows: list[CommandTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No further options."""


def measure(options: argparse.Namespace) -> CommandReport:
    """Runs the commands in turn, ``repeats`` times. A first turn warms the file cache and is not counted."""
    load_average = os.getloadavg()[0]
    times = turns({name: _stopwatch(words) for name, words in COMMANDS.items()}, options.repeats)
    return CommandReport(options.repeats, load_average, rows(times))


def _stopwatch(words: list[str]) -> Callable[[], float]:
    def clock() -> float:
        start = perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - start

    return clock


def rows(times: dict[str, Times]) -> list[CommandTime]:
    """One row per command."""
    return [CommandTime(name, measured.median, measured.fastest) for name, measured in times.items()]


def table(report: CommandReport, title: str = "From start to exit, seconds") -> Table:
    """One line per command."""
    shown = Table(
        title=title,
        caption=f"{report.repeats} interleaved runs, load average before {report.load_average:.2f}",
    )
    for heading in ("command", "median", "fastest"):
        shown.add_column(heading, justify="left" if heading == "command" else "right")
    for row in report.rows:
        shown.add_row(row.command, f"{row.median_s:.3f}", f"{row.fastest_s:.3f}")
    return shown
