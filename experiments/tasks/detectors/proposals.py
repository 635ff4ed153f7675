"""The region proposal network: where there may be objects, of whatever class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from experiments.tasks.detectors.anchors import Anchors, flat, usable
from experiments.tasks.detectors.assignment import match, sample
from experiments.tasks.detectors.losses import mean_over_images, offset_loss
from experiments.tasks.detectors.options import DetectorOptions
from experiments.tasks.detectors.suppression import best, suppress
from experiments.tasks.detectors.targets import Targets

POSITIVE, NEGATIVE, BEST = 0.7, 0.3, 0.3  # IoU
POSITIVE_SHARE = 0.5
OVERLAP = 0.7  # IoU above which the worse of two proposals of a level is dropped
SMALLEST = 1e-3  # px


class ProposalNetwork(nn.Module):
    """A 3x3 convolution, ReLU and two 1x1 convolutions on every level: objectness and offset of every anchor.

    strides: of the levels in px, finest first. Structure and initialisation: torchvision's ``RPNHead``. Training and
    selection: mmdet's ``RPNHead``.
    """

    def __init__(self, strides: Sequence[int], options: DetectorOptions):
        super().__init__()
        self.options = options
        self.anchors = Anchors(strides, (options.anchor_scale,))
        self.head = RPNHead(options.width, self.anchors.per_cell)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(
        self, maps: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Maps [B, C, H_i, W_i] to the proposals [n, 4] of each of B images, and with targets the losses.

        sizes: height and width of each image in px, by which proposals are clipped.
        """
        logits, offsets = self.head(list(maps))
        scores = [flat(level, self.anchors.per_cell, 1)[..., 0] for level in logits]
        deltas = [flat(level, self.anchors.per_cell, 4) for level in offsets]
        anchors = self.anchors(maps)
        with torch.no_grad():
            proposals = [
                self._select([s[i] for s in scores], [d[i] for d in deltas], anchors, size)
                for i, size in enumerate(sizes)
            ]
        if targets is None:
            return proposals, {}
        return proposals, self._losses(torch.cat(scores, 1), torch.cat(deltas, 1), torch.cat(anchors), sizes, targets)

    def _select(
        self, scores: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], size: Sequence[int]
    ) -> Tensor:
        options = self.options
        candidates, number = (
            (options.candidates_training, options.proposals_training)
            if self.training
            else (options.candidates_evaluation, options.proposals_evaluation)
        )
        places = [best(level, candidates) for level in scores]
        boxes = torch.cat(
            [self.coder.decode_single(delta[at], boxes[at]) for delta, boxes, at in zip(deltas, anchors, places)]
        )
        objectness = torch.cat([level[at] for level, at in zip(scores, places)]).sigmoid()
        levels = torch.cat([torch.full_like(at, level) for level, at in enumerate(places)])
        boxes = clip_boxes_to_image(boxes, tuple(size))
        wide = remove_small_boxes(boxes, SMALLEST)
        chosen: Tensor = boxes[wide][suppress(boxes[wide], objectness[wide], levels[wide], OVERLAP, number)]
        return chosen

    def _losses(
        self, scores: Tensor, deltas: Tensor, anchors: Tensor, sizes: Sequence[Sequence[int]], targets: Targets
    ) -> dict[str, Tensor]:
        objectness, boxes, counts = [], [], []
        # unbound at once: the gradient of a choice would be as large as the whole batch
        for i, (size, own_scores, own_deltas) in enumerate(zip(sizes, scores.unbind(), deltas.unbind())):
            inside = torch.where(usable(anchors, size, self.options.anchor_border))[0]
            matches = match(targets.boxes[i], anchors[inside], POSITIVE, NEGATIVE, BEST)
            chosen = sample(matches, self.options.anchors_per_image, POSITIVE_SHARE, targets.generators[i])
            positives, negatives = (inside[places] for places in chosen)
            logits = own_scores[torch.cat([positives, negatives])]
            labels = torch.zeros_like(logits)
            labels[: len(positives)] = 1
            objectness.append(F.binary_cross_entropy_with_logits(logits, labels, reduction="sum"))
            wanted = self.coder.encode_single(targets.boxes[i][matches[chosen[0]]], anchors[positives])
            boxes.append(offset_loss(own_deltas[positives], wanted, self.options.anchor_beta))
            counts.append(max(len(positives), 1) + max(len(negatives), 1))  # as mmdet counts
        return {
            "objectness": mean_over_images(objectness, counts, targets.groups),
            "proposals": mean_over_images(boxes, counts, targets.groups),
        }
