"""The order of samples and all random choices made for them, as pure functions of (seed, epoch, index)."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SampleKey(NamedTuple):
    """Names one sample: which image, in which epoch, and its repeat number within the epoch.

    canvas: height and width in px to which the images of its batch are padded; None where they are of one size anyway.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides the tuple's own `index`, which nobody calls
    repeat: int = 0
    canvas: tuple[int, int] | None = None


def stream(*key: int, purpose: str = "") -> np.random.Generator:
    """An independent random stream for each purpose and key, e.g. ``stream(seed, epoch, purpose="order")``.

    numpy pads a key with zeros: only a purpose, or a last number that is never 0, tells (a, b) from (a, b, 0).
    """
    tag = (zlib.crc32(purpose.encode()), len(key)) if purpose else ()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key, spawn_key=tag)))


def seed_generators(*key: int, purpose: str) -> None:
    """Seeds Python's, numpy's and torch's global generators from one stream.

    Libraries (timm's transforms, Mixup, dropout) draw from these. They are seeded anew before every use, so none of
    their states has to be saved.
    """
    import torch

    a, b, c = (int(number) for number in stream(*key, purpose=purpose).integers(0, 2**32, 3))
    random.seed(a)
    np.random.seed(b)
    torch.manual_seed(c)


def partners(places: NDArray[np.int64], batch_size: int, parts: int) -> NDArray[np.int64]:
    """The places in a batch of the images that mixup and cutmix mix those at ``places`` with.

    Part ``q`` of ``parts`` has the places q, q + parts, q + 2 parts, …: those that a distributed sampler would give to
    process q of ``parts``, so repeated views of an image are in different parts. Within a part, the first image is
    mixed with the last one, the second with the last but one, and so on.
    """
    return batch_size - parts + 2 * (places % parts) - places


class Share(NamedTuple):
    """The share of every training batch that one of several devices has, cut into micro-batches of ``at_once`` images.

    mixed_parts: parts of a batch that are mixed within themselves, 0 where nothing is mixed. An image stays together
    with its partner, so that the same images are mixed on any number of devices.
    """

    rank: int = 0
    devices: int = 1
    at_once: int | None = None
    mixed_parts: int = 1

    def places(self, batch_size: int) -> list[NDArray[np.int64]]:
        """The places in the whole batch of each micro-batch of this device, in ascending order."""
        pairs = self.mixed_parts > 0
        units = -(-batch_size // 2) if pairs else batch_size  # what is dealt out: pairs, or single images
        own = np.array_split(np.arange(units), self.devices)[self.rank]
        units_at_once = len(own) if self.at_once is None else self.at_once // (2 if pairs else 1)
        micro_batches = np.array_split(own, max(1, -(-len(own) // max(1, units_at_once))))
        if not pairs:
            return micro_batches
        # ascending, so that partners mirror each other within a part; the middle of an odd batch is its own partner
        return [np.unique(np.concatenate([own, partners(own, batch_size, self.mixed_parts)])) for own in micro_batches]


class EpochOrder:
    """Batches of sample keys of one epoch, from any batch of it on.

    A shuffled epoch drops its last incomplete batch and yields each batch as the micro-batches of ``share``; an
    evaluation (``shuffle=False``) drops nothing and gives each device a run of neighbouring images.
    ``repeats`` is repeated augmentation: each drawn image is seen ``repeats`` times in a row, differently
    augmented, and the epoch still has ``length`` samples (as in timm's RepeatAugSampler, which DeiT's recipe uses).

    Of a shuffled epoch, groups: int64 [length], the group of each image. The epoch's permutation is divided by groups,
    in order, and each part is cut into whole batches. What is left over of all groups, in the permutation's order,
    makes the last, mixed batches. Then the order of all batches is drawn. canvas: from the keys of a whole batch, of
    all devices, to the ``canvas`` that each of them gets.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        repeats: int = 1,
        share: Share | None = None,
        groups: NDArray[np.int64] | None = None,
        canvas: Callable[[Sequence[SampleKey]], tuple[int, int] | None] | None = None,
    ):
        self.length, self.batch_size, self.seed, self.shuffle, self.repeats = length, batch_size, seed, shuffle, repeats
        self.share = share or Share()
        self.groups, self.canvas = groups, canvas
        self.epoch = 0
        self.first_batch = 0

    def at(self, epoch: int, first_batch: int = 0) -> EpochOrder:
        self.epoch, self.first_batch = epoch, first_batch
        return self

    @property
    def batches(self) -> int:
        """Number of whole batches in an epoch, the same on every device."""
        return self.length // self.batch_size if self.shuffle else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._training() if self.shuffle else self._evaluation()

    def _training(self) -> Iterator[list[SampleKey]]:
        indices = stream(self.seed, self.epoch, purpose="order").permutation(self.length)
        order = None if self.groups is None else self._grouped(self.groups, indices)
        parts = self.share.places(self.batch_size)
        for batch in range(self.first_batch, self.batches):
            places = np.arange(batch * self.batch_size, (batch + 1) * self.batch_size)
            if order is not None:
                places = order[places]
            keys = [SampleKey(self.epoch, int(indices[p // self.repeats]), int(p % self.repeats)) for p in places]
            if self.canvas and (canvas := self.canvas(keys)):
                keys = [key._replace(canvas=canvas) for key in keys]
            for part in parts:
                yield [keys[place] for place in part]

    def _grouped(self, groups: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [batches · batch_size]: the places of an epoch that is not grouped, in the order of a grouped one."""
        places = np.arange(self.length)
        group_at = groups[indices[places // self.repeats]]
        whole, rest = [], []
        for group in np.unique(groups):
            own = places[group_at == group]
            cut = len(own) - len(own) % self.batch_size
            whole.append(own[:cut])
            rest.append(own[cut:])
        left_over = np.sort(np.concatenate(rest))
        ordered = np.concatenate([*whole, left_over])[: self.batches * self.batch_size].reshape(-1, self.batch_size)
        batches = stream(self.seed, self.epoch, purpose="batches").permutation(len(ordered))
        shuffled: NDArray[np.int64] = ordered[batches].reshape(-1)
        return shuffled

    def _evaluation(self) -> Iterator[list[SampleKey]]:
        own = np.array_split(np.arange(self.length), self.share.devices)[self.share.rank]
        for first in range(0, len(own), self.batch_size):
            yield [SampleKey(self.epoch, int(index)) for index in own[first : first + self.batch_size]]
