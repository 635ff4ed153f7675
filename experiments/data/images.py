"""Labelled images through timm's readers: folders, tar files, WebDataset shards, Hugging Face data sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, auto_augment, create_dataset, create_transform
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from errors import DataError
from experiments.data.batch import READABLE, ImageBatch, unreadable
from experiments.data.label_list import labelled_split
from experiments.data.layout import listings
from experiments.data.listing import Listing, list_split, spread
from experiments.data.modes import to_rgb
from experiments.data.order import SampleKey, seed_generators, stream
from experiments.data.replacement import ReplacesUnreadable, naming
from experiments.folder.provenance import listing_fingerprint
from experiments.schema import Config

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class LabelledImages(ImageBatch):
    """classes: int64 [B], or after mixing float [B, num_classes]."""

    classes: Tensor


def collate(samples: Sequence[tuple[Tensor, int, int]]) -> LabelledImages:
    """One batch of (image [3, H, W], class, READABLE or the index of an unreadable image)."""
    images, classes, indices = zip(*samples)
    return LabelledImages(torch.stack(images), unreadable(indices), torch.tensor(classes))


def posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """timm's operation, but keeping no bits gives a black image, as in DeiT's recipe; Pillow 13 refuses that case."""
    return auto_augment.posterize(image, bits_to_keep) if bits_to_keep else image.point(lambda value: 0)  # type: ignore[no-any-return]


auto_augment.NAME_TO_OP.update({name: posterize for name in auto_augment.NAME_TO_OP if name.startswith("Posterize")})


class Images(ReplacesUnreadable[tuple[Image.Image, int]], Dataset[tuple[Tensor, int, int]]):
    """Random access to images by ``SampleKey``: (image [3, H, W], class, index of an unreadable image or -1)."""

    def __init__(self, reader: Any, transform: Transform, seed: int, length: int | None, split: str):
        self.reader, self.transform, self.seed, self.split = reader, transform, seed, split
        self.indices = spread(len(reader), length)
        self.collate = collate

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, int, int]:
        (image, target), _, bad = self.readable(key)
        seed_generators(self.seed, key.epoch, key.index, key.repeat, purpose="sample")
        return self.transform(image), target, bad

    def read(self, index: int) -> tuple[Image.Image, int]:
        """The decoded RGB image and its class. Raises DataError naming the file and what is wrong with it."""
        with naming(self.name(index)):
            source, target, *_ = self.reader[self.indices[index]]
            with source, Image.open(source) as opened:
                return to_rgb(opened), int(target)

    def name(self, index: int) -> str:
        return str(self.reader.filename(self.indices[index], absolute=False))

    def fingerprint(self) -> str:
        return listing_fingerprint([self.name(i) for i in range(len(self))])


class StreamedImages(IterableDataset[tuple[Tensor, int, int]]):
    """Images that can only be read in order (shards, streams); their reader shuffles by (seed, epoch).

    The order is exact again for the same number of workers only: shards are dealt out among them.
    """

    def __init__(self, source: Any, transform: Transform, seed: int, split: str):
        self.source, self.transform, self.seed, self.split = source, transform, seed, split
        self.epoch = 0
        self.collate = collate

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return f"image {index} of the stream"

    def problem(self, index: int) -> str:
        return f"{self.name(index)}: unreadable"

    def at(self, epoch: int) -> StreamedImages:
        self.epoch = epoch
        self.source.set_epoch(epoch)
        reader = self.source.reader
        if hasattr(reader, "worker_seed"):
            # timm's shard reader shuffles with a generator that goes on from epoch to epoch: give each epoch its own
            reader.ds = None
            reader.worker_seed = int(stream(self.seed, epoch, purpose="shards").integers(2**31))
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, int, int]]:
        worker = get_worker_info()
        for number, (image, target) in enumerate(self.source.reader):
            seed_generators(self.seed, self.epoch, worker.id if worker else 0, number, purpose="sample")
            yield self.transform(image.convert("RGB")), int(target), READABLE

    def fingerprint(self) -> str:
        split = getattr(self.source.reader, "split_info", None)
        return listing_fingerprint([str(split)])


def open_images(config: Config, training: bool) -> Images | StreamedImages:
    """The split that is trained on or judged. Raises DataError where it is empty or its classes are not the run's."""
    data = config.data
    split = data.train_split if training else data.eval_split
    transform = train_transform(config) if training else eval_transform(config)
    length = data.train_images if training else data.eval_images
    if listed := _listed(config, training):
        if missing := set(range(len(listed.classes))) - set(listed.targets):
            named = ", ".join(listed.classes[number] for number in sorted(missing)[:3])
            raise DataError(
                f"data.root={data.root}: classes without an image in the {split} split: {named} ({len(missing)} in all)"
            )
        return Images(listed, transform, config.seed, length, split)
    logging.getLogger("timm.data").setLevel(logging.ERROR)  # unreadable files are in our ledger, once
    try:
        source = create_dataset(
            data.reader,
            root=data.root,
            split=split,
            is_training=training,
            batch_size=config.train.batch_size,
            seed=config.seed,
        )
    except (AssertionError, OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"data.root={data.root} (reader {data.reader or 'folder'!r}, split {split}): {reason}"
        ) from None
    if not len(source):
        raise DataError(f"data.root={data.root}: the {split} split holds no images")
    if isinstance(source, IterableDataset):
        return StreamedImages(source, transform, config.seed, split)
    return Images(source.reader, transform, config.seed, length, split)


def _listed(config: Config, training: bool) -> Listing | None:
    """The images of a split in folders or a tar archive. That splits share none is checked where one is trained on."""
    data = config.data
    if data.root is None or data.reader:
        return None
    if training and (both := listings(config)):
        return both[0]
    return list_split(labelled_split(Path(data.root), data.eval_split))


def train_transform(config: Config) -> Transform:
    """DeiT's training augmentation (AAAI Table 9), from timm's parts; returns a normalised [3, H, W] tensor."""
    augment = config.augment
    return create_transform(  # type: ignore[no-any-return]
        (3, *config.data.image_size),
        is_training=True,
        scale=tuple(augment.scale),
        hflip=augment.hflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        re_prob=augment.erase,
        re_mode="pixel",
        re_count=1,
    )


def eval_transform(config: Config) -> Transform:
    """Resize by 1 / crop_pct, centre crop, normalise."""
    interpolation = "bicubic" if config.augment.interpolation == "random" else config.augment.interpolation
    return create_transform(  # type: ignore[no-any-return]
        (3, *config.data.image_size), interpolation=interpolation, crop_pct=config.augment.crop_pct
    )


def pixels(images: Tensor) -> NDArray[np.uint8]:
    """The inverse of the transforms' normalisation: float32 [B, 3, H, W] to uint8 [B, H, W, 3]."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    levels = ((images.float().cpu() * std + mean) * 255).round().clamp(0, 255)
    return levels.byte().permute(0, 2, 3, 1).contiguous().numpy()
