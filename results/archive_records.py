"""Per-image records of measured results, ``measured/<label>/records/<run>.npz``: copies of the run folders' files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from results.plans import CollectError
from results.records import read_records
from results.run_files import RunFiles
from results.run_folders.numbers import DIGITS

if TYPE_CHECKING:
    from results.tables import Collected

FILES = RunFiles("records", ".npz")


def contents(collected: Collected) -> dict[str, bytes]:
    """Run → its file. Raises CollectError for one that cannot be read or gives another metric than the summary."""
    finals = collected.metrics[collected.metrics["final"]]
    values = finals.set_index(finals["run"].astype(str) + " " + finals["metric"].astype(str))["value"].to_dict()
    files = {}
    for run, path in collected.records.items():
        try:
            for metric, record in read_records(path).items():
                _check(f"{path.parent.name}/{path.name}: {metric}", record.value(), values.get(f"{run} {metric}"))
        except CollectError as error:
            raise CollectError(f"{error}; remove the file to collect the run without it") from None
        files[run] = path.read_bytes()
    return files


def _check(metric: str, value: float, reported: float | None) -> None:
    """Raises CollectError unless a metric is the one that the run reports, as far as it has digits."""
    if reported is None or not math.isclose(value, reported, rel_tol=10.0 ** (1 - DIGITS)):
        said = "not" if reported is None else f"{reported:g}"
        raise CollectError(f"{metric} is {value:g} by its images, but {said} in the run's summary")
