"""The command ``experiment=``, and how every command finds the folder of the runs and a run in it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ConfigError, RunFolderError, unknown
from experiments import ROOT
from experiments.paths import expanded

if TYPE_CHECKING:
    from experiments.folder.run_folder import RunFolder


def experiment(
    name: str, settings: dict[str, Any], options: argparse.Namespace, submitted: Callable[[Path, list[str]], Any]
) -> int:
    """Executes one run in the foreground.

    submitted: the run folders' parent and run ids → the newest Slurm jobs by run id, and Slurm's complaint.
    """
    from experiments.config import read_site, resolve, write_yaml
    from experiments.data.registry import check_root
    from experiments.folder.parent import weights_of
    from experiments.folder.run_folder import RunFolder
    from experiments.identity import run_id
    from experiments.launch import leave, rank
    from experiments.origin import PresentData, refuse_other_origin
    from results.run_folders.summary_file import notes

    site = read_site()
    runs_dir = runs_folder(settings, site)
    config = resolve(name, settings, site=site)
    if not options.dry_run or config.data.num_classes is None:
        check_root(config)
    folder = RunFolder(runs_dir / run_id(config))
    if options.dry_run:
        described = {"run": folder.id, "folder": str(folder.path), "config": config.as_dict()}
        print(json.dumps(described) if options.json else write_yaml(described), end="")
        return 0
    queued = submitted(runs_dir, [folder.id])[0].get(folder.id)
    if queued and queued.alive:
        raise RunFolderError(f"{folder.id} is in Slurm's queue as job {queued.id}; scancel it to run it here")
    if config.init and not folder.finished():
        weights_of(config.init, runs_dir)
    refuse_other_origin(folder, config, PresentData())
    folder.freeze(config)
    if not folder.finished():
        from experiments.__main__ import start

        if (code := start(folder, other_code(options), console=True)) or rank() > 0:
            leave(code)
    summary = folder.finished()
    if options.json:
        print(json.dumps(summary))
    else:
        numbers = "  ".join(f"{metric} {value:.2f}" for metric, value in summary["metrics"].items())
        print(f"{folder.id}: {numbers}", *notes(summary), folder.path, sep="\n")
    return 0


def other_code(options: argparse.Namespace) -> str | None:
    """How runs go on from a checkpoint that other code wrote, as the command line says. Raises ConfigError."""
    if options.replay and options.force:
        raise ConfigError(
            "--replay goes on only where the code computes the same, --force in any case: give one of them"
        )
    return "replay" if options.replay else "force" if options.force else None


def runs_folder(settings: dict[str, Any], site: dict[str, Any]) -> Path:
    """The folder of the run folders; takes ``runs_dir`` out of the settings of the command line.

    There it is relative to the current directory; that of a site is absolute.
    """
    chosen = settings.pop("runs_dir", None) or site.get("runs_dir") or ROOT / "results" / "runs"
    return expanded("runs_dir", str(chosen)).resolve()


def run_named(runs_dir: Path, name: str, alternatives: Sequence[str] = ()) -> RunFolder:
    """The folder of a run by its id, or by a part of it that only one id contains.

    alternatives: other names that could have been meant. Raises RunFolderError.
    """
    from experiments.folder.run_folder import RunFolder

    ids = [folder.id for folder in RunFolder.all_in(runs_dir)]
    matches = [run for run in ids if name in run]
    if name in ids or len(matches) == 1:
        return RunFolder(runs_dir / (name if name in ids else matches[0]))
    if matches:
        raise RunFolderError(f"{name!r} is a part of {len(matches)} run ids, e.g. {', '.join(sorted(matches)[:3])}")
    raise RunFolderError(f"{unknown('run', name, [*ids, *alternatives])}; looked in {runs_dir}")
