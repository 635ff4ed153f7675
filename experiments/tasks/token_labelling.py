"""Token labelling: tokens are to be given a class that is written elsewhere in the image (``scenes``, probes)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.data.batch import unreadable
from experiments.data.drawn import open_drawn
from experiments.data.token_images import IGNORED, LabelledTokens, Labelling
from experiments.schema import Config
from experiments.tasks import Evaluation, Task
from experiments.tasks.network import dense_backbone
from results.records import ImageRecord, order_of

ACCURACIES = ("token_accuracy", "token_accuracy_deep")
EXAMPLES = 6


class TokenLabelling(Task):
    """Drawn images, a backbone with a linear head, and accuracy of labelled tokens by distance to the evidence.

    Tile size, classes and the maps that are read are those of the data set's ``Labelling``.
    """

    def __init__(self, config: Config):
        self.config = config
        self.train_set = open_drawn(config, "train")
        self.eval_set = open_drawn(config, "eval")
        self.labelling = self.eval_set.labelling

    def build_model(self) -> nn.Module:
        labelling = self.labelling
        backbone = dense_backbone(self.config.model, labelling.strides, self.config.data.image_size)
        return TokenLabeller(backbone, len(labelling.class_names), labelling.strides, labelling.token)

    def weight(self, batch: LabelledTokens) -> float:
        return int((batch.labels != IGNORED).sum())

    def loss(self, forward: Callable[..., Any], batch: LabelledTokens) -> Tensor:
        logits = forward(batch.images)
        total = F.cross_entropy(logits.float(), batch.labels, ignore_index=IGNORED, reduction="sum")
        return total / max(1.0, self.weight(batch))

    def judge(self) -> Labels:
        return Labels(self.labelling)

    def example(self) -> LabelledTokens:
        height, width = self.config.data.image_size
        token = self.labelling.token
        labels = torch.zeros(2, height // token, width // token, dtype=torch.int64)
        return LabelledTokens(torch.zeros(2, 3, height, width), unreadable(()), labels)


class Labels:
    """How many labels are right, by image, and by distance and direction; every labelled token weighs the same."""

    def __init__(self, labelling: Labelling) -> None:
        self.labelling = labelling
        self.loss = 0.0
        self.counts: list[np.ndarray] = []  # of each batch int32 [2, 2, B]: of ACCURACIES, right and all tokens
        self.orders: list[int] = []  # of the labels of each image
        self.reach, self.examples = Reach(labelling), Examples(labelling)

    def add(self, prediction: Tensor, batch: LabelledTokens) -> None:
        """prediction: logits [B, classes, h, w]"""
        assert batch.distance is not None and batch.direction is not None
        logits, labels, distance = prediction.float().cpu(), batch.labels.cpu(), batch.distance.cpu()
        self.loss += F.cross_entropy(logits.double(), labels, ignore_index=IGNORED, reduction="sum").item()
        predictions = logits.argmax(1)
        known = labels != IGNORED
        chosen = torch.stack([known, known & (distance >= self.labelling.deep)])
        right_and_all = torch.stack([chosen & (predictions == labels), chosen], 1)
        self.counts.append(right_and_all.flatten(3).sum(3).int().numpy())
        self.orders += map(order_of, labels.numpy())
        self.reach.add(predictions, labels, distance, batch.direction.cpu())
        self.examples.add(batch, predictions)

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
            if count.any():  # small images have no deep token
                metrics[name] = 100.0 * int(correct.sum()) / int(count.sum())
                records[name] = ImageRecord.of(correct, count, order)
        if tokens := int(counts[0, 1].sum()):
            metrics["loss"] = self.loss / tokens
        return Evaluation(metrics, {"reach": self.reach.rows()}, self.examples.arrays(), records)


class TokenLabeller(nn.Module):
    """A backbone and one linear layer on each of its maps, whose outputs are summed; the head mixes no tokens.

    strides: of the maps; token: px, the stride of the labels. A map of a smaller stride answers by the mean over a
    token, one of a larger stride with the same value for all tokens that it covers.
    """

    def __init__(self, backbone: nn.Module, classes: int, strides: Sequence[int], token: int):
        super().__init__()
        self.backbone = backbone
        heads = [nn.Conv2d(width, classes, 1) for width in backbone.feature_info.channels()]  # type: ignore[union-attr, operator]
        for head in heads:
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(heads)
        self.strides, self.token = tuple(strides), token

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to logits [B, classes, H / token, W / token]."""
        maps = (head(stage) for head, stage in zip(self.heads, self.backbone(images)))
        total: Tensor
        total, *others = (self._at_tokens(answer, stride) for answer, stride in zip(maps, self.strides))
        for answer in others:
            total = total + answer
        return total

    def _at_tokens(self, answer: Tensor, stride: int) -> Tensor:
        if stride < self.token:
            return F.avg_pool2d(answer, self.token // stride)
        if stride > self.token:
            return F.interpolate(answer, scale_factor=stride // self.token, mode="nearest")
        return answer


class Reach:
    """Counts correct and all labelled tokens per direction and distance, in bins of one token."""

    def __init__(self, labelling: Labelling) -> None:
        self._labelling = labelling
        self._counts: dict[tuple[int, int], np.ndarray] = {}

    def add(self, predictions: Tensor, labels: Tensor, distance: Tensor, direction: Tensor) -> None:
        """All [B, h, w]; distance in px, direction an index into ``Labelling.directions``."""
        known = labels != IGNORED
        right = (predictions == labels)[known].numpy()
        bins = torch.stack([direction[known], self._labelling.bins(distance[known])], dim=1).numpy()
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
                "direction": self._labelling.directions[axis],
                "distance": self._labelling.middle(step),
                "correct": int(right),
                "count": int(count),
            }
            for (axis, step), (right, count) in sorted(self._counts.items())
        ]


class Examples:
    """The first images of the evaluation set, with all that a picture of them needs."""

    def __init__(self, labelling: Labelling) -> None:
        self._labelling = labelling
        self._kept: list[dict[str, np.ndarray]] = []

    def add(self, batch: LabelledTokens, predictions: Tensor) -> None:
        missing = EXAMPLES - sum(len(part["images"]) for part in self._kept)
        if missing <= 0:
            return
        maps = {"labels": batch.labels, "predictions": predictions}
        if batch.places is not None:
            maps["places"] = batch.places
        kept = {name: part[:missing].cpu().numpy().astype(np.int8) for name, part in maps.items()}
        self._kept.append({"images": self._labelling.pixels(batch.images[:missing].cpu()), **kept})

    def merge(self, other: Examples) -> None:
        self._kept += other._kept

    def arrays(self) -> dict[str, np.ndarray]:
        """images uint8 [N, H, W, 3]; labels, predictions int8 [N, h, w]; of probes places int8 [N, h, w, P, 2].

        Also palette uint8 [K, 3] or [K, P, 3], and class_names [K].
        """
        if not self._kept:
            return {}
        return {
            **{name: np.concatenate([part[name] for part in self._kept])[:EXAMPLES] for name in self._kept[0]},
            "palette": self._labelling.palette.copy(),
            "class_names": np.array(self._labelling.class_names),
        }
