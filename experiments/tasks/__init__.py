"""What a run learns and how it is judged; the engine knows tasks only through this interface."""

from __future__ import annotations

from collections.abc import Iterable
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


class Task(Protocol):
    """Built from a resolved config. Data sets are indexed with a ``SampleKey`` and return tuples of tensors."""

    train_set: Dataset[Any]
    eval_set: Dataset[Any]

    def build_model(self) -> nn.Module: ...

    def prepare(self, batch: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
        """Whole-batch augmentation of a training batch (mixup, cutmix), a pure function of batch and seed."""
        ...

    def loss(self, output: Any, batch: tuple[Tensor, ...]) -> Tensor:
        """The training loss from ``model(batch[0])``."""
        ...

    def evaluate(self, predict: Any, batches: Iterable[tuple[Tensor, ...]]) -> Evaluation:
        """Judges ``predict`` (a callable from images to outputs) on every evaluation batch."""
        ...
