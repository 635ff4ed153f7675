"""The rules between settings: which go together, and what a null stands for. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from errors import ConfigError
from experiments.backbones import check_name, is_timm, read_variants
from experiments.schema import FIELDS, MIXERS, Config, Model, Train
from experiments.tasks.registry import task_entry

# only networks of ``atm`` have these switches
SWITCHES = ("mixer", "offsets", "samples", "peg", "offset_sharing", "offset_interval", "fusion")
IN_PAIRS = "mixup and cutmix (augment.mixup, augment.cutmix) mix images in pairs"


def complete(config: Config, given: Collection[str] = ()) -> Config:
    """Replaces every null that stands for a default by that default, so that identity sees the values that are used.

    given: keys that a recipe, an arm or the command line sets, as opposed to the schema's defaults. Raises ConfigError
    in one line where settings contradict each other.
    """
    task_entry(config.task)
    check_name(config.model.name)
    if is_timm(config.model.name):
        _complete_timm(config.model, given)
    elif config.model.mixer not in (None, "atm"):
        _complete_other_mixer(config.model, given)
    else:
        _complete_atm(config.model)
    if config.init == "required":
        raise ConfigError(f"experiment={config.experiment} fine-tunes: set init=RUN_ID, or init=PATH of a checkpoint")
    size = config.data.image_size
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"data.image_size={size}: give height and width in pixels, e.g. [224,224]")
    for key, f in FIELDS.items():
        least, value = f.metadata["least"], get(config, key)
        if least is not None and value is not None and value < least:
            raise ConfigError(f"{key}={value}: must be at least {least}")
    _complete_schedule(config.train, given)
    _check_mixing(config)
    _check_devices(config)
    if config.slurm.signal_seconds >= 60 * config.slurm.time_minutes:
        raise ConfigError(
            f"slurm.signal_seconds={config.slurm.signal_seconds}: must be less than "
            f"slurm.time_minutes={config.slurm.time_minutes}"
        )
    return config


def get(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _complete_timm(model: Model, given: Collection[str]) -> None:
    """A network of timm has no switch of ATM's; a drop path of null is timm's own default."""
    for switch in SWITCHES:
        value = getattr(model, switch)
        if f"model.{switch}" in given and value is not None:
            raise ConfigError(f"model.{switch}={value}: only variants of ATMNet have it, not model={model.name}")
        setattr(model, switch, None)


def _complete_other_mixer(model: Model, given: Collection[str]) -> None:
    """Another mixer in ATMNet's frame has the frame's switches, and of ATM's those that are given for it."""
    for switch in ("offsets", "samples", "offset_sharing", "fusion"):
        if f"model.{switch}" not in given:
            setattr(model, switch, None)
        elif model.mixer in MIXERS and getattr(model, switch) is not None:
            raise ConfigError(f"model.{switch}={getattr(model, switch)}: model.mixer={model.mixer} has no such switch")
    variant = read_variants()[model.name]
    model.peg = bool(model.peg)
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"])
    if model.peg or model.offsets is not None:
        model.offset_interval = _known_interval(model.offset_interval, variant)
    elif "model.offset_interval" in given and model.offset_interval is not None:
        raise ConfigError(
            f"model.offset_interval={model.offset_interval}: model.mixer={model.mixer} without PEG has nothing to place"
        )
    else:
        model.offset_interval = None


def _complete_atm(model: Model) -> None:
    variant = read_variants()[model.name]
    defaults = {f.name: f.default for f in dataclasses.fields(Model)}
    for switch in SWITCHES:
        if getattr(model, switch) is None:
            setattr(model, switch, defaults[switch])
    if model.samples not in (1, 3):
        raise ConfigError(f"model.samples={model.samples}: valid are 1 and 3")
    if model.samples == 3 and model.offsets == "zero":
        raise ConfigError("model.samples=3 needs offsets to sample at: not with model.offsets=zero")
    if model.peg is None:
        model.peg = model.offsets != "zero"
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"])
    model.offset_sharing = _sharing(model, variant)
    model.offset_interval = _interval(model, variant)


def _sharing(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    asked, dims = model.offset_sharing, variant["dims"]
    if model.offsets in ("zero", "token"):
        if asked is not None:
            raise ConfigError(f"model.offset_sharing={asked}: model.offsets={model.offsets} has nothing to share")
        return None
    sharing = variant["offset_sharing"] if asked is None else [asked] * len(dims) if isinstance(asked, int) else asked
    if (
        not isinstance(sharing, list)
        or len(sharing) != len(dims)
        or any(not isinstance(s, int) or s < 1 or dim % s for s, dim in zip(sharing, dims))
    ):
        raise ConfigError(
            f"model.offset_sharing={asked}: give divisors of the widths {dims}, one number or one per stage"
        )
    return list(sharing)


def _interval(model: Model, variant: Mapping[str, Any]) -> int | str | None:
    if model.offsets == "zero" and not model.peg:
        return None
    return _known_interval(model.offset_interval, variant)


def _known_interval(interval: int | str | None, variant: Mapping[str, Any]) -> int | str:
    if interval is None:
        return int(variant["offset_interval"])
    if interval == "stage" or (isinstance(interval, int) and interval >= 1):
        return interval
    raise ConfigError(f"model.offset_interval={interval}: give a number of blocks, or stage")


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
    """Mixup and cutmix mix an image with its partner in the batch, so both must be on one device at once."""
    batch, machine, paired = config.train.batch_size, config.machine, _mixes(config)
    if paired and machine.batch_per_device == 1:
        raise ConfigError(f"machine.batch_per_device=1: {IN_PAIRS}, so it must be at least 2")
    most = max(1, batch // 2) if paired else batch
    if machine.devices > most:
        because = f"a pair of them each, as {IN_PAIRS}" if paired else "one each"
        raise ConfigError(
            f"machine.devices={machine.devices}: a batch of {batch} images is enough for at most {most} devices, "
            f"{because}"
        )
    if machine.devices % config.slurm.nodes:
        raise ConfigError(
            f"slurm.nodes={config.slurm.nodes}: machine.devices={machine.devices} cannot be distributed equally"
        )
