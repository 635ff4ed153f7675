"""Which box is which object's, and the sample of boxes on which a loss is computed."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

NEGATIVE = Matcher.BELOW_LOW_THRESHOLD  # the box is no object's
IGNORED = Matcher.BETWEEN_THRESHOLDS  # the box is in no loss


def match(objects: Tensor, boxes: Tensor, positive: float, negative: float, best: float | None = None) -> Tensor:
    """int64 [N]: the number of the object of each box, or NEGATIVE, or IGNORED.

    objects: [M, 4]; boxes: [N, 4]. A box belongs to the object with which its IoU is highest and at least ``positive``;
    it is negative below ``negative`` and ignored between. With ``best``, the boxes of highest IoU with an object are
    this object's, if that IoU is at least ``best`` and more than 0; of several objects, the last one's.
    Source: mmdet's ``MaxIoUAssigner``; torchvision's ``Matcher`` has neither ``best`` nor that order.
    """
    if not len(objects) or not len(boxes):
        return torch.full((len(boxes),), NEGATIVE, dtype=torch.int64, device=boxes.device)
    overlaps = box_iou(objects, boxes)
    matches: Tensor = Matcher(positive, negative)(overlaps)
    if best is not None:
        highest = overlaps.amax(1, keepdim=True)
        chosen = (overlaps == highest) & (highest >= best) & (highest > 0)
        number = torch.arange(1, len(objects) + 1, dtype=torch.int32, device=boxes.device)[:, None]
        last = (chosen * number).amax(0).long()
        matches = torch.where(last > 0, last - 1, matches)
    return matches


def sample(matches: Tensor, number: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The places of the sampled positives and of the sampled negatives, ascending.

    matches: as ``match`` gives them; number: of boxes, of which positives are at most ``share``; there are fewer where
    negatives are. Draws two permutations, as torchvision's sampler does, from ``generator``, which is on the CPU.
    """
    positives, negatives = torch.where(matches >= 0)[0], torch.where(matches == NEGATIVE)[0]
    chosen = _draw(positives, int(number * share), generator)
    return chosen, _draw(negatives, number - len(chosen), generator)


def _draw(places: Tensor, number: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(places), generator=generator)[:number].sort().values
    return places[order.to(places.device)]
