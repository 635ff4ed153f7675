"""In what two runs differ: settings, code, data, packages and hardware, and what they found."""

from __future__ import annotations

from typing import Any

from reports.content import one_run
from reports.content.page import Cell, Grid, Section
from reports.content.values import Text
from results.run_folders.recorded_run import OneRun
from run_format import DONE
from yaml_files import dotted

Differences = dict[str, dict[str, tuple[Any, Any]]]  # kind → key → the values of both, None where one has none
KIND_OF = {  # key of the provenance → the kind of difference
    **dict.fromkeys(("commit", "dirty", "code_fingerprint", "sampler"), "code"),
    "data_fingerprint": "data",
    **dict.fromkeys(("packages", "python"), "packages"),
    "hardware": "hardware",
}


def differences(first: OneRun, second: OneRun) -> Differences:
    """Kinds without a difference are left out."""
    sides = [_facts(first), _facts(second)]
    found: Differences = {}
    for kind in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = (side.get(kind, {}) for side in sides)
        keys = dict.fromkeys([*one, *other])
        found[kind] = {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}
    return {kind: entries for kind, entries in found.items() if entries}


def section(first: OneRun, second: OneRun) -> Section:
    """A table of the differences."""
    runs = (first.recorded, second.recorded)
    groups = tuple(
        tuple(
            tuple(Cell(Text(text)) for text in (kind if n == 0 else "", key, _text(values[0]), _text(values[1])))
            for n, (key, values) in enumerate(entries.items())
        )
        for kind, entries in differences(first, second).items()
    )
    states = ", ".join(f"{run.run} is {run.state}" for run in runs)
    latest = "" if all(run.state == DONE for run in runs) else " Metrics of a run that has not ended: the latest ones."
    return Section(
        name="diff",
        title=f"{runs[0].run} and {runs[1].run}",
        about=f"{states}.{latest}" if groups else f"{states}. They differ in nothing that they record.",
        grid=Grid(("", "Key", runs[0].run, runs[1].run), "llll", groups) if groups else None,
        warnings=(*runs[0].warnings, *runs[1].warnings),
    )


def document(first: OneRun, second: OneRun) -> dict[str, Any]:
    """The same in plain values, for ``--json``."""
    runs = (first.recorded, second.recorded)
    return {
        "runs": [{"run": run.run, "state": run.state} for run in runs],
        "differences": differences(first, second),
        "warnings": [warning for run in runs for warning in run.warnings],
    }


def _facts(run: OneRun) -> dict[str, dict[str, Any]]:
    """Kind → dotted key → value."""
    record = run.recorded
    facts: dict[str, dict[str, Any]] = {"settings": run.settings()}
    for key, kind in KIND_OF.items():
        facts.setdefault(kind, {}).update(dotted(run.provenance.get(key), key))
    latest = {metric: value for metric, value, _, _ in one_run.latest(record.log)} if record.log else {}
    facts["metrics"] = {**latest, **record.summary.get("metrics", {})}
    return facts


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)
