"""The rules between settings of the model: which go together, and what a null stands for. No torch."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping
from typing import Any

from errors import ConfigError
from experiments.backbones import check_name, is_timm, read_variants
from experiments.equal_cost import matched_widths
from experiments.model_costs import WINDOW, map_sizes
from experiments.own_mixer import complete_installed_mixer, complete_own_mixer, is_installed, is_own
from experiments.schema import MIXERS, OFFSET_MODES, PREDICTED, RANDOM_SPREAD, SHIFT_WIDTH, Config, Model

# Only networks of ``atm`` have these switches. Those of offsets are not for every mixer.
OFFSET_SWITCHES = ("offsets", "samples", "offset_sharing", "fusion", "shift_width", "random_spread")
FRAME_SWITCHES = ("mixer", "mixer_source", "window_size", "dims", "match", "peg", "offset_interval", "mlp_ratios")
SWITCHES = (*FRAME_SWITCHES, *OFFSET_SWITCHES)
UNSHARED = ("zero", "token", "shift")  # modes without offsets that channels could share in different ways
ONE_READ = ("zero", "shift")  # modes in which three samples would be one
NEED_PEG = ("global",)  # mixers that have no positions of their own
WINDOWED = ("window", "halo")
OF_ONE_SIZE = ("mlp",)  # mixers for maps of one size
OF_ANY_SIZE = ("segmentation", "detection")  # tasks whose images differ in size
PEG: dict[Any, bool | str] = {True: True, False: False, "on": True, "off": False, "predictor": "predictor"}


def complete_model(config: Config, given: Collection[str]) -> None:
    """Replaces every null of the section ``model`` that stands for a default; ``given`` as in ``complete``.

    The published drop path depends on the task, and what is chosen by cost or by padding on the images.
    Raises ConfigError in one line where settings contradict each other.
    """
    model, task = config.model, config.task
    check_name(model.name)
    if is_timm(model.name):
        _complete_timm(model, given)
        return
    variant = read_variants()[model.name]
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"].get(task, variant["drop_path"]["classification"]))
    if model.match is not None and model.dims is not None:
        raise ConfigError(f"model.match={model.match} chooses model.dims: set one of them")
    model.dims = _dims(model, variant)
    model.mlp_ratios = _mlp_ratios(model, variant)
    if model.mixer not in (None, "atm"):
        _complete_other_mixer(model, given, variant)
    else:
        _complete_atm(model, variant)
    _complete_mixer(config)
    if model.match is not None:
        model.dims, model.match = matched_widths(config, variant), None
        model.dims = _dims(model, variant)


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
    model.peg = _peg(model.peg) if model.peg is not None else model.mixer in NEED_PEG
    if model.mixer in NEED_PEG and model.peg is not True:
        raise ConfigError(f"model.peg={model.peg}: model.mixer={model.mixer} has no positions without PEG; set it true")
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


def _complete_mixer(config: Config) -> None:
    """The settings that only some mixers have."""
    model = config.model
    if is_own(model.mixer):
        complete_own_mixer(model)
    elif is_installed(model):
        complete_installed_mixer(model)
    elif model.mixer_source is not None:
        raise ConfigError(f"model.mixer_source={model.mixer_source}: model.mixer={model.mixer} is not your own")
    if model.mixer in WINDOWED:
        if model.window_size is None:
            model.window_size = _window_of(config)
    elif model.mixer in MIXERS and model.window_size is not None:
        raise ConfigError(
            f"model.window_size={model.window_size}: model.mixer={model.mixer} has no windows (valid with: "
            f"{', '.join(WINDOWED)})"
        )
    if model.mixer in OF_ONE_SIZE and config.task in OF_ANY_SIZE:
        raise ConfigError(
            f"model.mixer={model.mixer} is for images of one size, and those of task={config.task} differ"
        )


def _window_of(config: Config) -> int:
    """The published side of a window, or the next one where that pads the maps of the images less."""
    height, width = config.data.image_size
    sizes = map_sizes((height, width), stages=4)

    def tokens(window: int) -> int:
        sides = [[-(-side // min(window, side)) * min(window, side) for side in size] for size in sizes]
        return sum(height * width for height, width in sides)

    return min(WINDOW, WINDOW + 1, key=tokens)


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
    widest = (min(model.dims or variant["dims"]) - 1) // 2
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


def _dims(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    """One width per stage, or None for those of the variant."""
    dims, own = model.dims, variant["dims"]
    if dims is None or dims == own:
        return None
    if (
        not isinstance(dims, list)
        or len(dims) != len(own)
        or any(isinstance(dim, bool) or not isinstance(dim, int) or dim < 1 for dim in dims)
    ):
        raise ConfigError(f"model.dims={dims}: give a whole number of channels per stage, e.g. {own}")
    return list(dims)


def _mlp_ratios(model: Model, variant: Mapping[str, Any]) -> list[float] | None:
    """One ratio per stage, or None for those of the variant, however they were given."""
    asked, own = model.mlp_ratios, variant["mlp_ratios"]
    if asked is None:
        return None
    ratios = asked if isinstance(asked, list) else [asked] * len(own)
    if len(ratios) != len(own) or any(
        isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 1 <= dim * ratio <= sys.float_info.max
        for dim, ratio in zip(model.dims or variant["dims"], ratios)
    ):
        raise ConfigError(f"model.mlp_ratios={asked}: give one positive number, or one per stage")
    ratios = [float(ratio) for ratio in ratios]
    return None if ratios == own else ratios


def _sharing(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    asked, dims = model.offset_sharing, model.dims or variant["dims"]
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
