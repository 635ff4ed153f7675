"""The rules between settings of segmentation: which go together, and what a null stands for. No torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from errors import ConfigError
from experiments.data.registry import is_drawn
from experiments.dense_schema import SEGMENTATION_HEADS
from experiments.neck_completion import complete_neck
from experiments.schema import Config

ONE_HEAD = ("neck_width", "auxiliary")  # settings that one head alone has
# of photographs where nothing is given: as published for ADE20K
AUGMENTATION: dict[str, Any] = {
    "resize": [512, 2048], "scale": [0.5, 2.0], "max_share": 0.75, "hflip": 0.5, "distortion": True,
}  # fmt: skip


def complete_segment(config: Config, given: Collection[str]) -> None:
    """Replaces every null of the section ``segment`` that stands for a default; ``given`` as in ``complete``.

    Raises ConfigError in one line where settings contradict each other.
    """
    segment, own = config.segment, SEGMENTATION_HEADS[config.segment.head]
    for name in ONE_HEAD:
        if name not in own and getattr(segment, name) is not None:
            raise ConfigError(f"segment.{name}={getattr(segment, name)}: segment.head={segment.head} has no such part")
    if segment.neck != "fpn" and "neck_width" not in own:
        raise ConfigError(
            f"segment.neck={segment.neck}: segment.head={segment.head} has a pyramid of its own (valid with: semantic_fpn)"
        )
    complete_neck("segment", segment)
    for name, value in own.items():
        if getattr(segment, name) is None:
            setattr(segment, name, value)
    _complete_augmentation(config, given)
    _complete_windows(config)
    if not segment.test_scales:
        raise ConfigError("segment.test_scales=[]: give at least one scale, e.g. [1.0]")
    share = -(-config.train.batch_size // config.machine.devices)
    if config.machine.batch_per_device is not None and config.machine.batch_per_device < share:
        raise ConfigError(
            f"machine.batch_per_device={config.machine.batch_per_device}: heads have batch norm, so a device must take "
            f"its share of {share} images at once; use more devices"
        )
    if segment.head == "upernet" and config.train.batch_size < 2:
        raise ConfigError(
            "train.batch_size=1: segment.head=upernet pools an image to one value per channel, and batch norm needs "
            "at least two"
        )


def _complete_augmentation(config: Config, given: Collection[str]) -> None:
    segment = config.segment
    drawn = is_drawn(config.data.dataset)
    for name, value in AUGMENTATION.items():
        if drawn and getattr(segment, name) is not None:
            raise ConfigError(f"segment.{name}: {config.data.dataset} are drawn, not augmented")
        if not drawn and getattr(segment, name) is None:
            setattr(segment, name, value)
    if drawn and (odd := [name for name in ("test_window", "test_stride") if f"segment.{name}" in given]):
        raise ConfigError(f"segment.{odd[0]}: {config.data.dataset} are drawn in the size of training images")
    for name in ("resize", "scale"):
        pair = getattr(segment, name)
        if pair is not None and (len(pair) != 2 or pair[0] > pair[1]):
            raise ConfigError(f"segment.{name}={pair}: give a smaller and a larger number, e.g. {AUGMENTATION[name]}")


def _complete_windows(config: Config) -> None:
    segment = config.segment
    if segment.test_window is None:
        if segment.test_stride is not None:
            raise ConfigError(f"segment.test_stride={segment.test_stride}: set segment.test_window, too")
        return
    if segment.test_stride is None:
        segment.test_stride = max(1, round(segment.test_window * 2 / 3))
    if segment.test_stride > segment.test_window:
        raise ConfigError(
            f"segment.test_stride={segment.test_stride}: larger than segment.test_window={segment.test_window}, so "
            "pixels between windows would have no answer"
        )
