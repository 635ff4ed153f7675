"""Batches of a data set in the order that (seed, epoch) fixes, loaded by any number of worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from errors import DataError
from experiments.data.order import EpochOrder
from experiments.interrupts import ignore_in_worker

Batch = tuple[Tensor, ...]


class Batches:
    """Training (``shuffle``) or evaluation batches on ``device``; ``len`` is the number of batches of an epoch."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int,
        shuffle: bool,
        workers: int,
        device: torch.device,
        repeats: int = 1,
    ):
        self.dataset, self.device, self.streamed = dataset, device, isinstance(dataset, IterableDataset)
        self.order = EpochOrder(len(dataset), batch_size, seed, shuffle, repeats)
        if shuffle and len(self.order) == 0:
            raise DataError(f"the training set has {len(dataset)} images, fewer than one batch of {batch_size}")
        self.generator = torch.Generator()  # of the workers' own seeds, which shard readers shuffle with
        layout: dict[str, Any] = {"batch_size": batch_size, "drop_last": shuffle}
        self.loader: DataLoader[Batch] = DataLoader(
            dataset,
            **(layout if self.streamed else {"batch_sampler": self.order}),
            num_workers=workers,
            worker_init_fn=ignore_in_worker,
            pin_memory=device.type == "cuda",
            # a streamed data set learns its epoch when its workers start
            persistent_workers=workers > 0 and not self.streamed,
            generator=self.generator,
        )

    def __len__(self) -> int:
        return len(self.order)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        if self.streamed:
            self.dataset.at(epoch)
            self.generator.manual_seed(epoch)
            batches: Iterable[Batch] = islice(self.loader, first_batch, len(self))
        else:
            self.order.at(epoch, first_batch)
            batches = self.loader
        for batch in batches:
            yield tuple(part.to(self.device, non_blocking=True) for part in batch)
