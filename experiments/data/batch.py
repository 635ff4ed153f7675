"""What a task trains on: data sets that know their samples, and batches that know their size and unreadable samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from experiments.data.order import SampleKey

READABLE = -1  # in place of the index of a sample that could not be read
Own = TypeVar("Own", bound="ImageBatch")


class Batch(Protocol):
    """Samples of one step, or a part of them, in the order of their places in the whole batch."""

    @property
    def size(self) -> int:
        """Number of samples."""
        ...

    @property
    def bad(self) -> Tensor:
        """int64 [n], indices of the samples that could not be read and were replaced."""
        ...

    def to(self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
        """The batch on a device; image tensors in this memory format."""
        ...

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, which a GPU can copy from while it computes."""
        ...


class Samples(Protocol):
    """A data set with random access. A sample is a function of its key and of nothing else.

    It may also have the methods of ``BatchLayout``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey) -> Any: ...

    def collate(self, samples: Sequence[Any]) -> Batch:
        """One batch of what indexing returned."""
        ...

    def name(self, index: int) -> str:
        """What a person calls a sample, e.g. its file below the root."""
        ...

    def problem(self, index: int) -> str:
        """In one line, which sample it is and why it cannot be read."""
        return f"{self.name(index)} cannot be read"

    def fingerprint(self) -> str:
        """Hash of what the samples are made from, without reading them all."""
        ...


class BatchLayout(Protocol):
    """What a data set with images of unequal sizes may have beside ``Samples``; each method may be absent."""

    def batch_groups(self) -> NDArray[np.int64] | None:
        """int64 [len], a group for each sample, e.g. by aspect ratio: most training batches are of one group.

        None: samples of all kinds are mixed.
        """
        return None

    def batch_canvas(self, keys: Sequence[SampleKey]) -> tuple[int, int] | None:
        """Height and width in px to which the images of a training batch are padded, by the keys of the whole batch.

        A function of nothing else, so that it is the same on any number of devices. None: images are of one size.
        """
        return None


def batch_groups(dataset: Any) -> NDArray[np.int64] | None:
    """``BatchLayout.batch_groups`` of any data set."""
    groups: NDArray[np.int64] | None = getattr(type(dataset), "batch_groups", BatchLayout.batch_groups)(dataset)
    return groups


def batch_canvas(dataset: Any, keys: Sequence[SampleKey]) -> tuple[int, int] | None:
    """``BatchLayout.batch_canvas`` of any data set."""
    canvas: tuple[int, int] | None = getattr(type(dataset), "batch_canvas", BatchLayout.batch_canvas)(dataset, keys)
    return canvas


@dataclass(frozen=True)
class ImageBatch:
    """Images [B, 3, H, W], or a tuple of images of unequal size; a subclass adds a task's tensors, with B rows each."""

    images: Any
    bad: Tensor

    @property
    def size(self) -> int:
        return len(self.images)

    def to(self: Own, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format) -> Own:
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if not isinstance(moved.images, Tensor):
            return moved
        return replace(moved, images=moved.images.contiguous(memory_format=memory_format))

    def pin_memory(self: Own) -> Own:
        return self._each(Tensor.pin_memory)

    def _each(self: Own, function: Callable[[Tensor], Tensor]) -> Own:
        """The batch after ``function`` of every tensor, also of those in tuples."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        for name, value in values.items():
            if isinstance(value, tuple):
                changed[name] = tuple(map(function, value))
        return replace(self, **changed)


def unreadable(indices: Sequence[int]) -> Tensor:
    """``Batch.bad`` from one entry per sample, READABLE or the index of a sample that was replaced."""
    return torch.tensor([index for index in indices if index != READABLE], dtype=torch.int64)
