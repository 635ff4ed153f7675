"""Checks a folder of labelled images without decoding an image or importing torch."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from errors import DataError
from experiments.schema import Config

# timm's readers look for these folders below a root, in this order
SPLIT_FOLDERS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "eval", "test")}
NEEDS_NOTHING = "experiment=scenes and protocol=smoke need no data"


def check_class_folders(config: Config) -> None:
    """Refuses a missing, empty or inconsistent root of labelled images, and counts the classes where they are not set.

    Raises DataError. Folders are checked in full; tar files, shards and hub data sets when they are opened.
    """
    data = config.data
    if data.root is None and not data.reader.lower().startswith(("hfds/", "hfids/")):
        raise DataError(
            f"{config.experiment} needs images: set data.root=PATH, or data.{data.dataset}.root in site.yaml "
            f"({NEEDS_NOTHING})"
        )
    if data.root is not None:
        root = Path(data.root).expanduser()
        if not root.exists():
            raise DataError(f"data.root={data.root}: no such file or folder ({NEEDS_NOTHING})")
        if not os.access(root, os.R_OK | (os.X_OK if root.is_dir() else 0)):
            raise DataError(f"data.root={data.root}: not readable")
        data.root = str(root.resolve())
        if root.is_dir() and not data.reader:
            _check_folders(config, root)
            return
    if data.num_classes is None:
        raise DataError("data.num_classes can only be counted in class folders: set it")


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split below a root, as timm finds it: by its name or a synonym of it, else the root itself."""
    for synonyms in SPLIT_FOLDERS.values():
        if split in synonyms:
            for name in (split, *synonyms):
                if (root / name).is_dir():
                    return root / name
    return root / split if (root / split).is_dir() else root


def _check_folders(config: Config, root: Path) -> None:
    data = config.data
    train, judged = (_class_names(root, split) for split in (data.train_split, data.eval_split))
    if train != judged:
        odd = sorted(train ^ judged)
        raise DataError(
            f"data.root={data.root}: {data.train_split} and {data.eval_split} hold different classes: "
            f"{len(odd)} are in one only, e.g. {', '.join(odd[:3])}"
        )
    if data.num_classes is None:
        data.num_classes = len(train)
    elif data.num_classes != len(train):
        raise DataError(
            f"data.root={data.root} holds {len(train)} classes, the recipe expects {data.num_classes}: "
            f"set data.num_classes={len(train)} if that is meant"
        )


@cache
def _class_names(root: Path, split: str) -> frozenset[str]:
    folder = split_folder(root, split)
    if folder == root:
        inside = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())[:5]
        holds = f"it holds {', '.join(inside)}" if inside else "it is empty"
        raise DataError(f"data.root={root}: no folder for the {split} split; {holds}")
    names = frozenset(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if not names:
        raise DataError(f"{folder}: no class folders (expected {folder.name}/<class>/<image>)")
    return names
