"""Which runs are in measured results: a quick look into their CSV files, without tables and pandas."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from results import archive
from results.fingerprints import KINDS
from results.plans import CollectError
from run_format import DONE

Measurement = tuple[str, str, str]  # run, finished, device


class MeasuredRun(NamedTuple):
    """A measurement of a run in measured results.

    code, data: its fingerprints; because: why it is left out, if it is; finished: when this measurement of the run and
    its repeats there finished; commit: of the code, where it is known.
    """

    label: str
    code: str
    data: str
    because: str
    finished: frozenset[str]
    commit: str = ""


def find(runs: Collection[str]) -> dict[str, list[MeasuredRun]]:
    """The measurements of these runs in all measured results of the checkout.

    Files that cannot be read hold no measurement here; a report of them names what is wrong. Raises CollectError where
    two labels state one measurement differently: one of them was edited.
    """
    found: dict[str, list[MeasuredRun]] = {}
    known_facts: dict[Measurement, list[tuple[str, dict[str, str]]]] = {}
    for label in archive.labels():
        folder = archive.folder(label)
        rows = {
            row["run"]: row for row in _rows(folder / "runs.csv") if row.get("run") in runs and row["state"] == DONE
        }
        if not rows:
            continue
        excluded = {
            (row.get("run"), row.get("finished"), row.get("device")): row.get("because", "")
            for row in _rows(folder / "excluded.csv")
        }
        repeated: dict[str, set[str]] = {}
        for row in _rows(folder / "repeats.csv"):
            repeated.setdefault(row.get("run", ""), set()).add(row.get("finished", ""))
        for run, row in rows.items():
            because = excluded.get((run, row.get("finished"), row.get("device")), "")
            if row.get("finished"):
                facts = {kind: row.get(column, "") for column, kind in KINDS.items()}
                known_facts.setdefault((run, row["finished"], row.get("device", "")), []).append((label, facts))
            known = frozenset({row.get("finished", ""), *repeated.get(run, ())})
            fingerprints = (row.get("code_fingerprint", ""), row.get("data_fingerprint", ""))
            found.setdefault(run, []).append(MeasuredRun(label, *fingerprints, because, known, row.get("commit", "")))
    _refuse_contradictions(known_facts)
    return found


def _refuse_contradictions(known: Mapping[Measurement, list[tuple[str, dict[str, str]]]]) -> None:
    """known: of each measurement the labels that have it, with the fingerprints that they state."""
    finals: dict[str, dict[tuple[str, str], str]] = {}  # label → run and metric → value
    for (run, _, _), stated in known.items():
        if len(stated) == 1:
            continue
        for label, _ in stated:
            if label not in finals:
                rows = _rows(archive.folder(label) / "metrics.csv")
                finals[label] = {
                    (row.get("run", ""), row.get("metric", "")): row.get("value", "")
                    for row in rows
                    if row.get("final") == "True"
                }
        (first, facts), *others = [
            (label, facts | {metric: value for (of_run, metric), value in finals[label].items() if of_run == run})
            for label, facts in stated
        ]
        for label, other in others:
            for what in facts.keys() & other.keys():
                if not _same(facts[what], other[what]):
                    raise CollectError(
                        f"results/measured/{first} and results/measured/{label} have one measurement of run {run}, but "
                        f"{what} {facts[what] or 'unknown'} there and {other[what] or 'unknown'} here: one of them was "
                        "edited; restore it from git"
                    )


def _same(first: str, second: str) -> bool:
    if first == second:
        return True
    with suppress(ValueError):
        return float(first) == float(second)
    return False


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
