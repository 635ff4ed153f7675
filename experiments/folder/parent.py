"""Where the weights lie that a run starts from: in the folder of another run, or in a file. Must not import torch."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from experiments.paths import is_file
from results.file_hash import sha256
from run_format import INIT_SHA256, PROVENANCE, RUN_ID, RUNNING, SHA256, STATE, WEIGHTS
from untrusted_files import listed


def weights_of(init: str, runs_dir: Path) -> Path:
    """The file that ``init`` stands for.

    Raises ConfigError where it is missing, its run is not done, or it is not the file that its run wrote.
    """
    if is_file(init):
        path = Path(init).expanduser()
        if not path.is_file():
            raise ConfigError(f"init={init}: no such file")
        return path
    folder = RunFolder(runs_dir / init)
    summary = folder.finished()
    if not summary:
        raise ConfigError(f"init={init}: {why_unfinished(folder)}")
    path = folder.path / WEIGHTS
    if not path.is_file():
        raise ConfigError(f"init={init}: that run is done, but its {WEIGHTS} is missing")
    written = dict(summary.get(SHA256) or {}).get(WEIGHTS)  # runs of earlier code did not record it
    if written not in (None, sha256(path)):
        raise ConfigError(f"init={init}: its {WEIGHTS} is not the file that the run wrote (its SHA-256 differs)")
    return path


def refuse_unknown(init: str | None, runs_dir: Path) -> None:
    """Refuses weights that a run could not start from whenever it starts: of no file, and of no run that there is.

    Raises ConfigError.
    """
    if init is not None and (is_file(init) or not (runs_dir / init).is_dir()):
        weights_of(init, runs_dir)


def refuse_other_weights(folder: RunFolder, init: str, runs_dir: Path) -> None:
    """Refuses to take a run that began with other initial weights for one that begins with those of ``init`` now.

    Raises ConfigError. Weights that are gone are no other ones.
    """
    began_with = folder.read_json(PROVENANCE).get(INIT_SHA256)
    if not began_with:
        return
    path = Path(init).expanduser() if is_file(init) else runs_dir / init / WEIGHTS
    if path.is_file() and sha256(path) != began_with:
        raise ConfigError(
            f"init={init}: {path.name} has changed since {folder.id} started from it; that run is of the old content"
        )


def why_unfinished(folder: RunFolder) -> str:
    """Why a run has no final weights: its state, or that there is no such run."""
    runs_dir = folder.path.parent
    if not folder.path.is_dir():
        runs = [path.name for path in listed(runs_dir) if path.is_dir()]
        near = get_close_matches(folder.id, runs, n=1, cutoff=0.8)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if not re.fullmatch(RUN_ID, folder.id):  # pretrained, timm/resnet50
            hint = "; published weights are not downloaded: save them and give the file, init=PATH"
        return f"no such run in {runs_dir}{hint}"
    if holder := folder.holder():
        return f"that run is not done yet, it is being run by {holder}"
    content = folder.read_json(STATE)
    if not content:
        return "that run was not started yet"
    state = content.get("state")
    cause = f" ({content['cause']})" if content.get("cause") else ""
    return f"that run is not done: {'its process died' if state == RUNNING else state}{cause}"
