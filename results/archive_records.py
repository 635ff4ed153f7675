"""Per-image records of measured results, ``measured/<label>/records/<run>.npz``: copies of the run folders' files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from results.plans import CollectError
from results.records import check_value, read_records
from results.run_files import RunFiles

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
                check_value(path, metric, record, values.get(f"{run} {metric}"))
        except CollectError as error:
            raise CollectError(f"{error}; remove the file to collect the run without it") from None
        files[run] = path.read_bytes()
    return files
