"""Token labelling: every token of a bar is to be given the class written at the bar's far end (data set ``scenes``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import atm  # noqa: F401  registers the models with timm
from experiments.data.scenes import CLASSES, DIRECTIONS, IGNORED, PALETTE, TOKEN, Scenes, pixels
from experiments.tasks import Evaluation

DEEP = 40  # px: from here on no mark is seen by the convolutions alone (stage 4 sees 31 px around, its tokens lie 8 off)
EXAMPLES = 6


class TokenLabelling:
    """Scenes, a backbone with a linear head, and accuracy over the tokens of bars against the distance to the mark."""

    def __init__(self, config: Any):
        self.config = config
        height, width = config.data.image_size
        self.train_set = Scenes((height, width), config.seed, config.data.train_images, "train")
        self.eval_set = Scenes((height, width), config.seed, config.data.eval_images, "eval")

    def build_model(self) -> nn.Module:
        name = f"atmnet_{self.config.model.name}"
        return TokenLabeller(name, len(CLASSES), **model_arguments(self.config.model))

    def prepare(self, batch: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
        return batch

    def loss(self, output: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
        return F.cross_entropy(output.float(), batch[1], ignore_index=IGNORED)

    def evaluate(self, predict: Any, batches: Iterable[tuple[Tensor, ...]]) -> Evaluation:
        """``predict``: images [B, 3, H, W] to logits [B, classes, H/16, W/16]; every object token weighs the same."""
        loss, tokens, reach, examples = 0.0, 0, Reach(), Examples()
        for batch in batches:
            with torch.no_grad():
                logits = predict(batch[0]).float().cpu()
            images, labels, distance, direction = (part.cpu() for part in batch)
            loss += F.cross_entropy(logits.double(), labels, ignore_index=IGNORED, reduction="sum").item()
            tokens += int((labels != IGNORED).sum())
            predictions = logits.argmax(1)
            reach.add(predictions, labels, distance, direction)
            examples.add(images, labels, predictions)
        metrics = {
            "token_accuracy": reach.accuracy(),
            "token_accuracy_deep": reach.accuracy(deep=True),
            "loss": loss / tokens if tokens else float("nan"),
        }
        return Evaluation(metrics, {"reach": reach.rows()}, examples.arrays())


def model_arguments(model: Any) -> dict[str, Any]:
    """What the ``model`` section of a config says to timm."""
    return {
        "offsets": model.offsets,
        "samples": model.samples,
        "peg": model.peg,
        "offset_sharing": model.offset_sharing,
        "offset_interval": model.offset_interval,
        "fusion": model.fusion,
        "drop_path_rate": model.drop_path,
    }


class TokenLabeller(nn.Module):
    """A backbone whose stages 3 and 4 are read by one linear layer each: the head moves nothing between tokens."""

    def __init__(self, backbone: str, classes: int, **arguments: Any):
        super().__init__()
        self.backbone = timm.create_model(backbone, features_only=True, out_indices=(2, 3), **arguments)
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in self.backbone.feature_info.channels())
        for head in self.heads:
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] to logits [B, classes, H/16, W/16]; each token of stage 4 answers for the 2 × 2 it covers."""
        fine, coarse = (head(stage) for head, stage in zip(self.heads, self.backbone(images)))
        return fine + F.interpolate(coarse, scale_factor=2, mode="nearest")


class Reach:
    """Counts of right and of all object tokens per direction, distance bin of one token, and depth."""

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int, bool], np.ndarray] = {}

    def add(self, predictions: Tensor, labels: Tensor, distance: Tensor, direction: Tensor) -> None:
        """All [B, H/16, W/16]; distance in px, direction an index into DIRECTIONS."""
        known = labels != IGNORED
        right = (predictions == labels)[known].numpy()
        px = distance[known].numpy()
        keys = np.stack([direction[known].numpy(), px // TOKEN, px >= DEEP], axis=1).astype(np.int64)
        for key in np.unique(keys, axis=0):
            here = (keys == key).all(axis=1)
            name = (int(key[0]), int(key[1]), bool(key[2]))
            self._counts[name] = self._counts.get(name, 0) + np.array([right[here].sum(), here.sum()])

    def accuracy(self, deep: bool = False) -> float:
        """Per cent of all object tokens, or of those at least DEEP px away from their mark."""
        chosen = [counts for (_, _, is_deep), counts in self._counts.items() if is_deep or not deep]
        right, count = np.sum(chosen, axis=0) if chosen else (0, 0)
        return 100.0 * float(right) / float(count) if count else float("nan")

    def rows(self) -> list[dict[str, Any]]:
        """One row per direction and distance; ``distance`` is the middle of the bin in px."""
        merged: dict[tuple[int, int], np.ndarray] = {}
        for (direction, step, _), counts in self._counts.items():
            merged[direction, step] = merged.get((direction, step), 0) + counts
        return [
            {
                "direction": DIRECTIONS[direction],
                "distance": step * TOKEN + TOKEN // 2,
                "correct": int(right),
                "count": int(count),
            }
            for (direction, step), (right, count) in sorted(merged.items())
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

    def arrays(self) -> dict[str, np.ndarray]:
        """images uint8 [N, H, W, 3]; labels, predictions int8 [N, H/16, W/16]; palette uint8 [K, 3]; names [K]."""
        if not self._kept:
            return {}
        images, labels, predictions = (np.concatenate(parts) for parts in zip(*self._kept))
        return {
            "images": images,
            "labels": labels,
            "predictions": predictions,
            "palette": PALETTE.copy(),
            "class_names": np.array(CLASSES),
        }
