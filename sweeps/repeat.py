"""Makes room for another measurement of a run: the folder of the first one is set aside, not removed."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFolderError
from experiments.folder.run_folder import RunFolder
from run_format import EXCLUSION

SET_ASIDE = "set_aside"  # below the folder of the runs


def set_aside(folder: RunFolder) -> Path | None:
    """Moves the folder of a run to ``set_aside/<run>.<number>``, and returns where it is now.

    That a measurement was excluded stays on record in the run's new folder. Raises RunFolderError while a process holds
    the run, and where the folder cannot be moved.
    """
    if not folder.path.is_dir():
        return None
    folder.refuse_held()
    earlier = _exclusions(folder)
    parent = folder.path.parent / SET_ASIDE
    try:
        parent.mkdir(exist_ok=True)
        target = next(path for number in count(1) if not (path := parent / f"{folder.id}.{number}").exists())
        folder.path.rename(target)
        if earlier:
            folder.path.mkdir()
            folder.write_json(EXCLUSION, {"earlier": earlier})
    except OSError as error:
        raise RunFolderError(f"cannot set {folder.path} aside: {atomic_file.reason(error)}") from None
    return target


def _exclusions(folder: RunFolder) -> list[dict[str, Any]]:
    """The measurements of the run that were excluded, among them that of the folder."""
    record, summary = folder.read_json(EXCLUSION), folder.finished()
    earlier = [each for each in record.get("earlier", []) if isinstance(each, dict)]
    if record.get("because"):
        values = {}
        for metric, value in summary.get("metrics", {}).items():
            with suppress(TypeError, ValueError):
                values[metric] = float(value)
        measurement = {key: summary.get(key, "") for key in ("finished", "device")}
        earlier.append({"because": record["because"], **measurement, "values": values})
    return earlier
