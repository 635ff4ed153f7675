"""Images whose objects are annotated, read from folders in COCO's layout (``experiments.data.box_layout``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from errors import DataError
from experiments.data.batch import READABLE, unreadable
from experiments.data.box_layout import BoxListing, box_listings, judged_boxes
from experiments.data.box_transforms import BoxAugment, BoxView, LabelledObjects, canvas_of
from experiments.data.labelled_boxes import ImageTruth, LabelledBoxes
from experiments.data.listing import printable, spread
from experiments.data.modes import to_rgb
from experiments.data.order import SampleKey, stream
from experiments.data.outlines import RunLengths, areas_of, decoded
from experiments.data.palette import palette
from experiments.data.replacement import ReplacesUnreadable, naming
from experiments.schema import Config


class BoxSample(NamedTuple):
    """An image with what is to be found in it.

    Of training, image: float32 [3, H, W], padded; size: of the image without the padding; objects: in its px; bad: the
    index of an unreadable image that this one replaces, or -1. Of evaluation, image: uint8 [3, h, w]; truth.
    """

    image: Tensor
    size: tuple[int, int]
    objects: LabelledObjects | None
    truth: ImageTruth | None
    bad: int = READABLE


class Boxes(ReplacesUnreadable[Tensor], Dataset[BoxSample]):
    """Random access to images with their objects by ``SampleKey``.

    With ``augment``, an image is augmented by draws from (seed, epoch, index, repeat) and padded with zeros to the
    key's canvas, or, without one, to multiples of 32; without ``augment``, it is as it was read. An image that
    replaces an unreadable one is made to fit the canvas. with_masks: whether samples have masks. Raises DataError where
    the data have none.
    """

    def __init__(
        self,
        listing: BoxListing,
        augment: BoxAugment | None,
        seed: int,
        length: int | None = None,
        split: str = "",
        with_masks: bool = False,
    ):
        if with_masks and not listing.has_masks:
            raise DataError(f"{listing.file.path}: boxes without masks: choose a detector of boxes alone")
        self.listing, self.augment, self.seed, self.split = listing, augment, seed, split
        self.has_masks = with_masks
        self.indices = spread(len(listing), length)
        self.sizes: NDArray[np.int64] = listing.sizes[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.listing.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        return palette(len(self.class_names))

    def __getitem__(self, key: SampleKey) -> BoxSample:
        image, index, bad = self.readable(key)
        if self.augment is None:
            return BoxSample(image, self.size(index), None, self.truth(index), bad)
        canvas = key.canvas or canvas_of([self.size_of(key)])
        view = self._view(key, self.size(index), self.augment, canvas)
        image, objects = self.augment(image, self.objects(index), view)
        return _padded(BoxSample(image, view.size, objects, None, bad), canvas)

    def read(self, index: int) -> Tensor:
        """The image, uint8 [3, h, w]. Raises DataError naming the file that cannot be read or has another size."""
        images, number = self.listing.images, self.indices[index]
        with naming(self.name(index)), images.open(number) as source, Image.open(source) as opened:
            pixels = np.array(to_rgb(opened))
        height, width = self.size(index)
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"{printable(self.name(index))} has {pixels.shape[1]}x{pixels.shape[0]} px, "
                f"{self.listing.file.path.name} says {width}x{height}"
            )
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def size(self, index: int) -> tuple[int, int]:
        """Annotated height and width in px."""
        height, width = self.sizes[index].tolist()
        return height, width

    def size_of(self, key: SampleKey) -> tuple[int, int]:
        """Height and width in px of a training sample before it is padded, without reading it."""
        assert self.augment  # of training
        return self._view(key, self.size(key.index), self.augment).size

    def objects(self, index: int) -> LabelledObjects:
        """What training learns from, in px of the original image."""
        objects, row = self.listing.file.objects, int(self.listing.rows[self.indices[index]])
        own = np.array([number for number in objects.of(row) if objects.usable[number]], np.int64)
        corners = objects.boxes[own]
        corners[:, 2:] += corners[:, :2]
        masks = None
        if self.has_masks:
            size = self.size(index)
            masks = torch.from_numpy(decoded(self._encoded(own, size), size))
        return LabelledObjects(torch.from_numpy(corners), torch.from_numpy(objects.classes[own]), masks)

    def truth(self, index: int) -> ImageTruth:
        """Everything annotated in an image; ``number`` is the id of the image in the file of annotations."""
        file, row, size = self.listing.file, int(self.listing.rows[self.indices[index]]), self.size(index)
        own = np.arange(file.objects.first[row], file.objects.first[row + 1])
        boxes, areas = file.objects.boxes[own], file.objects.areas[own]
        masks = tuple(self._encoded(own, size)) if self.has_masks else None
        if np.isnan(areas).any():  # none is stated
            areas = np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3] if masks is None else areas_of(masks), areas)
        return ImageTruth(
            number=int(file.ids[row]),
            size=size,
            boxes=boxes,
            classes=file.objects.classes[own],
            areas=areas,
            crowd=file.objects.crowd[own],
            masks=masks,
        )

    def batch_groups(self) -> NDArray[np.int64] | None:
        """1 for images wider than high, else 0, so that batches need little padding. Source: mmdet."""
        return None if self.augment is None else (self.sizes[:, 1] > self.sizes[:, 0]).astype(np.int64)

    def batch_canvas(self, keys: Sequence[SampleKey]) -> tuple[int, int] | None:
        return None if self.augment is None else canvas_of([self.size_of(key) for key in keys])

    def collate(self, samples: Sequence[BoxSample]) -> LabelledBoxes:
        images, sizes, objects, truths, indices = zip(*samples)
        bad, annotated = unreadable(indices), torch.tensor(sizes, dtype=torch.int64)
        if self.augment is None:
            return LabelledBoxes(images, bad, annotated, (), (), (), list(truths))
        if len({image.shape for image in images}) > 1:  # of keys without a canvas
            canvas = canvas_of([image.shape[1:] for image in images])
            images, _, objects, *_ = zip(*(_padded(sample, canvas) for sample in samples))
        boxes, classes, masks = zip(*objects)
        return LabelledBoxes(
            torch.stack(images), bad, annotated, boxes, classes, masks if self.has_masks else (), truths=[]
        )

    def name(self, index: int) -> str:
        return f"{self.listing.images.split.path.name}/{self.listing.images.names[self.indices[index]]}"

    def fingerprint(self) -> str:
        return self.listing.fingerprint(self.indices)

    def _view(
        self, key: SampleKey, size: tuple[int, int], augment: BoxAugment, canvas: tuple[int, int] | None = None
    ) -> BoxView:
        rng = stream(self.seed, key.epoch, key.index, key.repeat, purpose="boxes")
        return augment.view(size, rng, within=canvas)

    def _encoded(self, numbers: NDArray[np.int64], size: tuple[int, int]) -> list[RunLengths]:
        outlines = self.listing.file.objects.outlines
        assert outlines  # or it has no masks
        return [outlines.encoded(int(number), size) for number in numbers]


def open_boxes(config: Config, training: bool, augment: BoxAugment | None = None, with_masks: bool = False) -> Boxes:
    """The split that is trained on, with ``augment`` or its defaults, or the one that is judged, of a checked config.

    Raises DataError where it cannot be listed or shares an image that is to be trained on with the other, and where
    masks are asked for and there are none.
    """
    data = config.data
    if training:
        train, _ = box_listings(config)
        return Boxes(train, augment or BoxAugment(), config.seed, data.train_images, data.train_split, with_masks)
    return Boxes(judged_boxes(config), None, config.seed, data.eval_images, data.eval_split, with_masks)


def _padded(sample: BoxSample, canvas: tuple[int, int]) -> BoxSample:
    """With zeros below and on the right of the image and of its masks."""
    height, width = sample.image.shape[-2:]
    missing = (0, canvas[1] - width, 0, canvas[0] - height)
    objects = sample.objects
    if objects is not None and objects.masks is not None:
        objects = objects._replace(masks=pad(objects.masks, missing))
    return sample._replace(image=pad(sample.image, missing), objects=objects)
