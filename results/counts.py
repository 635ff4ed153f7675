"""Parameters, FLOPs and architecture as counted on the models, in ``counted.csv``.

Counting needs torch; the numbers are committed so that reports, which never load it, can show them.
``python run.py collect=complexity`` writes them again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import atomic_file
from errors import SuiteError

COUNTED = Path(__file__).resolve().parent / "counted.csv"
COLUMNS = ("label", "stage", "metric", "value")
Counts = Mapping[tuple[str, int, str], float]  # label of the model, stage or 0 for the whole, metric


class CountsError(SuiteError):
    """Counted numbers that cannot be read."""


def load() -> dict[tuple[str, int, str], float]:
    """(label, stage or 0 for the whole model, metric) → number."""
    with COUNTED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {(row["label"], int(row["stage"]), row["metric"]): float(row["value"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise CountsError(
            f"{COUNTED.name}: needs columns {', '.join(COLUMNS)}, with numbers in stage and value: {error}"
        ) from None


def write(counts: Counts) -> Path:
    """Replaces the committed numbers."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows((*key, f"{value:.9g}") for key, value in counts.items())
    return atomic_file.write(COUNTED, text.getvalue())
