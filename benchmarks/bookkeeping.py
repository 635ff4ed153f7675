"""Times what stands between a person and 1,001 runs: planning, submitting, looking. Each as a process of its own.

Slurm is the made-up one of the tests, which answers at once: what is timed is ours, and submitit's.
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
from benchmarks.startup import ROOT, Report, rows
from benchmarks.timing import Times
from tests.sweeps.fake_slurm import FakeSlurm

SEEDS = 143  # times seven arms
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
    """None of its own."""


def measure(options: argparse.Namespace) -> Report:
    """Goes through a sweep's life ``repeats`` times, each time with new folders."""
    load_average = os.getloadavg()[0]
    lives: list[dict[str, float]] = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            lives.append(_one_life(Path(name)))
    times = {title: Times(tuple(life[what] for life in lives)) for what, title in TITLES.items()}
    return Report(options.repeats, load_average, rows(times))


def table(report: Report) -> Table:
    """A line for each command."""
    return startup.table(report, "1,001 runs on a Slurm that answers at once: from start to exit, seconds")


def _one_life(folder: Path) -> dict[str, float]:
    slurm, runs_dir = FakeSlurm(folder / "fake"), folder / "runs"
    environment = {**os.environ, "PATH": f"{slurm.bin}{os.pathsep}{os.environ['PATH']}"}

    def seconds(*words: str) -> float:
        started = perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        return perf_counter() - started

    words = [*WORDS, f"runs_dir={runs_dir}"]
    found = {
        "plan": seconds("-c", PLAN),
        "submit": seconds("run.py", "sweep=ablation_offsets", *words, "--slurm"),
        "submitit": seconds("-c", SUBMITIT, str(folder / "submitit")),
        "again": seconds("run.py", "sweep=ablation_offsets", *words, "--slurm"),
        "queued": seconds("run.py", "status=ablation_offsets", *words),
    }
    _let_run(slurm, runs_dir)
    found["run"] = seconds("run.py", "status=ablation_offsets", *words)
    return found


def _let_run(slurm: FakeSlurm, runs_dir: Path) -> None:
    """Makes the folders and the queue look as in the middle of the sweep."""
    from experiments.folder.run_folder import RunFolder

    content = slurm.read()
    for number, path in enumerate(sorted(runs_dir.glob("*/config.yaml"))):
        folder = RunFolder(path.parent)
        state = {"state": "running", "step": 10, "steps": 20, "epoch": 1, "epochs": 2, "images_per_s": 100.0}
        (folder.path / "state.json").write_text(json.dumps(state))
        if number % 2:
            summary = {"run": folder.id, "metrics": {"eval/top1": 50.0}}
            (folder.path / "summary.json").write_text(json.dumps(summary))
    for number, job in enumerate(content["jobs"].values()):
        job["state"] = "COMPLETED" if number % 2 else "RUNNING"
    slurm.write(content)
