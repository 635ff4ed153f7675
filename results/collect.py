"""From run folders to tidy tables: one row per planned run, per logged number, per point of a curve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import run_format
from errors import UnreadableError
from results.exclusion import exclude
from results.plans import CollectError, Plan, check_plan, tasks_of
from results.run_folders.cache import read_runs
from results.run_folders.interventions import FILE, FOLDER
from results.tables import (
    CURVE_COLUMNS,
    METRIC_COLUMNS,
    RUN_COLUMNS,
    Collected,
    Exclusion,
    RunLog,
    metrics_table,
    runs_table,
)
from run_format import CANCELLED, DEAD_ENDS, DONE, FAILED, NOT_RUN, REFUSED, UNREADABLE
from untrusted_files import exists, listed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METRIC_COLUMNS", "RUN_COLUMNS", "CollectError", "Collected", "Plan", "check_plan", "collect"]

States = Mapping[str, tuple[str, str]]  # run id → (state, cause)
ENDED = (DONE, UNREADABLE, FAILED, REFUSED)  # states in a folder that no scheduler can know better


def collect(plan: Plan, runs_dir: Path, states: States | None = None) -> Collected:
    """Reads every planned run below ``runs_dir``; runs of other sweeps there are ignored.

    Folders that have not changed since the last time are not read again (``run_folders.cache``). ``states`` holds the
    (state, cause) of runs as a scheduler sees them: they count where a run has no result and its folder does not
    record how it ended.
    """
    check_plan(plan)
    seeds = {entry["run"]: entry["seed"] for entry in plan["runs"]}  # several arms may share a run
    recorded, row_of = read_runs(runs_dir, f"{plan['sweep']}-{plan['protocol']}", seeds, plan["protocol"])
    facts = dict(zip(seeds, recorded.facts([row_of[run] for run in seeds])))
    paths = listed(runs_dir)
    lost = _lost(paths, facts)
    for run, (state, cause) in (states or {}).items():
        if run in facts and facts[run]["row"]["state"] not in ENDED:
            facts[run]["row"] |= {"state": state, "cause": cause}
    _cancel(facts, plan)
    tasks = tasks_of(plan, (recorded_facts["row"]["task"] for recorded_facts in facts.values()))
    rows, curves, logs = [], [], []
    models = {arm["name"]: arm.get("model") for arm in plan["arms"]}
    for entry in plan["runs"]:
        run, row = entry["run"], facts[entry["run"]]["row"]
        task = entry.get("task") or tasks[0]["name"]
        planned = {"run": run, "arm": entry["arm"], "task": task, "seed": entry["seed"]}
        text = recorded.configs[row_of[run]]
        model = row["model"] or models[entry["arm"]]
        rows.append({**row, **planned, "parent": entry.get("parent"), "model": model, "config": text})
        curves += [{**planned, **point, **planned} for point in facts[run]["curves"]]  # a point names no run
        log, finals = recorded.log(row_of[run]), recorded.finals[row_of[run]]
        logs.append(RunLog(**planned, protocol=plan["protocol"], log=log, finals=finals))
    warnings = [warning for recorded_facts in facts.values() for warning in recorded_facts["warnings"]]
    warnings += lost + _foreign(paths)
    examples = {run: runs_dir / run / run_format.EXAMPLES for run in facts if facts[run]["examples"]}
    records = {run: runs_dir / run / run_format.RECORDS for run in facts if facts[run]["records"]}
    interventions = {run: runs_dir / run / FOLDER / FILE for run in facts if facts[run]["interventions"]}
    tables = runs_table(rows), metrics_table(logs), _curves(curves)
    collected = Collected(*tables, warnings, examples, tasks=tasks, records=records, interventions=interventions)
    return exclude(collected, _exclusions(facts, collected))


def _cancel(facts: Mapping[str, dict[str, Any]], plan: Plan) -> None:
    """Marks runs that cannot start because the run they start from failed; parents come before children."""
    for entry in plan["runs"]:
        run, parent = facts[entry["run"]]["row"], facts.get(entry.get("parent") or "")
        if parent is None or run["state"] != NOT_RUN:
            continue
        if parent["because"]:
            run |= {"state": CANCELLED, "cause": "the run it starts from is excluded"}
        elif parent["row"]["state"] in DEAD_ENDS:
            end = "cannot be read" if parent["row"]["state"] == UNREADABLE else "failed"
            run |= {"state": CANCELLED, "cause": f"the run it starts from {end}"}


def _exclusions(facts: Mapping[str, dict[str, Any]], collected: Collected) -> list[Exclusion]:
    """The measurements that were excluded in the runs' folders, with their final values."""
    exclusions = [
        Exclusion(run, **earlier) for run, recorded_facts in facts.items() for earlier in recorded_facts["earlier"]
    ]
    excluded = {run: recorded_facts for run, recorded_facts in facts.items() if recorded_facts["because"]}
    if excluded:
        finals = collected.metrics[collected.metrics["final"] & collected.metrics["run"].isin(excluded)]
        values: dict[str, dict[str, float]] = {}
        for run, metric, value in finals[["run", "metric", "value"]].itertuples(index=False):
            values.setdefault(run, {})[metric] = value
        exclusions += [
            Exclusion(run, each["because"], each["row"]["finished"], each["row"]["device"], values.get(run, {}))
            for run, each in excluded.items()
        ]
    return exclusions


def _lost(paths: Iterable[Path], facts: Mapping[str, dict[str, Any]]) -> list[str]:
    """Warnings about planned runs that left something, but nothing that says how they stand.

    A folder that a launcher made for later has a config and no checkpoint yet.
    """
    warnings = []
    for path in paths:
        if path.name not in facts or facts[path.name]["row"]["state"] != NOT_RUN:
            continue
        if not path.is_dir():
            kind = "a link that leads to no folder" if path.is_symlink() else "a file"
            warnings.append(f"{path.name}: {kind} where the run's folder should be; not counted")
        elif listed(path / run_format.CHECKPOINTS, "[!.]*"):
            absent = f"no {run_format.STATE}, {run_format.METRICS} or {run_format.SUMMARY}"
            warnings.append(f"{path.name}: has checkpoints, but {absent}; not counted")
    return warnings


def _foreign(paths: Iterable[Path]) -> list[str]:
    """Warnings about folders that look like a run's and are named otherwise, e.g. a copy."""
    return [
        f"{path.name}: looks like a run folder, but its name is not a run id; skipped"
        for path in paths
        if not re.fullmatch(run_format.RUN_ID, path.name) and _has_summary(path)
    ]


def _has_summary(path: Path) -> bool:
    try:
        return exists(path / run_format.SUMMARY)
    except UnreadableError:  # whatever it is, it is not a run of the plan
        return False


def _curves(points: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(points) if points else pd.DataFrame(columns=list(CURVE_COLUMNS))
