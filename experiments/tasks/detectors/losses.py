"""How detectors' losses are summed over boxes and normalised over the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def offset_loss(offsets: Tensor, wanted: Tensor, beta: float = 0.0) -> Tensor:
    """The sum of smooth L1 losses of offsets [n, 4] with this beta, of L1 losses for 0. Returns a scalar."""
    return F.smooth_l1_loss(offsets, wanted, reduction="sum", beta=beta)


def mean_over_images(losses: Sequence[Tensor], counts: Sequence[int], groups: Tensor) -> Tensor:
    """The mean over images of the loss of their group, a scalar.

    losses: the sum of each image, scalars; counts: by which those sums are divided. groups: int64 [B].
    """
    return (torch.stack(list(losses)) * image_weights(torch.tensor(counts, device=groups.device), groups)).sum()


def image_weights(counts: Tensor, groups: Tensor) -> Tensor:
    """[B]: the weights of images' sums of losses in the mean over images of the loss of their group.

    The loss of a group is the sum over its images divided by the sum of their counts, at least 1. Each process of the
    reference implementation computes it on its own 2 images. counts: [B], 0 or more; groups: int64 [B].
    """
    same = groups[:, None] == groups  # no matrix product, which autocast would round
    totals = (same * counts.to(torch.float32)).sum(1).clamp(min=1)
    return same.sum(1) / (totals * len(groups))
