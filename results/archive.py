"""Measured results as committed: ``measured/<label>/{runs,metrics,curves}.csv``, ``about.yaml``, and files of one run
each in ``records/`` and ``interventions/``.

``repeats.csv`` and ``excluded.csv`` are there where runs were measured more than once, or left out by a person. The
tables have the rows of excluded runs, too, so that an exclusion can be taken back; ``read`` leaves them out.

A report made from these files is the report made from the run folders they were collected from, examples aside.
Everything in them is keyed by run id.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import atomic_file
import yaml_files
from errors import unknown
from results import archive_files, archive_interventions, archive_records
from results.exclusion import exclude, include
from results.plans import CollectError, Plan, check_plan, tasks_of
from results.tables import CURVE_COLUMNS, RUN_COLUMNS, Collected, Exclusion, runs_table, typed_metrics
from untrusted_files import exists, listed

if TYPE_CHECKING:
    import pandas as pd

MEASURED = Path(__file__).resolve().parent / "measured"
LOCK = ".lock"
LABEL = re.compile(r"[\w-][\w.-]*")
LOSS, LOSS_POINTS = "train/loss", 200  # of the training metrics the loss alone is kept, and this many rows per run
OF_FOLDERS = ("config", "log_line")  # of the runs table: they lead to a run folder's files, which are not committed
OPTIONAL = ("repeats.csv", "excluded.csv")
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
    history: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Writes the measured results of ``plan``; ``date`` is the caller's. Returns the files.

    history: date, hardware, note and number of runs of each collection that was merged. A process that is killed leaves
    the old results or ones that can be read, and writing them again completes them.
    Raises CollectError for per-image records that cannot be read or are of other results, and MeasuredError for
    interventions that can no longer be read.
    """
    texts = contents(collected, plan, title=title, date=date, hardware=hardware, note=note, history=history)
    whole = include(collected)
    records, interventions = archive_records.contents(whole), archive_interventions.contents(whole)  # before writing
    for name in set(OPTIONAL) - texts.keys():
        (folder / name).unlink(missing_ok=True)
    # exclusions first, so that no excluded number is shown; rows that ``runs.csv`` does not name yet are ignored.
    # ``about.yaml`` has to name all arms of ``runs.csv``; new results are known as such once they have it
    last = ["about.yaml", "runs.csv"] if (folder / "about.yaml").exists() else ["runs.csv", "about.yaml"]
    order = ["excluded.csv", "metrics.csv", "curves.csv", "repeats.csv", *last]
    of_runs = archive_records.FILES.write(records, folder)
    of_runs += archive_interventions.FILES.write(interventions, folder)
    return [*(atomic_file.write(folder / name, texts[name]) for name in order if name in texts), *of_runs]


def contents(
    collected: Collected,
    plan: Plan,
    *,
    title: str,
    date: str,
    hardware: str | Mapping[str, Any] = "",
    note: str = "",
    history: Sequence[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """The texts of the files that ``write`` writes, by name."""
    exclusions, collected = collected.exclusions, include(collected)
    about = {
        "title": title,
        "date": date,
        "hardware": hardware or devices(collected),
        "note": note,
        **({"history": [dict(entry) for entry in history]} if history else {}),
        "plan": {key: value for key, value in plan.items() if key != "runs"},  # the runs are those of runs.csv
        "warnings": collected.warnings,
    }
    runs = collected.runs[[column for column in RUN_COLUMNS if column not in OF_FOLDERS]]
    metrics = _shortened(collected.metrics).drop_duplicates(["run", "step", "metric"])[list(archive_files.METRICS)]
    curves = collected.curves.drop(columns=OF_PLAN).drop_duplicates()
    tables = {"runs.csv": runs, "metrics.csv": metrics, "curves.csv": curves}
    if len(collected.repeats):
        tables["repeats.csv"] = collected.repeats
    if exclusions:
        tables["excluded.csv"] = archive_files.exclusion_table(exclusions)
    return {
        "about.yaml": yaml.dump(about, Dumper=yaml_files.Dumper, sort_keys=False, allow_unicode=True, width=120),
        **{name: table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()},
    }


def write_exclusions(folder: Path, exclusions: Sequence[Exclusion]) -> None:
    """Replaces what is left out of measured results; nothing else in them changes."""
    path = folder / "excluded.csv"
    if exclusions:
        atomic_file.write(path, archive_files.exclusion_table(exclusions).to_csv(index=False, lineterminator="\n"))
    else:
        path.unlink(missing_ok=True)


def read(folder: Path) -> Collected:
    """Measured results back; ``plan_of`` gives the plan they answer. Raises CollectError naming file and line.

    Interventions that cannot be read or are of another training are left out with a warning: no other number is theirs.
    """
    if not (folder / "about.yaml").is_file():
        raise CollectError(unknown("measured results", folder.name, labels()))
    about, runs = archive_files.about(folder / "about.yaml"), archive_files.runs(folder / "runs.csv")
    metrics, curves = archive_files.metrics(folder / "metrics.csv"), archive_files.curves(folder / "curves.csv")
    plan, warnings = about["plan"], about.pop("warnings")
    tasks = tasks_of(plan, runs["task"])
    if not plan.get("tasks"):  # a run that did not finish recorded no task
        runs["task"] = runs["task"].replace("", tasks[0]["name"])
    table = runs_table(runs.replace("", None).to_dict("records"))
    repeats, records = archive_files.repeats(folder / "repeats.csv"), archive_records.FILES.paths(folder, table["run"])
    interventions, left_out = archive_interventions.found(folder, table)
    warnings += [line for line in left_out if line not in warnings]
    tables = planned_rows(table, metrics, curves, plan["protocol"])
    collected = Collected(table, *tables, warnings, {}, about, tasks, records, repeats, interventions=interventions)
    try:
        check_plan(plan_of(collected))
    except CollectError as error:
        raise CollectError(f"measured results {folder.name}: {error}") from None
    return exclude(collected, archive_files.exclusions(folder / "excluded.csv"))


def planned_rows(
    runs: pd.DataFrame, metrics: pd.DataFrame, curves: pd.DataFrame, protocol: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics and curves, which are keyed by run id, of every row of the runs table."""
    keys = runs[["run", *OF_PLAN]]
    joined = keys.merge(metrics, on="run", how="inner").assign(protocol=protocol)
    points = keys.merge(curves, on="run", how="inner")
    columns = [*CURVE_COLUMNS, *(column for column in points.columns if column not in CURVE_COLUMNS)]
    return typed_metrics(joined), points[columns]


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


def changing() -> AbstractContextManager[None]:
    """One process at a time changes measured results: of two that merge into one label, the second would write what
    it read before the first was done. The second waits."""
    return atomic_file.locked(MEASURED / LOCK)


def labels() -> list[str]:
    """Names of the measured results in the checkout."""
    return [folder.name for folder in listed(MEASURED) if exists(folder / "about.yaml")]


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


def devices(collected: Collected) -> str:
    """The devices of the runs, in words."""
    return ", ".join(sorted({device for device in collected.runs["device"] if device}))
