"""Offset interventions of measured results, ``measured/<label>/interventions/<run>.json``.

Each is the file of the run's folder without what is known of the run elsewhere; one of another training is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.run_files import RunFiles
from results.run_folders.interventions import committed, problem, read, warning
from run_format import DONE

if TYPE_CHECKING:
    import pandas as pd

    from results.tables import Collected

FILES = RunFiles("interventions", ".json")


def contents(collected: Collected) -> dict[str, str]:
    """Run → its file. Raises MeasuredError for one that can no longer be read."""
    return {run: committed(read(path)) for run, path in collected.interventions.items()}


def found(label: Path, runs: pd.DataFrame) -> tuple[dict[str, Path], list[str]]:
    """The files of finished runs of the runs table, by run, and a warning for each one that is left out."""
    records: list[Any] = runs[runs["state"] == DONE].to_dict("records")
    rows = {row["run"]: row for row in records}
    files, warnings = FILES.paths(label, rows), []
    for run, path in list(files.items()):
        shown = f"{label.name}/{FILES.folder}/{path.name}"
        if why := problem(path, shown, run, rows[run]):
            warnings.append(warning(run, why))
            del files[run]
    return files, warnings
