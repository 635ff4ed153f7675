"""Batches of a data set in the order that (seed, epoch) fixes, loaded by any number of worker processes."""

from __future__ import annotations

import multiprocessing.queues
import os
from collections.abc import Generator, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from errors import DataError
from experiments.data.batch import Batch, batch_canvas, batch_groups
from experiments.data.order import EpochOrder, Share
from experiments.interrupts import ignore_in_worker

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (through which loader processes pass batches)
LEAST_SHARED = 1 << 20  # bytes; a batch of any recipe has more


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
        self.order = EpochOrder(
            len(dataset),
            batch_size,
            seed,
            shuffle,
            repeats,
            share,
            groups=batch_groups(dataset) if shuffle and not self.streamed else None,
            canvas=partial(batch_canvas, dataset),
        )
        if shuffle and len(self) == 0:
            raise DataError(f"the training set has {len(dataset)} images, fewer than one batch of {batch_size}")
        self.places = share.places(batch_size) if shuffle else []
        if workers:
            _check_shared_memory(workers)
        self.generator = torch.Generator()  # of the workers' own seeds, which shard readers shuffle with
        layout: dict[str, Any] = {"batch_size": batch_size, "drop_last": shuffle}
        self.loader: DataLoader[Batch] = DataLoader(
            dataset,
            **(layout if self.streamed else {"batch_sampler": self.order}),
            collate_fn=dataset.collate,
            num_workers=workers,
            worker_init_fn=_begin_worker,
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


def _begin_worker(worker: int) -> None:
    ignore_in_worker(worker)
    # a batch that cannot be passed on would only be dropped, and waited for without end
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: BaseException, batch: object) -> None:
    os.write(2, f"a batch could not be passed on: {error}\n".encode())
    os._exit(1)


def _check_shared_memory(workers: int) -> None:
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return  # another system
    free = status.f_bavail * status.f_frsize
    problem = "is read-only" if status.f_flag & os.ST_RDONLY else f"has {free:,} bytes free" * (free < LEAST_SHARED)
    if problem:
        raise DataError(
            f"data.workers={workers}: loader processes pass batches through {SHARED_MEMORY}, which {problem}; "
            "make room there (docker run --shm-size=8g), or set data.workers=0"
        )
