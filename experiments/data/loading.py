"""Batches of a data set in the order that (seed, epoch) fixes, loaded by any number of worker processes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from errors import DataError
from experiments.data.batch import Batch
from experiments.data.order import EpochOrder, Share
from experiments.interrupts import ignore_in_worker


class Batches:
    """Training (``shuffle``) or evaluation batches on ``device``, of which this process has its ``share``.

    ``len`` is the number of batches of an epoch, counted over all devices.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        seed: int,
        shuffle: bool,
        workers: int,
        device: torch.device,
        repeats: int = 1,
        share: Share | None = None,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        self.dataset, self.device, self.streamed = dataset, device, isinstance(dataset, IterableDataset)
        self.memory_format = memory_format
        share = share or Share()
        if self.streamed and (share.devices > 1 or share.at_once is not None):
            raise DataError(
                "shards and streams are read by one device with the whole batch at once: "
                "use class folders or a tar file for machine.devices or machine.batch_per_device"
            )
        self.order = EpochOrder(len(dataset), batch_size, seed, shuffle, repeats, share)
        if shuffle and len(self) == 0:
            raise DataError(f"the training set has {len(dataset)} images, fewer than one batch of {batch_size}")
        self.places = share.places(batch_size) if shuffle else []
        self.generator = torch.Generator()  # of the workers' own seeds, which shard readers shuffle with
        layout: dict[str, Any] = {"batch_size": batch_size, "drop_last": shuffle}
        self.loader: DataLoader[Batch] = DataLoader(
            dataset,
            **(layout if self.streamed else {"batch_sampler": self.order}),
            collate_fn=dataset.collate,
            num_workers=workers,
            worker_init_fn=ignore_in_worker,
            pin_memory=device.type == "cuda",
            # a streamed data set learns its epoch when its workers start
            persistent_workers=workers > 0 and not self.streamed,
            generator=self.generator,
        )
        self._iterator: Iterator[Batch] = iter(())

    def __len__(self) -> int:
        return self.order.batches

    def steps(self, epoch: int, first: int = 0) -> Generator[list[Batch], None, None]:
        """The micro-batches of each step of an epoch, from step ``first`` of it on."""
        batches = self._load(epoch, first)
        for _ in range(first, len(self)):
            step = list(islice(batches, len(self.places)))
            if len(step) < len(self.places):
                raise DataError(f"the training set holds fewer than the {len(self.dataset)} images it says it has")
            yield step

    def evaluation(self) -> Iterator[Batch]:
        """Every image of this process's share once."""
        return self._load(0, 0)

    def close(self) -> None:
        """Ends the loader processes. Python would wait for them forever, since they ignore its SIGTERM."""
        if hasattr(self._iterator, "_shutdown_workers"):
            self._iterator._shutdown_workers()

    def _load(self, epoch: int, first: int) -> Iterator[Batch]:
        if self.streamed:
            self.dataset.at(epoch)
            self.generator.manual_seed(epoch)
        else:
            self.order.at(epoch, first)
        self._iterator = iter(self.loader)
        for batch in islice(self._iterator, first, None) if self.streamed else self._iterator:
            yield batch.to(self.device, self.memory_format)
