"""Makes room for another measurement of a run: the folder of the first one is set aside, not removed."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import atomic_file
from errors import RunFolderError, UnreadableError
from experiments.folder.run_folder import RunFolder
from results import measured_runs
from run_format import EXCLUSION, SUMMARY
from untrusted_files import listed

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


def folders(runs_dir: Path) -> dict[Path, str]:
    """The folders that were set aside → the run of each."""
    paths = (path for path in listed(runs_dir / SET_ASIDE) if path.is_dir())
    return {path: path.name.rpartition(".")[0] for path in paths}


def superseded(runs_dir: Path, runs: Collection[str]) -> list[Path]:
    """The folders set aside of ``runs`` that are needed no more: the run is done again, and the final values of the
    measurement stay on record, in measured results or with its exclusion. What cannot be read is not among them."""
    aside = {path: run for path, run in folders(runs_dir).items() if run in runs}
    measured = measured_runs.find(set(aside.values()))
    needless = []
    for path, run in aside.items():
        with suppress(UnreadableError):
            folder = RunFolder(runs_dir / run)
            excluded = folder.read_json(EXCLUSION).get("earlier") or []
            recorded = {each.get("finished") for each in excluded if isinstance(each, dict)}
            recorded = recorded.union(*(each.finished for each in measured.get(run, ())))
            finished = RunFolder(path).read_json(SUMMARY).get("finished")
            if finished and finished in recorded and folder.finished():
                needless.append(path)
    return needless


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
