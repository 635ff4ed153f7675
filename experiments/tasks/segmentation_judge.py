"""How well masks are predicted: intersections and unions of every class, image by image, and the first images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from errors import DataError
from experiments.data.masks import IGNORED, LabelledMasks
from experiments.tasks import Evaluation, Judge
from experiments.tasks.mask_examples import MaskExamples
from results.records import ImageRecord, order_of


class SegmentationJudge(Judge):
    """Counts pixels per image and class; the metrics are those of mmsegmentation's ``mIoU``, ``aAcc`` and ``mAcc``.

    class_names: K names; palette: uint8 [K, 3], colours for a picture of the first images. Ignored pixels count
    nowhere. A class that is neither in the masks nor predicted anywhere in the evaluation set has no IoU, and one that
    is in no mask no accuracy; means over classes leave it out.
    """

    def __init__(self, class_names: Sequence[str], palette: np.ndarray) -> None:
        self.class_names = tuple(class_names)
        self.counts: list[np.ndarray] = []  # of each image int64 [3, K]: pixels that are right, true, predicted
        self.orders: list[int] = []  # of the mask of each image
        self.examples = MaskExamples(self.class_names, palette)

    def add(self, prediction: Iterable[Tensor], batch: LabelledMasks) -> None:
        """prediction: of each image the class of every pixel, integers [h, w] of the size of its mask.

        batch: an evaluation batch, whose images are uint8. Raises DataError for a mask with another class than 0 …
        K - 1 and IGNORED.
        """
        for image, mask, classes in zip(batch.images, batch.masks, prediction, strict=True):
            true, predicted = mask.cpu().numpy(), classes.cpu().numpy()
            self.counts.append(self._pixels(true, predicted))
            self.orders.append(order_of(true))
            self.examples.add(image, true, predicted)

    def _pixels(self, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """int64 [3, K] of two maps [h, w]."""
        if true.shape != predicted.shape:
            raise ValueError(f"a mask of {list(true.shape)} px has a prediction of {list(predicted.shape)} px")
        known = true != IGNORED
        true, predicted = true[known], predicted[known]
        classes = len(self.class_names)
        if true.size and not 0 <= true.min() <= true.max() < classes:
            wrong = true.max() if true.max() >= classes else true.min()
            raise DataError(f"an evaluation mask has class {wrong}: valid are 0 to {classes - 1} and {IGNORED}")
        chosen = (true[true == predicted], true, predicted)
        return np.stack([np.bincount(part, minlength=classes) for part in chosen])

    def merge(self, other: SegmentationJudge) -> None:
        self.counts += other.counts
        self.orders += other.orders
        self.examples.merge(other.examples)

    def evaluation(self) -> Evaluation:
        """Metrics in per cent, the curve ``classes``, and per-image records of ``miou`` and ``pixel_accuracy``.

        ``class_accuracy`` has no record, which would be as large as that of ``miou`` again.
        """
        correct, true, predicted = np.stack(self.counts, axis=1)
        union, order = true + predicted - correct, order_of(np.array(self.orders))
        metrics: dict[str, float] = {}
        records: dict[str, ImageRecord] = {}
        if true.any():
            records["miou"] = ImageRecord.of(correct, union, order)
            records["pixel_accuracy"] = ImageRecord.of(correct.sum(1), true.sum(1), order)
            metrics = {name: record.value() for name, record in records.items()}
            metrics["class_accuracy"] = ImageRecord.of(correct, true).value()
        rows = self._rows(*(part.sum(0) for part in (correct, union, true)))
        return Evaluation(metrics, {"classes": rows}, self.examples.arrays(), records)

    def _rows(self, correct: np.ndarray, union: np.ndarray, pixels: np.ndarray) -> list[dict[str, Any]]:
        """One row per class of counts int64 [K]; ``iou`` and ``accuracy`` in per cent, None where nothing counts."""
        return [
            {
                "name": name,
                "intersection": right,
                "union": either,
                "iou": 100.0 * right / either if either else None,
                "accuracy": 100.0 * right / true if true else None,
                "pixels": true,
            }
            for name, right, either, true in zip(self.class_names, correct.tolist(), union.tolist(), pixels.tolist())
        ]
