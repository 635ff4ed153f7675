"""Semantic segmentation: Semantic FPN or UperNet on any backbone, judged by mean IoU (AAAI Tables 2, 3, 7, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data.batch import Samples, unreadable
from experiments.data.mask_transforms import MaskAugment
from experiments.data.masks import IGNORED, LabelledMasks, open_masks
from experiments.data.registry import is_drawn
from experiments.data.scene_masks import drawn_masks
from experiments.schema import Config
from experiments.tasks import Task
from experiments.tasks.network import dense_backbone
from experiments.tasks.segmentation_judge import SegmentationJudge
from experiments.tasks.segmenter import STRIDES, Segmenter
from experiments.tasks.views import TestPlan, predict_classes


class Segmentation(Task):
    """Batches are ``LabelledMasks``: crops of one size in training, whole images in evaluation."""

    def __init__(self, config: Config):
        self.config = config

    @cached_property
    def train_set(self) -> Samples:  # type: ignore[override]
        return self._data(training=True)

    @cached_property
    def eval_set(self) -> Samples:  # type: ignore[override]
        return self._data(training=False)

    def build_model(self) -> nn.Module:
        segment = self.config.segment
        return Segmenter(
            dense_backbone(self.config.model, STRIDES),
            segment.head,
            self.config.data.num_classes,
            width=segment.width,
            neck_width=segment.neck_width,
            dropout=segment.dropout,
            auxiliary=bool(segment.auxiliary),
        )

    def loss(self, forward: Callable[..., Any], batch: LabelledMasks) -> Tensor:
        """Cross entropy of the head plus the weighted one of the auxiliary head, means over all pixels.

        Pixels without a label add nothing to the sum and count in the mean, as in the reference implementation.
        """
        logits, auxiliary = forward(batch.images)
        total = _cross_entropy(logits, batch.masks)
        if auxiliary is not None:
            total = total + self.config.segment.auxiliary * _cross_entropy(auxiliary, batch.masks)
        return total

    def predict(self, model: nn.Module, batch: LabelledMasks) -> Sequence[Tensor]:
        """The likeliest class of every pixel, int64 [h, w] of each image; crops in one tensor are predicted as they are."""
        if isinstance(batch.images, Tensor):
            return tuple(model(batch.images).argmax(1))
        return predict_classes(model, batch.images, self.plan)

    def judge(self) -> SegmentationJudge:
        names = self.eval_set.class_names
        return SegmentationJudge(names, self.eval_set.palette)

    @property
    def plan(self) -> TestPlan:
        segment = self.config.segment
        short, long = segment.resize or (None, None)
        return TestPlan(
            scale=(long, short) if segment.resize else None,
            ratios=tuple(segment.test_scales),
            flip=segment.test_flip,
            multiple_of=segment.test_multiple,
            window=segment.test_window,
            stride=segment.test_stride,
            mean=self.eval_set.mean,
            std=self.eval_set.std,
        )

    def example(self) -> LabelledMasks:
        height, width = self.config.data.image_size
        masks = torch.zeros(2, height, width, dtype=torch.int64)
        return LabelledMasks(torch.zeros(2, 3, height, width), unreadable(()), masks)

    def _data(self, training: bool) -> Samples:
        if is_drawn(self.config.data.dataset):
            return drawn_masks(self.config, training)
        return open_masks(self.config, training, augment_of(self.config))


def augment_of(config: Config) -> MaskAugment:
    segment = config.segment
    short, long = segment.resize
    return MaskAugment(
        size=tuple(config.data.image_size),
        base=(long, short),
        scale=tuple(segment.scale),
        max_share=segment.max_share,
        hflip=segment.hflip,
        distortion=segment.distortion,
    )


def _cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """logits: [B, K, H, W]; masks: [B, H, W]. On CUDA only the form [pixels, K] has a deterministic backward pass."""
    flat = logits.float().permute(0, 2, 3, 1).flatten(0, 2)
    return F.cross_entropy(flat, masks.flatten(), ignore_index=IGNORED, reduction="sum") / masks.numel()
