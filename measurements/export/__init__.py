"""What ``export=`` can make of finished runs, each target in a module of its own. No torch.

A target is a function of the name that was given, the folder of the run folders, the further settings of the command
line and the folder ``into``, which it writes. It returns the document of ``--json``, with ``written``, the files. They
are all there or none is: the folder of ``atomic_file.making`` appears when everything is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown

TARGETS = {  # what ``to=`` says → "module:function"
    "hub": "measurements.export.hub:export",
}
Target = Callable[[str, Path, dict[str, Any], Path], dict[str, Any]]


def target(to: str) -> Target:
    """Raises ConfigError with the nearest name for a target that does not exist."""
    if to not in TARGETS:
        raise ConfigError(unknown("value for to", to, TARGETS))
    module, _, function = TARGETS[to].partition(":")
    found: Target = getattr(import_module(module), function)
    return found
