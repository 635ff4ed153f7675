"""What a detector found in an image as it was given, and its masks on an image of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RawDetections:
    """The objects found in one image, the best first.

    boxes: float32 [n, 4], x1, y1, x2, y2 in px of the image as the detector saw it; scores: float32 [n]; classes: int64
    [n], from 0 on; probabilities: float32 [n, 28, 28], that a cell of a box's grid is the object, or None.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    probabilities: Tensor | None = None


def paste_masks(probabilities: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """bool [n, h, w]: the pixels whose centres have a probability of at least 0.5, interpolated bilinearly.

    probabilities: [n, m, m], of the cells of a grid on each box; boxes: [n, 4], in px of the image; size: h and w.
    Source: mmdet's ``_do_paste_mask``. Only the pixels of one box are computed at a time: outside of its box a mask has
    less than 0.5.
    """
    height, width = size
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    for mask, grid, (x1, y1, x2, y2) in zip(masks, probabilities, boxes.tolist()):
        top, bottom = max(floor(y1), 0), min(ceil(y2), height)
        left, right = max(floor(x1), 0), min(ceil(x2), width)
        if bottom <= top or right <= left or x2 <= x1 or y2 <= y1:
            continue
        y = (torch.arange(top, bottom, device=grid.device) + 0.5 - y1) / (y2 - y1) * 2 - 1
        x = (torch.arange(left, right, device=grid.device) + 0.5 - x1) / (x2 - x1) * 2 - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        pasted = F.grid_sample(grid[None, None].float(), places, align_corners=False)
        mask[top:bottom, left:right] = pasted[0, 0] >= 0.5
    return masks
