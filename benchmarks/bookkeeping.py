"""Times the commands that plan, submit and show 1,001 runs, each in its own process.

The tests' stand-in for Slurm answers at once, so that only this project and submitit are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from rich.table import Table

from benchmarks import startup
from benchmarks.startup import ROOT, CommandReport, rows
from benchmarks.timing import Times
from run_format import CONFIG, RUNNING, STATE, SUMMARY
from tests.sweeps.fake_slurm import FakeSlurm

SEEDS = 143  # for each of seven arms
WORDS = ["protocol=smoke", f"seeds={json.dumps(list(range(SEEDS)))}", "slurm.gpus_per_node=0"]
PLAN = f"""
from sweeps.plan import load
assert len(load("ablation_offsets", "smoke", seeds=list(range({SEEDS}))).runs) == 1001
"""
SUBMITIT = """
import sys
from submitit import SlurmExecutor
executor = SlurmExecutor(sys.argv[1])
executor.update_parameters(array_parallelism=1001)
assert len(executor.map_array(abs, range(1001))) == 1001
"""
TITLES = {
    "plan": "plan 1,001 runs",
    "submit": "sweep= --slurm: plan, copy the code, freeze and submit 1,001 runs",
    "submitit": "submitit alone: 1,001 calls of abs",
    "again": "the same command again: nothing to submit",
    "queued": "status=, all queued",
    "run": "status=, half of them done, half running",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No further options."""


def measure(options: argparse.Namespace) -> CommandReport:
    """Plans, submits and shows a sweep ``repeats`` times, each time in new folders."""
    load_average = os.getloadavg()[0]
    turns: list[dict[str, float]] = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            turns.append(_run_commands(Path(name)))
    times = {title: Times(tuple(turn[command] for turn in turns)) for command, title in TITLES.items()}
    return CommandReport(options.repeats, load_average, rows(times))


def table(report: CommandReport) -> Table:
    """One line per command."""
    return startup.table(report, "1,001 runs on a Slurm that answers at once: from start to exit, seconds")


def _run_commands(folder: Path) -> dict[str, float]:
    slurm, runs_dir = FakeSlurm(folder / "fake"), folder / "runs"
    environment = {**os.environ, "PATH": f"{slurm.bin}{os.pathsep}{os.environ['PATH']}"}

    def seconds(*words: str) -> float:
        started = perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - started

    words = [*WORDS, f"runs_dir={runs_dir}"]
    submit = ["sweep=ablation_offsets", *words, "--slurm", "--fresh"]  # also runs that are measured already
    times = {
        "plan": seconds("-c", PLAN),
        "submit": seconds("run.py", *submit),
        "submitit": seconds("-c", SUBMITIT, str(folder / "submitit")),
        "again": seconds("run.py", *submit),
        "queued": seconds("run.py", "status=ablation_offsets", *words),
    }
    _advance_runs(slurm, runs_dir)
    times["run"] = seconds("run.py", "status=ablation_offsets", *words)
    return times


def _advance_runs(slurm: FakeSlurm, runs_dir: Path) -> None:
    """Puts the folders and the queue in the state of the middle of the sweep: half of the runs done, half running."""
    content = slurm.read()
    for number, path in enumerate(sorted(runs_dir.glob(f"*/{CONFIG}"))):
        folder = path.parent
        state = {"state": RUNNING, "step": 10, "steps": 20, "epoch": 1, "epochs": 2, "images_per_s": 100.0}
        (folder / STATE).write_text(json.dumps(state))
        if number % 2:
            (folder / SUMMARY).write_text(json.dumps({"run": folder.name, "metrics": {"eval/top1": 50.0}}))
    for number, job in enumerate(content["jobs"].values()):
        job["state"] = "COMPLETED" if number % 2 else "RUNNING"
    slurm.write(content)
