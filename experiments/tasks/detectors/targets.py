"""What a detector learns from: the objects of a training batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """The objects of B images, n in each, which may be 0.

    boxes: of each image float32 [n, 4], x1, y1, x2, y2 in px of the padded image; classes: int64 [n], from 0 on;
    masks: [n, H, W], 0 and 1, of the padded image, no entries for data without masks; groups: int64 [B], images with
    the same number share a normaliser; generators: one per image, from which its random choices are drawn.
    """

    boxes: Sequence[Tensor]
    classes: Sequence[Tensor]
    masks: Sequence[Tensor]
    groups: Tensor
    generators: Sequence[torch.Generator]
