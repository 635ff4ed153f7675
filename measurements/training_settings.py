"""The settings of a recipe under the names of AAAI Table 9, for ``results/recipes.csv``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from experiments.config import resolve

VARIANTS = {"imagenet": ("xt", "t", "s", "b", "l"), "imagenet_384": ("l",)}  # recipe → variants that the papers train
DECAYS = {"cosine": "cosine decay"}  # schedules as the papers call them
OPTIMIZERS = {"adamw": "AdamW"}


def settings() -> Iterator[tuple[tuple[str, str, str], str]]:
    """((recipe, variant, setting), value in words) of every variant that the papers train."""
    for recipe, variants in VARIANTS.items():
        for variant in variants:
            for name, value in _of(recipe, variant).items():
                yield (recipe, variant, name), value


def _of(recipe: str, variant: str) -> dict[str, str]:
    start = {"init": "imagenet-l-s0-00000000"} if recipe == "imagenet_384" else {}  # any name: it is no setting here
    config = resolve(recipe, {"model.name": variant, **start})
    train, augment = config.train, config.augment
    rate = train.lr * train.batch_size / train.lr_batch if train.lr_batch else train.lr
    constant = train.min_lr == rate and not train.warmup_epochs
    policy = re.match(r"rand-m(\d+)-mstd([\d.]+)", augment.auto_augment or "")
    return {
        "optimizer": OPTIMIZERS.get(train.optimizer, train.optimizer),
        "lr": f"{rate:g}",
        "weight_decay": f"{train.weight_decay:g}",
        "batch_size": f"{train.batch_size:g}",
        "schedule": "constant" if constant else DECAYS.get(train.schedule, train.schedule),
        "warmup_epochs": f"{train.warmup_epochs or 0:g}",
        "epochs": f"{train.epochs or 0:g}",
        "augmentation": f"RandAug ({policy[1]}, {policy[2]})" if policy else str(augment.auto_augment),
        "smoothing": f"{augment.smoothing:g}",
        "mixup": f"{augment.mixup:g}",
        "cutmix": f"{augment.cutmix:g}",
        "erasing": f"{augment.erase:g}",
        "drop_path": f"{config.model.drop_path or 0:g}",
    }
