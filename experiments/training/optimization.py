"""Optimizer, schedule and averaged weights of a run, from timm's parts."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2, get_optimizer_class
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from experiments.schema import Train

FUSED_DEVICES = ("cpu", "cuda")
IMPLEMENTATION = ("foreach", "fused")  # options of an optimizer that say how it computes a step, not which


def peak_lr(train: Train) -> float:
    """The learning rate after warm-up, scaled linearly from the batch it is stated for."""
    return train.lr if train.lr_batch is None else train.lr * train.batch_size / train.lr_batch


def build_optimizer(model: nn.Module, train: Train) -> Optimizer:
    """timm leaves 1-D parameters and the model's own ``no_weight_decay`` list (PEG) without decay.

    A step is one kernel over all parameters where PyTorch has one.
    """
    fused = {"fused": True} if _has_fused_step(train.optimizer, model) else {}
    return create_optimizer_v2(model, train.optimizer, lr=peak_lr(train), weight_decay=train.weight_decay, **fused)  # type: ignore[no-any-return]


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads a saved state, whichever implementation wrote it; PyTorch would go on with the one it was written by."""
    own = {key: optimizer.defaults[key] for key in IMPLEMENTATION if key in optimizer.defaults}
    optimizer.load_state_dict({**state, "param_groups": [{**group, **own} for group in state["param_groups"]]})


def _has_fused_step(name: str, model: nn.Module) -> bool:
    kind = get_optimizer_class(name.lower().rpartition("_")[2], bind_defaults=False)  # lookahead_adamw steps as adamw
    return kind in (Adam, AdamW, SGD) and all(p.device.type in FUSED_DEVICES for p in model.parameters())


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
