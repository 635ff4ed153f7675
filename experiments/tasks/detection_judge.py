"""How well objects are found: COCO's average precision, what each image does to it, and the first images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle
from torch import Tensor

from errors import DataError
from experiments.data.labelled_boxes import Detections, ImageTruth, LabelledBoxes
from experiments.tasks import Evaluation, Judge
from experiments.tasks.box_examples import BoxExamples, widths_and_heights
from experiments.tasks.coco_evaluation import KINDS, MOST, FoundObjects, class_precisions, evaluate, metrics
from experiments.tasks.leave_one_out import precision_without
from results.records import InfluenceRecord, Record, order_of


class DetectionJudge(Judge):
    """Keeps what was found in each image; the metrics are pycocotools' for boxes, and for masks where there are any.

    class_names: K names. Of an image the MOST objects with the highest scores count.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.judged: dict[int, tuple[ImageTruth, FoundObjects]] = {}  # by number, in the order of the evaluation set
        self.examples = BoxExamples(self.class_names)

    def add(self, prediction: Iterable[Detections], batch: LabelledBoxes) -> None:
        """prediction: what was found in each image of an evaluation batch, whose images are uint8.

        Raises DataError for an image that was judged before and for an object of another class than 0 … K - 1, and
        ValueError for detections that are not of the image.
        """
        for image, truth, detections in zip(batch.images, batch.truths, prediction, strict=True):
            self._refuse_double(truth.number)
            if (wrong := self._unknown(truth.classes)) is not None:
                raise DataError(
                    f"evaluation image {truth.number} has class {wrong}: valid are 0 to {len(self.class_names) - 1}"
                )
            found = self._kept(truth, detections)
            self.judged[truth.number] = truth, found
            self.examples.add(image, truth, found)

    def merge(self, other: DetectionJudge) -> None:
        for number in other.judged:
            self._refuse_double(number)
        self.judged |= other.judged
        self.examples.merge(other.examples)

    def evaluation(self) -> Evaluation:
        """Metrics in per cent, the curve ``classes``, and per-image records of ``box_ap`` and ``mask_ap``.

        A metric that is undefined, since no image has an object of such a size, is left out.
        """
        judged = list(self.judged.values())
        values: dict[str, float] = {}
        records: dict[str, Record] = {}
        rows = self._rows()
        for kind in self._kinds():
            result = evaluate(judged, self.class_names, kind)
            values |= {f"{kind}_{name}": value for name, value in metrics(result).items()}
            if f"{kind}_ap" in values:
                without = precision_without(result)[self._places()]
                records[f"{kind}_ap"] = InfluenceRecord.jackknife(values[f"{kind}_ap"], without, self._order())
            for name, precisions in zip((f"{kind}_ap", f"{kind}_ap50"), class_precisions(result)):
                for row, precision in zip(rows, precisions.tolist()):
                    row[name] = None if np.isnan(precision) else precision
        return Evaluation(values, {"classes": rows}, self.examples.arrays(), records)

    def _kept(self, truth: ImageTruth, detections: Detections) -> FoundObjects:
        """The best MOST of them, without tensors. Raises ValueError."""
        boxes, scores, classes = (
            tensor.detach().cpu().numpy() for tensor in (detections.boxes, detections.scores, detections.classes)
        )
        if (wrong := self._unknown(classes)) is not None:
            raise ValueError(f"an object of class {wrong} was found: there are {len(self.class_names)} classes")
        best = np.argsort(-scores, kind="stable")[:MOST]
        corners = boxes[best].astype(np.float64)
        masks = None if detections.masks is None else self._encoded(truth, detections.masks, best)
        return FoundObjects(
            widths_and_heights(corners),
            scores[best].astype(np.float64),
            classes[best].astype(np.int64),
            masks,
        )

    def _encoded(self, truth: ImageTruth, masks: Tensor, places: np.ndarray) -> tuple[dict[str, Any], ...]:
        """Masks as run lengths. Raises ValueError for masks of another size, DataError where no mask is true."""
        if tuple(masks.shape[1:]) != tuple(truth.size):
            raise ValueError(f"an image of {list(truth.size)} px has masks of {list(masks.shape[1:])} px")
        if truth.masks is None:
            raise DataError(f"evaluation image {truth.number} has no masks, which this detector predicts")
        pixels = masks.detach().cpu().numpy()
        return tuple(rle.encode(np.asfortranarray(pixels[place], np.uint8)) for place in places)

    def _unknown(self, classes: np.ndarray) -> int | None:
        """The first class that does not exist."""
        return next((number for number in classes.tolist() if not 0 <= number < len(self.class_names)), None)

    def _refuse_double(self, number: int) -> None:
        if number in self.judged:
            raise DataError(f"evaluation image {number} is judged twice: numbers are unique in a data set")

    def _kinds(self) -> list[str]:
        if not self.judged:
            return []
        masks = {found.masks is not None for _, found in self.judged.values()}
        if len(masks) > 1:
            raise ValueError("masks were found in some images, and in others boxes alone")
        return [kind for kind in KINDS if kind == "box" or masks == {True}]

    def _places(self) -> np.ndarray:
        """int64 [N]: at which place each image, in the order of the evaluation set, is by its number."""
        return np.searchsorted(sorted(self.judged), list(self.judged))

    def _order(self) -> int:
        """A checksum of the images, objects and classes that there are to find."""
        numbers = [
            part
            for truth, _ in self.judged.values()
            for part in (
                [truth.number, len(truth.classes)],
                truth.boxes.astype(np.float64).view(np.int64).ravel(),
                truth.classes,
                truth.crowd,
            )
        ]
        return order_of(np.concatenate(numbers).astype(np.int64))

    def _rows(self) -> list[dict[str, Any]]:
        """One row per class with the number of its objects, crowds left out."""
        objects = np.zeros(len(self.class_names), np.int64)
        for truth, _ in self.judged.values():
            objects += np.bincount(truth.classes[~truth.crowd], minlength=len(objects))
        return [{"name": name, "objects": count} for name, count in zip(self.class_names, objects.tolist())]
