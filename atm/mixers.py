"""The token mixers that a block can use, by name: the entries built in here, those of other packages, and files."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from atm.mixer import ActiveTokenMixer
from atm.token_mixers.attention import GlobalMixer, HaloMixer, WindowMixer
from atm.token_mixers.axial_mlp import AxialMlpMixer
from atm.token_mixers.convolution import DepthwiseMixer, PoolMixer
from atm.token_mixers.deformable import DeformMixer

ENTRY_POINTS = "atm.mixers"
"""The entry point group through which another package adds mixers: name -> callable, as in ``MIXERS``."""

TokenMixer: TypeAlias = nn.Module
"""A module with ``forward(x, offsets)``: x [B, H, W, C] are a block's normalised tokens, offsets those that the stage
predicted last, [B, H, W, 2 * samples * G], or None. Returns [B, H, W, C], which the block adds to its input."""


@dataclass(frozen=True)
class MixerOptions:
    """What a mixer is told beside its width. Later mixers may need further fields; each gets a default.

    offsets, samples, fusion: arguments of ``ATMNet``; offsets is "zero" where the mixer takes no offsets.
    stage, block: where the mixer stands, both counted from 0, blocks within their stage.
    size: height and width of the stage's map in tokens, for images of the network's ``img_size``.
    window: side of a window or block of attention, in tokens.
    """

    offsets: str = "axial"
    samples: int = 1
    fusion: str = "pooled"
    stage: int = 0
    block: int = 0
    size: tuple[int, int] = (56, 56)
    window: int = 7


class IdentityMixer(nn.Module):
    """Mixes nothing: returns the tokens as they are. The control for everything else in the network."""

    def __init__(self, dim: int, options: MixerOptions) -> None:
        super().__init__()

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns ``x``."""
        return x


def _active_token_mixer(dim: int, options: MixerOptions) -> ActiveTokenMixer:
    return ActiveTokenMixer(dim, offsets=options.offsets, samples=options.samples, fusion=options.fusion)


_active_token_mixer.takes_offsets = True

MIXERS: dict[str, Callable[[int, MixerOptions], TokenMixer]] = {
    "atm": _active_token_mixer,
    "identity": IdentityMixer,
    "pool": PoolMixer,
    "dwconv3": partial(DepthwiseMixer, kernel=3),
    "dwconv7": partial(DepthwiseMixer, kernel=7),
    "window": WindowMixer,
    "halo": HaloMixer,
    "global": GlobalMixer,
    "deform": DeformMixer,
    "mlp": AxialMlpMixer,
}
"""Name -> callable that builds the mixer of one block from its width. ``MIXERS["my_mixer"] = MyMixer`` adds an entry.

A callable whose attribute ``takes_offsets`` is True gets blocks that have offsets; without it there are none. With
``needs_peg`` the network must have a PEG. ``ATMNet`` initialises Linear and Conv2d layers of any mixer as its own;
other parameters keep their initialisation, and a method ``init_weights`` of the mixer, called afterwards, may replace
both. A method ``no_weight_decay`` names its parameters that have none.
"""

FILE = ".py:"
"""In the name of a mixer of one's own, between the path of its file and the name within the file."""


def find_mixer(name: str) -> Callable[[int, MixerOptions], TokenMixer]:
    """The entry of ``MIXERS``, else of an installed package, or what PATH.py:NAME names.

    Raises ValueError for an unknown name.
    """
    if name in MIXERS:
        return MIXERS[name]
    if FILE in str(name):
        return _of_file(name)
    installed = {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        valid = [*MIXERS, *(n for n in sorted(installed) if n not in MIXERS)]
        near = get_close_matches(str(name), valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown mixer {name!r}{hint} (valid: {', '.join(valid)})")
    try:
        return installed[name].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the mixer {name!r} ({installed[name].value}) cannot be imported: {error}") from error


def _of_file(name: str) -> Callable[[int, MixerOptions], TokenMixer]:
    path, _, attribute = str(name).rpartition(":")
    file = Path(path).expanduser().resolve()
    module_name = f"atm_mixer_of_{file}"  # one module for each file, so that a class has one identity
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None or not file.is_file():
            raise ValueError(f"the mixer {name!r}: there is no file {file}")
        sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ValueError(f"the mixer {name!r} cannot be imported: {error}") from error
    if not hasattr(sys.modules[module_name], attribute):
        raise ValueError(f"the mixer {name!r}: {file.name} has no {attribute!r}")
    return getattr(sys.modules[module_name], attribute)


def checked_mixer(name: str) -> Callable[[int, MixerOptions], TokenMixer]:
    """``find_mixer``; one that is none of ours is tried on zeros when it is built, where it takes no offsets.

    Calling it raises ValueError where the mixer cannot be built from its width and options, or does not return tokens
    of the shape that it was given.
    """
    make = find_mixer(name)
    if name in MIXERS or getattr(make, "takes_offsets", False):
        return make

    def build(dim: int, options: MixerOptions) -> TokenMixer:
        try:
            mixer = make(dim, options)
        except TypeError as error:
            raise ValueError(f"the mixer {name!r} cannot be built from (dim, options): {error}") from error
        tokens = torch.zeros(1, *options.size, dim)
        training = {module: module.training for module in mixer.modules()}
        try:
            with torch.no_grad():
                mixed = mixer.eval()(tokens, None)
        except Exception as error:
            raise ValueError(f"the mixer {name!r} fails for tokens {list(tokens.shape)}: {error}") from error
        finally:
            for module, mode in training.items():
                module.training = mode
        if mixed.shape != tokens.shape:
            raise ValueError(
                f"the mixer {name!r} returns {list(mixed.shape)} for tokens {list(tokens.shape)}: both must be alike, "
                "[B, H, W, C]"
            )
        return mixer

    return build


def takes_offsets(name: str) -> bool:
    """Whether the mixer of that name reads at offsets. Raises ValueError for an unknown name."""
    return bool(getattr(find_mixer(name), "takes_offsets", False))


def needs_peg(name: str) -> bool:
    """Whether the mixer of that name has no positions without a PEG. Raises ValueError for an unknown name."""
    return bool(getattr(find_mixer(name), "needs_peg", False))


def refuse_offset_switches(mixer: str, **switches: Any) -> None:
    """Raises ValueError where a switch of ``MixerOptions``, or another that is None by default, is set for a mixer
    without offsets."""
    defaults = vars(MixerOptions())
    changed = [f"{name}={value!r}" for name, value in switches.items() if value != defaults.get(name)]
    if changed:
        valid = ", ".join(name for name in MIXERS if takes_offsets(name))
        raise ValueError(
            f"mixer={mixer!r} takes no offsets, so {', '.join(changed)} must be unset (valid for: {valid})"
        )
