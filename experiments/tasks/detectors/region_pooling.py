"""RoIAlign on the level of the pyramid that fits a region's size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

FINEST_SIZE = 56  # px: regions up to twice this size are read from the finest level


class RegionPooling(nn.Module):
    """Aligned RoIAlign of each region on the level floor(log2(square root of its area / 56)).

    cells: of a side of the result; strides: of the levels in px; sampling_ratio: samples per cell and axis, 0 for as
    many as there are px. Source: mmdet's ``SingleRoIExtractor``. torchvision's ``MultiScaleRoIAlign`` is not aligned
    and takes the strides from the first batch that it sees.
    """

    def __init__(self, cells: int, strides: Sequence[int], sampling_ratio: int = 0):
        super().__init__()
        self.cells, self.strides, self.sampling_ratio = cells, tuple(strides), sampling_ratio

    def forward(self, maps: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """Maps [B, C, H_i, W_i], finest first, and B tensors [n, 4] of regions in px to [N, C, cells, cells].

        N is the sum over images, which may be 0; all levels have gradients nonetheless.
        """
        images = torch.cat([boxes.new_full((len(boxes), 1), i) for i, boxes in enumerate(regions)])
        boxes = torch.cat(list(regions))
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        levels = torch.log2(size / FINEST_SIZE + 1e-6).floor().clamp(0, len(self.strides) - 1)
        rois = torch.cat([images, boxes], 1)
        places = [torch.where(levels == i)[0] for i in range(len(self.strides))]
        pooled = [
            aligned(level, rois[at], self.cells, stride, self.sampling_ratio)
            for level, stride, at in zip(maps, self.strides, places)
        ]
        return torch.cat(pooled)[torch.cat(places).argsort()]


def aligned(level: Tensor, rois: Tensor, cells: int, stride: int, sampling_ratio: int = 0) -> Tensor:
    """Aligned RoIAlign of a map [B, C, H, W] on rois [n, 5], image and box in px, to [n, C, cells, cells]."""
    if torch.is_grad_enabled():
        pooled: Tensor = roi_align(level, rois, cells, 1 / stride, sampling_ratio, aligned=True)
        return pooled
    # where algorithms must be deterministic, the function above has another form, which only gradients need and which
    # needs far too much memory
    pooled = torch.ops.torchvision.roi_align(level, rois, 1 / stride, cells, cells, sampling_ratio, True)
    return pooled
