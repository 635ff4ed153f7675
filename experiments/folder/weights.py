"""Final weights of a run: written for timm and for later runs, and read to start from."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from timm.models import load_state_dict
from torch import Tensor, nn

import atomic_file
from errors import ConfigError
from experiments.folder.parent import weights_of


def export(state: dict[str, Tensor], path: Path) -> None:
    atomic_file.write(path, save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def initialise(model: nn.Module, init: str, runs_dir: Path) -> list[str]:
    """Loads the weights of a finished run, or of a file (ours or a released checkpoint), into ``model``.

    A classifier of another number of classes keeps its initial weights; anything else that does not fit is refused.
    """
    path = weights_of(init, runs_dir)
    state, own = read(path), model.state_dict()
    for name in [n for n in own if n.startswith("head.") and n in state and state[n].shape != own[n].shape]:
        state[name] = own[name]
    if odd := sorted(state.keys() ^ own.keys()):
        raise ConfigError(f"init={init} does not fit this model: {len(odd)} weights are in one only, e.g. {odd[0]}")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise ConfigError(
                f"init={init} does not fit this model: {name} is {list(state[name].shape)}, not {list(tensor.shape)}"
            )
    model.load_state_dict(state)
    return []


def read(path: Path) -> dict[str, Tensor]:
    """A state dict in our names from a safetensors file, a training checkpoint, or a released checkpoint.

    Averaged weights are taken where there are any. Raises ConfigError; a file that would run code is never loaded.
    """
    from atm.released import CheckpointError, convert, is_released

    try:
        state = load_state_dict(str(path), use_ema=True, weights_only=True)
        return convert(state) if is_released(state) else dict(state)
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # whatever the unpicklers find in a file that is no checkpoint
        raise ConfigError(f"{path}: not a checkpoint that can be read safely: {str(error).splitlines()[0]}") from None
