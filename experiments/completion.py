"""The rules between settings: which go together, and what a null stands for. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from errors import ConfigError
from experiments.backbones import check_optimizer
from experiments.data.registry import DATASETS
from experiments.detect_completion import complete_detect
from experiments.model_completion import complete_model
from experiments.schema import FIELDS, Config, Train
from experiments.segment_completion import complete_segment
from experiments.tasks.registry import OWN, takes, task_entry

IN_PAIRS = "mixup and cutmix (augment.mixup, augment.cutmix) mix images in pairs"
LOSSES_IN_PAIRS = "pairs of images share the normaliser of their losses (detect.images_per_loss)"
SECTIONS_OF_TASKS = {"segmentation": complete_segment, "detection": complete_detect}


def complete(config: Config, given: Collection[str] = ()) -> Config:
    """Replaces every null that stands for a default by that default, so that identity sees the values that are used.

    given: keys that a recipe, an arm or the command line sets, as opposed to the schema's defaults. Raises ConfigError
    in one line where settings contradict each other.
    """
    task_entry(config.task)
    _check_ranges(config)
    _check_sections(config, given)
    _check_labels(config)
    check_optimizer(config.train.optimizer)
    complete_model(config, given)
    if config.task in SECTIONS_OF_TASKS:
        SECTIONS_OF_TASKS[config.task](config, given)
    if config.init == "required":
        raise ConfigError(f"experiment={config.experiment} fine-tunes: set init=RUN_ID, or init=PATH of a checkpoint")
    size = config.data.image_size
    if len(size) != 2:
        raise ConfigError(f"data.image_size={size}: give height and width in pixels, e.g. [224,224]")
    _complete_schedule(config.train, given)
    if config.train.head_lr_scale != 1.0 and config.task == "classification":
        raise ConfigError(
            f"train.head_lr_scale={config.train.head_lr_scale}: a classifier is one network, not a backbone with a head"
        )
    _check_mixing(config)
    _check_scale(config.augment.scale)
    _check_devices(config)
    if config.slurm.signal_seconds >= 60 * config.slurm.time_minutes:
        raise ConfigError(
            f"slurm.signal_seconds={config.slurm.signal_seconds}: must be less than "
            f"slurm.time_minutes={config.slurm.time_minutes}"
        )
    return config


def _check_sections(config: Config, given: Collection[str]) -> None:
    """Refuses settings that the task would not read."""
    for key in given:
        if not takes(config.task, key):
            raise ConfigError(f"{key}: not a setting of task={config.task}")


def _check_ranges(config: Config) -> None:
    """Refuses numbers out of the range of their setting, NaN among them, and text of another form."""
    for key, f in FIELDS.items():
        within, pattern, value = f.metadata["within"], f.metadata["pattern"], get(config, key)
        if within is not None and value is not None:
            for number in value if isinstance(value, list) else [value]:
                if number not in within:
                    raise ConfigError(f"{key}={value}: must be {within} ({f.metadata['says']})")
        if pattern is not None and value is not None and not re.fullmatch(pattern, value):
            hint = f"; did you mean {meant}?" if (meant := f.metadata["others"].get(value)) else ""
            raise ConfigError(f"{key}={value}: not a valid value ({f.metadata['says']}){hint}")


def _check_labels(config: Config) -> None:
    entry = DATASETS.get(config.data.dataset)
    if entry and entry.tasks and config.task in OWN and config.task not in entry.tasks:
        raise ConfigError(
            f"task={config.task}: data set {config.data.dataset} has labels for {', '.join(entry.tasks)} alone"
        )


def _check_scale(scale: list[float]) -> None:
    if len(scale) != 2 or scale[0] > scale[1]:
        raise ConfigError(f"augment.scale={scale}: give the smallest and the largest share, e.g. [0.08,1]")


def get(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _complete_schedule(train: Train, given: Collection[str]) -> None:
    if train.epochs is None and train.steps is None:
        raise ConfigError("train.epochs and train.steps are both null: set one of them")
    if train.warmup_epochs is None and train.warmup_steps is None:
        raise ConfigError("train.warmup_epochs and train.warmup_steps are both null: set one of them; 0 is no warm-up")
    if train.eval_every is None and train.eval_every_steps is None:
        raise ConfigError("train.eval_every and train.eval_every_steps are both null: set one of them")
    if train.steps is not None:
        if train.schedule_on == "epoch" and "train.schedule_on" in given:
            raise ConfigError(
                "train.schedule_on=epoch: a run that counts in steps (train.steps) has no epochs to wait for"
            )
        train.schedule_on = "step"
        if train.warmup_steps is not None and train.warmup_steps >= train.steps:
            raise ConfigError(
                f"train.warmup_steps={train.warmup_steps}: must be less than train.steps={train.steps}, "
                "the length of the run"
            )
    elif train.schedule_on == "epoch":
        _check_warmup_by_epoch(train)
    if train.warmup_ratio is not None:
        _check_warmup_ratio(train, given)
    if train.power != 1.0 and train.schedule != "polynomial":
        raise ConfigError(f"train.power={train.power}: only train.schedule=polynomial has it, not {train.schedule}")
    if train.schedule == "multistep":
        _check_milestones(train)
    elif train.milestones or train.decay_factor != 0.1:
        raise ConfigError(
            f"train.milestones={train.milestones}, train.decay_factor={train.decay_factor}: only "
            f"train.schedule=multistep has them, not {train.schedule}"
        )


def _check_warmup_by_epoch(train: Train) -> None:
    """A rate that moves once an epoch would stay at ``warmup_lr`` for the whole epoch in which the warm-up ends."""
    if train.warmup_steps or (train.warmup_steps is None and (train.warmup_epochs or 0) % 1):
        key = "warmup_epochs" if train.warmup_steps is None else "warmup_steps"
        raise ConfigError(
            f"train.{key}={getattr(train, key)}: with train.schedule_on=epoch the rate moves once an epoch; set "
            "train.schedule_on=step, or train.warmup_epochs to whole epochs"
        )


def _check_warmup_ratio(train: Train, given: Collection[str]) -> None:
    where = f"train.warmup_ratio={train.warmup_ratio}"
    if train.schedule_on == "epoch":
        raise ConfigError(f"{where}: such a warm-up moves at every step; set train.schedule_on=step")
    if not (train.warmup_steps if train.warmup_steps is not None else train.warmup_epochs):
        raise ConfigError(f"{where}: there is no warm-up (set train.warmup_steps or train.warmup_epochs)")
    if "train.warmup_lr" in given:
        raise ConfigError(f"{where}: train.warmup_lr is for a warm-up without it; set one of them")


def _check_milestones(train: Train) -> None:
    unit, length = ("steps", train.steps) if train.steps is not None else ("epochs", train.epochs)
    milestones = train.milestones
    if not milestones:
        raise ConfigError("train.schedule=multistep needs train.milestones, e.g. [8,11], when to lower the rate")
    rising = all(earlier < later for earlier, later in zip([0, *milestones], milestones))
    if not rising or milestones[-1] >= (length or 0):
        raise ConfigError(
            f"train.milestones={milestones}: give rising numbers of {unit} between 0 and train.{unit}={length}"
        )


def _mixes(config: Config) -> bool:
    return bool(config.augment.mixup or config.augment.cutmix)


def _pairs(config: Config) -> str:
    """Why images of a batch belong together in pairs; empty where they do not."""
    if config.task == "detection":
        return LOSSES_IN_PAIRS if config.detect.images_per_loss > 1 else ""
    return IN_PAIRS if _mixes(config) else ""


def _check_mixing(config: Config) -> None:
    """Every part of the batch that is mixed by a draw of its own must have the same number of whole pairs."""
    batch, draws = config.train.batch_size, config.augment.mix_draws
    if not _mixes(config):
        return
    if batch % 2:
        raise ConfigError(f"train.batch_size={batch}: {IN_PAIRS}, so it must be even")
    pairs = batch // 2
    if pairs % draws:
        nearest = min((n for n in range(1, pairs + 1) if pairs % n == 0), key=lambda n: abs(n - draws))
        raise ConfigError(
            f"augment.mix_draws={draws}: a batch of {batch} images cannot be cut into {draws} equal parts of whole "
            f"pairs; the nearest valid number is {nearest}"
        )


def _check_devices(config: Config) -> None:
    """An image and its partner in the batch must be on one device at once where something is computed of both."""
    batch, machine, pairs = config.train.batch_size, config.machine, _pairs(config)
    if pairs and machine.batch_per_device == 1:
        raise ConfigError(f"machine.batch_per_device=1: {pairs}, so it must be at least 2")
    most = max(1, batch // 2) if pairs else batch
    if machine.devices > most:
        because = f"a pair of them each, as {pairs}" if pairs else "one each"
        raise ConfigError(
            f"machine.devices={machine.devices}: a batch of {batch} images is enough for at most {most} devices, "
            f"{because}"
        )
    if machine.devices % config.slurm.nodes:
        raise ConfigError(
            f"slurm.nodes={config.slurm.nodes}: machine.devices={machine.devices} cannot be distributed equally"
        )
