"""Parameters and FLOPs of ATMNet with any mixer and any widths, by formulas: planning has no torch to count with.

The convention is that of ``atm.complexity``: a multiply-accumulate is one FLOP, LayerNorm costs 5 per element;
sampling, pooling, activations, softmax, sums and biases are free. Tests hold each formula to the count on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from errors import ConfigError

NORM = 5  # FLOPs per element of a LayerNorm
HEAD_DIMS = {"window": 32, "halo": 32, "global": 64, "deform": 16}  # channels of a head or group, in atm.token_mixers
REDUCTIONS = (8, 4, 2, 1)  # of global, by stage
HALO = 3
POINTS = 9
WINDOW = 7  # where model.window_size is null


@dataclass(frozen=True)
class Cost:
    params: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.flops + other.flops)

    def __mul__(self, times: int) -> Cost:
        return Cost(times * self.params, times * self.flops)


@dataclass(frozen=True)
class Place:
    """Where a mixer stands: width, height and width of the map in tokens, stage, block, side of a window in tokens."""

    dim: int
    height: int
    width: int
    stage: int
    block: int
    window: int

    @property
    def tokens(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class Frame:
    """An ATMNet but for its widths; arguments as ``ATMNet`` takes them, one entry per stage where they differ by stage.

    size: height and width of the image in pixels. classes: of the classifier; None for a dense backbone, whose maps
    have a norm each.
    """

    mixer: str
    offsets: str
    samples: int
    fusion: str
    peg: bool
    sharing: tuple[int, ...] | None
    interval: int | str | None
    depths: tuple[int, ...]
    mlp_ratios: tuple[float, ...]
    size: tuple[int, int]
    window: int
    classes: int | None


def cost(frame: Frame, dims: Sequence[int]) -> Cost:
    """Of the whole network with these widths."""
    maps = map_sizes(frame.size, len(dims))
    tokens = [height * width for height, width in maps]
    total = _convolution(3, dims[0], 7, tokens[0])
    for i, dim in enumerate(dims):
        if i:
            total += _convolution(dims[i - 1], dim, 3, tokens[i])
        total += _stage(frame, i, dim, *maps[i])
    if frame.classes is None:
        for dim, count in zip(dims, tokens):
            total += _norm(dim, count)
        return total
    return total + _norm(dims[-1], tokens[-1]) + _linear(dims[-1], frame.classes, 1)


def map_sizes(size: tuple[int, int], stages: int) -> list[tuple[int, int]]:
    """Height and width of every stage's map in tokens, for images of ``size`` pixels."""
    sizes = [((size[0] - 3) // 4 + 1, (size[1] - 3) // 4 + 1)]
    for _ in range(stages - 1):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def heads_of(dim: int, head_dim: int) -> int:
    """``atm.token_mixers.attention.heads_of``."""
    divisors = [heads for heads in range(1, dim + 1) if dim % heads == 0]
    return min(divisors, key=lambda heads: abs(heads - dim / head_dim))


def opening_blocks(depth: int, interval: int | str | None) -> list[int]:
    """The blocks of a stage that have new offsets (``atm.offsets.opens_set``). interval: of the config."""
    every = depth if interval == "stage" else int(interval or 1)
    return [j for j in range(depth) if j % every == 0 and (j < depth - 1 or depth == 1)]


@cache
def _stage(frame: Frame, stage: int, dim: int, height: int, width: int) -> Cost:
    """The blocks of a stage, with its PEG and the layers that give it offsets."""
    tokens, depth = height * width, frame.depths[stage]
    opening = opening_blocks(depth, frame.interval)
    hidden = int(dim * frame.mlp_ratios[stage])
    total = (_norm(dim, tokens) * 2 + _linear(dim, hidden, tokens) + _linear(hidden, dim, tokens)) * depth
    if frame.peg:
        total += Cost(10 * dim, 9 * dim * tokens * len(opening))
    total += _offsets(frame, stage, dim, tokens) * len(opening)
    for block in range(depth):
        place = Place(dim, height, width, stage, block, frame.window)
        total += MIXER_COSTS[frame.mixer](place, frame) if frame.mixer in MIXER_COSTS else _counted(place, frame)
    return total


def _offsets(frame: Frame, stage: int, dim: int, tokens: int) -> Cost:
    groups = _groups(frame, stage, dim)
    if frame.offsets in ("zero", "shift", "random"):
        return Cost()
    if frame.offsets == "static":
        return Cost(2 * frame.samples * groups)
    return _norm(dim, tokens) + _linear(dim, 2 * frame.samples * groups, tokens)


def _groups(frame: Frame, stage: int, dim: int) -> int:
    """Offsets per token, direction and sample."""
    if frame.offsets == "token":
        return 1
    return dim // frame.sharing[stage] if frame.sharing else dim


def _linear(dim: int, out: int, tokens: int, bias: bool = True) -> Cost:
    return Cost(dim * out + bias * out, dim * out * tokens)


def _norm(dim: int, tokens: int) -> Cost:
    return Cost(2 * dim, NORM * dim * tokens)


def _convolution(dim: int, out: int, side: int, tokens: int) -> Cost:
    return Cost(side**2 * dim * out + out, side**2 * dim * out * tokens)


def _depthwise(dim: int, side: int, tokens: int) -> Cost:
    return Cost((side**2 + 1) * dim, side**2 * dim * tokens)


def _atm(place: Place, frame: Frame) -> Cost:
    dim, tokens = place.dim, place.tokens
    branches = 1 if frame.offsets == "joint" else 2
    total = _linear(frame.samples * dim, dim, tokens) * branches + _linear(dim, dim, tokens, bias=False)
    if frame.fusion == "token":
        return total + _linear(dim, dim, tokens, bias=False) * (branches + 1)
    if frame.fusion == "pooled":  # its weights are of the image, not of a token
        total += _linear(dim, dim // 4, 1) + _linear(dim // 4, (branches + 1) * dim, 1)
    return total + _linear(dim, dim, tokens)


def _free(place: Place, frame: Frame) -> Cost:
    return Cost()


def _convolved(side: int) -> Callable[[Place, Frame], Cost]:
    def mixed(place: Place, frame: Frame) -> Cost:
        around = _linear(place.dim, place.dim, place.tokens) * 2
        return around + _depthwise(place.dim, side, place.tokens)

    return mixed


def _windowed(place: Place, frame: Frame) -> Cost:
    dim, rows, columns = place.dim, min(place.window, place.height), min(place.window, place.width)
    padded = _padded(place.height, rows) * _padded(place.width, columns)
    table = (2 * place.window - 1) ** 2 * heads_of(dim, HEAD_DIMS["window"])
    read = Cost(table, 2 * padded * rows * columns * dim)
    return _linear(dim, 3 * dim, padded) + read + _linear(dim, dim, place.tokens)


def _haloed(place: Place, frame: Frame) -> Cost:
    dim, rows, columns = place.dim, min(place.window, place.height), min(place.window, place.width)
    padded = _padded(place.height, rows) * _padded(place.width, columns)
    high, wide = rows + 2 * HALO, columns + 2 * HALO
    tables = 2 * (2 * (place.window + 2 * HALO) - 1) * (dim // heads_of(dim, HEAD_DIMS["halo"]))
    read = Cost(tables, padded * dim * (2 * high * wide + high + wide))
    return _linear(dim, 3 * dim, place.tokens, bias=False) + read + _linear(dim, dim, place.tokens)


def _reduced(place: Place, frame: Frame) -> Cost:
    dim, by = place.dim, REDUCTIONS[min(place.stage, len(REDUCTIONS) - 1)]
    padded = _padded(place.height, by) * _padded(place.width, by)
    kept = padded // by**2
    total = _linear(dim, dim, padded) * 2 + _linear(dim, 2 * dim, kept) + Cost(0, 2 * padded * kept * dim)
    return total if by == 1 else total + _convolution(dim, dim, by, kept) + _norm(dim, kept)


def _deformed(place: Place, frame: Frame) -> Cost:
    dim, tokens, groups = place.dim, place.tokens, heads_of(place.dim, HEAD_DIMS["deform"])
    guided = _depthwise(dim, 3, tokens) + _norm(dim, tokens) + _linear(dim, 3 * POINTS * groups, tokens)
    return _linear(dim, dim, tokens) * 2 + guided + Cost(0, POINTS * dim * tokens)


def _axial_mlp(place: Place, frame: Frame) -> Cost:
    along = _linear(place.height, place.height, place.width * place.dim)
    across = _linear(place.width, place.width, place.height * place.dim)
    return along + across + _linear(3 * place.dim, place.dim, place.tokens, bias=False)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


MIXER_COSTS: dict[str, Callable[[Place, Frame], Cost]] = {
    "atm": _atm,
    "identity": _free,
    "pool": _free,
    "dwconv3": _convolved(3),
    "dwconv7": _convolved(7),
    "window": _windowed,
    "halo": _haloed,
    "global": _reduced,
    "deform": _deformed,
    "mlp": _axial_mlp,
}


@cache
def _counted(place: Place, frame: Frame) -> Cost:
    """Of a mixer of another package or a file, which has no formula: it is built and counted, with torch."""
    import torch

    from atm import complexity
    from atm.mixers import MixerOptions, find_mixer

    options = MixerOptions(
        frame.offsets, frame.samples, frame.fusion, place.stage, place.block, (place.height, place.width), place.window
    )
    with torch.device("meta"):
        inputs: list[Any] = [torch.empty(1, place.height, place.width, place.dim), None]
        if frame.offsets != "zero":
            groups = _groups(frame, place.stage, place.dim)
            inputs[1] = torch.empty(1, place.height, place.width, 2 * frame.samples * groups)
        try:
            counted = complexity.count(find_mixer(frame.mixer)(place.dim, options), inputs=tuple(inputs))
        except Exception as error:  # whatever code of others raises
            raise ConfigError(
                f"model.mixer={frame.mixer} cannot be counted with {place.dim} channels: {error}"
            ) from error
    return Cost(counted.params, counted.flops)
