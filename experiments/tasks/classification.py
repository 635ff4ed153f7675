"""Image classification as the papers do it: DeiT's augmentation and losses, judged by top-1 and top-5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

import atm  # noqa: F401  (registers the models with timm)
from experiments.data.batch import Samples, unreadable
from experiments.data.images import LabelledImages, open_images
from experiments.data.order import stream
from experiments.schema import Config
from experiments.tasks import Task
from experiments.tasks.judges import ImageJudge
from experiments.tasks.network import backbone


class Classification(Task):
    """Batches are ``LabelledImages``; one linear head over all classes."""

    def __init__(self, config: Config):
        self.config = config
        augment = config.augment
        self.mixup = None
        self.criterion: nn.Module = LabelSmoothingCrossEntropy(augment.smoothing)
        if augment.mixup or augment.cutmix:
            self.criterion = SoftTargetCrossEntropy()
            self.mixup = Mixup(
                mixup_alpha=augment.mixup,
                cutmix_alpha=augment.cutmix,
                switch_prob=augment.mix_switch,
                mode="batch",
                label_smoothing=augment.smoothing,
                num_classes=config.data.num_classes,
            )

    @cached_property
    def train_set(self) -> Samples:  # type: ignore[override]
        return open_images(self.config, training=True)

    @cached_property
    def eval_set(self) -> Samples:  # type: ignore[override]
        return open_images(self.config, training=False)

    @property
    def mixed_parts(self) -> int:
        return 0 if self.mixup is None else self.config.augment.mix_draws

    def build_model(self) -> nn.Module:
        name, arguments = backbone(self.config.model, self.config.data.image_size)
        return timm.create_model(name, num_classes=self.config.data.num_classes, **arguments)  # type: ignore[no-any-return]

    def prepare(self, batch: LabelledImages, seed: int, places: NDArray[np.int64]) -> LabelledImages:
        """Mixes the images of each part in place, by one draw of mixup or cutmix for the part."""
        if self.mixup is None:
            return batch
        parts = places % self.mixed_parts
        classes = torch.empty(batch.size, self.mixup.num_classes, device=batch.classes.device)
        for part in np.unique(parts):
            own = torch.from_numpy(np.flatnonzero(parts == part)).to(batch.classes.device)
            # timm's Mixup draws from numpy's global generator; the first part keeps the seed, so that a batch of one
            # part is mixed as it was before there were several
            np.random.seed(seed if part == 0 else stream(seed, int(part), purpose="mixing").integers(2**32))
            batch.images[own], classes[own] = self.mixup(batch.images[own], batch.classes[own])
        return replace(batch, classes=classes)

    def loss(self, forward: Callable[..., Any], batch: LabelledImages) -> Tensor:
        return self.criterion(forward(batch.images), batch.classes)  # type: ignore[no-any-return]

    def judge(self) -> Accuracy:
        return Accuracy()

    def example(self) -> LabelledImages:
        images = torch.zeros(2, 3, *self.config.data.image_size)
        return LabelledImages(images, unreadable(()), torch.zeros(2, dtype=torch.int64))


class Accuracy(ImageJudge):
    """Top-1, top-5 and the cross entropy of single views."""

    def measure(self, prediction: Tensor, batch: LabelledImages) -> dict[str, Tensor]:
        """prediction: logits [B, classes]"""
        output, classes = prediction.float(), batch.classes
        hits = output.topk(min(5, output.shape[1])).indices == classes[:, None]
        loss = F.cross_entropy(output, classes, reduction="none")
        return {"top1": hits[:, 0], "top5": hits.any(1), "loss": loss}
