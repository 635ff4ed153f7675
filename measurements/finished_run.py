"""Whether a run has ended and left its weights, as what is asked of a finished run needs. No torch."""

from __future__ import annotations

from typing import Any

from errors import RunFolderError
from experiments.folder.parent import why_unfinished
from experiments.folder.run_folder import RunFolder
from run_format import WEIGHTS


def finished(folder: RunFolder, command: str) -> dict[str, Any]:
    """The summary of a finished run whose final weights are there; raises RunFolderError for any other."""
    summary = folder.finished()
    if not summary:
        raise RunFolderError(f"{command}={folder.id}: {why_unfinished(folder)}")
    if not (folder.path / WEIGHTS).is_file():
        raise RunFolderError(f"{command}={folder.id}: the run is done, but its {WEIGHTS} is missing")
    return summary
