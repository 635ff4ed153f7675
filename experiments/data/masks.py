"""Images whose pixels are labelled, read from folders in ADE20K's layout (``experiments.data.mask_layout``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from errors import DataError
from experiments.data.batch import ImageBatch, unreadable
from experiments.data.listing import Listing, printable, spread
from experiments.data.mask_layout import IGNORED as IGNORED
from experiments.data.mask_layout import MaskListing, judged_masks, mask_listings
from experiments.data.mask_transforms import MaskAugment
from experiments.data.modes import SIXTEEN_BITS, to_rgb
from experiments.data.order import SampleKey, stream
from experiments.data.palette import palette
from experiments.data.replacement import ReplacesUnreadable, naming
from experiments.schema import Config

MASK_MODES = ("L", "P", "I", *SIXTEEN_BITS)  # whose values are labels: grey levels, places in a palette, integers


@dataclass(frozen=True)
class LabelledMasks(ImageBatch):
    """Of training, images float32 [B, 3, H, W], normalised, and masks int64 [B, H, W].

    Of evaluation, tuples of images uint8 [3, h, w] and of masks int64 [h, w], each pair of its own, original size.
    A mask has classes 0, 1, … and IGNORED.
    """

    masks: Any


class Masks(ReplacesUnreadable[tuple[Tensor, Tensor]], Dataset[tuple[Tensor, Tensor, int]]):
    """Random access to pairs by ``SampleKey``: (image, mask, index of an unreadable pair or -1).

    With ``augment``, which makes all images one size, a pair is augmented by draws from (seed, epoch, index, repeat);
    without it, a pair is as it was read. A pair without any label is read as it is: training learns nothing from it,
    and no metric counts it.
    """

    def __init__(
        self, listing: MaskListing, augment: MaskAugment | None, seed: int, length: int | None = None, split: str = ""
    ):
        self.listing, self.augment, self.seed, self.split = listing, augment, seed, split
        self.indices = spread(len(listing), length)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.listing.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        return palette(len(self.class_names))

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor, int]:
        (image, mask), _, bad = self.readable(key)
        if self.augment is None:
            return image, mask.long(), bad
        rng = stream(self.seed, key.epoch, key.index, key.repeat, purpose="masks")
        return *self.augment(image, mask, rng), bad

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, h, w], and its label map, uint8 [h, w]. Raises DataError naming the file at fault."""
        number = self.indices[index]
        images, masks = self.listing.images, self.listing.masks
        image = _read(images, number, "image", lambda opened: np.array(to_rgb(opened)))
        mask = _read(masks, number, "mask", lambda opened: labels(opened, len(self.class_names)))
        if image.shape[:2] != mask.shape:
            (height, width), (rows, columns) = image.shape[:2], mask.shape
            raise DataError(
                f"{printable(_name(images, number))} has {width}x{height} px, its mask "
                f"{printable(_name(masks, number))} {columns}x{rows}"
            )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask)

    def collate(self, samples: Sequence[tuple[Tensor, Tensor, int]]) -> LabelledMasks:
        images, masks, indices = zip(*samples)
        if self.augment is None:
            return LabelledMasks(images, unreadable(indices), masks)
        return LabelledMasks(torch.stack(images), unreadable(indices), torch.stack(masks))

    def name(self, index: int) -> str:
        return _name(self.listing.images, self.indices[index])

    def fingerprint(self) -> str:
        return self.listing.fingerprint(self.indices)


def open_masks(config: Config, training: bool, augment: MaskAugment | None = None) -> Masks:
    """The split that is trained on, with ``augment`` or its defaults, or the one that is judged, of a checked config.

    Raises DataError where it cannot be listed, or shares an image that is to be trained on with the other.
    """
    data = config.data
    if training:
        train, _ = mask_listings(config)
        return Masks(train, augment or MaskAugment(), config.seed, data.train_images, data.train_split)
    return Masks(judged_masks(config), None, config.seed, data.eval_images, data.eval_split)


def labels(image: Image.Image, classes: int) -> NDArray[np.uint8]:
    """The label map of an opened mask, uint8 [h, w]: label 0 becomes IGNORED, labels from 1 on classes from 0 on.

    Raises ValueError for what is no PNG, for colours, and for labels that no class has.
    """
    if image.format != "PNG":
        raise ValueError(f"{image.format} and not PNG, which keeps every label")
    if image.mode not in MASK_MODES:
        raise ValueError(f"mode {image.mode}: save labels as grey levels or as a palette's numbers, in one channel")
    found = np.asarray(image)
    for label in (found.min(), found.max()):
        if not 0 <= label <= classes:
            raise ValueError(f"label {label}, but there are {classes} classes")
    mask: NDArray[np.uint8] = np.array([IGNORED, *range(classes)], np.uint8)[found]
    return mask


def _read(
    listing: Listing, number: int, kind: str, decode: Callable[[Image.Image], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    with naming(_name(listing, number), kind), listing.open(number) as source, Image.open(source) as opened:
        return decode(opened)


def _name(listing: Listing, number: int) -> str:
    """A file below the root: ``images/SPLIT/NAME``."""
    folder = listing.split.path
    return f"{folder.parent.name}/{folder.name}/{listing.names[number]}"
