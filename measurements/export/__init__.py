"""What ``export=`` can make of runs, each target in a module of its own. No torch before a target needs it.

A target is a function of an ``ExportRequest``. It returns the document of ``--json``, with ``written``, the files. They
are all there or none is: the folder of ``atomic_file.making`` appears when everything is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown

TARGETS = {  # what ``to=`` says → "module:function"
    "hub": "measurements.export.hub:export",
    "tensorboard": "measurements.export.tensorboard:export",
    "csv": "measurements.export.csv_tables:export",
}


@dataclass(frozen=True)
class ExportRequest:
    """What a command line asks to be exported.

    name: of the run, or of the sweep and its protocol; arms: the ids of the runs, begun or not, and what the sweep
    calls each; settings: those that are left for the target; into: where to, None where that is left to the target.
    """

    name: str
    runs_dir: Path
    arms: Mapping[str, str]
    settings: Mapping[str, Any]
    into: Path | None


Target = Callable[[ExportRequest], dict[str, Any]]


def target(to: str) -> Target:
    """Raises ConfigError with the nearest name for a target that does not exist."""
    if to not in TARGETS:
        raise ConfigError(unknown("value for to", to, TARGETS))
    module, _, function = TARGETS[to].partition(":")
    found: Target = getattr(import_module(module), function)
    return found
