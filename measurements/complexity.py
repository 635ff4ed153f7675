"""Parameters, FLOPs and architecture of models that are built without weights: nothing is computed or trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch

import atm  # noqa: F401  (registers the models)
from atm import complexity


def count(model: str, arguments: Mapping[str, Any], size: int) -> tuple[float, float]:
    """Parameters in M and FLOPs in G of a timm model on one image of ``size`` pixels."""
    found = complexity.count(_weightless(model, arguments), (3, size, size))
    return found.params_m, found.flops_g


def architecture(model: str, arguments: Mapping[str, Any]) -> list[dict[str, float]]:
    """Per stage, what AAAI Table 10 prints."""
    return complexity.architecture(_weightless(model, arguments))  # type: ignore[no-any-return]


def _weightless(model: str, arguments: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return timm.create_model(model, **arguments)
