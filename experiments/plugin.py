"""Modules of other packages that register a task, data set or mixer. Must not import torch."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from errors import ConfigError


def plugin_module(group: str, name: str | None) -> str | None:
    """The module behind an entry point of a group; None for a name that no installed package registers."""
    point = next((point for point in entry_points(group=group) if point.name == name), None)
    return point.module if point else None


def module_file(module: str) -> Path:
    """The source file of an importable module; neither it nor the package that it is in is imported.

    Raises ConfigError where it has none.
    """
    package, *rest = module.split(".")
    spec = PathFinder.find_spec(package) or find_spec(package)
    for part in rest:
        package = f"{package}.{part}"
        spec = PathFinder.find_spec(package, spec.submodule_search_locations) if spec else None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"module {module} has no source file: is its package installed?")
    return Path(spec.origin)
