"""Drop path and dropout whose random draws belong to places in the whole batch, so that its split changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath
from torch import Tensor, nn

from experiments.data.order import stream


class Draws:
    """The random numbers of a micro-batch for all layers of a model that drop something of an image.

    layers: drop paths, which share ``uniform`` [layers, images].
    """

    def __init__(self, layers: int, device: torch.device):
        self.layers, self.device = layers, device
        self.uniform = torch.empty(layers, 0, device=device)
        self._batch: tuple[int, int, int, NDArray[np.int64]] = (0, 0, 0, np.empty(0, np.int64))

    def draw(self, seed: int, step: int, batch_size: int, places: Sequence[int] | NDArray[np.int64]) -> None:
        """Draws for the whole batch of a step and keeps the draws of the images at ``places`` in it."""
        self._batch = (seed, step, batch_size, np.asarray(places))
        if self.layers:
            random = stream(seed, step, purpose="drop path").random((self.layers, batch_size), np.float32)
            self.uniform = torch.from_numpy(random[:, np.asarray(places)]).to(self.device)

    def of_channels(self, layer: int, channels: int) -> Tensor:
        """[images, channels] in [0, 1) for a layer that drops channels."""
        seed, step, batch_size, places = self._batch
        random = stream(seed, step, layer, purpose="dropout").random((batch_size, channels), np.float32)
        return torch.from_numpy(random[places]).to(self.device)


class PlacedDropPath(nn.Module):
    """timm's ``DropPath``: drops each image with probability ``drop_prob``, by the numbers of ``draws``."""

    def __init__(self, drop_prob: float, draws: Draws, layer: int):
        super().__init__()
        self.drop_prob, self.draws, self.layer = drop_prob, draws, layer

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, …], scaled by 1 / (1 - drop_prob) where it is kept."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        factors = (self.draws.uniform[self.layer] < keep).to(x.dtype) / keep
        return x * factors.view(-1, *[1] * (x.ndim - 1))


class PlacedDropout(nn.Module):
    """``nn.Dropout2d``: drops each channel of each image with probability ``p``, by the numbers of ``draws``."""

    def __init__(self, p: float, draws: Draws, layer: int):
        super().__init__()
        self.p, self.draws, self.layer = p, draws, layer

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W], scaled by 1 / (1 - p) where it is kept."""
        if not self.training:
            return x
        keep = 1 - self.p
        factors = (self.draws.of_channels(self.layer, x.shape[1]) < keep).to(x.dtype) / keep
        return x * factors[:, :, None, None]


def place_draws(model: nn.Module, device: torch.device) -> Draws:
    """Replaces every ``DropPath`` and ``nn.Dropout2d`` of ``model``; returns the draws that they share."""
    drop_paths, dropouts = _children(model, DropPath), _children(model, nn.Dropout2d)
    draws = Draws(len(drop_paths), device)
    for layer, (parent, name, child) in enumerate(drop_paths):
        setattr(parent, name, PlacedDropPath(child.drop_prob, draws, layer))
    for layer, (parent, name, child) in enumerate(dropouts):
        setattr(parent, name, PlacedDropout(child.p, draws, layer) if child.p else nn.Identity())
    return draws


def _children(model: nn.Module, kind: type[nn.Module]) -> list[tuple[nn.Module, str, Any]]:
    """Parent, name and module of each of a kind."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, kind)
    ]
