"""Merges results that were collected in parts: by run id, whichever part comes first.

A run that is in both parts was either collected twice, or measured twice: by the same code on the same data, but
another time or on another device. The measurement that was there first stays the one that counts, so that merging
never changes a published number; the other one is a repeat.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import archive
from results.exclusion import exclude, include
from results.fingerprints import KINDS
from results.plan_union import refusal, union
from results.plans import Plan
from results.run_folders.interventions import preferred, reasons
from results.tables import REPEAT_COLUMNS, Collected, Exclusion, no_repeats, runs_table
from run_format import DONE, NOT_RUN

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]  # of the runs table
Measurement = tuple[str, str, str]  # run, finished, device
OF_CELL = ("arm", "task", "seed", "parent")  # of the runs table: what the plan says


def merge(
    first: Collected, first_plan: Plan, second: Collected, second_plan: Plan, name: str, *, twice: int = 0
) -> tuple[Collected, Plan]:
    """The results of both and the plan that they answer.

    name: of the first results; twice: whose rows of a measurement are taken that is in both: 0 the first's, 1 the
    second's. Raises CollectError where a run was measured by different code, on different data or with another config.
    """
    exclusions = _exclusions(first, second)
    parts = include(first), include(second)
    plan = union(first_plan, second_plan, name)
    rows = [rows_by_run(part) for part in parts]
    chosen = {
        run: _counted(rows[0].get(run), rows[1].get(run), exclusions, name, twice) for run in {**rows[0], **rows[1]}
    }
    values = tuple(_finals(part.metrics, rows[0].keys() & rows[1].keys()) for part in parts)
    _refuse_edited(rows, values, name)
    runs = runs_table(
        {**rows[chosen[entry["run"]]][entry["run"]], **{key: entry.get(key) for key in OF_CELL}}
        for entry in plan["runs"]
    )
    metrics, curves = (of_chosen([getattr(part, kind) for part in parts], chosen) for kind in ("metrics", "curves"))
    metrics, curves = archive.planned_rows(runs, metrics, curves, plan["protocol"])
    interventions = _files([part.interventions for part in parts], rows, chosen, preferred)
    merged = Collected(
        runs,
        metrics,
        curves,
        _warnings(first, second, chosen, interventions),
        about=first.about,
        tasks=plan["tasks"],
        repeats=_repeats(parts, rows, values, chosen, exclusions),
        examples=_files([part.examples for part in parts], rows, chosen),
        records=_files([part.records for part in parts], rows, chosen),
        interventions=interventions,
        labels={
            run: part.labels[run] for run, number in chosen.items() for part in [parts[number]] if run in part.labels
        },
    )
    return exclude(merged, list(exclusions.values())), plan


def _counted(
    first: Row | None, second: Row | None, exclusions: Mapping[Measurement, Exclusion], name: str, twice: int
) -> int:
    """Whose row of a run counts: 0 or 1. Of two that are not done, the second, which is newer, if it has begun."""
    if first is None or second is None:
        return 0 if second is None else 1
    done = [row["state"] == DONE for row in (first, second)]
    if not any(done):
        return 0 if second["state"] == NOT_RUN else 1
    if not all(done):
        return done.index(True)
    if fingerprints(first) != fingerprints(second):
        there, here = (
            ", ".join(
                f"{kind} {fingerprint or 'unknown'}" for kind, fingerprint in zip(KINDS.values(), fingerprints(row))
            )
            for row in (first, second)
        )
        raise refusal(name, f"run {first['run']} was measured by {there}, now by {here}")
    if measurement(first) == measurement(second):
        return twice
    return 1 if measurement(first) in exclusions and measurement(second) not in exclusions else 0


def rows_by_run(collected: Collected) -> dict[str, Row]:
    """A row of the runs table for each run; those of several arms differ in the arm only."""
    rows: list[Any] = collected.runs.to_dict("records")
    return {row["run"]: row for row in rows}


def measurement(row: Row) -> Measurement:
    """What tells a measurement of a run from another one."""
    return row["run"], row["finished"], row["device"]


def fingerprints(row: Row) -> tuple[str, ...]:
    """Of the code and of the data."""
    return tuple(row[column] for column in KINDS)


def _finals(metrics: pd.DataFrame, runs: Collection[str]) -> dict[str, dict[str, float]]:
    """Run id → metric → final value."""
    finals = metrics[metrics["final"] & metrics["run"].isin(runs)]
    values: dict[str, dict[str, float]] = {}
    for run, metric, value in finals[["run", "metric", "value"]].itertuples(index=False):
        values.setdefault(run, {})[metric] = value
    return values


def _refuse_edited(
    rows: Sequence[Mapping[str, Row]], values: Sequence[Mapping[str, Mapping[str, float]]], name: str
) -> None:
    """Raises CollectError where one measurement has two values."""
    for run in values[0].keys() & values[1].keys():
        if measurement(rows[0][run]) != measurement(rows[1][run]):
            continue
        for metric in values[0][run].keys() & values[1][run].keys():
            there, here = values[0][run][metric], values[1][run][metric]
            if there != here:
                raise refusal(
                    name, f"run {run} has {metric} {there} there and {here} here, though it was measured once"
                )


def of_chosen(tables: Sequence[pd.DataFrame], chosen: Mapping[str, int]) -> pd.DataFrame:
    """Metrics or curves, keyed by run id, each run's from its chosen part."""
    import pandas as pd

    parts = []
    for number, table in enumerate(tables):
        own = table[table["run"].map(chosen).astype(float) == number]
        own = own.assign(run=own["run"].astype(str)).drop(columns=["arm", "task", "seed"])
        parts.append(own.drop(columns="protocol", errors="ignore").drop_duplicates())
    filled_parts = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled_parts, ignore_index=True) if len(filled_parts) > 1 else filled_parts[0]


