"""Semantic segmentation: Semantic FPN or UperNet on any backbone, judged by mean IoU (AAAI Tables 2, 3, 7, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import ConfigError
from experiments.data.batch import unreadable
from experiments.data.drawn import normalisation, open_drawn
from experiments.data.mask_transforms import MaskAugment
from experiments.data.masks import IGNORED, LabelledMasks, Masks, open_masks
from experiments.data.registry import is_drawn
from experiments.data.scene_masks import DrawnMasks, drawn_masks
from experiments.schema import Config
from experiments.tasks import Task
from experiments.tasks.network import dense_backbone
from experiments.tasks.segmentation_judge import SegmentationJudge
from experiments.tasks.segmenter import STRIDES, Segmenter
from experiments.tasks.views import TestPlan, predict_classes


class Segmentation(Task):
    """Batches are ``LabelledMasks``: crops of one size in training, whole images in evaluation.

    Raises ConfigError where a drawn data set has another number of classes than ``data.num_classes``.
    """

    def __init__(self, config: Config):
        self.config = config
        data = config.data
        if is_drawn(data.dataset) and (classes := len(self.eval_set.class_names)) != data.num_classes:
            raise ConfigError(f"data.num_classes={data.num_classes}: {data.dataset} with masks have {classes} classes")

    @cached_property
    def train_set(self) -> Masks | DrawnMasks:  # type: ignore[override]
        return self._data(training=True)

    @cached_property
    def eval_set(self) -> Masks | DrawnMasks:  # type: ignore[override]
        return self._data(training=False)

    def build_model(self) -> nn.Module:
        segment, classes = self.config.segment, self.config.data.num_classes
        assert classes is not None  # completed
        return Segmenter(
            dense_backbone(self.config.model, STRIDES),
            segment.head,
            classes,
            width=segment.width,
            neck_width=segment.neck_width,
            neck_offsets=segment.neck_offsets,
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
            total = total + (self.config.segment.auxiliary or 0.0) * _cross_entropy(auxiliary, batch.masks)
        return total

    def predict(self, model: nn.Module, batch: LabelledMasks) -> Sequence[Tensor]:
        """The likeliest class of every pixel, int64 [h, w] of each image; crops are predicted as they are."""
        if isinstance(batch.images, Tensor):
            return tuple(model(batch.images).argmax(1))
        return predict_classes(model, batch.images, self.plan)

    def judge(self) -> SegmentationJudge:
        names = self.eval_set.class_names
        return SegmentationJudge(names, self.eval_set.palette)

    @property
    def plan(self) -> TestPlan:
        segment = self.config.segment
        mean, std = normalisation(self.config)
        return TestPlan(
            scale=_long_and_short(segment.resize) if segment.resize else None,
            ratios=tuple(segment.test_scales),
            flip=segment.test_flip,
            multiple_of=segment.test_multiple,
            window=segment.test_window,
            stride=segment.test_stride,
            mean=mean,
            std=std,
        )

    def example(self) -> LabelledMasks:
        height, width = self.config.data.image_size
        masks = torch.zeros(2, height, width, dtype=torch.int64)
        return LabelledMasks(torch.zeros(2, 3, height, width), unreadable(()), masks)

    def _data(self, training: bool) -> Masks | DrawnMasks:
        if is_drawn(self.config.data.dataset):
            return drawn_masks(open_drawn(self.config, "train" if training else "eval"))
        return open_masks(self.config, training, augment_of(self.config) if training else None)


def augment_of(config: Config) -> MaskAugment:
    """The augmentation of photographs that the section ``segment`` asks for."""
    segment = config.segment
    assert segment.resize and segment.scale and segment.max_share and segment.hflip is not None  # completed
    height, width = config.data.image_size
    low, high = segment.scale
    return MaskAugment(
        size=(height, width),
        base=_long_and_short(segment.resize),
        scale=(low, high),
        max_share=segment.max_share,
        hflip=segment.hflip,
        distortion=bool(segment.distortion),
    )


def _long_and_short(resize: Sequence[int]) -> tuple[int, int]:
    short, long = resize
    return long, short


def _cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """logits: [B, K, H, W]; masks: [B, H, W]. On CUDA only the form [pixels, K] has a deterministic backward pass."""
    flat = logits.float().permute(0, 2, 3, 1).flatten(0, 2)
    return F.cross_entropy(flat, masks.flatten(), ignore_index=IGNORED, reduction="sum") / masks.numel()
