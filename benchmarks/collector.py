"""Times collecting the results of a large sweep: the first time, again, and after a few runs have continued.

The runs are artificial and have the form of ImageNet runs: the files of a trained classifier with averaged weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.table import Table

from benchmarks.choices import positive
from benchmarks.startup import ROOT

STEPS, IMAGES = 1251, 50_000  # per epoch; of the evaluation set
ARMS, CHANGED, SAMPLE = 10, 10, 100
METRICS = (
    "train/loss",
    "train/lr",
    *(f"{of}/{name}" for of in ("eval", "eval_ema") for name in ("top1", "top5", "loss")),
)
COLLECT = """
import json, re, resource, sys, time
from pathlib import Path
import pandas
from results.collect import collect
plan = json.loads(Path(sys.argv[1]).read_text())
started, before = time.perf_counter(), time.process_time()
results = collect(plan, Path(sys.argv[2]))
seconds, cpu = time.perf_counter() - started, time.process_time() - before
assert len(results.metrics) == int(sys.argv[3]) and set(results.runs["state"]) == {"done"} and not results.warnings
# the process's own ru_maxrss would include the peak of the process that started it
own = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
peak = own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak / 1024}))
"""
PLAIN = """
import json, sys, time
from pathlib import Path
import pandas
runs = json.loads(Path(sys.argv[1]).read_text())["runs"][: int(sys.argv[3])]
folders = [Path(sys.argv[2]) / run["run"] for run in runs]
started = time.perf_counter()
logs = []
for folder in folders:
    for name in ("summary.json", "state.json", "provenance.json"):
        json.loads((folder / name).read_text())
    log = pandas.read_json(folder / "metrics.jsonl", lines=True)
    logs.append(log.melt(["step", "epoch"], var_name="metric").assign(run=folder.name))
pandas.concat(logs)
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


@dataclass(frozen=True)
class CollectionTime:
    """Medians, and the fastest call. A call starts after pandas is imported; ``cpu_s`` is the time of all its threads,
    ``process_s`` the time from the start of the process to its exit."""

    case: str
    collect_s: float
    fastest_s: float
    cpu_s: float | None
    process_s: float | None
    peak_mib: float | None
    ratio: float


