"""The rules between settings of the model: which go together, and what a null stands for. No torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from typing import Any

from errors import ConfigError
from experiments.backbones import check_name, is_timm, read_variants
from experiments.schema import MIXERS, OFFSET_MODES, PREDICTED, RANDOM_SPREAD, SHIFT_WIDTH, Model

# Only networks of ``atm`` have these switches. Those of offsets are not for every mixer.
OFFSET_SWITCHES = ("offsets", "samples", "offset_sharing", "fusion", "shift_width", "random_spread")
SWITCHES = ("mixer", "peg", "offset_interval", "mlp_ratios", *OFFSET_SWITCHES)
UNSHARED = ("zero", "token", "shift")  # modes without offsets that channels could share in different ways
ONE_READ = ("zero", "shift")  # modes in which three samples would be one
PEG: dict[Any, bool | str] = {True: True, False: False, "on": True, "off": False, "predictor": "predictor"}


def complete_model(model: Model, given: Collection[str], task: str) -> None:
    """Replaces every null of the section ``model`` that stands for a default; ``given`` as in ``complete``.

    task: the published drop path depends on it.
    Raises ConfigError in one line where settings contradict each other.
    """
    check_name(model.name)
    if is_timm(model.name):
        _complete_timm(model, given)
        return
    variant = read_variants()[model.name]
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"].get(task, variant["drop_path"]["classification"]))
    model.mlp_ratios = _mlp_ratios(model, variant)
    if model.mixer not in (None, "atm"):
        _complete_other_mixer(model, given, variant)
    else:
        _complete_atm(model, variant)


def _complete_timm(model: Model, given: Collection[str]) -> None:
    """A network of timm has no switch of ATM's; a drop path of null is timm's own default."""
    for switch in SWITCHES:
        value = getattr(model, switch)
        if f"model.{switch}" in given and value is not None:
            raise ConfigError(f"model.{switch}={value}: only variants of ATMNet have it, not model={model.name}")
        setattr(model, switch, None)


def _complete_other_mixer(model: Model, given: Collection[str], variant: Mapping[str, Any]) -> None:
    """Another mixer in ATMNet's frame has the frame's switches, and of ATM's those that are given for it."""
    for switch in OFFSET_SWITCHES:
        if f"model.{switch}" not in given:
            setattr(model, switch, None)
        elif model.mixer in MIXERS and getattr(model, switch) is not None:
            raise ConfigError(f"model.{switch}={getattr(model, switch)}: model.mixer={model.mixer} has no such switch")
    model.peg = _peg(model.peg) if model.peg is not None else False
    if model.peg == "predictor" and model.offsets is None:
        raise ConfigError(f"model.peg=predictor: model.mixer={model.mixer} has no offsets that could be predicted")
    if model.peg or model.offsets is not None:
        model.offset_interval = _known_interval(model.offset_interval, variant)
    elif "model.offset_interval" in given and model.offset_interval is not None:
        raise ConfigError(
            f"model.offset_interval={model.offset_interval}: model.mixer={model.mixer} without PEG has nothing to place"
        )
    else:
        model.offset_interval = None


def _complete_atm(model: Model, variant: Mapping[str, Any]) -> None:
    defaults = {f.name: f.default for f in dataclasses.fields(Model)}
    for switch in SWITCHES:
        if getattr(model, switch) is None:
            setattr(model, switch, defaults[switch])
    if model.samples not in (1, 3):
        raise ConfigError(f"model.samples={model.samples}: valid are 1 and 3")
    if model.samples == 3 and model.offsets in ONE_READ:
        raise ConfigError(
            f"model.samples=3: with model.offsets={model.offsets} all three would be one token (valid with: "
            f"{', '.join(mode for mode in OFFSET_MODES if mode not in ONE_READ)})"
        )
    model.peg = _peg(model.peg) if model.peg is not None else model.offsets != "zero"
    if model.peg == "predictor" and model.offsets not in PREDICTED:
        raise ConfigError(
            f"model.peg=predictor: model.offsets={model.offsets} predicts nothing (valid with: {', '.join(PREDICTED)})"
        )
    model.shift_width = _of_mode(model, "shift_width", "shift", SHIFT_WIDTH)
    widest = (min(variant["dims"]) - 1) // 2
    if model.shift_width is not None and not 0 < model.shift_width <= widest:
        raise ConfigError(
            f"model.shift_width={model.shift_width}: model={model.name} has channels for steps of 1 to {widest} tokens"
        )
    model.random_spread = _of_mode(model, "random_spread", "random", RANDOM_SPREAD)
    model.offset_sharing = _sharing(model, variant)
    model.offset_interval = _interval(model, variant)


def _peg(value: Any) -> bool | str:
    if isinstance(value, (bool, int, str)) and value in PEG:
        return PEG[value]
    raise ConfigError(f"model.peg={value}: valid are true, false, predictor, and null for the default")


def _of_mode(model: Model, switch: str, mode: str, default: Any) -> Any:
    """The value of a switch that only one offset mode has."""
    value = getattr(model, switch)
    if model.offsets == mode:
        return default if value is None else value
    if value is not None:
        raise ConfigError(f"model.{switch}={value}: only model.offsets={mode} has it, not {model.offsets}")
    return None


def _mlp_ratios(model: Model, variant: Mapping[str, Any]) -> list[float] | None:
    """One ratio per stage, or None for those of the variant, however they were given."""
    asked, own = model.mlp_ratios, variant["mlp_ratios"]
    if asked is None:
        return None
    ratios = asked if isinstance(asked, list) else [asked] * len(own)
    if len(ratios) != len(own) or any(
        isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 1 <= dim * ratio <= sys.float_info.max
        for dim, ratio in zip(variant["dims"], ratios)
    ):
        raise ConfigError(f"model.mlp_ratios={asked}: give one positive number, or one per stage")
    ratios = [float(ratio) for ratio in ratios]
    return None if ratios == own else ratios


def _sharing(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    asked, dims = model.offset_sharing, variant["dims"]
    if model.offsets in UNSHARED:
        if asked is not None:
            raise ConfigError(f"model.offset_sharing={asked}: model.offsets={model.offsets} has nothing to share")
        return None
    sharing = variant["offset_sharing"] if asked is None else [asked] * len(dims) if isinstance(asked, int) else asked
    if (
        not isinstance(sharing, list)
        or len(sharing) != len(dims)
        or any(not isinstance(s, int) or s < 1 or dim % s for s, dim in zip(sharing, dims))
    ):
        raise ConfigError(
            f"model.offset_sharing={asked}: give divisors of the widths {dims}, one number or one per stage"
        )
    return list(sharing)


def _interval(model: Model, variant: Mapping[str, Any]) -> int | str | None:
    if model.offsets == "zero" and not model.peg:
        return None
    return _known_interval(model.offset_interval, variant)


def _known_interval(interval: int | str | None, variant: Mapping[str, Any]) -> int | str:
    if interval is None:
        return int(variant["offset_interval"])
    if interval == "stage" or (isinstance(interval, int) and interval >= 1):
        return interval
    raise ConfigError(f"model.offset_interval={interval}: give a number of blocks, or stage")
