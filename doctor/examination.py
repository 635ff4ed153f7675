"""Every check, for what the command line asks about."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from doctor.data import data, site
from doctor.finding import ROOT, Asked, Finding, guarded
from doctor.hardware import gpu, machine, sampler
from doctor.programs import latex, slurm
from doctor.software import code, locked_versions, packages, python
from doctor.storage import run_folder
from errors import ConfigError
from experiments.commands import runs_folder

CHECKS: tuple[Callable[[Asked], Iterable[Finding]], ...] = (
    python, packages, locked_versions, code, site, data, run_folder, machine, gpu, sampler, slurm, latex
)  # fmt: skip


def examine(words: list[str]) -> list[Finding]:
    """Every check, in order. Raises ConfigError for words that no run would take; anything else is a finding."""
    try:
        asked = understand(words)
    except ImportError:  # the settings cannot be read, but what is missing can be said
        asked = Asked(lambda: runs_folder({}, {}))
    named = [(check.__name__.replace("_", " "), partial(check, asked)) for check in CHECKS]
    return [finding for name, check in named for finding in guarded(name, check)]


def understand(words: list[str], site_path: Path = ROOT / "site.yaml") -> Asked:
    from experiments.config import merge, parse_overrides, read_yaml, resolve

    given = parse_overrides(words)
    where = {"runs_dir": given.pop("runs_dir", None)}
    name = given.pop("experiment", "")
    if name != "":
        resolve(str(name or ""), given)  # what is wrong on the command line is refused; what is wrong here is found
    elif given:
        merge(given)
        raise ConfigError(f"{next(iter(given))} is a setting of a run: add experiment=NAME to check what that needs")
    site: dict[str, Any] = {}
    with suppress(ConfigError, UnicodeDecodeError):  # the check of site.yaml says why
        site = read_yaml(site_path) if os.path.lexists(site_path) else {}
    return Asked(lambda: runs_folder(dict(where), dict(site)), str(name) or None, given, site, site_path)
