"""What is asked of a finished run: that it is there, its config on this machine, earlier results of it. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, RunFolderError
from experiments.config import SHORT, get, merge, site_settings
from experiments.folder.parent import why_unfinished
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config
from run_format import EXCLUDED, EXCLUSION, WEIGHTS

LOCATION = ("data.root", "data.reader")  # settings that say where a data set is, which differs between machines


def finished(folder: RunFolder, command: str) -> dict[str, Any]:
    """The summary of a finished run whose final weights are there; raises RunFolderError for any other."""
    if reason := why_unmeasured(folder):
        raise RunFolderError(f"{command}={folder.id}: {reason}")
    return folder.finished() or {}


def why_unmeasured(folder: RunFolder) -> str | None:
    """Why a run has nothing to measure: it has not ended, or its weights are gone; None if it has."""
    if not folder.finished():
        return why_unfinished(folder)
    return None if (folder.path / WEIGHTS).is_file() else f"the run is done, but its {WEIGHTS} is missing"


def why_left_out(folder: RunFolder) -> str | None:
    """Why a person left a run out; None for a run that counts."""
    because = folder.read_json(EXCLUSION).get("because")
    return f"{EXCLUDED}: {because}" if because else None


def config_of_run(folder: RunFolder, settings: Mapping[str, Any], site: Mapping[str, Any], command: str) -> Config:
    """A run's config as this machine executes it: ``settings`` and ``site`` say how, and where the data are.

    Raises ConfigError for a setting that would change the run.
    """
    frozen = folder.config()
    merge(settings)  # refuses unknown keys
    for key in settings:
        if FIELDS[(long := SHORT.get(key, key))].metadata["scientific"]:
            raise ConfigError(
                f"{command}={folder.id} measures the run as it is, and {key} would change it; for other settings give "
                f"its weights file: {command}={folder.path / WEIGHTS} experiment={frozen.experiment} {long}=…"
            )
    return merge({key: get(frozen, key) for key in FIELDS}, of_this_machine(frozen, site), settings)


def of_this_machine(frozen: Config, site: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a site for a run: how to execute, and where the data are if not where the run had them."""
    local = site_settings(site, frozen.data.dataset)
    if frozen.data.root and Path(frozen.data.root).exists():
        local = {key: value for key, value in local.items() if key not in LOCATION}
    return local


def is_measured(about: Path, key: Mapping[str, Any]) -> bool:
    """Whether the results that a file describes are complete, by its checksums, and were measured with the same key."""
    try:
        recorded = json.loads(about.read_text())
        whole = all(
            hashlib.sha256((about.parent / name).read_bytes()).hexdigest() == digest
            for name, digest in recorded["files"].items()
        )
        return whole and bool(recorded["key"] == json.loads(json.dumps(key)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
