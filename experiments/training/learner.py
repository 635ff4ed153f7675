"""The part of a run that learns: model, optimizer, averages, and one optimizer step over a whole batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from errors import ConfigError, RunFailed
from experiments.data.batch import Batch
from experiments.data.order import Share, seed_generators, stream
from experiments.folder import weights
from experiments.schema import Config
from experiments.tasks import Task
from experiments.training.batch_norm import has_batch_norm
from experiments.training.devices import Group, autocast
from experiments.training.draws import place_draws
from experiments.training.optimization import build_ema, build_optimizer, restore_optimizer
from experiments.training.schedules import Schedule


class Learner:
    """The model in training on this process's device, and everything that a step changes.

    share: this process's part of every batch; split: devices and micro-batches, which decide how sums are rounded.
    Random choices follow from (seed, step) alone.
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        group: Group,
        device: torch.device,
        share: Share,
        steps_per_epoch: int,
        runs_dir: Path,
    ):
        self.config, self.task, self.group, self.device = config, task, group, device
        machine, batch_size = config.machine, config.train.batch_size
        self.places = share.places(batch_size)
        # the first device has no fewer micro-batches than another
        self.split = [group.size, len(share._replace(rank=0).places(batch_size))]
        self.memory_format = torch.channels_last if machine.channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)
        self.model = task.build_model()
        self.notes: list[str] = weights.initialise(self.model, config.init, runs_dir) if config.init else []
        self._refuse_split_batch_norm()
        group.share_statistics(self.model)
        self.draws = place_draws(self.model, device)
        self.model.to(device)
        if machine.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, config.train, task.parameter_groups(self.model))
        self.schedule = Schedule(self.optimizer, config.train, steps_per_epoch)
        self.ema = build_ema(self.model, config.train)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16")
        self.forward = group.wrap(torch.compile(self.model) if machine.compile else self.model, device)  # type: ignore[arg-type]

    @property
    def judged(self) -> Mapping[str, nn.Module]:
        """The models that are evaluated, by the prefix of their metrics: raw weights, then averaged ones."""
        averaged = {} if self.ema is None else {"eval_ema": self.ema.module}
        return {"eval": self.model, **averaged}

    @property
    def learning_rate(self) -> float:
        """The largest of the groups' rates in the last step."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def state(self) -> dict[str, Any]:
        """Everything that a step changes, as a checkpoint holds it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``. Raises RuntimeError where the saved model is another one."""
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def step(self, step: int, micro_batches: list[Batch], votes: Sequence[float]) -> tuple[float, NDArray[Any]]:
        """One optimizer step on the whole batch, of which this process has ``micro_batches``.

        votes: numbers of this process that all processes are to know. Returns the loss of the whole batch and
        [processes, len(votes)], everyone's votes. Raises RunFailed before the optimizer moves where the loss is not
        finite.
        """
        config, group = self.config, self.group
        self.schedule.set(step)
        mixing = int(stream(config.seed, step, purpose="mixing").integers(2**32))  # the same for the whole batch
        micro_batches = [
            self.task.prepare(batch, mixing, places) for batch, places in zip(micro_batches, self.places, strict=True)
        ]
        batch_weights = [float(self.task.weight(batch)) for batch in micro_batches]
        total_weight = float(group.gather([sum(batch_weights)]).sum())
        losses: list[tuple[Tensor, float]] = []
        for number, (batch, weight) in enumerate(zip(micro_batches, batch_weights)):
            seed_generators(config.seed, step, group.rank, number, purpose="step")
            self.draws.draw(config.seed, step, config.train.batch_size, self.places[number])
            share = weight / total_weight if total_weight else 0.0
            with self._synchronised(number + 1 == len(micro_batches)):
                with self.autocast():
                    loss = self.task.loss(self.forward, batch)
                losses.append((loss.detach(), share))
                # the gradients of all processes are averaged, those of micro-batches added
                self.scaler.scale(loss * (share * group.size)).backward()  # type: ignore[no-untyped-call]
        # read only now, when a GPU has all that it can do before the loss is known
        value = 0.0
        for loss, share in losses:
            value += float(loss) * share
        everyones = group.gather([value, *votes])
        value = float(everyones[:, 0].sum())
        if not math.isfinite(value):
            raise RunFailed(f"non-finite loss at step {step}")
        if config.train.clip_grad is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), config.train.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model)
        return value, everyones[:, 1:]

    def rehearse(self) -> None:
        """Trains on a made-up batch and forgets it, so that DDP settles how it puts gradients into buckets.

        DDP does so after the first backward pass, which changes the order of their sums: without a rehearsal before
        every start, a resumed run would not add up as the uninterrupted one does.
        """
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        example = self.task.example().to(self.device, self.memory_format)
        self.draws.draw(0, 0, example.size, range(example.size))
        self.model.train()
        places = np.arange(example.size) * max(1, self.task.mixed_parts)  # all in the first part, which can be mixed
        with self.autocast():
            loss = self.task.loss(self.forward, self.task.prepare(example, 0, places))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():  # batch norm has taken the batch into its statistics
                buffer.copy_(buffers[name])

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.config.train.precision, self.device)

    def _synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()  # type: ignore[no-any-return]

    def _refuse_split_batch_norm(self) -> None:
        """Raises ConfigError where batch statistics would be those of a micro-batch."""
        if self.split[1] > 1 and has_batch_norm(self.model):
            raise ConfigError(
                f"machine.batch_per_device={self.config.machine.batch_per_device}: this model has batch norm, whose "
                "statistics would be those of a part of the batch; use more devices, or let each take its whole share"
            )
