"""Parameters, FLOPs and architecture of models. Models are built without weights; nothing is computed or trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

import atm  # noqa: F401  (registers the models)
from atm import complexity

IMAGE_SIZE = 224  # pixels; what papers state FLOPs for


def count(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, float]:
    """Parameters in M and FLOPs in G of one forward pass of any module. inputs: its arguments, on the meta device."""
    counted = complexity.count(model, inputs=inputs)
    return counted.params_m, counted.flops_g


def count_classifier(name: str, arguments: Mapping[str, Any], size: int) -> tuple[float, float]:
    """Parameters in M and FLOPs in G of a timm model on one square image of ``size`` pixels."""
    return count(_weightless(name, arguments), (torch.empty(1, 3, size, size, device="meta"),))


def image_size(name: str) -> int:
    """The size in pixels at which to count a timm model: 224, or the only size that the model accepts."""
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config and config.fixed_input_size else IMAGE_SIZE


def architecture(name: str, arguments: Mapping[str, Any]) -> list[dict[str, float]]:
    """What AAAI Table 10 prints of each stage of an ATMNet."""
    return complexity.architecture(_weightless(name, arguments))  # type: ignore[no-any-return]


def _weightless(name: str, arguments: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return timm.create_model(name, **arguments)
