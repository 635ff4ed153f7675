"""Runs every check for the settings of a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from doctor.data import data, site
from doctor.finding import ROOT, CheckInputs, Finding, guarded
from doctor.hardware import gpu, machine, sampler
from doctor.programs import latex, slurm
from doctor.software import code, locked_versions, packages, python
from doctor.storage import run_folder
from errors import ConfigError
from experiments.commands import runs_folder

CHECKS: tuple[Callable[[CheckInputs], Iterable[Finding]], ...] = (
    python, packages, locked_versions, code, site, data, run_folder, machine, gpu, sampler, slurm, latex
)  # fmt: skip


def examine(words: list[str]) -> list[Finding]:
    """The findings of every check, in order.

    Raises ConfigError for words that no run accepts; any other fault becomes a finding.
    """
    try:
        inputs = parse_inputs(words)
    except ImportError:  # settings cannot be parsed without packages; the checks report which are missing
        inputs = CheckInputs(lambda: runs_folder({}, {}))
    checks = [(check.__name__.replace("_", " "), partial(check, inputs)) for check in CHECKS]
    return [finding for name, check in checks for finding in guarded(name, check)]


def parse_inputs(words: list[str], site_path: Path = ROOT / "site.yaml") -> CheckInputs:
    """The inputs of the checks from the key=value words of a command line and from site.yaml. Raises ConfigError."""
    from experiments.config import merge, parse_overrides, read_site, resolve

    settings = parse_overrides(words)
    runs_dir = {"runs_dir": settings.pop("runs_dir", None)}
    name = settings.pop("experiment", None)
    if name is not None:
        resolve(str(name), settings)  # errors of the command line are refused; errors of the site are findings
    elif settings:
        merge(settings)
        raise ConfigError(f"{next(iter(settings))} is a setting of a run: add experiment=NAME to check what that needs")
    site: dict[str, Any] = {}
    with suppress(ConfigError):  # reported by the check of site.yaml
        site = read_site(site_path)
    return CheckInputs(lambda: runs_folder(dict(runs_dir), dict(site)), name, settings, site, site_path)
