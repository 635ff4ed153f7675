"""What a run learns and how it is judged; the engine knows tasks only through this interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.utils.data import Dataset


@dataclass
class Evaluation:
    """What one pass over the evaluation set says.

    metrics: name → value, accuracies in per cent; curves: name → tidy rows (a list of flat dicts);
    examples: arrays for a picture of inputs, labels and predictions, saved as ``examples.npz``.
    """

    metrics: dict[str, float]
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)


class Judge(Protocol):
    """Counts over evaluation batches. Those of several devices are pickled and merged, first images first."""

    def add(self, output: Any, batch: tuple[Tensor, ...]) -> None:
        """Takes ``model(batch[0])`` into account."""
        ...

    def merge(self, other: Any) -> None:
        """Adds what another judge of the same kind has seen."""
        ...

    def evaluation(self) -> Evaluation: ...


class Task(Protocol):
    """Built from a resolved config. Data sets are indexed with a ``SampleKey`` and return tuples of tensors."""

    train_set: Dataset[Any]
    eval_set: Dataset[Any]

    def build_model(self) -> nn.Module: ...

    def prepare(self, batch: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
        """Whole-batch augmentation of a training batch (mixup, cutmix), a pure function of batch and seed."""
        ...

    def loss(self, output: Any, batch: tuple[Tensor, ...]) -> Tensor:
        """The training loss from ``model(batch[0])``, a mean over ``count(batch)`` things."""
        ...

    def count(self, batch: tuple[Tensor, ...]) -> int:
        """Over how many things (images, labelled tokens) the loss of a batch is a mean."""
        ...

    def judge(self) -> Judge: ...
