"""The types of detection: batches of images with boxes, what there is to find in an image, and what a model found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.batch import ImageBatch


@dataclass(frozen=True, eq=False)
class ImageTruth:
    """Everything annotated in an evaluation image of N objects, as COCO's evaluation takes it.

    number: of the image in its data set, unique there; size: height and width in px; boxes: float64 [N, 4], x, y of the
    corner, width, height in px; classes: int64 [N]; areas: float64 [N] in px, of the mask where there are masks; crowd:
    bool [N], objects that may be found any number of times without being counted; masks: of each object COCO's
    run-length encoding (``size`` and the bytes ``counts``), None for data without masks.
    """

    number: int
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    masks: tuple[dict[str, Any], ...] | None


@dataclass(frozen=True)
class LabelledBoxes(ImageBatch):
    """Images with what is to be found in them; n objects in each, which may be 0.

    Of training, images are float32 [B, 3, H, W], normalised, with zeros below and on the right of the smaller ones;
    sizes: int64 [B, 2], height and width of each before it was padded; boxes: a tuple of float32 [n, 4], x1, y1, x2, y2
    in px of the padded image; classes: a tuple of int64 [n], from 0 on; masks: a tuple of uint8 [n, H, W], 0 and 1, or
    an empty tuple for data without masks; truths is empty.

    Of evaluation, images are a tuple of uint8 [3, h, w] in their original sizes, sizes are those, truths has one entry
    for each image, and boxes, classes and masks are empty tuples.
    """

    sizes: Tensor
    boxes: tuple[Tensor, ...]
    classes: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    truths: list[ImageTruth]  # a list, since tuples of batches are moved to devices


@dataclass(frozen=True)
class Detections:
    """What a model found in one image, the best first.

    boxes: float32 [n, 4], x1, y1, x2, y2 in px of the original image; scores: float32 [n], in 0 … 1; classes: int64
    [n]; masks: bool [n, h, w] of the original image, or None from detectors without masks.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None = None
