"""What a mask branch learns: the objects' masks within regions."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.tasks.detectors.region_pooling import aligned


@torch.no_grad()
def mask_targets(masks: Tensor, matches: Tensor, regions: Tensor, cells: int) -> Tensor:
    """float32 [N, cells, cells], 1 where a cell of the region's grid is at least half covered by its object, else 0.

    masks: [n, H, W], 0 and 1; matches: int64 [N], the number of each region's object; regions: [N, 4] in px.
    The coverage is RoIAlign's, aligned and with as many samples as there are px, as in mmdet's ``BitmapMasks``.
    """
    if not len(regions):
        return torch.zeros(0, cells, cells, device=regions.device)
    needed, places = torch.unique(matches, return_inverse=True)
    rois = torch.cat([places[:, None].to(regions), regions], 1)
    covered = aligned(masks[needed, None].to(regions), rois, cells, stride=1)
    return (covered[:, 0] >= 0.5).float()
