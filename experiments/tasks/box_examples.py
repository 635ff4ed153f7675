"""The first images of an evaluation set with their objects and what was found in them, small enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from experiments.tasks.coco_evaluation import FoundObjects
from experiments.tasks.mask_examples import BLANK, EXAMPLES, LONGEST

if TYPE_CHECKING:
    from experiments.data.labelled_boxes import ImageTruth

LEAST = 0.05  # score of a found object that is kept
MOST = 50  # found objects kept of an image
NUMBERS = 254  # objects of an image that a map of masks tells apart
MATCHING = 0.5  # IoU of boxes from which on a found object is the true one
NOTHING = -1  # in place of the object that a found one matches


class BoxExamples:
    """Keeps the first EXAMPLES images, downscaled where a side is longer than LONGEST."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._kept: list[dict[str, np.ndarray]] = []  # of each image the arrays of ``arrays`` without its place

    def add(self, image: Tensor, truth: ImageTruth, found: FoundObjects) -> None:
        """image: uint8 [3, h, w]."""
        if len(self._kept) >= EXAMPLES:
            return
        height, width = truth.size
        scale = min(1.0, LONGEST / max(height, width))
        size = [max(1, round(side * scale)) for side in (height, width)]
        best = np.argsort(-found.scores, kind="stable")
        best = best[found.scores[best] >= LEAST][:MOST]
        boxes, classes = found.boxes[best], found.classes[best]
        scales = np.array([size[1] / width, size[0] / height] * 2)
        kept = {
            "image": F.resize_image(image.cpu(), size, antialias=True).permute(1, 2, 0).numpy(),
            "truth_boxes": corners(truth.boxes) * scales,
            "truth_classes": truth.classes,
            "truth_crowd": truth.crowd,
            "prediction_boxes": corners(boxes) * scales,
            "prediction_classes": classes,
            "prediction_scores": found.scores[best],
            "prediction_truths": matches(truth, boxes, classes),
        }
        if truth.masks is not None and found.masks is not None:
            kept["truth_masks"] = _map(truth.masks[:NUMBERS], truth.size, size)
            kept["prediction_masks"] = _map([found.masks[place] for place in best], truth.size, size)
        self._kept.append(kept)

    def merge(self, other: BoxExamples) -> None:
        self._kept = (self._kept + other._kept)[:EXAMPLES]

    def arrays(self) -> dict[str, np.ndarray]:
        """Of N images with M objects and P found ones in all, of which the best of an image come first.

        images uint8 [N, H, W, 3] of the largest height and width, white beside a smaller image; sizes int32 [N, 2],
        height and width of each; truth_images, truth_classes int32 [M], truth_boxes float32 [M, 4] as x1, y1, x2, y2 in
        px, truth_crowd bool [M]; prediction_images, prediction_classes int32 [P], prediction_boxes float32 [P, 4],
        prediction_scores float32 [P], prediction_truths int32 [P], the place among all objects of the one that is
        matched, or NOTHING; class_names [K]. Of models with masks also truth_masks and prediction_masks uint8
        [N, H, W]: 0, or at which place among those of the image, from 1 on, the object is that is seen there.
        """
        if not self._kept:
            return {}
        sizes = np.array([kept["image"].shape[:2] for kept in self._kept], np.int32)
        height, width = sizes.max(axis=0)

        def padded(name: str, blank: int) -> np.ndarray:
            first = self._kept[0][name]
            pixels = np.full((len(self._kept), height, width, *first.shape[2:]), blank, np.uint8)
            for whole, kept, (rows, columns) in zip(pixels, self._kept, sizes):
                whole[:rows, :columns] = kept[name]
            return pixels

        def listed(name: str, kind: type) -> np.ndarray:
            return np.concatenate([kept[name] for kept in self._kept]).astype(kind)

        def owners(name: str) -> np.ndarray:
            return np.repeat(np.arange(len(self._kept)), [len(kept[name]) for kept in self._kept]).astype(np.int32)

        arrays = {"images": padded("image", BLANK), "sizes": sizes, "class_names": np.array(self._class_names)}
        for part in ("truth", "prediction"):
            arrays[f"{part}_images"] = owners(f"{part}_classes")
            arrays[f"{part}_classes"] = listed(f"{part}_classes", np.int32)
            arrays[f"{part}_boxes"] = listed(f"{part}_boxes", np.float32)
            if all(f"{part}_masks" in kept for kept in self._kept):
                arrays[f"{part}_masks"] = padded(f"{part}_masks", 0)
        arrays["truth_crowd"] = listed("truth_crowd", np.bool_)
        arrays["prediction_scores"] = listed("prediction_scores", np.float32)
        first = np.searchsorted(arrays["truth_images"], arrays["prediction_images"])  # objects in the images before
        inside = listed("prediction_truths", np.int32)
        arrays["prediction_truths"] = np.where(inside == NOTHING, NOTHING, inside + first).astype(np.int32)
        return arrays


def matches(truth: ImageTruth, boxes: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [n]: the object that each found one matches as COCO decides at an IoU of MATCHING, or NOTHING.

    boxes, classes: of the found ones, the best first, [n, 4] as x, y, width, height, and [n]. In turn each takes the
    free object of its class with the highest IoU; a crowd stays free, and is taken where there is nothing else.
    """
    found = np.full(len(boxes), NOTHING, np.int64)
    crowd = truth.crowd.tolist()
    free = np.ones(len(crowd), bool)
    candidates = np.argsort(truth.crowd, kind="stable").tolist()
    if not len(boxes) or not candidates:
        return found
    overlaps = np.asarray(rle.iou(boxes, truth.boxes, truth.crowd.astype(np.uint8)))
    for place, overlap in enumerate(overlaps.tolist()):
        highest, chosen = MATCHING, NOTHING
        for candidate in candidates:
            if crowd[candidate] and chosen != NOTHING and not crowd[chosen]:
                break
            if free[candidate] and truth.classes[candidate] == classes[place] and overlap[candidate] >= highest:
                highest, chosen = overlap[candidate], candidate
        found[place] = chosen
        if chosen != NOTHING:
            free[chosen] = crowd[chosen]
    return found


def corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 4] as x, y, width, height to x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def widths_and_heights(boxes: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """[n, 4] as x1, y1, x2, y2 to x, y, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)


def _map(masks: Sequence[dict[str, Any]], size: tuple[int, int], smaller: list[int]) -> NDArray[np.uint8]:
    """uint8 [h, w] of the smaller size: 0, or the number of the first mask there, counted from 1."""
    numbers = np.zeros(size, np.uint8)
    for number, mask in reversed([*enumerate(masks, 1)]):
        numbers[rle.decode(mask) > 0] = number
    rows, columns = (
        np.minimum((np.arange(few) + 0.5) * many / few, many - 1).astype(int) for few, many in zip(smaller, size)
    )
    chosen: NDArray[np.uint8] = numbers[rows[:, None], columns]
    return chosen
