"""Which copy of the code each run of a launch is started from. Recorded in the run's folder.

A run goes on with the code it began with, and a sweep that has begun keeps its code, so that all of its runs have one
fingerprint. The present code is taken where it computes the same, and for a sweep that has not begun.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import atomic_file
from errors import ConfigError, RunFolderError
from experiments.config import get
from experiments.folder.provenance import checkout, code_fingerprint
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config
from run_format import CODE, PROVENANCE
from sweeps import snapshot
from sweeps.plan import Plan, PlannedRun

KNOWN_SETTINGS = "import json; from experiments.schema import FIELDS; print(json.dumps(list(FIELDS)))"


def choose(
    plan: Plan,
    runs: Sequence[PlannedRun],
    runs_dir: Path,
    at: str | None = None,
    new_code: bool = False,
    force: bool = False,
) -> dict[str, Path]:
    """The copy of the code for each of ``runs``, which are those of the plan to be started, by run id.

    at: a commit whose code all of them take. new_code: runs that have not begun take the present code. force: all take
    the present code. Raises ConfigError for an unknown commit, WriteError.
    """
    present = snapshot.take_at(runs_dir, at) if at else snapshot.take(runs_dir)
    if at or force:
        return {run.id: present for run in runs}
    recorded = {run_id: _recorded(RunFolder(runs_dir / run_id)) for run_id in plan.distinct()}
    newest = max((entry for entry in recorded.values() if entry), default=None)

    def chosen(run: PlannedRun) -> Path:
        begun = has_begun(RunFolder(runs_dir / run.id))
        earlier = None if new_code and not begun else recorded[run.id] or (None if begun else newest)
        if earlier is None or earlier[1] == present or _fingerprint(earlier[1]) == _fingerprint(present):
            return present
        return earlier[1]

    return {run.id: chosen(run) for run in runs}


def record(folder: RunFolder, copy: Path) -> None:
    """Notes in a run's folder which copy it is started from. Raises WriteError."""
    if folder.read_json(CODE).get("copy") != copy.name:
        content = {"copy": copy.name, **_checkout(copy), "time": time.time()}
        with atomic_file.writing(folder.path / CODE, durable=False) as file:
            file.write(json.dumps(content).encode() + b"\n")


def has_begun(folder: RunFolder) -> bool:
    return any(folder.checkpoints.glob("step-*"))


def freeze(folder: RunFolder, config: Config, copy: Path, present: bool) -> None:
    """Freezes the config of a run for the code that will read it, and records that code.

    present: the copy is of the present code; another one may lack settings that were added since. Raises ConfigError
    where the run needs such a setting, RunFolderError, WriteError.
    """
    folder.freeze(config, None if present else _settings_for(config, copy))
    record(folder, copy)


def describe(copies: Mapping[str, Path], present: Path | None) -> list[str]:
    """A line for each copy: which code it is, and how many runs are started from it."""
    lines = []
    for copy in dict.fromkeys(copies.values()):
        runs = sum(1 for other in copies.values() if other == copy)
        commit, dirty = _checkout(copy)["commit"], _checkout(copy)["dirty"]
        origin = f"commit {commit[:12]}{' with changes' if dirty else ''}" if commit else "not of a git checkout"
        why = "" if copy == present else ": the code that this sweep began with; --new-code takes the present code for runs that have not begun"
        lines.append(f"code of {runs} runs: {copy} ({origin}){why}")
    return lines


def refuse_other_code(runs: Iterable[PlannedRun], copies: Mapping[str, Path], runs_dir: Path) -> None:
    """Raises RunFolderError for runs that would refuse to go on with their copy of the code."""
    other, commit = [], None
    for run in runs:
        folder = RunFolder(runs_dir / run.id)
        before = folder.read_json(PROVENANCE)
        fingerprint = before.get("code_fingerprint")
        if fingerprint and has_begun(folder) and _fingerprint(copies[run.id]) not in fingerprint.split("+"):
            other.append(folder.id)
            commit = commit or before.get("commit")
    if other:
        back = f"--at {commit}" if commit else "--at COMMIT"
        raise RunFolderError(
            f"{len(other)} runs began with other code than {copies[other[0]].name}, e.g. {other[0]}; go back to that "
            f"code with {back}, or go on with --force, which marks the runs and keeps them out of averages"
        )


def copies_in_use(folders: Iterable[RunFolder]) -> set[str]:
    """Names of the copies that the folders of runs refer to."""
    return {str(copy) for folder in folders if (copy := folder.read_json(CODE).get("copy"))}


def _recorded(folder: RunFolder) -> tuple[float, Path] | None:
    """(time of the record, copy) of a run; None where nothing is recorded or the copy is gone."""
    content = folder.read_json(CODE)
    copy = folder.path.parent / snapshot.COPIES / str(content.get("copy"))
    return (float(content.get("time", 0.0)), copy) if content and (copy / snapshot.ENTRY).is_file() else None


def _settings_for(config: Config, copy: Path) -> Collection[str]:
    known = _known_settings(copy)
    for key, f in FIELDS.items():
        neutral = f.metadata.get("neutral", f.default)
        if key not in known and f.metadata["scientific"] and get(config, key) != neutral:
            raise ConfigError(
                f"{key}={get(config, key)}: the code that this sweep began with ({copy}) has no such setting; "
                "--new-code runs it with the present code"
            )
    return known


@cache
def _known_settings(copy: Path) -> frozenset[str]:
    done = subprocess.run([sys.executable, "-c", KNOWN_SETTINGS], cwd=copy, capture_output=True, text=True)
    if done.returncode:
        raise RunFolderError(f"{copy} is no working copy of the code: {(done.stderr.splitlines() or ['?'])[-1]}")
    return frozenset(json.loads(done.stdout))


@cache
def _fingerprint(copy: Path) -> str:
    return code_fingerprint(copy)


@cache
def _checkout(copy: Path) -> dict[str, Any]:
    return checkout(copy)
