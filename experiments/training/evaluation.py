"""Judges a model over the evaluation set, on all devices of a run together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import nn

from errors import RunFailed
from experiments.data.batch import Batch
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.interrupts import Interrupts
from experiments.tasks import Evaluation, Judge, Task
from experiments.training.devices import Group


def refuse_other_records(evaluation: Evaluation, images: int) -> None:
    """Raises RunFailed for records that are not of as many images, or that do not give the metric they are named by."""
    for name, record in evaluation.records.items():
        metric, value = evaluation.metrics.get(name), record.value()
        if metric is None or not math.isclose(metric, value, rel_tol=1e-6):  # as many digits as reports have
            raise RunFailed(f"the records of {name} give {value}, but the task reports {metric}")
        if record.images != images:
            raise RunFailed(f"the records of {name} are of {record.images} images, the evaluation set has {images}")


class Evaluator:
    """Judges models on this process's share of the evaluation set, and merges the shares of all processes.

    on_signal: called after every batch with the number of a signal that any process has received, or 0; it may raise.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        group: Group,
        interrupts: Interrupts,
        ledger: Ledger,
        autocast: Callable[[], AbstractContextManager[object]],
        on_signal: Callable[[int], None],
    ):
        self.task, self.batches, self.group, self.interrupts = task, batches, group, interrupts
        self.ledger, self.autocast, self.on_signal = ledger, autocast, on_signal

    def evaluate(self, models: Mapping[str, nn.Module]) -> Evaluation:
        """Metrics and records of all models, as ``<name of the model>/<metric>``; the rest is of the last one.

        Every image counts exactly once, whichever process reads it. Raises RunFailed for one that cannot be read, where
        the number of images judged is not the size of the evaluation set, and for records that do not give the metric.
        """
        judges: dict[str, Judge] = {}
        judged_here = sum(self.judge(models, judges))
        shares: list[tuple[int, dict[str, Judge]]] = self.group.gather_objects((judged_here, judges))
        judged, size = sum(images for images, _ in shares), len(self.task.eval_set)
        if judged != size:
            raise RunFailed(f"{judged} images were judged, the evaluation set has {size}")
        together = Evaluation({})
        for prefix, judge in shares[0][1].items():
            for _, share in shares[1:]:
                judge.merge(share[prefix])
            evaluation = judge.evaluation()
            refuse_other_records(evaluation, size)
            together.metrics |= {f"{prefix}/{name}": value for name, value in evaluation.metrics.items()}
            records = {f"{prefix}/{name}": record for name, record in evaluation.records.items()}
            together.records = {**together.records, **records}
            together.curves, together.examples = evaluation.curves, evaluation.examples
        return together

    @torch.no_grad()
    def judge(self, models: Mapping[str, nn.Module], judges: dict[str, Judge]) -> Iterator[int]:
        """Fills ``judges``, one per model, from this process's share; yields the number of images of each batch."""
        judges.update({prefix: self.task.judge() for prefix in models})
        for model in models.values():
            model.eval()
        for batch in self._batches():
            for prefix, model in models.items():
                with self.autocast():
                    prediction = self.task.predict(model, batch)
                judges[prefix].add(prediction, batch)
            yield batch.size

    def _batches(self) -> Iterator[Batch]:
        """The evaluation batches of this process; all processes stop together when any of them received a signal."""
        batches = self.batches.evaluation()
        while True:
            batch = next(batches, None)
            if batch is not None:
                self.ledger.refuse(self.task.eval_set, batch)
                yield batch
            everyones = self.group.gather([self.interrupts.received or 0, batch is not None])
            self.on_signal(int(everyones[:, 0].max()))
            if not everyones[:, 1].any():
                return
