"""Anchors: boxes of fixed sizes and shapes at every cell of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.rpn import permute_and_flatten

SHAPES = (0.5, 1.0, 2.0)  # height / width
PADDING = 32  # px: an image alone is padded to multiples of it


class Anchors:
    """The anchors of maps at fixed strides, centred on the upper left corners of cells and not rounded.

    strides: of the levels in px, finest first; sizes: square roots of the anchors' areas, in strides.
    Source: mmdet's ``AnchorGenerator``. torchvision's takes strides from the map's size, rounded down, and rounds.
    """

    def __init__(self, strides: Sequence[int], sizes: Sequence[float]):
        self.strides, self.sizes = tuple(strides), tuple(sizes)

    @property
    def per_cell(self) -> int:
        return len(SHAPES) * len(self.sizes)

    def __call__(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, C, H_i, W_i] to each level's anchors, float32 [H_i W_i A, 4], by row, column, shape and size."""
        return [self._of_level(stride, level) for stride, level in zip(self.strides, maps)]

    def _of_level(self, stride: int, level: Tensor) -> Tensor:
        device = level.device
        tall = torch.tensor(SHAPES, device=device).sqrt()[:, None]
        sizes = torch.tensor(self.sizes, device=device) * stride
        half = torch.stack([sizes / tall, sizes * tall], -1).view(-1, 2) / 2
        y, x = (torch.arange(length, device=device) * float(stride) for length in level.shape[-2:])
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 1, 2)
        return torch.cat([centres - half, centres + half], -1).view(-1, 4)


def usable(anchors: Tensor, size: Sequence[int], border: int | None = None) -> Tensor:
    """bool [N]: which anchors [N, 4] count in the loss of an image of ``size``, height and width in px.

    Those centred on the image, padded alone, and not on what a larger image of the batch adds. With a border, also no
    more than so many px of an anchor may be outside of the image itself.
    """
    height, width = size
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    # centres are rounded multiples of the stride, far smaller than the next
    ends = torch.tensor([-(-length // PADDING) * PADDING - 1.0 for length in (width, height)]).to(anchors)
    inside = (centres < ends).all(1)
    if border is not None:
        far = torch.tensor([width + border, height + border]).to(anchors)
        inside &= (anchors[:, :2] >= -border).all(1) & (anchors[:, 2:] < far).all(1)
    return inside


def flat(level: Tensor, anchors: int, numbers: int) -> Tensor:
    """[B, anchors * numbers, H, W] to float32 [B, H W anchors, numbers], in the order of the anchors."""
    flattened: Tensor = permute_and_flatten(level, len(level), anchors, numbers, *level.shape[-2:])
    return flattened.float()
