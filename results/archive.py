"""Measured results as committed: ``measured/<label>/{runs,metrics,curves}.csv``, ``about.yaml`` and ``records/``.

A report made from these files is the report made from the run folders they were collected from, examples aside.
Everything in them is keyed by run id.
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
from results import archive_files, archive_records
from results.plans import CollectError, Plan, check_plan, tasks_of
from results.tables import CURVE_COLUMNS, RUN_COLUMNS, Collected, runs_table, typed_metrics

if TYPE_CHECKING:
    import pandas as pd

MEASURED = Path(__file__).resolve().parent / "measured"
LABEL = re.compile(r"[\w-][\w.-]*")
LOSS, LOSS_POINTS = "train/loss", 200  # of the training metrics the loss alone is kept, and this many rows per run
OF_FOLDERS = ("config", "log_line")  # of the runs table: they lead to a run folder's files, which are not committed
OF_PLAN = ["arm", "task", "seed"]  # which of a plan's runs a row is of, beside the run's id


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
    """Writes the measured results of ``plan``; ``date`` is the caller's. Returns the files.

    Raises CollectError for per-image records that cannot be read or are of other results.
    """
    about = {
        "title": title,
        "date": date,
        "hardware": hardware or _devices(collected),
        "note": note,
        "plan": {key: value for key, value in plan.items() if key != "runs"},  # the runs are those of runs.csv
        "warnings": collected.warnings,
    }
    runs = collected.runs[[column for column in RUN_COLUMNS if column not in OF_FOLDERS]]
    metrics = _shortened(collected.metrics).drop_duplicates(["run", "step", "metric"])[list(archive_files.METRICS)]
    curves = collected.curves.drop(columns=OF_PLAN).drop_duplicates()
    tables = {"runs.csv": runs, "metrics.csv": metrics, "curves.csv": curves}
    records = archive_records.contents(collected)  # before anything is written
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=120)
    return [
        atomic_file.write(folder / "about.yaml", text),
        *(
            atomic_file.write(folder / name, table.to_csv(index=False, lineterminator="\n"))
            for name, table in tables.items()
        ),
        *archive_records.write(records, folder),
    ]


def read(folder: Path) -> Collected:
    """Measured results back; ``plan_of`` gives the plan they answer. Raises CollectError naming file and line."""
    if not (folder / "about.yaml").is_file():
        raise CollectError(unknown("measured results", folder.name, labels()))
    about, runs = archive_files.about(folder / "about.yaml"), archive_files.runs(folder / "runs.csv")
    metrics, curves = archive_files.metrics(folder / "metrics.csv"), archive_files.curves(folder / "curves.csv")
    plan, warnings = about["plan"], about.pop("warnings")
    tasks = tasks_of(plan, runs["task"])
    if not plan.get("tasks"):  # a run that did not finish recorded no task
        runs["task"] = runs["task"].replace("", tasks[0]["name"])
    table = runs_table(runs.replace("", None).to_dict("records"))
    keys = table[["run", *OF_PLAN]]
    joined = keys.merge(metrics, on="run", how="inner").assign(protocol=plan["protocol"])
    points = keys.merge(curves, on="run", how="inner")
    columns = [*CURVE_COLUMNS, *(column for column in points.columns if column not in CURVE_COLUMNS)]
    records = archive_records.paths(folder, table["run"])
    collected = Collected(table, typed_metrics(joined), points[columns], warnings, {}, about, tasks, records=records)
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
    texts = collected.runs[["run", "arm", "task", "parent"]].to_dict("records")
    runs = [
        {**entry, "seed": int(seed), "parent": entry["parent"] or None}
        for entry, seed in zip(texts, collected.runs["seed"])
    ]
    return {**collected.about["plan"], "tasks": collected.tasks, "runs": runs}


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
    evaluated = metrics["metric"].str.startswith("eval")
    loss = metrics[metrics["metric"] == LOSS]
    steps = loss.groupby("run", observed=True)["step"]
    rank, stride = steps.rank(method="dense") - 1, (steps.transform("nunique") - 1) // LOSS_POINTS + 1
    sampled = loss[rank % stride == 0]
    return metrics[evaluated | metrics.index.isin(sampled.index) | metrics["final"]]


@lru_cache(maxsize=8)
def _final_lines(path: Path, mtime: int, size: int) -> dict[tuple[str, str], int]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {(row["run"], row["metric"]): rows.line_num for row in rows if row["final"] == "True"}


def _devices(collected: Collected) -> str:
    return ", ".join(sorted({device for device in collected.runs["device"] if device}))
