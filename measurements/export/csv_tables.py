"""``to=csv``: ``runs.csv`` with a line per run, and ``metrics.csv`` with a line per logged number. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import atomic_file
from measurements.export import ExportRequest, view
from measurements.export.view import ViewedRun
from results.run_folders.metrics_log import MISSING

FACTS = ("state", "step", "finished", "commit", "code_fingerprint", "data_fingerprint")


def export(request: ExportRequest) -> dict[str, Any]:
    return view.make("csv", request, _fill)


def _fill(runs: Sequence[ViewedRun], folder: Path) -> None:
    rows = [_row(run) for run in runs]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    atomic_file.write(folder / "runs.csv", _csv(columns, ([row.get(key) for key in columns] for row in rows)))
    numbers = (number for run in runs for number in _numbers(run))
    atomic_file.write(folder / "metrics.csv", _csv(("run", "step", "epoch", "metric", "value"), numbers))


def _row(run: ViewedRun) -> Mapping[str, Any]:
    """State and origin, the metrics of a finished run, and every setting under ``config.``."""
    facts, recorded = run.run.recorded.facts()["row"], run.run.recorded
    provenance = {key: run.run.provenance.get(key) for key in FACTS if key in run.run.provenance}
    return {
        "run": run.id,
        "arm": run.arm,
        "seed": run.run.seed,
        **{key: provenance.get(key, facts[key]) for key in FACTS},
        **recorded.summary.get("metrics", {}),
        **{f"config.{key}": value for key, value in run.settings.items()},
    }


def _numbers(run: ViewedRun) -> Iterator[tuple[Any, ...]]:
    if run.log is None:
        return
    for step, epoch, values in zip(run.log.steps.tolist(), run.log.epochs.tolist(), run.log.values.tolist()):
        for name, value in zip(run.log.names, values):
            if value == value:  # NaN: the row has no number of this metric
                yield run.id, step, None if epoch == MISSING else epoch, name, value


def _csv(header: Sequence[str], rows: Iterator[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([json.dumps(v) if isinstance(v, list | dict | bool) else v for v in row] for row in rows)
    return text.getvalue()
