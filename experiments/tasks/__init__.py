"""What a run learns and how it is judged; training knows tasks only through this interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from experiments.data.batch import Batch, Samples
    from experiments.schema import Config
    from results.records import Record


@dataclass
class Evaluation:
    """The result of one pass over the evaluation set.

    metrics: name → value, accuracies in per cent; curves: name → tidy rows (a list of flat dicts);
    examples: arrays for a picture of inputs, labels and predictions, saved as ``examples.npz``;
    records: name of a metric → how much of every image is right or moves the metric, in the order of the evaluation
    set, saved as ``records.npz``. A metric is their ``value()``. Without them, reports cannot say what the choice of
    images is worth.
    """

    metrics: dict[str, float]
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)


class Judge(Protocol):
    """Counts over evaluation batches, whose images come in the order of the evaluation set.

    Those of several devices are pickled and merged, first images first.
    """

    def add(self, prediction: Any, batch: Any) -> None:
        """Takes ``Task.predict(model, batch)`` into account."""
        ...

    def merge(self, other: Any) -> None:
        """Adds what another judge of the same kind has seen."""
        ...

    def evaluation(self) -> Evaluation: ...


class Task(Protocol):
    """Built from a resolved config. Every method is a pure function of its arguments and that config.

    A new task is one module with such a class and one entry in ``experiments.tasks.registry``. A class that inherits
    from this one need not define what has a body here.
    """

    config: Config
    train_set: Samples
    eval_set: Samples

    @property
    def mixed_parts(self) -> int:
        """The number of parts of a whole batch within which ``prepare`` mixes images; 0 where it mixes none.

        ``experiments.data.order.partners`` says which ones; they are always in the same call of ``prepare``.
        """
        return 0

    def build_model(self) -> nn.Module: ...

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The optimizer's groups: ``params`` with their ``weight_decay``, and ``lr_scale`` where the rate is scaled."""
        from experiments.training import optimization

        return optimization.parameter_groups(model, self.config.train)

    def prepare(self, batch: Any, seed: int, places: NDArray[np.int64]) -> Batch:
        """Augmentation across the images of a training batch (mixup, cutmix), a pure function of its arguments.

        seed: the same for all of the whole batch; places: [B], those of the images in the whole batch, ascending.
        """
        return batch  # type: ignore[no-any-return]

    def weight(self, batch: Any) -> float:
        """How many items (images, labelled tokens) the loss of a batch is a mean over."""
        return batch.size  # type: ignore[no-any-return]

    def loss(self, forward: Callable[..., Any], batch: Any) -> Tensor:
        """The training loss, a mean over ``weight(batch)`` items. Calls ``forward``, the model as trained, once."""
        ...

    def predict(self, model: nn.Module, batch: Any) -> Any:
        """What the judge takes, by one or several calls of the model (windows, scales)."""
        return model(batch.images)

    def judge(self) -> Judge: ...

    def example(self) -> Batch:
        """A made-up training batch of at least two samples of the size that FLOPs are stated for."""
        ...
