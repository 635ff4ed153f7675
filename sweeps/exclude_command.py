"""The command ``exclude=``: leaves a run out of reports, in its folder and in measured results, and takes that back.

It is meant for runs that are broken for a reason outside their numbers. Whoever excludes a run has often seen its
result, so every page that would have held the run states the reason and the value.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from errors import ConfigError, RunFolderError, unknown
from experiments.commands import runs_folder
from experiments.config import parse_overrides, read_site
from experiments.folder.run_folder import RunFolder
from run_format import EXCLUSION, NOT_RUN
from sweeps.status import state_of

TAKES = ("because", "into", "runs_dir")


def exclude(name: str, given: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Excludes the run of this id, or of a part of it that one id alone contains; with --undo, includes it again."""
    from results import archive, label

    because, into, runs_dir = _words(options)
    names = [into] if into else archive.labels()
    if into and into not in archive.labels():
        raise ConfigError(unknown("measured results", into, archive.labels()))
    held = {each: set(archive.read(archive.folder(each)).runs["run"]) for each in names}
    folders = [] if into else [folder.id for folder in RunFolder.all_in(runs_dir)]
    run = _run_named(name, {*folders, *(run for runs in held.values() for run in runs)}, into or str(runs_dir))
    if run in folders and state_of(RunFolder(runs_dir / run))[0] == NOT_RUN:
        folders.remove(run)
        if not any(run in runs for runs in held.values()):
            raise RunFolderError(f"{run} has not begun: there is nothing to leave out")
    changed: list[str] = []
    if run in folders and _in_folder(RunFolder(runs_dir / run), because):
        changed.append(str(runs_dir / run))
    changed += [f"results/measured/{each}" for each in names if run in held[each] and label.exclude(each, run, because)]
    if options.json:
        print(json.dumps({"run": run, "because": because, "changed": changed}))
        return 0
    verb = "left out" if because is not None else "counts again"
    for where in changed:
        print(f"{run} {verb} in {where}")
    if not changed:
        print(f"{run}: nothing to change, it {'is excluded already' if because is not None else 'is not excluded'}")
    elif because is not None:
        print("every page that would have held it says so, with its value; --undo takes it back")
    return 0


def _words(options: argparse.Namespace) -> tuple[str | None, str | None, Path]:
    """Reason (None to undo), label and folder of the runs. The reason is a text, whatever it looks like."""
    texts = {}
    for word in options.words[1:]:
        key, equals, text = word.partition("=")
        if not equals or key not in TAKES:
            raise ConfigError(f"exclude=RUN: {unknown('key', key, TAKES)}")
        texts[key] = " ".join(text.split())
    given = parse_overrides([f"runs_dir={texts['runs_dir']}"]) if "runs_dir" in texts else {}
    because = texts.get("because")
    if options.undo and because is not None:
        raise ConfigError("exclude=RUN takes because=TEXT or --undo, not both")
    if not options.undo and not because:
        raise ConfigError('exclude=RUN because="TEXT": why is it broken? Pages state the reason')
    return because, texts.get("into"), runs_folder(given, read_site())


def _run_named(name: str, ids: set[str], where: str) -> str:
    matches = sorted(run for run in ids if name in run)
    if name in ids or len(matches) == 1:
        return name if name in ids else matches[0]
    if matches:
        raise RunFolderError(f"{name!r} is a part of {len(matches)} run ids, e.g. {', '.join(matches[:3])}")
    raise RunFolderError(f"{unknown('run', name, ids)}; looked in {where} and in results/measured")


def _in_folder(folder: RunFolder, because: str | None) -> bool:
    """Whether this changed anything. Raises RunFolderError while a process holds the run."""
    record = folder.read_json(EXCLUSION)
    if record.get("because") == because:
        return False
    folder.refuse_held()
    kept = {"earlier": record["earlier"]} if record.get("earlier") else {}
    if because is not None:
        kept |= {"because": because, "date": date.today().isoformat()}
    if kept:
        folder.write_json(EXCLUSION, kept)
    else:
        (folder.path / EXCLUSION).unlink(missing_ok=True)
    return True
