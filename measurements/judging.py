"""An evaluator for a model that is not in training: task, batches and precision as at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.interrupts import Interrupts
from experiments.schema import Config
from experiments.tasks import Task
from experiments.training.devices import Group, autocast
from experiments.training.evaluation import Evaluator


def batch_size(config: Config) -> int:
    """Images that are judged at once."""
    return min(config.train.batch_size, config.machine.batch_per_device or config.train.batch_size)


@contextmanager
def evaluator(
    config: Config,
    task: Task,
    device: torch.device,
    samples: Any = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Iterator[Evaluator]:
    """The evaluator of a run, in this process alone. samples: the task's evaluation set where they are None.

    on_batch: called after every batch, and once more at the end.
    """
    samples = task.eval_set if samples is None else samples
    batches = Batches(
        samples, batch_size(config), config.seed, shuffle=False, workers=config.data.workers, device=device,
        memory_format=torch.channels_last if config.machine.channels_last else torch.contiguous_format,
    )  # fmt: skip
    try:
        yield Evaluator(
            task, batches, Group(), Interrupts(), Ledger(samples, 0.0),
            lambda: autocast(config.train.precision, device), on_signal=lambda number: on_batch(),
        )  # fmt: skip
    finally:
        batches.close()
