"""Runs as another program shows them: a folder made again from the run folders whenever it is asked for. No torch.

A target that is a view is one module with a function that fills a folder from ``ViewedRun``s. Nothing is kept in it
that the run folders do not have, so the same runs give the same files, and runs that have gone on give more rows.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atomic_file
from errors import ConfigError, RunFolderError, SuiteError
from measurements.export import ExportRequest
from results.run_folders.metrics_log import LoggedMetrics
from results.run_folders.recorded_run import OneRun, read_one
from untrusted_files import exists, keys_and_values

FOLDER = "exports"  # in the folder of the run folders: views that were given no folder
MANIFEST = "export.json"  # tells a view, which may be replaced, from any other folder


@dataclass(frozen=True)
class ViewedRun:
    """A run in any state. arm: empty outside a sweep; settings: dotted key → value of its frozen config."""

    arm: str
    run: OneRun
    settings: dict[str, Any]

    @property
    def id(self) -> str:
        return self.run.recorded.run

    @property
    def log(self) -> LoggedMetrics | None:
        return self.run.recorded.log


def make(to: str, request: ExportRequest, fill: Callable[[Sequence[ViewedRun], Path], None]) -> dict[str, Any]:
    """Replaces the view by what ``fill`` makes of the runs that have begun.

    Raises ConfigError for settings, for a folder that holds anything else, and where no run has begun; WriteError.
    """
    if request.settings:
        raise ConfigError(f"export={request.name} to={to} takes no {next(iter(request.settings))} (valid: into)")
    into = request.into or request.runs_dir / FOLDER / f"{request.name}-{to}"
    replaces = _is_view(into, to)
    runs, left_out = _begun(request)
    if not runs:
        why = f": {left_out[0]}" if left_out else f" in {request.runs_dir}"
        raise RunFolderError(f"export={request.name}: no run has begun{why}")
    former = into.with_name(f".{into.name}.{secrets.token_hex(4)}.tmp")
    with atomic_file.making(into) as making:
        fill(runs, making)
        manifest = {"to": to, "name": request.name, "runs": {run.id: run.run.recorded.state for run in runs}}
        atomic_file.write(making / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        files = [path.relative_to(making) for path in sorted(making.rglob("*")) if path.is_file()]
        if replaces:
            into.rename(former)
    shutil.rmtree(former, ignore_errors=True)
    for line in left_out:
        print(f"run.py: left out: {line}", file=sys.stderr)
    return {**manifest, "left_out": left_out, "written": [str(into), *(str(into / file) for file in files)]}


def _is_view(into: Path, to: str) -> bool:
    """Whether a view of this kind is there, which is replaced. Raises ConfigError where something else is."""
    if not exists(into) or (into.is_dir() and not any(into.iterdir())):
        return False
    if exists(into / MANIFEST) and keys_and_values(into / MANIFEST).get("to") == to:
        return True
    raise ConfigError(f"into={into}: it holds something else (valid: a new folder, an empty one, or one of to={to})")


def _begun(request: ExportRequest) -> tuple[list[ViewedRun], list[str]]:
    """The runs that have logged anything or ended, and a line about each that cannot be read."""
    viewed, left_out = [], []
    for run_id, arm in request.arms.items():
        folder = request.runs_dir / run_id
        if not folder.is_dir():
            continue
        try:
            run = read_one(folder)
            settings = run.settings()
        except SuiteError as error:
            left_out.append(str(error))
            continue
        if run.recorded.status or run.recorded.log or run.recorded.summary:
            viewed.append(ViewedRun(arm, run, settings))
        left_out += run.recorded.warnings
    return viewed, left_out
