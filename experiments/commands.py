"""The command ``experiment=``, and how every command finds the folder of the runs and a run in it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import ConfigError, RunFolderError, unknown
from experiments import ROOT
from experiments.paths import expanded

RUNS_DIR = "ATM_RUNS_DIR"  # environment variable
NAMED = 3  # runs in a message about one that there is not, if none is near

if TYPE_CHECKING:
    from experiments.folder.run_folder import RunFolder
    from experiments.schema import Config


def experiment(
    name: str, settings: dict[str, Any], options: argparse.Namespace, submitted: Callable[[Path, list[str]], Any]
) -> int:
    """Executes one run in the foreground.

    submitted: the run folders' parent and run ids → the newest Slurm jobs by run id, and Slurm's complaint.
    """
    from experiments.config import read_site, resolve

    site = read_site()
    runs_dir = runs_folder(settings, site)
    return _execute(resolve(name, settings, site=site), runs_dir, options, submitted)


def rerun(
    name: str, settings: dict[str, Any], options: argparse.Namespace, submitted: Callable[[Path, list[str]], Any]
) -> int:
    """Executes the run of a saved config: the ``config.yaml`` of a run folder, or what ``--dry-run`` printed.

    submitted: as for ``experiment``.
    """
    from experiments.completion import complete
    from experiments.config import SHORT, from_dict, get, merge, read_site, read_yaml, site_settings
    from experiments.schema import FIELDS

    runs_dir = runs_folder(settings, site := read_site())
    path = expanded("config", name)
    saved = read_yaml(path)
    if set(saved) == {"run", "folder", "config"}:
        saved = saved["config"]
    if not isinstance(saved, dict) or not saved.get("experiment"):
        raise ConfigError(f"config={name}: no saved config (names no experiment); for a recipe: experiment={name}")
    frozen = from_dict(saved)
    local = site_settings(site, frozen.data.dataset)
    if frozen.data.root and Path(frozen.data.root).exists():
        local = {key: value for key, value in local.items() if key not in ("data.root", "data.reader")}
    config = merge({key: get(frozen, key) for key in FIELDS}, local, settings)
    return _execute(complete(config, {SHORT.get(key, key) for key in settings}), runs_dir, options, submitted)


def _execute(
    config: Config, runs_dir: Path, options: argparse.Namespace, submitted: Callable[[Path, list[str]], Any]
) -> int:
    from experiments.config import write_yaml
    from experiments.data.registry import check_root
    from experiments.folder.parent import weights_of
    from experiments.folder.run_folder import RunFolder
    from experiments.identity import run_id
    from experiments.launch import leave, rank
    from experiments.origin import PresentData, refuse_other_origin
    from results.run_folders.summary_file import notes

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

    There, and in the environment variable ``ATM_RUNS_DIR``, which goes before a site, it is relative to the current
    directory; that of a site is absolute.
    """
    if given := settings.pop("runs_dir", None):
        return expanded("runs_dir", str(given)).resolve()
    if in_environment := os.environ.get(RUNS_DIR):
        return expanded(RUNS_DIR, in_environment).resolve()
    return expanded("runs_dir", str(site.get("runs_dir") or ROOT / "results" / "runs")).resolve()


def run_named(runs_dir: Path, name: str, alternatives: Sequence[str] = (), kind: str = "run") -> RunFolder:
    """The folder of a run by its id, or by a part of it that only one id contains.

    alternatives: other names that could have been meant; kind: what they and runs are. Raises RunFolderError.
    """
    from experiments.folder.run_folder import RunFolder

    ids = [folder.id for folder in RunFolder.all_in(runs_dir)]
    matches = [run for run in ids if name in run]
    if name in ids or len(matches) == 1:
        return RunFolder(runs_dir / (name if name in ids else matches[0]))
    if matches:
        raise RunFolderError(f"{name!r} is a part of {len(matches)} run ids, e.g. {', '.join(sorted(matches)[:3])}")
    if not ids and not alternatives:
        raise RunFolderError(f"unknown {kind} {name!r}: there is none in {runs_dir} yet")
    raise RunFolderError(f"{unknown(kind, name, [*ids, *alternatives], at_most=NAMED)}; looked in {runs_dir}")


def run_names() -> list[str]:
    """The ids of the runs in this machine's folder of run folders."""
    from experiments.config import read_site
    from experiments.folder.run_folder import RunFolder

    return [folder.id for folder in RunFolder.all_in(runs_folder({}, read_site()))]
