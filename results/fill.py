"""Fills the results of run folders with those of runs that were collected earlier and have no folder any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from results import archive
from results.exclusion import exclude, include
from results.merge import OF_CELL, fingerprints, merge, of_chosen, rows_by_run
from results.plans import Plan
from results.run_folders.interventions import reasons
from results.tables import Collected, runs_table
from run_format import DONE


def filled(collected: Collected, plan: Plan, labels: Mapping[str, Collection[str]]) -> Collected:
    """The results of run folders, with runs that were collected earlier and have no folder any more.

    labels: measured results → their runs that count. Where a run folder has another measurement, that of the label
    counts.
    """
    before: tuple[Collected, Plan] | None = None
    for label, runs in sorted(labels.items()):
        measured = _planned(archive.read(archive.folder(label)), collected, plan, runs, label)
        own = {**plan, "runs": [entry for entry in plan["runs"] if entry["run"] in set(measured.runs["run"])]}
        before = (measured, own) if before is None else merge(*before, measured, own, label)
    if before is None:
        return collected
    merged, _ = merge(*before, collected, plan, ", ".join(sorted(labels)), twice=1)
    return replace(merged, about=collected.about, remarks=[*collected.remarks, *_origins(merged)])


def shared(measured: Collected, plan: Plan, runs: Collection[str]) -> Collected:
    """Those of the measured results that are of ``runs`` of a plan, as that plan names them."""
    whole, exclusions = include(measured), measured.exclusions
    rows = {run: row for run, row in rows_by_run(whole).items() if run in runs}
    entries = [entry for entry in plan["runs"] if entry["run"] in rows]
    table = runs_table({**rows[entry["run"]], **{key: entry.get(key) for key in OF_CELL}} for entry in entries)
    chosen = dict.fromkeys(rows, 0)
    metrics, curves = (of_chosen([getattr(whole, kind)], chosen) for kind in ("metrics", "curves"))
    metrics, curves = archive.planned_rows(table, metrics, curves, plan["protocol"])
    repeats = whole.repeats[whole.repeats["run"].isin(rows)]
    records, interventions = (
        {run: path for run, path in files.items() if run in rows} for files in (whole.records, whole.interventions)
    )
    # what else was warned of when they were collected is about folders that may be gone
    warnings = [each for each in whole.warnings if reasons([each]).keys() & rows.keys()]
    planned = replace(
        whole, runs=table, metrics=metrics, curves=curves, repeats=repeats, records=records, warnings=warnings,
        interventions=interventions, about={}, tasks=list(plan["tasks"]), labels={},
    )  # fmt: skip
    return exclude(planned, [each for each in exclusions if each.run in rows])


def beside(collected: Collected, plan: Plan, labels: Mapping[str, Collection[str]]) -> Collected:
    """The results of run folders alone, with a sentence on how they compare with other measurements of the same runs.

    labels: measured results → their runs that count.
    """
    remarks = list(collected.remarks)
    own = {task["name"]: _finals(collected, task) for task in plan["tasks"]}
    for label, runs in sorted(labels.items()):
        measured = archive.read(archive.folder(label))
        for task in plan["tasks"]:
            other = {run: value for run, value in _finals(measured, task).items() if run in runs}
            if both := own[task["name"]].keys() & other.keys():
                differences = [abs(own[task["name"]][run] - other[run]) for run in sorted(both)]
                remarks.append(_agreement(differences, task, label))
    return replace(collected, remarks=remarks)


def _finals(collected: Collected, task: Plan) -> dict[str, float]:
    """Run → the task's metric."""
    finals = collected.finals(task["metric"], task["name"])
    return dict(zip(finals["run"], finals["value"]))


def _agreement(differences: list[float], task: Plan, label: str) -> str:
    """differences: of each run that is in both, in the unit of the task's metric."""
    equal, number = differences.count(0.0), len(differences)
    metric, unit = task["label"] or task["metric"], f" {task['unit']}" if task["unit"] else ""
    start = (
        f"Run folders alone are shown. Of the {number} runs here that results/measured/{label} has as well, {equal} "
        f"have the same {metric}"
    )
    if equal == number:
        return f"{start}, to the last digit."
    largest = f"{max(differences):.{task['decimals']}f}{unit}"
    return f"{start}; the largest difference is {largest}. Bits depend on processor and libraries."


def _planned(measured: Collected, collected: Collected, plan: Plan, runs: Collection[str], label: str) -> Collected:
    """Those of the measured results that are of some runs of a plan, as that plan names them.

    A run that a folder has of other code or data is left to the folder.
    """
    rows = {run: row for run, row in rows_by_run(include(measured)).items() if run in runs}
    for run, row in rows_by_run(include(collected)).items():
        if run in rows and row["state"] == DONE and fingerprints(row) != fingerprints(rows[run]):
            del rows[run]
    return replace(shared(measured, plan, rows), labels=dict.fromkeys(rows, label))


def _origins(collected: Collected) -> Iterator[str]:
    """A sentence about which rows come from measured results."""
    several = collected.runs["task"].nunique() > 1
    origins: dict[str, dict[str, list[str]]] = {}
    for arm, task, seed, run in collected.runs[["arm", "task", "seed", "run"]].itertuples(index=False):
        if run in collected.labels:
            cell = f"{arm}, {task}" if several else arm
            origins.setdefault(collected.labels[run], {}).setdefault(cell, []).append(str(seed))
    for label, cells in origins.items():
        listed = "; ".join(f"{cell} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for cell, seeds in cells.items())
        yield f"From results/measured/{label}: {listed}."
    if origins and not collected.runs["run"].isin(collected.labels).all():
        yield "All other rows are from run folders."
