"""Weights of the authors' released classification checkpoints, under this project's names.

The two models compute the same function. They differ in names, in the shape of linear layers (stored as 1x1 kernels)
and in the place of the downsampling convolutions. A checkpoint has the raw weights under ``model`` and the averaged
weights, whose accuracy the papers print, under ``model_ema``.
"""

import argparse
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from atm.backbone import ATMNet
from atm.variants import VARIANTS

_AVERAGED = ("model_ema", "state_dict_ema")
_RAW = ("model", "state_dict")

_RENAMES = (  # our names to released ones, in this order
    (r"^stem\.", "patch_embed.proj."),
    (r"^stages\.(\d+)\.peg\.conv\.", r"pos_blocks.\1.proj."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"blocks.\1.\2."),
    (r"\.mixer\.fc_", ".atm.atm_"),
    (r"\.mixer\.", ".atm."),
    (r"\.offsets\.norm\.", ".offset_layer.0."),
    (r"\.offsets\.proj\.", ".offset_layer.1."),
)


class CheckpointError(ValueError):
    """The file is not a complete released checkpoint. The message is one line and names the fault."""


def load(path: str | Path, ema: bool = True) -> ATMNet:
    """The model of a released checkpoint file (``.pth`` or ``.safetensors``) with its weights, in evaluation mode.

    Variant, number of classes and input channels follow from the shapes. ema: as in ``convert``.
    Raises CheckpointError for a file that is unreadable or not a released checkpoint.
    """
    state, variant = _convert(_read(Path(path)), ema)
    model = timm.create_model(
        f"atmnet_{variant}", num_classes=state["head.weight"].shape[0], in_chans=state["stem.weight"].shape[1]
    )
    model.load_state_dict(state)
    return model.eval()


def convert(checkpoint: Mapping[str, Any], ema: bool = True) -> dict[str, Tensor]:
    """A released checkpoint as a state dict that loads strictly into the matching variant.

    checkpoint: a state dict, or a training checkpoint that holds state dicts under ``model`` and ``model_ema`` (or
    ``state_dict``, ``state_dict_ema``), with or without the ``module.`` prefixes of distributed training.
    ema: use the averaged weights of a training checkpoint; if it has none, its raw weights, with a warning.
    Raises CheckpointError if weights are missing, unexpected or of the wrong shape.
    """
    return _convert(checkpoint, ema)[0]


def is_released(state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict uses the released model's names, by its stem or first block and its mixers.

    Networks of timm (ViT, EfficientNet) name their stems and blocks in the same way, but have no mixer ``atm``.
    """
    names = [_without_prefix(str(key)) for key in state_dict]
    begins = any(name.startswith(("patch_embed.", "blocks.0.0.")) for name in names)
    return begins and any(name.startswith("blocks.") and ".atm." in name for name in names)


def _convert(checkpoint: Mapping[str, Any], ema: bool) -> tuple[dict[str, Tensor], str]:
    released = {_without_prefix(str(key)): value for key, value in _weights(checkpoint, ema).items()}
    if not is_released(released):
        raise CheckpointError(f"not a released ATMNet: no patch_embed or blocks.0.0, but {_some(released)}")
    variant = min(VARIANTS, key=lambda name: sum(map(len, _faults(released, name).values())))
    faults = {fault: keys for fault, keys in _faults(released, variant).items() if keys}
    if faults:
        details = "; ".join(f"{len(keys)} {fault}: {_some(keys)}" for fault, keys in faults.items())
        raise CheckpointError(f"not a complete released atmnet_{variant}: {details}")
    # Linear layers may be stored as 1x1 convolutions.
    state = {
        name: released[key].flatten(1) if len(shape) == 2 else released[key]
        for key, (name, shape) in _layout(variant).items()
    }
    return state, variant


def _faults(released: Mapping[str, Any], variant: str) -> dict[str, list[str]]:
    """The differences of ``released`` from this variant: released keys by kind of fault."""
    layout = _layout(variant)
    return {
        "missing": [key for key in layout if key not in released],
        "unexpected": [key for key in released if key not in layout],
        "of the wrong shape": [
            key for key, (_, shape) in layout.items() if key in released and not _fits(key, released[key], shape)
        ],
    }


@cache
def _layout(variant: str) -> dict[str, tuple[str, torch.Size]]:
    """Our name and shape by released key, for every weight of a variant."""
    with torch.device("meta"):
        model = timm.create_model(f"atmnet_{variant}")
    depths = [len(stage.blocks) for stage in model.stages]
    return {_released_name(name, depths): (name, tensor.shape) for name, tensor in model.state_dict().items()}


def _released_name(name: str, depths: Sequence[int]) -> str:
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.(\w+)", name):
        previous = int(match[1]) - 1
        return f"blocks.{previous}.{depths[previous] - 1}.downsample.proj.{match[2]}"
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _fits(key: str, weight: Any, expected: torch.Size) -> bool:
    """Whether the shapes are equal, apart from the number of classes and of input channels."""
    if not isinstance(weight, Tensor):
        return False
    shape = list(weight.shape)
    if len(expected) == 2 and shape[2:] == [1, 1]:
        shape = shape[:2]
    free = {"head.weight": 0, "head.bias": 0, "patch_embed.proj.weight": 1}.get(key)
    return len(shape) == len(expected) and all(a == b or i == free for i, (a, b) in enumerate(zip(shape, expected)))


def _weights(checkpoint: Mapping[str, Any], ema: bool) -> Mapping[str, Any]:
    """The state dict in a checkpoint, averaged or raw, or the checkpoint itself if that is a state dict."""
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"a checkpoint is a dict of weights, not {type(checkpoint).__name__}")
    averaged = next((checkpoint[key] for key in _AVERAGED if isinstance(checkpoint.get(key), Mapping)), None)
    raw = next((checkpoint[key] for key in _RAW if isinstance(checkpoint.get(key), Mapping)), None)
    if averaged is None and raw is None:
        return checkpoint
    if ema and averaged is not None:
        return averaged
    if raw is None:
        raise CheckpointError("the checkpoint holds averaged weights only: pass ema=True")
    if ema:
        warnings.warn("the checkpoint holds no averaged weights; using the raw ones", stacklevel=4)
    return raw


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training checkpoints contain their command line, the only object that is not a tensor or a number.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {path}") from None
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"cannot read {path}: {reason}") from error


def _without_prefix(key: str) -> str:
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def _some(keys: Any) -> str:
    names = list(keys)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "") if names else "nothing"
