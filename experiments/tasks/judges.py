"""Judges of common kinds, to derive a task's own from."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from experiments.tasks import Evaluation, Judge
from results.records import ImageRecord, order_of


class ImageJudge(Judge):
    """A judge that looks at one image after another; a metric is the mean over images, of booleans in per cent.

    Booleans are kept as per-image records, so that reports can say what the choice of images is worth.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[np.ndarray]] = {}  # metric → of each batch [B]
        self.truths: list[np.ndarray] = []

    def measure(self, prediction: Any, batch: Any) -> dict[str, Tensor]:
        """Metric → of each image bool or float [B]."""
        raise NotImplementedError

    def truth(self, batch: Any) -> Tensor:
        """Integers [B, ...], what there was to predict: the classes, unless a task asks something else.

        Runs are compared image by image only where it is the same.
        """
        return batch.classes  # type: ignore[no-any-return]

    def add(self, prediction: Any, batch: Any) -> None:
        for name, values in self.measure(prediction, batch).items():
            self.values.setdefault(name, []).append(values.cpu().numpy())
        self.truths.append(self.truth(batch).int().cpu().numpy())

    def merge(self, other: ImageJudge) -> None:
        for name, values in other.values.items():
            self.values.setdefault(name, []).extend(values)
        self.truths += other.truths

    def evaluation(self) -> Evaluation:
        order = order_of(np.concatenate(self.truths))
        metrics, records = {}, {}
        for name, values in self.values.items():
            whole = np.concatenate(values)
            if whole.dtype == bool:
                records[name] = ImageRecord.of(whole, order=order)
                metrics[name] = 100.0 * int(whole.sum()) / len(whole)
            else:
                metrics[name] = float(whole.mean(dtype=np.float64))
        return Evaluation(metrics, records=records)
