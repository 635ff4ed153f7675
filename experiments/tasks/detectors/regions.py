"""The region heads of Faster, Mask and Cascade R-CNN: one to three stages of boxes, each with a mask branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss, remove_small_boxes

from experiments.tasks.detectors.assignment import match, sample
from experiments.tasks.detectors.detections import RawDetections
from experiments.tasks.detectors.losses import mean_over_images, offset_loss
from experiments.tasks.detectors.mask_targets import mask_targets
from experiments.tasks.detectors.options import BoxStage, DetectorOptions
from experiments.tasks.detectors.region_networks import BOX_CELLS, MASK_CELLS, BoxNetwork, MaskNetwork
from experiments.tasks.detectors.region_pooling import RegionPooling
from experiments.tasks.detectors.suppression import SMALLEST, strongest
from experiments.tasks.detectors.targets import Targets

POSITIVE_SHARE = 0.25


@dataclass(frozen=True)
class Sampled:
    """The n regions of one image on which a stage learns.

    boxes: [n, 4]; matches: int64 [n], the number of the object, or negative; classes: int64 [n], that of the object, or
    the number of classes for the background; truths: bool [n], which regions are an object's own box.
    """

    boxes: Tensor
    matches: Tensor
    classes: Tensor
    truths: Tensor


class RegionHeads(nn.Module):
    """Every stage scores regions and moves their boxes; the next stage begins with the boxes of the one before.

    strides: of the maps that regions are read from, in px, finest first; masks: whether there is a mask branch.
    Source: mmdet's ``StandardRoIHead`` and ``CascadeRoIHead``.
    """

    def __init__(self, strides: Sequence[int], classes: int, options: DetectorOptions, masks: bool):
        super().__init__()
        self.options, self.classes, self.stages = options, classes, options.stages
        convs = options.convs if len(self.stages) > 1 else 0
        self.pool = RegionPooling(BOX_CELLS, strides, options.sampling_ratio)
        self.boxes = nn.ModuleList(BoxNetwork(options.width, options.fc_width, classes, convs) for _ in self.stages)
        self.coders = [BoxCoder(stage.scales) for stage in self.stages]
        self.mask_pool = RegionPooling(MASK_CELLS, strides, options.sampling_ratio)
        self.masks = nn.ModuleList(
            MaskNetwork(options.width, classes, options.convs) for _ in (self.stages if masks else ())
        )

    def run_networks(self, like: Tensor) -> None:
        """Every network on as many made-up regions as B images have at most; like: [B, C, H, W], one of their maps."""
        images, width = like.shape[:2]
        for boxes in self.boxes:
            boxes(like.new_zeros(images * self.options.proposals_evaluation, width, BOX_CELLS, BOX_CELLS))
        for masks in self.masks:
            masks(like.new_zeros(images * self.options.detections, width, MASK_CELLS, MASK_CELLS))

    def losses(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets
    ) -> dict[str, Tensor]:
        """The losses of B images on their proposals [n, 4] and objects; sizes: height and width of each in px."""
        losses: dict[str, Tensor] = {}
        for k, stage in enumerate(self.stages):
            name = f"_{k + 1}" if len(self.stages) > 1 else ""
            sampled = [self._sample(boxes, i, stage, targets) for i, boxes in enumerate(proposals)]
            logits, offsets = self.boxes[k](self.pool(maps, [each.boxes for each in sampled]))
            counts = [len(each.boxes) for each in sampled]
            logits, offsets = logits.split(counts), offsets.split(counts)
            scored = [F.cross_entropy(own, each.classes, reduction="sum") for own, each in zip(logits, sampled)]
            moved = [
                self._box_loss(k, own, each, objects) for own, each, objects in zip(offsets, sampled, targets.boxes)
            ]
            losses[f"classes{name}"] = stage.weight * mean_over_images(scored, counts, targets.groups)
            losses[f"boxes{name}"] = stage.weight * mean_over_images(moved, counts, targets.groups)
            if len(self.masks):
                losses[f"masks{name}"] = stage.weight * self._mask_loss(k, maps, sampled, targets)
            if k + 1 < len(self.stages):
                proposals = [self._refined_for_training(k, *each) for each in zip(sampled, logits, offsets, sizes)]
        return losses

    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Sequence[int]]
    ) -> list[RawDetections]:
        """What is found in each of B images; sizes: height and width of each in px, by which boxes are clipped."""
        counts = [len(boxes) for boxes in proposals]
        total: Tensor | None = None
        for k in range(len(self.stages)):
            logits, offsets = self.boxes[k](self.pool(maps, proposals))
            total = logits if total is None else total + logits
            if k + 1 < len(self.stages):
                likeliest = logits[:, :-1].argmax(1).split(counts)
                each = zip(proposals, offsets.split(counts), likeliest, sizes)
                proposals = [self._refine(k, *image) for image in each]
        assert total is not None
        scores = torch.split((total / len(self.stages)).softmax(1)[:, :-1], counts)
        found = [self._select(*image) for image in zip(proposals, scores, offsets.split(counts), sizes)]
        return self._with_masks(maps, found) if len(self.masks) else found

    def _sample(self, proposals: Tensor, image: int, stage: BoxStage, targets: Targets) -> Sampled:
        objects, classes = targets.boxes[image], targets.classes[image]
        boxes = torch.cat([proposals, objects])
        truths = torch.arange(len(boxes), device=boxes.device) >= len(proposals)
        own = torch.arange(len(objects), device=boxes.device)
        # matched before the objects' own boxes are added, which would be every object's best region
        matches = torch.cat([match(objects, proposals, stage.overlap, stage.overlap, stage.best), own])
        chosen = torch.cat(sample(matches, self.options.rois_per_image, POSITIVE_SHARE, targets.generators[image]))
        chosen = chosen.sort().values
        matches = matches[chosen]
        labels = torch.full_like(matches, self.classes)
        labels[matches >= 0] = classes[matches[matches >= 0]]
        return Sampled(boxes[chosen], matches, labels, truths[chosen])

    def _box_loss(self, stage: int, offsets: Tensor, sampled: Sampled, objects: Tensor) -> Tensor:
        at = torch.where(sampled.matches >= 0)[0]
        own, regions = offsets[at, sampled.classes[at]], sampled.boxes[at]
        wanted = objects[sampled.matches[at]]
        if self.options.box_loss == "giou":
            loss: Tensor = generalized_box_iou_loss(
                self.coders[stage].decode_single(own, regions), wanted, reduction="sum"
            )
        else:
            loss = offset_loss(own, self.coders[stage].encode_single(wanted, regions))
        return self.options.box_weight * loss

    def _mask_loss(self, stage: int, maps: Sequence[Tensor], sampled: Sequence[Sampled], targets: Targets) -> Tensor:
        positives = [torch.where(each.matches >= 0)[0] for each in sampled]
        regions = [each.boxes[at] for each, at in zip(sampled, positives)]
        counts = [len(at) for at in positives]
        logits = self.masks[stage](self.mask_pool(maps, regions)).float().split(counts)
        losses = []
        for own, each, at, boxes, masks in zip(logits, sampled, positives, regions, targets.masks, strict=True):
            wanted = mask_targets(masks, each.matches[at], boxes, 2 * MASK_CELLS)
            chosen = own[torch.arange(len(at), device=own.device), each.classes[at]]
            loss = F.binary_cross_entropy_with_logits(chosen, wanted, reduction="none")
            losses.append(loss.mean((1, 2)).sum())
        return mean_over_images(losses, counts, targets.groups)

    def _refined_for_training(
        self, stage: int, sampled: Sampled, logits: Tensor, offsets: Tensor, size: Sequence[int]
    ) -> Tensor:
        """The regions as the stage moved them, without the objects' own boxes, which the next stage adds again."""
        classes = torch.where(sampled.matches >= 0, sampled.classes, logits[:, :-1].argmax(1))
        boxes = self._refine(stage, sampled.boxes, offsets, classes, size)[~sampled.truths]
        wide: Tensor = remove_small_boxes(boxes, SMALLEST)  # the next offsets would be logarithms of 0
        return boxes[wide]

    @torch.no_grad()
    def _refine(self, stage: int, boxes: Tensor, offsets: Tensor, classes: Tensor, size: Sequence[int]) -> Tensor:
        own = offsets[torch.arange(len(boxes), device=boxes.device), classes]
        moved: Tensor = clip_boxes_to_image(self.coders[stage].decode_single(own, boxes), tuple(size))
        return moved

    def _select(self, proposals: Tensor, scores: Tensor, offsets: Tensor, size: Sequence[int]) -> RawDetections:
        place, classes = torch.where(scores > self.options.score_threshold)
        boxes = self.coders[-1].decode_single(offsets[place, classes], proposals[place])
        return strongest(boxes, scores[place, classes], classes, size, self.options.detections)

    def _with_masks(self, maps: Sequence[Tensor], found: Sequence[RawDetections]) -> list[RawDetections]:
        regions = self.mask_pool(maps, [each.boxes for each in found])
        classes = torch.cat([each.classes for each in found])
        at = torch.arange(len(classes), device=classes.device)
        stages = [network(regions).float().sigmoid()[at, classes] for network in self.masks]
        mean = torch.split(torch.stack(stages).mean(0), [len(each.boxes) for each in found])
        return [replace(each, probabilities=own) for each, own in zip(found, mean)]
