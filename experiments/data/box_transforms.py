"""The augmentation of an image together with the boxes and masks of its objects.

Sizes, limits and draws are those of detection's reference configurations (mmdet; PVT, Swin). All draws are made from
the annotated size before a pixel is read, so that the size of a view is known when batches are put together. Boxes are
x1, y1, x2, y2 in px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.v2.functional as kernels
from torch import Tensor

from experiments.data.mask_transforms import fitted, normalise, resize, resize_mask

STRIDE = 32  # px: sides of a canvas are multiples of it

Size = tuple[int, int]  # height and width in px


class LabelledObjects(NamedTuple):
    """The n objects of an image. boxes: float [n, 4], x1, y1, x2, y2 in px; classes: int64 [n]; masks: uint8
    [n, h, w], 0 and 1, or None for data without masks."""

    boxes: Tensor
    classes: Tensor
    masks: Tensor | None


class BoxView(NamedTuple):
    """What an augmentation does to one image, in this order.

    first: the size before the crop, None where nothing is cropped; crop: top, left, height, width in px of that size;
    size: of the view; flip: from left to right.
    """

    first: Size | None
    crop: tuple[int, int, int, int] | None
    size: Size
    flip: bool


@dataclass(frozen=True)
class BoxAugment:
    """Scales, crops and flips a training image; the published setting of 12 epochs by default.

    short_sides, longest: px; the image is scaled to one of the short sides, drawn, but to no side above the longest,
    with its aspect ratio kept. first_sides: where there are any, every other image, drawn, is scaled to one of these
    first and cropped: height and width of the crop are drawn from the range ``crop``, px, and its place, too. hflip:
    probability. Source: mmdet's ``Resize``, ``RandomCrop`` of type absolute_range and ``AutoAugment``.
    """

    short_sides: tuple[int, ...] = (800,)
    longest: int = 1333
    first_sides: tuple[int, ...] = ()
    crop: tuple[int, int] = (384, 600)
    hflip: float = 0.5

    def view(self, size: Size, rng: np.random.Generator, within: Size | None = None) -> BoxView:
        """All draws for an image of ``size``. within: limits the view to a canvas that was laid out for another image.

        The view has the same size for the same generator and sizes, whatever the image holds.
        """
        first = crop = None
        source = size
        if self.first_sides and rng.integers(2):
            first = fitted(size, (self.longest, _choice(self.first_sides, rng)))
            low, high = self.crop
            height, width = (int(rng.integers(min(side, low), min(side, high) + 1)) for side in first)
            top, left = (int(rng.integers(side - part + 1)) for side, part in zip(first, (height, width)))
            crop, source = (top, left, height, width), (height, width)
        goal = fitted(source, (self.longest, _choice(self.short_sides, rng)))
        flip = bool(rng.random() < self.hflip)
        return BoxView(first, crop, goal if within is None else _shrunk(goal, within), flip)

    def __call__(self, image: Tensor, objects: LabelledObjects, view: BoxView) -> tuple[Tensor, LabelledObjects]:
        """The view of an image, uint8 [3, h, w]: float32 [3, H, W], normalised, and its objects with float32 boxes.

        Boxes are cut off at the edges of the view. Objects of which nothing is left are dropped, which may be all.
        """
        if view.first and view.crop:
            image, objects = _scale(image, objects, view.first)
            image, objects = _crop(image, objects, view.crop)
        image, objects = _scale(image, objects, view.size)
        if view.flip:
            image, objects = _flip(image, objects)
        return normalise(image), _visible(objects._replace(boxes=objects.boxes.float()), view.size)


MULTI_SCALE = BoxAugment(short_sides=tuple(range(480, 801, 32)), first_sides=(400, 500, 600))  # of Swin, 36 epochs


def canvas_of(sizes: Sequence[Size]) -> Size:
    """The smallest canvas with sides that are multiples of STRIDE on which images of all these sizes find room."""
    height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*sizes))
    return height, width


def _choice(sides: tuple[int, ...], rng: np.random.Generator) -> int:
    return sides[int(rng.integers(len(sides)))]


def _shrunk(size: Size, within: Size) -> Size:
    factor = min(1.0, *(most / side for side, most in zip(size, within)))
    height, width = (max(1, int(side * factor)) for side in size)
    return height, width


def _scale(image: Tensor, objects: LabelledObjects, size: Size) -> tuple[Tensor, LabelledObjects]:
    """Masks take the value at or before each place; boxes the factor of each axis, as sizes are whole pixels."""
    down, across = (new / old for new, old in zip(size, image.shape[-2:]))
    boxes = objects.boxes.double() * torch.tensor([across, down, across, down], dtype=torch.float64)
    masks = objects.masks
    if masks is not None:
        masks = resize_mask(masks, size) if len(masks) else masks.new_zeros((0, *size))
    return resize(image, size), objects._replace(boxes=boxes, masks=masks)


def _crop(image: Tensor, objects: LabelledObjects, crop: tuple[int, int, int, int]) -> tuple[Tensor, LabelledObjects]:
    top, left, height, width = crop
    boxes = objects.boxes - objects.boxes.new_tensor([left, top, left, top])
    masks = None if objects.masks is None else kernels.crop(objects.masks, top, left, height, width)
    objects = _visible(objects._replace(boxes=boxes, masks=masks), (height, width))
    return kernels.crop(image, top, left, height, width), objects


def _flip(image: Tensor, objects: LabelledObjects) -> tuple[Tensor, LabelledObjects]:
    left, top, right, bottom = objects.boxes.unbind(1)
    width = image.shape[-1]
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    masks = None if objects.masks is None else objects.masks.flip(-1)
    return kernels.horizontal_flip(image), objects._replace(boxes=boxes, masks=masks)


def _visible(objects: LabelledObjects, size: Size) -> LabelledObjects:
    """Cuts boxes off at the edges of an image and drops objects without a rest."""
    boxes = objects.boxes.clone()
    boxes[:, 0::2].clamp_(0, size[1])
    boxes[:, 1::2].clamp_(0, size[0])
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if kept.all():
        return objects._replace(boxes=boxes)
    masks = None if objects.masks is None else objects.masks[kept]
    return LabelledObjects(boxes[kept], objects.classes[kept], masks)
