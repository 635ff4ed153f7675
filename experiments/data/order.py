"""The order of samples, and every random choice made for one, as a pure function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class SampleKey(NamedTuple):
    """What a data set is asked for: which image, in which epoch, and the how-manieth repeat of it."""

    epoch: int
    index: int  # type: ignore[assignment]  # a tuple's own `index` is not missed
    repeat: int = 0


def stream(*key: int) -> np.random.Generator:
    """An independent random stream for each key, e.g. ``stream(seed, epoch, index)``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class EpochOrder:
    """Batches of sample keys of one epoch; picks up in the middle of it when asked to.

    A shuffled epoch drops its last incomplete batch, an evaluation (``shuffle=False``) drops nothing.
    ``repeats`` is repeated augmentation: each drawn image is seen ``repeats`` times in a row, differently
    augmented, and the epoch still has ``length`` samples (as in timm's RepeatAugSampler, which DeiT's recipe uses).
    """

    def __init__(self, length: int, batch_size: int, seed: int, shuffle: bool, repeats: int = 1):
        self.length, self.batch_size, self.seed, self.shuffle, self.repeats = length, batch_size, seed, shuffle, repeats
        self.epoch = 0
        self.first_batch = 0

    def at(self, epoch: int, first_batch: int = 0) -> EpochOrder:
        self.epoch, self.first_batch = epoch, first_batch
        return self

    def __len__(self) -> int:
        return self.length // self.batch_size if self.shuffle else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        indices = np.arange(self.length)
        if self.shuffle:
            indices = stream(self.seed, self.epoch).permutation(self.length)
        for batch in range(self.first_batch, len(self)):
            places = range(batch * self.batch_size, min((batch + 1) * self.batch_size, self.length))
            yield [SampleKey(self.epoch, int(indices[p // self.repeats]), p % self.repeats) for p in places]