def _repeats(
    parts: Sequence[Collected],
    rows: Sequence[Mapping[str, Row]],
    values: Sequence[Mapping[str, Mapping[str, float]]],
    chosen: Mapping[str, int],
    exclusions: Mapping[Measurement, Exclusion],
) -> pd.DataFrame:
    """The measurements that neither count nor were left out, in an order that does not depend on that of the parts."""
    import pandas as pd

    counted = {measurement(rows[number][run]) for run, number in chosen.items()}
    listed = {
        (run, metric, value, device, finished): None
        for part in parts
        for run, metric, value, device, finished in part.repeats[list(REPEAT_COLUMNS)].itertuples(index=False)
    }
    for number, part in enumerate(values):
        for run, finals in part.items():
            row = rows[number][run]
            if row["state"] == DONE:
                listed |= {
                    (run, metric, value, row["device"], row["finished"]): None for metric, value in finals.items()
                }
    kept = [
        (run, metric, value, device, finished)
        for run, metric, value, device, finished in listed
        if (run, finished, device) not in counted and (run, finished, device) not in exclusions
    ]
    ordered = sorted(kept, key=lambda repeat: (repeat[0], repeat[4], repeat[3], repeat[1]))
    return pd.DataFrame(ordered, columns=list(REPEAT_COLUMNS)) if ordered else no_repeats()


def _files(
    files: Sequence[Mapping[str, Path]],
    rows: Sequence[Mapping[str, Row]],
    chosen: Mapping[str, int],
    prefer: Callable[[Path, Path], Path] = lambda first, second: first,
) -> dict[str, Path]:
    """The file of each run: of the counted measurement, from whichever part has one.

    prefer: chooses where both have one of that measurement, the first from the part whose row counts.
    """
    of_counted: dict[str, Path] = {}
    for run, number in chosen.items():
        for part in (number, 1 - number):
            if run in files[part] and measurement(rows[part][run]) == measurement(rows[number][run]):
                file = files[part][run]
                of_counted[run] = prefer(of_counted[run], file) if run in of_counted else file
    return of_counted


def _warnings(
    first: Collected, second: Collected, chosen: Mapping[str, int], interventions: Collection[str]
) -> list[str]:
    """Without those about rows that were not taken, and about interventions of runs that have them now."""
    kept = [
        [
            each
            for each in part.warnings
            if chosen.get(re.split("[:/]", each)[0], number) == number
            and reasons([each]).keys().isdisjoint(interventions)
        ]
        for number, part in enumerate((first, second))
    ]
    new = [each for each in kept[1] if each not in kept[0]]
    return sorted([*kept[0], *new]) if new else kept[0]


def _exclusions(*parts: Collected) -> dict[Measurement, Exclusion]:
    exclusions: dict[Measurement, Exclusion] = {}
    for each in (each for part in parts for each in part.exclusions):
        exclusions.setdefault((each.run, each.finished, each.device), each)
    return dict(sorted(exclusions.items()))
