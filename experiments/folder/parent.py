"""Where the weights lie that a run starts from: in the folder of another run, or in a file. Must not import torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from experiments.identity import is_file
from run_format import RUNNING, STATE, WEIGHTS


def weights_of(init: str, runs_dir: Path) -> Path:
    """The file that ``init`` stands for. Raises ConfigError where it is missing, or its run is not done."""
    if is_file(init):
        path = Path(init).expanduser()
        if not path.is_file():
            raise ConfigError(f"init={init}: no such file")
        return path
    folder = RunFolder(runs_dir / init)
    if not folder.finished():
        raise ConfigError(f"init={init}: {why_unfinished(folder)}")
    path = folder.path / WEIGHTS
    if not path.is_file():
        raise ConfigError(f"init={init}: that run is done, but its {WEIGHTS} is missing")
    return path


def why_unfinished(folder: RunFolder) -> str:
    """Why a run has no final weights: its state, or that there is no such run."""
    runs_dir = folder.path.parent
    if not folder.path.is_dir():
        runs = [path.name for path in runs_dir.iterdir() if path.is_dir()] if runs_dir.is_dir() else []
        near = get_close_matches(folder.id, runs, n=1, cutoff=0.8)
        return f"no such run in {runs_dir}" + (f"; did you mean {near[0]!r}?" if near else "")
    if holder := folder.holder():
        return f"that run is not done yet, it is being run by {holder}"
    content = folder.read_json(STATE)
    if not content:
        return "that run was not started yet"
    state = content.get("state")
    cause = f" ({content['cause']})" if content.get("cause") else ""
    return f"that run is not done: {'its process died' if state == RUNNING else state}{cause}"
