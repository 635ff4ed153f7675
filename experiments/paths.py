"""Paths in settings: on a command line relative to the current directory, in a file to its folder. No packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, refuse_control_characters

FILE_AND_NAME = ".py:"  # in a mixer of one's own, PATH.py:NAME
PATHS = ("runs_dir", "root", "data.root")  # keys of files that hold a path; init and model.mixer may be one, too


def with_absolute_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings of a file in ``folder``, to which its paths are relative. Those of a command line are the caller's."""
    return {
        key: str(folder / expanded(key, value)) if _is_path(key, value) else value for key, value in settings.items()
    }


def _is_path(key: str, value: Any) -> bool:
    if not isinstance(value, str) or value == "":
        return False
    return key in PATHS or (key == "init" and is_file(value)) or (key == "model.mixer" and FILE_AND_NAME in value)


def expanded(key: str, path: str) -> Path:
    """The path with the folder of a user in place of ``~``. Raises ConfigError where there is no such user."""
    refuse_control_characters(key, path)
    if "${" in path:
        raise ConfigError(f"{key}={path}: nothing is put in place of ${{…}} here; write the path itself")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ConfigError(f"{key}={path}: no user is called {path.partition('/')[0]}") from None


def is_file(init: str) -> bool:
    """Whether ``init`` is the path of a file rather than a run id, which has neither slashes nor dots."""
    return "/" in init or "." in init
