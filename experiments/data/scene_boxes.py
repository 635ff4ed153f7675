"""The drawn data set ``scenes`` as detection data: every bar is an object with its class, box and mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from errors import ConfigError
from experiments.data.batch import unreadable
from experiments.data.box_transforms import LabelledObjects
from experiments.data.boxes import BoxSample
from experiments.data.labelled_boxes import ImageTruth, LabelledBoxes
from experiments.data.order import SampleKey
from experiments.data.outlines import encoded
from experiments.data.scenes import Scene, Scenes
from experiments.data.token_images import TokenImages

VERSION = 1  # of the objects: raise it with any change that changes a box, a class or a mask


class DrawnBoxes(Dataset[BoxSample]):
    """The images of ``scenes``, bit by bit, each with its bars as objects.

    Images of training are float32 [3, h, w], normalised as the drawn data set does, and already multiples of 32 px;
    those of evaluation uint8 [3, h, w] with an ``ImageTruth``, whose number is the index. Both are functions of what
    the drawn images are functions of (``TokenImages``). A pixel belongs to the bar around its centre; a box is the
    smallest around the pixels of its bar. with_masks: whether samples have masks. palette: uint8 [K, 3].
    """

    def __init__(self, scenes: Scenes, with_masks: bool = True) -> None:
        self.scenes, self.has_masks = scenes, with_masks
        self.class_names: tuple[str, ...] = scenes.labelling.class_names
        self.palette: NDArray[np.uint8] = scenes.labelling.palette

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: SampleKey) -> BoxSample:
        scene = self.scenes.scene(key)
        objects = objects_of(scene)
        if self.scenes.split == "train":
            image = self.scenes.labelling.normalise(scene.image)
            return BoxSample(image, self.scenes.size, objects if self.has_masks else objects._replace(masks=None), None)
        image = torch.from_numpy(np.ascontiguousarray(scene.image.transpose(2, 0, 1)))
        return BoxSample(image, self.scenes.size, None, self._truth(key.index, objects))

    def collate(self, samples: Sequence[BoxSample]) -> LabelledBoxes:
        images, sizes, objects, truths, _ = zip(*samples)
        bad, annotated = unreadable(()), torch.tensor(sizes, dtype=torch.int64)
        if self.scenes.split != "train":
            return LabelledBoxes(images, bad, annotated, (), (), (), list(truths))
        boxes, classes, masks = zip(*objects)
        return LabelledBoxes(
            torch.stack(images), bad, annotated, boxes, classes, masks if self.has_masks else (), truths=[]
        )

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def problem(self, index: int) -> str:
        return self.scenes.problem(index)

    def fingerprint(self) -> str:
        """Hash of what images and objects are drawn from, the same for runs of every seed."""
        recipe = {"boxes": VERSION, "classes": self.class_names, "images": self.scenes.fingerprint()}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]

    def _truth(self, index: int, objects: LabelledObjects) -> ImageTruth:
        corners, masks = objects.boxes.double().numpy(), objects.masks
        assert masks is not None
        return ImageTruth(
            number=index,
            size=self.scenes.size,
            boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
            classes=objects.classes.numpy(),
            areas=masks.sum((1, 2)).double().numpy(),
            crowd=np.zeros(len(masks), np.bool_),
            masks=encoded(masks.numpy()) if self.has_masks else None,
        )


def drawn_boxes(images: TokenImages, with_masks: bool = True) -> DrawnBoxes:
    """The objects of a drawn data set. Raises ConfigError for one of another kind: probes have tiles, not objects."""
    if isinstance(images, Scenes):
        return DrawnBoxes(images, with_masks)
    raise ConfigError(f"{images.plural} have no boxes: of the drawn data sets, data.dataset=scenes has objects")


def objects_of(scene: Scene) -> LabelledObjects:
    """The bars of a scene in their order. boxes: float32 [n, 4]; classes: int64 [n]; masks: uint8 [n, h, w]."""
    numbers = np.arange(len(scene.classes))[:, None, None]
    masks = scene.pixel_bars == numbers
    boxes = np.array([_tight(mask) for mask in masks], np.float32)
    return LabelledObjects(_tensor(boxes), _tensor(scene.classes), _tensor(masks.astype(np.uint8)))


def _tight(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 in px of the smallest box around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
