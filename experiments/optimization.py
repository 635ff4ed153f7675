"""Optimizer, schedule and averaged weights of a run, from timm's parts."""

from __future__ import annotations

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from experiments.schema import Train


def peak_lr(train: Train) -> float:
    """The learning rate after warm-up, scaled linearly from the batch it is stated for."""
    return train.lr if train.lr_batch is None else train.lr * train.batch_size / train.lr_batch


def build_optimizer(model: nn.Module, train: Train) -> Optimizer:
    """timm leaves 1-D parameters and the model's own ``no_weight_decay`` list (PEG) without decay."""
    return create_optimizer_v2(model, train.optimizer, lr=peak_lr(train), weight_decay=train.weight_decay)  # type: ignore[no-any-return]


def build_schedule(optimizer: Optimizer, train: Train, steps_per_epoch: int) -> Scheduler:
    """Linear warm-up into one cosine over all epochs, warm-up included (DeiT's convention)."""
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=train.epochs,
        min_lr=train.min_lr,
        warmup_lr=train.warmup_lr,
        warmup_epochs=train.warmup_epochs,  # type: ignore[arg-type]
        step_on_epochs=train.schedule_on == "epoch",
        updates_per_epoch=steps_per_epoch,
    )
    return schedule


def set_lr(schedule: Scheduler, train: Train, step: int, steps_per_epoch: int) -> None:
    """The learning rate of a step, a pure function of it, so that resuming needs no state of the schedule."""
    if train.schedule_on == "epoch":
        schedule.step(step // steps_per_epoch)
    else:
        schedule.step_update(step)


def build_ema(model: nn.Module, train: Train) -> ModelEmaV3 | None:
    return None if train.ema_decay is None else ModelEmaV3(model, decay=train.ema_decay)
