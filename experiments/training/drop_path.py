"""Drop path whose random draws belong to places in the whole batch, so that its split over devices changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath
from torch import Tensor, nn

from experiments.data.order import stream


class Draws:
    """Random numbers shared by all drop paths of a model: ``uniform`` [layers, images of the micro-batch]."""

    def __init__(self, layers: int, device: torch.device):
        self.layers, self.device = layers, device
        self.uniform = torch.empty(layers, 0, device=device)

    def draw(self, seed: int, step: int, batch_size: int, places: Sequence[int] | NDArray[np.int64]) -> None:
        """Draws for the whole batch of a step and keeps the draws of the images at ``places`` in it."""
        if self.layers:
            random = stream(seed, step, purpose="drop path").random((self.layers, batch_size), np.float32)
            self.uniform = torch.from_numpy(random[:, np.asarray(places)]).to(self.device)


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


def place_drop_paths(model: nn.Module, device: torch.device) -> Draws:
    """Replaces every ``DropPath`` of ``model`` by a ``PlacedDropPath``; returns the draws that they share."""
    drop_paths = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropPath)
    ]
    draws = Draws(len(drop_paths), device)
    for layer, (parent, name, child) in enumerate(drop_paths):
        setattr(parent, name, PlacedDropPath(child.drop_prob, draws, layer))
    return draws
