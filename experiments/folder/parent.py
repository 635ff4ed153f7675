"""What a run starts from: the final weights of another run, or a file. Must not import torch."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from experiments.identity import is_file

WEIGHTS = "weights.safetensors"


def weights_of(init: str, runs_dir: Path) -> Path:
    """The file that ``init`` stands for. Raises ConfigError where it is not there, or its run is not done."""
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
        raise ConfigError(f"init={init}: that run is done, but its {WEIGHTS} is gone")
    return path


def why_unfinished(folder: RunFolder) -> str:
    """Why a run has no final weights: what has become of it, or that there is no such run."""
    runs_dir = folder.path.parent
    if not folder.path.is_dir():
        there = [path.name for path in runs_dir.iterdir() if path.is_dir()] if runs_dir.is_dir() else []
        near = get_close_matches(folder.id, there, n=1, cutoff=0.8)
        return f"no such run in {runs_dir}" + (f"; did you mean {near[0]!r}?" if near else "")
    if holder := folder.holder():
        return f"that run is not done yet, it is being run by {holder}"
    noted = folder.read_json("state.json")
    if not noted:
        return "that run was not started yet"
    state = {"running": "its process died"}.get(noted.get("state", ""), noted.get("state"))
    cause = f" ({noted['cause']})" if noted.get("cause") else ""
    return f"that run is not done: {state}{cause}"
