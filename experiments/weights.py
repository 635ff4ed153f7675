"""Final weights of a run: written for timm and for later runs, and read to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from errors import ConfigError
from experiments.identity import is_file
from experiments.run_folder import write_atomically


def export(state: dict[str, Tensor], path: Path) -> None:
    write_atomically(path, save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def initialise(model: nn.Module, init: str, runs_dir: Path) -> None:
    """Loads the weights of a finished run, or of a file (ours or a released checkpoint), into ``model``.

    A classifier of another number of classes keeps its initial weights; anything else that does not fit is refused.
    """
    path = Path(init).expanduser() if is_file(init) else runs_dir / init / "weights.safetensors"
    if not path.is_file():
        raise ConfigError(f"init={init}: {path} does not exist" + ("" if is_file(init) else "; has that run finished?"))
    state = read(path)
    own = model.state_dict()
    for name in [n for n in own if n.startswith("head.") and n in state and state[n].shape != own[n].shape]:
        state[name] = own[name]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ConfigError(f"init={init} does not fit this model: {(lines[1:] or lines)[0].strip()}") from None


def read(path: Path) -> dict[str, Tensor]:
    """A state dict in our names from a safetensors file, a checkpoint, or a released checkpoint."""
    from atm.released import CheckpointError, convert

    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(f"{path}: not a readable checkpoint: {str(error).splitlines()[0]}") from None
    except Exception as error:  # pickle.UnpicklingError: a file that would run code when loaded
        raise ConfigError(f"{path}: refused: {str(error).splitlines()[0]}") from None
    try:
        return convert(content)
    except CheckpointError:
        return content  # type: ignore[no-any-return]
