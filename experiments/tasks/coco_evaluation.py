"""COCO's average precision of objects found in images, computed by pycocotools. Must not import torch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

if TYPE_CHECKING:
    from experiments.data.labelled_boxes import ImageTruth

MOST = 100  # objects found in an image that count, those with the highest scores
KINDS = {"box": "bbox", "mask": "segm"}  # what is compared with the truth → pycocotools' name of it
METRICS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")  # pycocotools' statistics, from the first on
ALL_SIZES = 0  # the first of COCOeval's ranges of areas


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """The objects that a model found in one image, in the order in which it gave them.

    boxes: float64 [n, 4], x, y of the corner, width, height in px; scores: float64 [n]; classes: int64 [n]; masks: of
    each object COCO's run-length encoding, None from models without masks.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]
    masks: tuple[dict[str, Any], ...] | None


def evaluate(judged: Sequence[tuple[ImageTruth, FoundObjects]], class_names: Sequence[str], kind: str) -> COCOeval:
    """pycocotools' evaluation of images with unequal numbers, accumulated, its ``stats`` computed.

    kind: one of KINDS. Images count in the order of their numbers, and equal scores in the order in which the model
    gave them, so that the order of ``judged`` does not matter. Sizes of objects found are those of what is compared.
    """
    judged = sorted(judged, key=lambda pair: pair[0].number)
    images = [{"id": truth.number, "height": truth.size[0], "width": truth.size[1]} for truth, _ in judged]
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names)]
    true = [annotation for truth, _ in judged for annotation in _true(truth)]
    found = [annotation for truth, objects in judged for annotation in _found(truth.number, objects, kind)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sets = (_indexed(images, categories, annotations) for annotations in (true, found))
        evaluation = COCOeval(*sets, KINDS[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def metrics(evaluation: COCOeval) -> dict[str, float]:
    """METRICS in per cent, without those that are undefined since the images have no object of such a size."""
    return {name: 100.0 * float(value) for name, value in zip(METRICS, evaluation.stats) if value >= 0}


def class_precisions(evaluation: COCOeval) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """float64 [K] twice: average precision in per cent of each class, and that at IoU 0.5; NaN without an object."""
    precision = evaluation.eval["precision"][:, :, :, ALL_SIZES, -1]  # [IoU thresholds, recalls, K]
    absent = (precision < 0).all(axis=(0, 1))
    return tuple(  # type: ignore[return-value]
        np.where(absent, np.nan, 100.0 * part.mean(axis=(0, 1))) for part in (precision, precision[:1])
    )


def _true(truth: ImageTruth) -> Iterable[dict[str, Any]]:
    for place, box in enumerate(truth.boxes.tolist()):
        yield {
            "image_id": truth.number,
            "category_id": int(truth.classes[place]),
            "bbox": box,
            "area": float(truth.areas[place]),
            "iscrowd": int(truth.crowd[place]),
            "segmentation": truth.masks[place] if truth.masks is not None else None,
        }


def _found(number: int, objects: FoundObjects, kind: str) -> Iterable[dict[str, Any]]:
    from pycocotools import mask as rle

    areas = rle.area(list(objects.masks or ())) if kind == "mask" else objects.boxes[:, 2] * objects.boxes[:, 3]
    for place, (box, score, kind_of, area) in enumerate(
        zip(objects.boxes.tolist(), objects.scores.tolist(), objects.classes.tolist(), np.asarray(areas).tolist())
    ):
        yield {
            "image_id": number,
            "category_id": kind_of,
            "bbox": box,
            "score": score,
            "area": area,
            "iscrowd": 0,
            "segmentation": objects.masks[place] if objects.masks is not None else None,
        }


def _indexed(images: list[Any], categories: list[Any], annotations: list[dict[str, Any]]) -> COCO:
    # COCOeval marks what is not matched by 0, so that numbers of annotations begin with 1
    numbered = [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)]
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": numbered}
    coco.createIndex()
    return coco