@dataclass(frozen=True)
class CollectorReport:
    runs: int
    epochs: int
    logs_mb: float
    making_s: float
    pages_mb: float
    sample: int
    repeats: int
    load_average: float
    processors: int
    rows: list[CollectionTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The amount of data to collect."""
    parser.add_argument("--runs", type=positive, default=10_000, help="run folders to make")
    parser.add_argument("--epochs", type=positive, default=300, help="rows of each run's log")


def measure(options: argparse.Namespace) -> CollectorReport:
    """Collects the same runs ``repeats`` times, each time from an empty cache. The system's file cache is warm."""
    runs, epochs, repeats = options.runs, options.epochs, options.repeats
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs_dir, plan = folder / "runs", folder / "plan.json"
        started = perf_counter()
        content = make(runs_dir, runs, epochs)
        making_s = perf_counter() - started
        plan.write_text(json.dumps(content))
        logs_mb = sum(path.stat().st_size for path in runs_dir.glob("*/metrics.jsonl")) / 1e6
        time.sleep(2.5)  # files that have just changed are not cached
        expected, sample = str(runs * epochs * len(METRICS)), min(SAMPLE, runs)
        times: dict[str, list[dict[str, float]]] = {"cold": [], "warm": [], "changed": [], "plain": []}
        for turn in range(repeats):
            shutil.rmtree(runs_dir / ".collected", ignore_errors=True)
            times["cold"].append(_process(COLLECT, plan, runs_dir, expected))
            times["warm"].append(_process(COLLECT, plan, runs_dir, expected))
            _touch_logs(runs_dir, [run["run"] for run in content["runs"]][:: max(1, runs // CHANGED)], turn)
            times["changed"].append(_process(COLLECT, plan, runs_dir, expected))
            times["plain"].append(_process(PLAIN, plan, runs_dir, str(sample)))
        pages_mb = sum(path.stat().st_size for path in (runs_dir / ".collected").rglob("*.arrow")) / 1e6
    plain = [measured["seconds"] * runs / sample for measured in times.pop("plain")]
    titles = {"cold": "first time", "warm": "nothing changed", "changed": f"{min(CHANGED, runs)} runs changed"}
    rows = [_row(titles[case], measured, median(plain)) for case, measured in times.items()]
    peer = CollectionTime("pandas.read_json, extrapolated", median(plain), min(plain), None, None, None, 1.0)
    return CollectorReport(
        runs, epochs, logs_mb, making_s, pages_mb, sample, repeats, load_average, os.cpu_count() or 1, [*rows, peer]
    )


def table(report: CollectorReport) -> Table:
    """One line per case."""
    shown = Table(
        title=f"Collecting {report.runs:,} runs of {report.epochs} epochs, {report.logs_mb:.0f} MB of logs",
        caption=f"Medians of {report.repeats} turns, {report.processors} processors, files in the system's cache, "
        f"load average before {report.load_average:.2f}; the peer on {report.sample} runs, extrapolated; "
        f"making the runs took {report.making_s:.0f} s; the cache takes {report.pages_mb:.0f} MB",
    )
    for heading in ("", "call, s", "fastest, s", "processor, s", "whole process, s", "peak memory, MiB", "ratio"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        costs = [f"{cost:.2f}" if cost is not None else "" for cost in (row.cpu_s, row.process_s)]
        peak = f"{row.peak_mib:.0f}" if row.peak_mib is not None else ""
        shown.add_row(row.case, f"{row.collect_s:.2f}", f"{row.fastest_s:.2f}", *costs, peak, f"{row.ratio:.4f}")
    return shown


def make(runs_dir: Path, runs: int, epochs: int) -> dict[str, Any]:
    """Writes finished run folders; returns their plan."""
    import numpy as np

    arms = [f"arm{number}" for number in range(min(ARMS, runs))]
    plan: dict[str, Any] = {"sweep": "artificial", "protocol": "paper", "baseline": arms[0], "runs": []}
    plan["arms"] = [{"name": arm, "label": arm, "model": "xt", "config": {}} for arm in arms]
    random = np.random.default_rng(0)
    config = (ROOT / "experiments" / "recipes" / "imagenet.yaml").read_text()
    for number in range(runs):
        seed, arm = divmod(number, len(arms))
        run = f"imagenet-xt-s{seed}-{number:08x}"
        plan["runs"].append({"run": run, "arm": arms[arm], "seed": seed})
        _make_run(runs_dir / run, seed, epochs, random, config)
    return plan


def _make_run(folder: Path, seed: int, epochs: int, random: Any, config: str) -> None:
    counts = random.integers(0, IMAGES, (epochs, 4)).tolist()
    numbers = random.random((epochs, 4)).tolist()
    lines = []
    for epoch, (right, (train, lr, raw, mean)) in enumerate(zip(counts, numbers), 1):
        shares = [100 * count / IMAGES for count in right]
        values = (7 * train, 1e-3 * lr, *shares[:2], 7 * raw, *shares[2:], 7 * mean)
        lines.append(json.dumps({"step": STEPS * epoch, "epoch": epoch, **dict(zip(METRICS, values))}) + "\n")
    final = {name: value for name, value in json.loads(lines[-1]).items() if name.startswith("eval")}
    step = STEPS * epochs
    summary = {
        "run": folder.name, "experiment": "imagenet", "protocol": "paper", "task": "classification", "seed": seed,
        "model": "xt", "step": step, "epochs": epochs, "metrics": final, "curves": {}, "params_m": 15.2, "flops_g": 2.2,
        "wall_s": 250000.1, "images_per_s": 1534.1234, "device": "cuda", "devices": 8, "bad_images": [],
        "finished": "2031-05-04T10:00:00+00:00", "notes": [],
    }  # fmt: skip
    packages = {"torch": "2.8.0", "torchvision": "0.23.0", "timm": "1.0.19", "numpy": "2.3.2", "pillow": "11.3.0"}
    provenance = {
        "commit": "89ba1af229dc69d39003ab4e053a7aac143d7aaf", "dirty": False, "code_fingerprint": "89baccb2d210e1f9",
        "data_fingerprint": "d90b34d9474386aa-696bc42babcf74b8", "packages": packages, "python": "3.11.7",
        "hardware": {"gpu": "artificial", "cores": 64, "machine": "x86_64"}, "created": "2031-05-01T10:00:00+00:00",
    }  # fmt: skip
    state = {"state": "done", "step": step, "steps": step, "updated": 1.9e9, "host": "node", "pid": 4711}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "metrics.jsonl").write_text("".join(lines))
    for name, content in (("summary", summary), ("provenance", provenance), ("state", state)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _touch_logs(runs_dir: Path, runs: list[str], turn: int) -> None:
    """Rewrites logs with a new modification time, by which collecting detects a change."""
    for run in runs:
        log = runs_dir / run / "metrics.jsonl"
        log.write_text(log.read_text())
        changed = time.time_ns() - 10**10 + turn
        os.utime(log, ns=(changed, changed))


def _process(code: str, *arguments: object) -> dict[str, float]:
    started = perf_counter()
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "process_s": perf_counter() - started}


def _row(case: str, measured: list[dict[str, float]], plain: float) -> CollectionTime:
    medians = {name: median(turn[name] for turn in measured) for name in measured[0]}
    fastest = min(turn["seconds"] for turn in measured)
    costs = (medians["cpu"], medians["process_s"], medians["peak_mib"])
    return CollectionTime(case, medians["seconds"], fastest, *costs, medians["seconds"] / plain)
