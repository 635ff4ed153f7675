"""Measured results as committed: ``measured/<label>/{runs,metrics,curves}.csv`` and ``about.yaml``.

A report made from these files is the report made from the run folders they were collected from, examples aside.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import atomic_file
from errors import unknown
from results import committed
from results.collect import (
    CURVE_COLUMNS,
    RUN_COLUMNS,
    Collected,
    CollectError,
    Plan,
    check_plan,
    metrics_frame,
    runs_frame,
)

if TYPE_CHECKING:
    import pandas as pd

MEASURED = Path(__file__).resolve().parent / "measured"
LABEL = re.compile(r"[\w-][\w.-]*")
LOSS, LOSS_POINTS = "train/loss", 200  # of the training metrics the loss alone is kept, and this many rows per run
OF_FOLDERS = ("config", "log_line")  # of the runs table: they lead to a run folder's files, which are not committed


def write(
    collected: Collected,
    folder: Path,
    plan: Plan,
    *,
    title: str,
    date: str,
    hardware: str | Mapping[str, Any] = "",
    note: str = "",
) -> list[Path]:
    """Writes the measured results of ``plan``; ``date`` is the caller's. Returns the four files."""
    about = {
        "title": title,
        "date": date,
        "hardware": hardware or _devices(collected),
        "note": note,
        "plan": {key: value for key, value in plan.items() if key != "runs"},  # the runs are those of runs.csv
        "warnings": collected.warnings,
    }
    metrics = _shortened(collected.metrics).drop_duplicates(["run", "step", "metric"])[list(committed.METRICS)]
    runs = collected.runs[[column for column in RUN_COLUMNS if column not in OF_FOLDERS]]
    curves = collected.curves.drop(columns=["arm", "seed"]).drop_duplicates()
    return [
        atomic_file.write(folder / "about.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=120)),
        atomic_file.write(folder / "runs.csv", runs.to_csv(index=False, lineterminator="\n")),
        atomic_file.write(folder / "metrics.csv", metrics.to_csv(index=False, lineterminator="\n")),
        atomic_file.write(folder / "curves.csv", curves.to_csv(index=False, lineterminator="\n")),
    ]


def read(folder: Path) -> Collected:
    """Measured results back; ``plan_of`` gives the plan they answer. Raises CollectError naming file and line."""
    if not (folder / "about.yaml").is_file():
        raise CollectError(unknown("measured results", folder.name, labels()))
    about, runs = committed.about(folder / "about.yaml"), committed.runs(folder / "runs.csv")
    metrics, curves = committed.metrics(folder / "metrics.csv"), committed.curves(folder / "curves.csv")
    typed = runs_frame(runs.replace("", None).to_dict("records"))
    keys = typed[["run", "arm", "seed", "task"]]
    joined = keys.merge(metrics, on="run", how="inner").assign(protocol=about["plan"]["protocol"])
    points = keys.drop(columns="task").merge(curves, on="run", how="inner")
    named = [*CURVE_COLUMNS, *(c for c in points.columns if c not in CURVE_COLUMNS)]
    about_text = {key: value for key, value in about.items() if key != "warnings"}
    collected = Collected(typed, metrics_frame(joined), points[named], about["warnings"], {}, about_text)
    try:
        check_plan(plan_of(collected))
    except CollectError as error:
        raise CollectError(f"measured results {folder.name}: {error}") from None
    return collected


def line_of(folder: Path, run: str, metric: str) -> int | None:
    """The line of ``metrics.csv``, its header being line 1, where the final value of a run's metric stands."""
    path = folder / "metrics.csv"
    try:
        status = path.stat()
        return _final_lines(path, status.st_mtime_ns, status.st_size).get((run, metric))
    except (OSError, ValueError, csv.Error):
        return None


def plan_of(collected: Collected) -> dict[str, Any]:
    """The plan that measured results answer, in the form ``collect`` and ``reports`` take."""
    entries = collected.runs[["run", "arm", "seed"]].to_dict("records")
    runs = [{"run": str(entry["run"]), "arm": str(entry["arm"]), "seed": int(entry["seed"])} for entry in entries]
    return {**collected.about["plan"], "runs": runs}


def folder(label: str) -> Path:
    """Where measured results of this name are, or are to be."""
    if not LABEL.fullmatch(label):
        raise CollectError(f"measured results are named with letters, digits, '.', '_' and '-', not {label!r}")
    return MEASURED / label


def labels() -> list[str]:
    """Names of the measured results in the checkout."""
    return sorted(path.parent.name for path in MEASURED.glob("*/about.yaml"))


def _shortened(metrics: pd.DataFrame) -> pd.DataFrame:
    """Evaluation metrics in full, the training loss at LOSS_POINTS rows per run, nothing else."""
    judged = metrics["metric"].str.startswith("eval")
    loss = metrics[metrics["metric"] == LOSS]
    steps = loss.groupby("run", observed=True)["step"]
    rank, stride = steps.rank(method="dense") - 1, (steps.transform("nunique") - 1) // LOSS_POINTS + 1
    kept = loss[rank % stride == 0]
    return metrics[judged | metrics.index.isin(kept.index) | metrics["final"]]


@lru_cache(maxsize=8)
def _final_lines(path: Path, mtime: int, size: int) -> dict[tuple[str, str], int]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(row["run"], row["metric"]): rows.line_num for row in rows if row["final"] == "True"}


def _devices(collected: Collected) -> str:
    return ", ".join(sorted({device for device in collected.runs["device"] if device}))
