"""Token labelling: every token of a bar is to be given the class written at the bar's far end (data set ``scenes``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import ConfigError
from experiments.data.batch import unreadable
from experiments.data.scenes import CLASSES, DIRECTIONS, IGNORED, PALETTE, TOKEN, LabelledScenes, Scenes, pixels
from experiments.schema import Config
from experiments.tasks import Evaluation, Task
from experiments.tasks.network import dense_backbone
from results.records import ImageRecord, order_of

DEEP = 4 * TOKEN  # px: convolutions alone see no mark from 54 px on (stage 4, seen from a token in its cell's corner)
STRIDES = (16, 32)  # of the maps that are read: the last two stages of ATMNet
ACCURACIES = ("token_accuracy", "token_accuracy_deep")
EXAMPLES = 6


class TokenLabelling(Task):
    """Scenes, a backbone with a linear head, and accuracy over the tokens of bars against the distance to the mark."""

    def __init__(self, config: Config):
        self.config = config
        height, width = config.data.image_size
        self.train_set = Scenes((height, width), config.seed, _number(config, "train_images"), "train")
        self.eval_set = Scenes((height, width), config.seed, _number(config, "eval_images"), "eval")

    def build_model(self) -> nn.Module:
        return TokenLabeller(dense_backbone(self.config.model, STRIDES), len(CLASSES))

    def weight(self, batch: LabelledScenes) -> float:
        return int((batch.labels != IGNORED).sum())

    def loss(self, forward: Callable[..., Any], batch: LabelledScenes) -> Tensor:
        logits = forward(batch.images)
        total = F.cross_entropy(logits.float(), batch.labels, ignore_index=IGNORED, reduction="sum")
        return total / max(1.0, self.weight(batch))

    def judge(self) -> Labels:
        return Labels()

    def example(self) -> LabelledScenes:
        height, width = self.config.data.image_size
        labels = torch.zeros(2, height // TOKEN, width // TOKEN, dtype=torch.int64)
        return LabelledScenes(torch.zeros(2, 3, height, width), unreadable(()), labels)


def _number(config: Config, key: str) -> int:
    """How many scenes to draw, which no folder can say."""
    number = getattr(config.data, key)
    if number is None:
        raise ConfigError(f"data.{key}: scenes are drawn, so say how many")
    return int(number)


class Labels:
    """How many labels are right, by image, and by distance and direction; every object token weighs the same."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.counts: list[np.ndarray] = []  # of each batch int32 [2, 2, B]: of ACCURACIES, right and all tokens
        self.orders: list[int] = []  # of the labels of each image
        self.reach, self.examples = Reach(), Examples()

    def add(self, prediction: Tensor, batch: LabelledScenes) -> None:
        """prediction: logits [B, classes, H/16, W/16]"""
        assert batch.distance is not None and batch.direction is not None
        logits, labels, distance = prediction.float().cpu(), batch.labels.cpu(), batch.distance.cpu()
        self.loss += F.cross_entropy(logits.double(), labels, ignore_index=IGNORED, reduction="sum").item()
        predictions = logits.argmax(1)
        known = labels != IGNORED
        chosen = torch.stack([known, known & (distance >= DEEP)])
        right_and_all = torch.stack([chosen & (predictions == labels), chosen], 1)
        self.counts.append(right_and_all.flatten(3).sum(3).int().numpy())
        self.orders += map(order_of, labels.numpy())
        self.reach.add(predictions, labels, distance, batch.direction.cpu())
        self.examples.add(batch.images.cpu(), labels, predictions)

    def merge(self, other: Labels) -> None:
        self.loss += other.loss
        self.counts += other.counts
        self.orders += other.orders
        self.reach.merge(other.reach)
        self.examples.merge(other.examples)

    def evaluation(self) -> Evaluation:
        metrics, records, order = {}, {}, order_of(np.array(self.orders))
        counts = np.concatenate(self.counts, axis=2)
        for name, (correct, count) in zip(ACCURACIES, counts):
            if count.any():  # small scenes have no deep token
                metrics[name] = 100.0 * int(correct.sum()) / int(count.sum())
                records[name] = ImageRecord.of(correct, count, order)
        if tokens := int(counts[0, 1].sum()):
            metrics["loss"] = self.loss / tokens
        return Evaluation(metrics, {"reach": self.reach.rows()}, self.examples.arrays(), records)


class TokenLabeller(nn.Module):
    """A backbone and one linear layer on each of its maps at strides 16 and 32; the head mixes no tokens."""

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        self.backbone = backbone
        heads = [nn.Conv2d(width, classes, 1) for width in backbone.feature_info.channels()]  # type: ignore[union-attr, operator]
        for head in heads:
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to logits [B, classes, H/16, W/16]; each token of stage 4 answers for the 2 × 2 it covers."""
        fine: Tensor
        fine, coarse = (head(stage) for head, stage in zip(self.heads, self.backbone(images)))
        return fine + F.interpolate(coarse, scale_factor=2, mode="nearest")


class Reach:
    """Counts correct and all object tokens per direction and distance, in bins of one token."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], np.ndarray] = {}

    def add(self, predictions: Tensor, labels: Tensor, distance: Tensor, direction: Tensor) -> None:
        """All [B, H/16, W/16]; distance in px, direction an index into DIRECTIONS."""
        known = labels != IGNORED
        right = (predictions == labels)[known].numpy()
        bins = torch.stack([direction[known], (distance[known] // TOKEN).long()], dim=1).numpy()
        for axis, step in np.unique(bins, axis=0).tolist():
            here = (bins == (axis, step)).all(axis=1)
            self._counts[axis, step] = self._counts.get((axis, step), 0) + np.array([right[here].sum(), here.sum()])

    def merge(self, other: Reach) -> None:
        for key, counts in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + counts

    def rows(self) -> list[dict[str, Any]]:
        """One row per direction and distance; ``distance`` is the middle of the bin in px."""
        return [
            {
                "direction": DIRECTIONS[axis],
                "distance": step * TOKEN + TOKEN // 2,
                "correct": int(right),
                "count": int(count),
            }
            for (axis, step), (right, count) in sorted(self._counts.items())
        ]


class Examples:
    """The first scenes of the evaluation set, with all that a picture of them needs."""

    def __init__(self) -> None:
        self._kept: list[tuple[np.ndarray, ...]] = []

    def add(self, images: Tensor, labels: Tensor, predictions: Tensor) -> None:
        missing = EXAMPLES - sum(len(images) for images, *_ in self._kept)
        if missing > 0:
            maps = (part[:missing].numpy().astype(np.int8) for part in (labels, predictions))
            self._kept.append((pixels(images[:missing]), *maps))

    def merge(self, other: Examples) -> None:
        self._kept += other._kept

    def arrays(self) -> dict[str, np.ndarray]:
        """images uint8 [N, H, W, 3]; labels, predictions int8 [N, H/16, W/16]; palette uint8 [K, 3]; names [K]."""
        if not self._kept:
            return {}
        images, labels, predictions = (np.concatenate(parts)[:EXAMPLES] for parts in zip(*self._kept))
        return {
            "images": images,
            "labels": labels,
            "predictions": predictions,
            "palette": PALETTE.copy(),
            "class_names": np.array(CLASSES),
        }
