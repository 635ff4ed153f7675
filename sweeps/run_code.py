"""Which copy of the code each run of a launch is started from. Recorded in the run's folder.

A run goes on with the code it began with, and a sweep that has begun keeps its code, so that all of its runs have one
fingerprint. The present code is taken where it computes the same, and for a sweep that has not begun.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import atomic_file
from errors import ConfigError, RunFolderError, UnreadableError
from experiments.config import get
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.provenance import accepted_codes, checkout
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS, Config
from run_format import CODE, PROVENANCE
from sweeps import snapshot
from sweeps.plan import Plan, PlannedRun
from untrusted_files import listed

KNOWN_SETTINGS = "import json; from experiments.schema import FIELDS; print(json.dumps(list(FIELDS)))"


@dataclass(frozen=True)
class Choice:
    """The copy of the code for each run of a launch, by run id. present: the copy of the checkout as it is."""

    copies: dict[str, Path]
    present: Path | None

    def freeze(self, folder: RunFolder, config: Config) -> None:
        """Freezes the config of a run for the code that will read it, and records that code in the run's folder.

        Raises ConfigError where the code has not got a setting that the run needs, RunFolderError, WriteError.
        """
        copy = self.copies[folder.id]
        folder.freeze(config, None if copy == self.present else _settings_for(config, copy))
        before = folder.read_json(CODE)
        if before.get("copy") != copy.name:
            # a replay may refuse the new copy, and then the run goes on with an earlier one
            earlier = [name for name in _copies(before) if name != copy.name] if has_begun(folder) else []
            content = {"copy": copy.name, "earlier": earlier, **checkout(copy), "time": time.time()}
            with atomic_file.writing(folder.path / CODE, durable=False) as file:
                file.write(json.dumps(content).encode() + b"\n")

    def describe(self) -> list[str]:
        """A line for each copy: which code it is, and how many runs are started from it."""
        lines = []
        for copy in dict.fromkeys(self.copies.values()):
            runs = sum(1 for other in self.copies.values() if other == copy)
            origin = checkout(copy)
            commit = f"commit {origin['commit'][:12]}" if origin["commit"] else "no commit"
            subject = "run uses" if runs == 1 else "runs use"
            line = f"{runs} {subject} the code in {copy} ({commit}{', edited' if origin['dirty'] else ''})"
            if self.present and copy != self.present:
                line += ", with which this sweep began; --new-code takes the present code for runs that have not begun"
            lines.append(line)
        return lines

    def about_done(self, runs_dir: Path, done: Iterable[PlannedRun]) -> Iterator[str]:
        """A line about the finished runs that other code computed than that of the runs to be started."""
        other, commits, copies = [], set(), set(self.copies.values())
        for run in done:
            record: dict[str, Any] = {}
            with suppress(UnreadableError):  # a report names it
                record = RunFolder(runs_dir / run.id).read_json(PROVENANCE)
            accepted = accepted_codes(record)
            if accepted and not any(run_fingerprint(run.config, copy) in accepted for copy in copies):
                other.append(run.id)
                commits.add(str(record.get("commit") or "COMMIT")[:12])
        if other:
            number = f"{len(other)} finished {'run is' if len(other) == 1 else 'runs are'} of other code"
            yield (
                f"{number}, e.g. {other[0]}, and a report refuses to average both; --at {min(commits)} takes "
                "their code for the rest; to train all with this code: another runs_dir=PATH, or collect=… into=LABEL "
                "and then --fresh, which repeats runs (some with arms=… seeds=…)"
            )

    def refuse_other_code(self, runs_dir: Path) -> None:
        """Raises RunFolderError for runs that would refuse to go on with their copy of the code."""
        refusing, commit = [], None
        for run, copy in self.copies.items():
            folder = RunFolder(runs_dir / run)
            before = folder.read_json(PROVENANCE)
            accepted = accepted_codes(before)
            if not accepted or not has_begun(folder) or folder.read_json(CODE).get("copy") == copy.name:
                continue  # in its own copy, a run compares fingerprints as that code makes them
            if run_fingerprint(folder.config(), copy) not in accepted:
                refusing.append(run)
                commit = commit or before.get("commit")
        if refusing:
            raise RunFolderError(
                f"{len(refusing)} runs began with other code, e.g. {refusing[0]}; go back to it with "
                f"--at {commit or 'COMMIT'}, show with --replay that the present code computes the same, or go on with "
                "--force, which marks the runs and keeps them out of averages"
            )


def choose(
    plan: Plan,
    runs: Sequence[PlannedRun],
    runs_dir: Path,
    at: str | None = None,
    new_code: bool = False,
    other_code: str | None = None,
) -> Choice:
    """Chooses the code of ``runs``, which are those of the plan to be started.

    at: a commit whose code all of them take. new_code: runs that have not begun take the present code. other_code:
    "replay" and "force" let all of them take the present code. Raises ConfigError for an unknown commit, WriteError.
    """
    present = snapshot.take_at(runs_dir, at) if at else snapshot.take(runs_dir)
    if at or other_code:
        return Choice({run.id: present for run in runs}, None if at else present)
    return Choice(sources(plan, runs, runs_dir, present, new_code), present)


def sources(plan: Plan, runs: Iterable[PlannedRun], runs_dir: Path, present: Path, new_code: bool) -> dict[str, Path]:
    """The folder of the code that each of ``runs`` would be started from. present: of the present code."""
    recorded: dict[str, tuple[float, Path] | None] = {}
    for run_id in plan.distinct():
        recorded[run_id] = None
        with suppress(UnreadableError):  # such a run is not started
            recorded[run_id] = _recorded(RunFolder(runs_dir / run_id))
    newest = max((entry for entry in recorded.values() if entry), default=None)

    def chosen(run: PlannedRun) -> Path:
        folder = RunFolder(runs_dir / run.id)
        begun = has_begun(folder) or folder.holder() is not None
        earlier = None if new_code and not begun else recorded[run.id] or (None if begun else newest)
        if (
            earlier is None
            or earlier[1] == present
            or run_fingerprint(run.config, earlier[1]) == run_fingerprint(run.config, present)
        ):
            return present
        return earlier[1]

    return {run.id: chosen(run) for run in runs}


def has_begun(folder: RunFolder) -> bool:
    return bool(listed(folder.checkpoints, "step-*"))


def copies_in_use(folders: Iterable[RunFolder]) -> set[str]:
    """Names of the copies that the folders of runs refer to. Raises UnreadableError where one does not show it."""
    return {copy for folder in folders for copy in _copies(folder.read_json(CODE))}


def _recorded(folder: RunFolder) -> tuple[float, Path] | None:
    """(time of the record, copy) of a run; None where nothing is recorded or the copy is gone.

    Of several copies, the newest one with which the run has gone on: it may have refused a later one.
    """
    content = folder.read_json(CODE)
    paths = [folder.path.parent / snapshot.COPIES / name for name in _copies(content)]
    present = [path for path in paths if (path / snapshot.ENTRY).is_file()]
    if len(present) > 1 and (accepted := accepted_codes(folder.read_json(PROVENANCE))):
        config = folder.config()
        present.sort(key=lambda path: run_fingerprint(config, path) not in accepted)
    return (float(content.get("time") or 0.0), present[0]) if present else None


def _copies(content: Mapping[str, Any]) -> list[str]:
    """Names of the copies in a run's record, the newest first."""
    names = (content.get("copy"), *(content.get("earlier") or []))
    return [name for name in names if isinstance(name, str) and name]


def _settings_for(config: Config, copy: Path) -> Collection[str]:
    known = _known_settings(copy)
    for key, f in FIELDS.items():
        neutral = f.metadata["neutral"]
        if key not in known and f.metadata["scientific"] and (neutral is MISSING or get(config, key) != neutral):
            raise ConfigError(
                f"{key}={get(config, key)}: the code that this sweep began with ({copy}) has no such setting; "
                "--new-code runs it with the present code"
            )
    return known


@cache
def _known_settings(copy: Path) -> frozenset[str]:
    done = subprocess.run([sys.executable, "-c", KNOWN_SETTINGS], cwd=copy, capture_output=True, text=True)
    if done.returncode:
        raise RunFolderError(f"{copy} is not a working copy of the code: {(done.stderr.splitlines() or ['?'])[-1]}")
    return frozenset(json.loads(done.stdout))
