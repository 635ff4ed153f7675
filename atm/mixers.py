"""The token mixers that a block can use, by name: the entries built in here, and those of other packages."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import Any, TypeAlias

from torch import Tensor, nn

from atm.mixer import ActiveTokenMixer

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
    """

    offsets: str = "axial"
    samples: int = 1
    fusion: str = "pooled"
    stage: int = 0
    block: int = 0


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

MIXERS: dict[str, Callable[[int, MixerOptions], TokenMixer]] = {"atm": _active_token_mixer, "identity": IdentityMixer}
"""Name -> callable that builds the mixer of one block from its width. ``MIXERS["my_mixer"] = MyMixer`` adds an entry.

A callable whose attribute ``takes_offsets`` is True gets blocks that have offsets; without it there are none.
``ATMNet`` initialises Linear and Conv2d layers of any mixer as its own; other parameters keep their initialisation.
"""


def find_mixer(name: str) -> Callable[[int, MixerOptions], TokenMixer]:
    """The entry of ``MIXERS``, else of an installed package. Raises ValueError for an unknown name."""
    if name in MIXERS:
        return MIXERS[name]
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


def takes_offsets(name: str) -> bool:
    """Whether the mixer of that name reads at offsets. Raises ValueError for an unknown name."""
    return bool(getattr(find_mixer(name), "takes_offsets", False))


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
