"""The best boxes, and the best of those that overlap. Of equal scores, the first comes first, always."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from experiments.tasks.detectors.detections import RawDetections

SMALLEST = 1e-2  # px: side of a box that counts as one
OVERLAP = 0.5  # IoU above which the worse of two detections of a class is dropped


def best(scores: Tensor, number: int) -> Tensor:
    """The places of the highest ``number`` of scores [N], in descending order; unlike ``topk``, stable."""
    return scores.argsort(descending=True, stable=True)[:number]


def suppress(boxes: Tensor, scores: Tensor, kinds: Tensor, overlap: float, number: int) -> Tensor:
    """The places of the best ``number`` boxes of which none has an IoU above ``overlap`` with a better one of its kind.

    boxes: [N, 4]; scores, kinds: [N]. In descending order of scores.
    """
    order = best(scores, len(scores))
    # of many boxes, torchvision orders the result by a sort that is not stable
    kept = batched_nms(boxes[order], scores[order], kinds[order], overlap).sort().values
    return order[kept[:number]]


def strongest(boxes: Tensor, scores: Tensor, classes: Tensor, size: Sequence[int], number: int) -> RawDetections:
    """The best ``number`` boxes, clipped to the image, of which none overlaps with a better one of its class."""
    boxes = clip_boxes_to_image(boxes, tuple(size))
    wide = remove_small_boxes(boxes, SMALLEST)
    boxes, scores, classes = boxes[wide], scores[wide], classes[wide]
    kept = suppress(boxes, scores, classes, OVERLAP, number)
    return RawDetections(boxes[kept], scores[kept], classes[kept])
