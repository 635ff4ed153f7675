"""Pyramid pooling: a map beside its averages over 1, 2 x 2, 3 x 3 and 6 x 6 cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.tasks.heads.layers import conv_bn_relu, resize

CELLS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """Per number of cells: adaptive average pooling, 1x1 convolution, batch norm, ReLU, and back to the map's size.

    channels: of the map; width: of each pooled map. In training one image is too few: one cell has one value per image
    and channel, and the batch norm needs more than one.
    Source: Pyramid Scene Parsing Network (Zhao et al., 2017), in the form of mmseg's ``PPM``.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.convolutions = nn.ModuleList(conv_bn_relu(channels, width, 1) for _ in CELLS)
        self.out_channels = channels + len(CELLS) * width

    def forward(self, stage: Tensor) -> Tensor:
        """A map [B, channels, H, W] to [B, channels + 4 width, H, W]: the map, then the pooled ones."""
        pooled = (resize(layer(average(stage, n)), like=stage) for layer, n in zip(self.convolutions, CELLS))
        return torch.cat([stage, *pooled], dim=1)


def average(x: Tensor, cells: int) -> Tensor:
    """``F.adaptive_avg_pool2d`` of x [B, C, H, W] to [B, C, cells, cells], with a gradient that is always the same."""
    mean: Tensor = _AdaptiveAverage.apply(x, cells)  # type: ignore[no-untyped-call]
    return mean


class _AdaptiveAverage(torch.autograd.Function):
    # On CUDA, the backward pass of adaptive_avg_pool2d adds with atomics, in any order, and has no other form. The
    # gradient is the product with two matrices of means, one per axis.

    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: int) -> Tensor:
        ctx.size, ctx.cells = x.shape[-2:], cells
        return F.adaptive_avg_pool2d(x, cells)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        rows, columns = (_means(length, ctx.cells, gradient) for length in ctx.size)
        return rows.T @ gradient @ columns, None


def _means(length: int, cells: int, like: Tensor) -> Tensor:
    """[cells, length]: row i has the mean over cell i, from floor(i length / cells) to ceil((i + 1) length / cells)."""
    place, cell = torch.arange(length, device=like.device), torch.arange(cells, device=like.device)[:, None]
    inside = (place >= cell * length // cells) & (place < ((cell + 1) * length + cells - 1) // cells)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)
