"""Which runs are in measured results: a quick look into their CSV files, without tables and pandas."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from results import archive
from run_format import DONE


class MeasuredRun(NamedTuple):
    """A measurement of a run in measured results.

    code, data: its fingerprints; because: why it is left out, if it is; finished: when this measurement of the run and
    its repeats there finished.
    """

    label: str
    code: str
    data: str
    because: str
    finished: frozenset[str]


def find(runs: Collection[str]) -> dict[str, list[MeasuredRun]]:
    """The measurements of these runs in all measured results of the checkout.

    Files that cannot be read hold no measurement here; a report of them names what is wrong.
    """
    found: dict[str, list[MeasuredRun]] = {}
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
            known = frozenset({row.get("finished", ""), *repeated.get(run, ())})
            fingerprints = (row.get("code_fingerprint", ""), row.get("data_fingerprint", ""))
            found.setdefault(run, []).append(MeasuredRun(label, *fingerprints, because, known))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
