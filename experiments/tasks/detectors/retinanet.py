"""RetinaNet's head: classes and boxes of anchors on every level, without proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import sigmoid_focal_loss

from errors import ConfigError
from experiments.tasks.detectors.anchors import Anchors, flat, usable
from experiments.tasks.detectors.assignment import IGNORED, match
from experiments.tasks.detectors.detections import RawDetections
from experiments.tasks.detectors.losses import mean_over_images, offset_loss
from experiments.tasks.detectors.options import DetectorOptions
from experiments.tasks.detectors.suppression import best, strongest
from experiments.tasks.detectors.targets import Targets

SIZES_PER_OCTAVE = 3
POSITIVE, NEGATIVE, BEST = 0.5, 0.4, 0.0  # IoU
MOST_CONVOLUTIONS = 4
PUBLISHED_WIDTH = 256  # for which a standard deviation of 0.01 was chosen


class DenseHead(nn.Module):
    """Two towers of 3x3 convolutions with ReLU, shared by all levels, and a 3x3 convolution on each: logits of every
    class and an offset for every anchor.

    strides: of the levels in px, finest first. Focal loss (alpha 0.25, gamma 2) and L1 loss, divided by the number of
    positive anchors. Structure and initialisation: torchvision's ``RetinaNetHead``, but that weights of narrower towers
    begin larger, so that a layer passes on as much as one of the published width. Training and selection: mmdet's.
    Raises ConfigError where ``options.convs`` is more than 4.
    """

    def __init__(self, strides: Sequence[int], classes: int, options: DetectorOptions):
        super().__init__()
        if not 1 <= options.convs <= MOST_CONVOLUTIONS:
            raise ConfigError(f"convs={options.convs}: RetinaNet has 1 to {MOST_CONVOLUTIONS} convolutions in a tower")
        self.options, self.classes = options, classes
        octave = [options.anchor_scale * 2 ** (i / SIZES_PER_OCTAVE) for i in range(SIZES_PER_OCTAVE)]
        self.anchors = Anchors(strides, octave)
        self.head = RetinaNetHead(options.width, self.anchors.per_cell, classes)
        for tower in (self.head.classification_head, self.head.regression_head):
            tower.conv = tower.conv[: options.convs]
            for layer in tower.conv.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.data *= math.sqrt(PUBLISHED_WIDTH / options.width)
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def predict(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps [B, C, H_i, W_i] to each level's logits float32 [B, N_i, classes] and offsets float32 [B, N_i, 4]."""
        classifier, regressor = self.head.classification_head, self.head.regression_head
        logits = [classifier.cls_logits(classifier.conv(level)) for level in maps]
        offsets = [regressor.bbox_reg(regressor.conv(level)) for level in maps]
        cell = self.anchors.per_cell
        return [flat(level, cell, self.classes) for level in logits], [flat(level, cell, 4) for level in offsets]

    def losses(self, maps: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets) -> dict[str, Tensor]:
        """The losses of B images; sizes: height and width of each in px."""
        levels = self.predict(maps)
        logits, offsets = torch.cat(levels[0], 1), torch.cat(levels[1], 1)
        anchors = torch.cat(self.anchors(maps))
        classes, boxes, counts = [], [], []
        # one unbinding, whose gradient is one stack, as the gradient of a choice would be as large as the whole batch
        for i, (size, own_logits, own_offsets) in enumerate(zip(sizes, logits.unbind(), offsets.unbind())):
            inside = usable(anchors, size, self.options.anchor_border)
            matches = torch.full_like(inside, IGNORED, dtype=torch.int64)
            matches[inside] = match(targets.boxes[i], anchors[inside], POSITIVE, NEGATIVE, BEST)
            at = torch.where(matches >= 0)[0]
            labels = torch.zeros_like(own_logits)
            labels[at, targets.classes[i][matches[at]]] = 1
            classes.append((sigmoid_focal_loss(own_logits, labels) * (matches != IGNORED)[:, None]).sum())
            wanted = self.coder.encode_single(targets.boxes[i][matches[at]], anchors[at])
            boxes.append(offset_loss(own_offsets[at], wanted))
            counts.append(max(len(at), 1))  # as mmdet counts
        return {
            "classes": mean_over_images(classes, counts, targets.groups),
            "boxes": mean_over_images(boxes, counts, targets.groups),
        }

    def detect(self, maps: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[RawDetections]:
        """What is found in each of B images; sizes: height and width of each in px, by which boxes are clipped."""
        logits, offsets = self.predict(maps)
        anchors = self.anchors(maps)
        return [
            self._select([level[i] for level in logits], [level[i] for level in offsets], anchors, size)
            for i, size in enumerate(sizes)
        ]

    def _select(
        self, logits: Sequence[Tensor], offsets: Sequence[Tensor], anchors: Sequence[Tensor], size: Sequence[int]
    ) -> RawDetections:
        boxes, scores, classes = [], [], []
        for level, deltas, own in zip(logits, offsets, anchors):
            probabilities = level.sigmoid().flatten()
            above = torch.where(probabilities > self.options.score_threshold)[0]
            at = above[best(probabilities[above], self.options.candidates_evaluation)]
            place = at // self.classes
            boxes.append(self.coder.decode_single(deltas[place], own[place]))
            scores.append(probabilities[at])
            classes.append(at % self.classes)
        return strongest(torch.cat(boxes), torch.cat(scores), torch.cat(classes), size, self.options.detections)
