"""Checks a root of labelled images without decoding an image or importing torch."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

from errors import DataError
from experiments.data.label_list import labelled_split
from experiments.data.listing import (
    Listing,
    Split,
    class_names,
    in_order,
    list_split,
    refuse_shared,
    spread,
)
from experiments.data.shards import refuse_shared_shards
from experiments.folder.provenance import listing_fingerprint
from experiments.schema import Config

NEEDS_NOTHING = "experiment=scenes and protocol=smoke need no data"


def check_class_folders(config: Config) -> None:
    """Refuses a missing, empty or inconsistent root of labelled images, and counts the classes where they are not set.

    Raises DataError. The classes of folders and tar archives are compared here, their images when they are listed. Of
    shards, the files are compared, of other readers the names of the splits; the rest is checked when they are opened.
    """
    data = config.data
    if data.root is not None or not data.reader.lower().startswith(("hfds/", "hfids/")):
        root = resolve_root(config)
        if not data.reader:
            _check_classes(config, root)
            return
    if data.train_split == data.eval_split:
        raise DataError(
            f"data.train_split and data.eval_split are both {data.train_split}: a model would be judged on what it was "
            "trained on"
        )
    if data.num_classes is None:
        raise DataError("data.num_classes can only be counted in class folders: set it")
    if data.root is not None and data.reader.lower().startswith("wds/"):
        refuse_shared_shards(Path(data.root), data.train_split, data.eval_split)


def check_judged_folders(config: Config) -> None:
    """``check_class_folders`` for an evaluation, which needs the split that is judged and no other."""
    data = config.data
    if data.reader:
        check_class_folders(config)
    else:
        set_classes(config, len(_classes(resolve_root(config), data.eval_split)[1]))


def resolve_root(config: Config) -> Path:
    """The folder or file of the images, which ``data.root`` then names in full. Raises DataError if there is none."""
    data = config.data
    if data.root is None:
        raise DataError(
            f"{config.experiment} needs images: set data.root=PATH, or data.{data.dataset}.root in site.yaml "
            f"({NEEDS_NOTHING})"
        )
    root = Path(data.root).expanduser()
    if not root.exists():
        raise DataError(f"data.root={data.root}: no such file or folder ({NEEDS_NOTHING})")
    if not os.access(root, os.R_OK | (os.X_OK if root.is_dir() else 0)):
        raise DataError(f"data.root={data.root}: not readable")
    data.root = str(root.resolve())
    return root


def set_classes(config: Config, count: int) -> None:
    """Sets ``data.num_classes`` where the config leaves it to the data. Raises DataError where it is another number."""
    data = config.data
    if data.num_classes is None:
        data.num_classes = count
    elif data.num_classes != count:
        raise DataError(
            f"data.root={data.root} holds {count} classes, the recipe expects {data.num_classes}: "
            f"set data.num_classes={count} if that is meant"
        )


def listings(config: Config) -> tuple[Listing, Listing] | None:
    """The images that are trained on and judged, from folders or tar archives; None for any other reader.

    Raises DataError where they cannot be listed or share an image.
    """
    data = config.data
    if data.root is None or data.reader:
        return None
    root = Path(data.root)
    train, judged = (list_split(labelled_split(root, split)) for split in (data.train_split, data.eval_split))
    refuse_shared(train, judged)
    # of a million images they take hundreds of megabytes, in every loader process
    return replace(train, identities=frozenset()), replace(judged, identities=frozenset())


def data_fingerprint(config: Config) -> str | None:
    """What a run of this config records of its data, from a listing alone; None for readers that must be opened.

    Raises DataError as ``listings`` does.
    """
    both = listings(config)
    if both is None:
        return None
    data = config.data
    lengths = (data.train_images, data.eval_images)
    return "-".join(
        listing_fingerprint([listed.names[number] for number in spread(len(listed), length)])
        for listed, length in zip(both, lengths)
    )


@cache
def _classes(root: Path, split: str) -> tuple[Split, frozenset[str]]:
    """Where a split lies, and its classes. Looked up once: the runs of a sweep have one root."""
    found = labelled_split(root, split)
    return found, frozenset(class_names(found))


def _check_classes(config: Config, root: Path) -> None:
    data = config.data
    (train, trained), (judged, asked) = (_classes(root, split) for split in (data.train_split, data.eval_split))
    if train.inside == judged.inside and train.path.resolve() == judged.path.resolve():
        raise DataError(
            f"data.root={data.root}: {data.train_split} and {data.eval_split} are the same images, {train.path}: a "
            "model would be judged on what it was trained on"
        )
    if trained != asked:
        odd = in_order(list(trained ^ asked))
        raise DataError(
            f"data.root={data.root}: {data.train_split} and {data.eval_split} hold different classes: "
            f"{len(odd)} are in one only, e.g. {', '.join(odd[:3])}"
        )
    set_classes(config, len(trained))
