"""The rules between settings of detection: which go together, and what a null stands for. No torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from errors import ConfigError
from experiments.data.registry import is_drawn
from experiments.dense_schema import DETECTOR_OPTIONS, OF_REGIONS
from experiments.neck_completion import complete_neck
from experiments.schema import Config
from experiments.tasks.detectors.options import PUBLISHED

LONGEST_BEFORE_CROP = 600  # px, of box_transforms.MULTI_SCALE, which would import torch
# of photographs where nothing is given: as published for COCO, 1x
AUGMENTATION: dict[str, Any] = {"resize": [800, 1333], "crop": False, "hflip": 0.5}


def complete_detect(config: Config, given: Collection[str]) -> None:
    """Replaces every null of the section ``detect`` that stands for a default; ``given`` as in ``complete``.

    Raises ConfigError in one line where settings contradict each other.
    """
    detect = config.detect
    complete_neck("detect", detect)
    for name, option in DETECTOR_OPTIONS.items():
        value = getattr(detect, name)
        if detect.head == "retinanet" and name in OF_REGIONS:
            if value is not None:
                raise ConfigError(f"detect.{name}={value}: detect.head=retinanet has no such part")
        elif value is None:
            setattr(detect, name, getattr(PUBLISHED[detect.head], option))
    _complete_augmentation(config)
    share = -(-config.train.batch_size // config.machine.devices)
    at_once = config.machine.batch_per_device
    if detect.head == "cascade_mask_rcnn" and at_once is not None and at_once < share:
        raise ConfigError(
            f"machine.batch_per_device={at_once}: the box heads of detect.head={detect.head} have batch norm, so a "
            f"device must take its share of {share} images at once; use more devices"
        )


def _complete_augmentation(config: Config) -> None:
    detect = config.detect
    drawn = is_drawn(config.data.dataset)
    for name in (*AUGMENTATION, "short_sides"):
        if drawn and getattr(detect, name) is not None:
            raise ConfigError(f"detect.{name}: {config.data.dataset} are drawn, not augmented")
    if drawn:
        return
    for name, value in AUGMENTATION.items():
        if getattr(detect, name) is None:
            setattr(detect, name, value)
    resize = detect.resize or []
    if len(resize) != 2 or resize[0] > resize[1]:
        raise ConfigError(f"detect.resize={resize}: give the short and the long side, e.g. {AUGMENTATION['resize']}")
    if detect.crop and resize[1] < LONGEST_BEFORE_CROP:
        raise ConfigError(
            f"detect.resize={resize}: detect.crop=true crops images of a short side of up to {LONGEST_BEFORE_CROP} px, "
            f"so the long side must be at least {LONGEST_BEFORE_CROP}"
        )
    if detect.short_sides is None:
        detect.short_sides = [resize[0]]
    if not detect.short_sides or max(detect.short_sides) > resize[1]:
        raise ConfigError(
            f"detect.short_sides={detect.short_sides}: give at least one side, none longer than the long side of "
            f"detect.resize={resize}"
        )
