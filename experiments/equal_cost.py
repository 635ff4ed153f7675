"""The widths at which an arm costs what the axial arm costs (``model.match``). Must not import torch.

All stages are widened by one factor, each rounded to whole units of channels; depths, MLP ratios and everything else
stay as they are, so that MLPs widen with their stage. Of the roundings within half a percent of the cost, the one is
taken whose widths are nearest to the same multiple of the variant's. Widths that would divide into heads of another
size than the published one are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import lcm, log
from typing import Any

from errors import ConfigError
from experiments.model_costs import HEAD_DIMS, WINDOW, Frame, cost, heads_of
from experiments.schema import Config, Model

TOLERANCE = 0.01  # of the cost
CLOSE = 0.005  # from here on the widths' proportions decide
FACTORS = (0.1, 10.0)
UNITS = {128: 8, 64: 4, 0: 2}  # from a width of so many channels on, the unit that widths are rounded to
LARGEST_RATIO = 1.5  # of the size of a head to the published one
REACH = 3  # units that a width may be away from the exact one


def matched_widths(config: Config, variant: Mapping[str, Any]) -> list[int]:
    """One width per stage. config: with all other settings of the model completed. Raises ConfigError."""
    model, kind = config.model, str(config.model.match)
    dims = list(variant["dims"])
    own, axial = frame_of(config, model, variant), frame_of(config, _axial(model, variant), variant)
    if kind == "params" and config.task == "classification" and config.data.num_classes is None:
        raise ConfigError("model.match=params: the classifier has parameters, too: set data.num_classes")
    target = _amount(axial, dims, kind)
    units = [lcm(_unit(dim), sharing) for dim, sharing in zip(dims, own.sharing or [1] * len(dims))]

    def rounded(factor: float) -> list[int]:
        return [max(1, round(factor * dim / unit)) * unit for dim, unit in zip(dims, units)]

    low, high = FACTORS
    for _ in range(40):
        factor = (low * high) ** 0.5
        low, high = (factor, high) if _amount(own, rounded(factor), kind) < target else (low, factor)
    choices = []
    for dim, unit in zip(dims, units):
        below = int(factor * dim / unit)
        widths = [steps * unit for steps in range(max(1, below - REACH + 1), below + REACH + 1)]
        choices.append([width for width in widths if _divides(own.mixer, width)] or widths)

    def badness(widths: Sequence[int]) -> tuple[float, float]:
        """How far the cost is off, and then how far the widths are from one multiple of the variant's."""
        gap = abs(_amount(own, widths, kind) / target - 1)
        return max(gap, CLOSE), max(abs(log(width / (factor * dim))) for width, dim in zip(widths, dims))

    best = min(product(*choices), key=badness)
    if badness(best)[0] > TOLERANCE:
        raise ConfigError(
            f"model.match={kind}: no widths of model={model.name} with model.mixer={model.mixer} cost what axial does"
        )
    return list(best)


def frame_of(config: Config, model: Model, variant: Mapping[str, Any]) -> Frame:
    """The network of a model section, for the images and classes of a config. Classes that are not known count none."""
    height, width = config.data.image_size
    ratios = model.mlp_ratios or variant["mlp_ratios"]
    return Frame(
        mixer=model.mixer or "atm",
        offsets=model.offsets or "zero",
        samples=model.samples or 1,
        fusion=model.fusion or "pooled",
        peg=bool(model.peg),
        sharing=tuple(model.offset_sharing) if isinstance(model.offset_sharing, list) else None,
        interval=model.offset_interval,
        depths=tuple(variant["depths"]),
        mlp_ratios=tuple(float(ratio) for ratio in ratios),
        size=(height, width),
        window=model.window_size or WINDOW,
        classes=config.data.num_classes or 0 if config.task == "classification" else None,
    )


def _axial(model: Model, variant: Mapping[str, Any]) -> Model:
    """The arm whose cost is matched: the variant itself, with axial offsets and PEG."""
    sharing, interval = list(variant["offset_sharing"]), variant["offset_interval"]
    return Model(name=model.name, peg=True, offset_sharing=sharing, offset_interval=interval)


def _amount(frame: Frame, dims: Sequence[int], kind: str) -> int:
    own = cost(frame, dims)
    return own.flops if kind == "flops" else own.params


def _unit(dim: int) -> int:
    return next(unit for width, unit in UNITS.items() if dim >= width)


def _divides(mixer: str, dim: int) -> bool:
    """Whether a width divides into heads of about the published size; narrower ones have one head."""
    published = HEAD_DIMS.get(mixer)
    if published is None or dim <= published:
        return True
    ratio = dim / heads_of(dim, published) / published
    return 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO
