"""Drop path whose draws belong to places of the whole batch, so that they do not depend on how it is dealt out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers import DropPath
from torch import Tensor, nn

from experiments.data.order import stream


class Draws:
    """What every drop path of a model reads: ``uniform`` [layers, images of the micro-batch], in [0, 1)."""

    def __init__(self, layers: int, device: torch.device):
        self.layers, self.device = layers, device
        self.uniform = torch.empty(layers, 0, device=device)

    def draw(self, seed: int, step: int, batch_size: int, places: Sequence[int] | NDArray[np.int64]) -> None:
        """The draws of a step, of which the images at ``places`` of the batch take theirs."""
        if self.layers:
            random = stream(seed, step, purpose="drop path").random((self.layers, batch_size), np.float32)
            self.uniform = torch.from_numpy(random[:, np.asarray(places)]).to(self.device)


class PlacedDropPath(nn.Module):
    """timm's ``DropPath``, one image at a time with probability ``drop_prob``, taking its chances from ``draws``."""

    def __init__(self, drop_prob: float, draws: Draws, layer: int):
        super().__init__()
        self.drop_prob, self.draws, self.layer = drop_prob, draws, layer

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, …], scaled by 1 / (1 - drop_prob) where it is kept."""
        if not self.training:
            return x
        keep = 1 - self.drop_prob
        kept = (self.draws.uniform[self.layer] < keep).to(x.dtype) / keep
        return x * kept.view(-1, *[1] * (x.ndim - 1))


def place_drop_paths(model: nn.Module, device: torch.device) -> Draws:
    """Puts a ``PlacedDropPath`` in place of every ``DropPath`` of ``model``; returns the draws they share."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DropPath)
    ]
    draws = Draws(len(found), device)
    for layer, (parent, name, child) in enumerate(found):
        setattr(parent, name, PlacedDropPath(child.drop_prob, draws, layer))
    return draws
