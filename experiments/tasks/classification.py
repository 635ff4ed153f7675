"""Image classification as the papers do it: DeiT's augmentation and losses, judged by top-1 and top-5."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import timm
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

import atm  # noqa: F401  (registers the models with timm)
from experiments.data.images import Images, StreamedImages, open_images
from experiments.schema import Config
from experiments.tasks import Evaluation
from experiments.tasks.network import backbone


class Classification:
    """Batches are (images [B, 3, H, W], classes [B], unreadable [B])."""

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
    def train_set(self) -> Images | StreamedImages:
        return open_images(self.config, training=True)

    @cached_property
    def eval_set(self) -> Images | StreamedImages:
        return open_images(self.config, training=False)

    def build_model(self) -> nn.Module:
        name, arguments = backbone(self.config.model)
        return timm.create_model(name, num_classes=self.config.data.num_classes, **arguments)  # type: ignore[no-any-return]

    def prepare(self, batch: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
        if self.mixup is None:
            return batch
        images, classes, *rest = batch
        np.random.seed(seed)  # timm's Mixup draws from numpy's global generator
        images, mixed = self.mixup(images, classes)
        return images, mixed, *rest

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return self.criterion(output, batch[1])  # type: ignore[no-any-return]

    def count(self, batch: tuple[Tensor, ...]) -> int:
        return len(batch[0])

    def judge(self) -> Accuracy:
        return Accuracy()


class Accuracy:
    """Top-1, top-5 and the cross entropy of single views."""

    def __init__(self) -> None:
        self.count = self.top1 = self.top5 = 0
        self.loss = 0.0

    def add(self, output: Tensor, batch: tuple[Tensor, ...]) -> None:
        """output: [B, classes]"""
        output, classes = output.float(), batch[1]
        hits = output.topk(min(5, output.shape[1])).indices == classes[:, None]
        self.count += len(classes)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())
        self.loss += float(F.cross_entropy(output, classes, reduction="sum"))

    def merge(self, other: Accuracy) -> None:
        self.count += other.count
        self.top1 += other.top1
        self.top5 += other.top5
        self.loss += other.loss

    def evaluation(self) -> Evaluation:
        shares = {"top1": 100 * self.top1 / self.count, "top5": 100 * self.top5 / self.count}
        return Evaluation({**shares, "loss": self.loss / self.count})
