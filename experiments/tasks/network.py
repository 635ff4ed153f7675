"""From the model section of a config to a timm network, for every task alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

import atm  # noqa: F401  (registers the models with timm)
from errors import ConfigError
from experiments.backbones import TIMM, is_timm
from experiments.schema import Model


def backbone(model: Model) -> tuple[str, dict[str, Any]]:
    """timm's name of the network and the arguments that make it the arm."""
    if is_timm(model.name):  # some of timm's networks know no drop path, not even one of 0
        return model.name.removeprefix(TIMM), {"drop_path_rate": model.drop_path} if model.drop_path else {}
    return f"atmnet_{model.name}", {
        "mixer": model.mixer,
        "offsets": model.offsets,
        "samples": model.samples,
        "peg": model.peg,
        "offset_sharing": model.offset_sharing,
        "offset_interval": model.offset_interval,
        "fusion": model.fusion,
        "shift_width": model.shift_width,
        "random_spread": model.random_spread,
        "mlp_ratios": model.mlp_ratios,
        "drop_path_rate": model.drop_path,
    }


def dense_backbone(model: Model, strides: Sequence[int]) -> nn.Module:
    """The network without its head; calling it gives its maps [B, C, H/stride, W/stride] at these strides.

    Its parameters are called ``model.<name in the classifier>``. Raises ConfigError for a network that lacks a stride.
    """
    name, arguments = backbone(model)
    arguments |= {"features_only": True, "feature_cls": "getter"}
    try:
        with torch.device("meta"):
            offered = timm.create_model(name, **arguments).feature_info.reduction()
    except (AttributeError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"model={model.name} cannot serve as a dense backbone: {error}") from None
    missing = [stride for stride in strides if stride not in offered]
    if missing:
        raise ConfigError(f"model={model.name} has maps at strides {offered}, none at {missing[0]}")
    # of several maps at one stride, the last has seen most
    indices = tuple(max(i for i, own in enumerate(offered) if own == stride) for stride in strides)
    network: nn.Module = timm.create_model(name, out_indices=indices, **arguments)
    return network
