"""When things happen in a run, counted in optimizer steps: learning rates, log rows, evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from timm.scheduler import create_scheduler_v2
from torch.optim import Optimizer

from experiments.schema import Train

TIMM_NAMES = {"cosine": "cosine", "polynomial": "poly", "multistep": "multistep"}


@dataclass(frozen=True)
class Timetable:
    """steps: of the whole run; row_steps: between two rows of the log; judged_rows: between two evaluations, in rows.

    A recipe that counts epochs alone logs a row per epoch. One that counts steps logs a row per evaluation.
    """

    steps: int
    steps_per_epoch: int
    row_steps: int
    judged_rows: int
    in_epochs: bool

    @classmethod
    def of(cls, train: Train, steps_per_epoch: int) -> Timetable:
        steps = train.total_steps(steps_per_epoch)
        if train.steps is None and train.eval_every_steps is None:
            return cls(steps, steps_per_epoch, steps_per_epoch, train.eval_every or 1, in_epochs=True)
        return cls(steps, steps_per_epoch, train.steps_between_evaluations(steps_per_epoch), 1, in_epochs=False)

    @property
    def rows(self) -> int:
        """Rows of the whole run; the last may cover fewer steps than the others."""
        return -(-self.steps // self.row_steps)

    def end_of_row(self, row: int) -> int:
        """The step after which row ``row``, counted from 0, is written."""
        return min(self.steps, (row + 1) * self.row_steps)

    def is_judged(self, row: int) -> bool:
        """Whether the evaluation set is judged before row ``row`` is written; at the last row it always is."""
        return (row + 1) % self.judged_rows == 0 or row + 1 == self.rows

    def describe(self, row: int) -> str:
        """``epoch 3/10`` or ``step 4000/40000``: where a run is when it has written row ``row``."""
        return f"epoch {row + 1}/{self.rows}" if self.in_epochs else f"step {self.end_of_row(row)}/{self.steps}"


class Schedule:
    """The learning rate of every step, a pure function of the step, so that resuming needs no state of its own.

    Linear warm-up, then cosine, polynomial or multi-step decay over all steps, warm-up included (DeiT's convention),
    from timm's schedulers. With a ``warmup_ratio`` the schedule begins at once, and its rate is multiplied by a factor
    that rises to 1 (mmcv's linear warm-up). A group's ``lr_scale`` multiplies its rate. With a ``schedule_lag`` of n,
    epoch e has the schedule's rate of epoch max(0, e - n); so have steps, where the rate moves at every step.
    """

    def __init__(self, optimizer: Optimizer, train: Train, steps_per_epoch: int):
        self.optimizer, self.steps_per_epoch, self.lag = optimizer, steps_per_epoch, train.schedule_lag
        self.by_epoch = train.steps is None and train.schedule_on == "epoch"
        epoch = 1 if self.by_epoch else steps_per_epoch  # in the unit that the schedule counts in
        step = 1 / steps_per_epoch if self.by_epoch else 1
        warmup = (train.warmup_epochs or 0) * epoch if train.warmup_steps is None else train.warmup_steps * step
        self.ratio, self.warmup = train.warmup_ratio, warmup
        self._scheduler, _ = create_scheduler_v2(
            optimizer,
            TIMM_NAMES[train.schedule],
            num_epochs=train.epochs if self.by_epoch else train.total_steps(steps_per_epoch),  # type: ignore[arg-type]
            # timm lowers the rate one unit before each milestone
            decay_milestones=[at * (1 if train.steps is not None else epoch) + 1 for at in train.milestones],  # type: ignore[misc]
            decay_rate=train.power if train.schedule == "polynomial" else train.decay_factor,
            min_lr=train.min_lr,
            warmup_lr=train.warmup_lr,
            warmup_epochs=warmup if self.ratio is None else 0,  # type: ignore[arg-type]
            step_on_epochs=self.by_epoch,
            updates_per_epoch=1,
        )

    def set(self, step: int) -> None:
        """Gives the optimizer's groups the learning rates of ``step``."""
        if self.by_epoch:
            self._scheduler.step(max(0, step // self.steps_per_epoch - self.lag))
            return
        at = max(0, step - self.lag)
        self._scheduler.step_update(at)
        if self.ratio is not None and at < self.warmup:
            for group in self.optimizer.param_groups:
                group["lr"] *= 1 - (1 - at / self.warmup) * (1 - self.ratio)
