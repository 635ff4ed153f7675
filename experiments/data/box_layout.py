"""Images with annotated objects in COCO's layout, found and checked without decoding an image and without torch.

The split S of a root has its images in ``S/`` or ``S2017/`` and its annotations in ``annotations/instances_S.json`` or
``annotations/instances_S2017.json``; where neither name is there, those of the synonyms of S (``listing.SPLITS``) are
looked for. A file name in the annotations is below the folder of the split. Images that no annotation file names are
not part of the data.

Training uses an image if it has at least LEAST_SIDE px on both sides and an object to learn from: no crowd, not marked
``ignore``, with an area, a width and a height of 1 px or more, and not wholly outside the image (mmdet's rules). The
evaluation uses every image and every object as annotated (pycocotools' rules: a crowd may be found any number of times,
``ignore`` is not looked at, a box without area counts as an object that cannot be found).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import untrusted_files
from errors import DataError
from experiments.data.coco_file import AnnotationFile, read_annotations
from experiments.data.layout import resolve_root, set_classes
from experiments.data.listing import (
    ONE_OF,
    SPLITS,
    Listing,
    Split,
    files,
    in_order,
    printable,
    refuse_shared,
    spread,
)
from experiments.dense_schema import WITH_MASKS
from experiments.schema import Config

ANNOTATIONS = "annotations"
PREFIX = "instances_"
YEARS = ("", "2017")  # what may follow the name of a split, as in COCO's folders
LEAST_SIDE = 32  # px of an image that is trained on


@dataclass(frozen=True, eq=False)
class BoxListing:
    """The images of a split with their objects.

    images: names in order; file: all annotations of the split; rows: int64 [len], the number of each image in ``file``.
    """

    images: Listing
    file: AnnotationFile
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.file.classes

    @property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [len, 2], annotated height and width of the images in px."""
        sizes: NDArray[np.int64] = self.file.sizes[self.rows]
        return sizes

    @property
    def has_masks(self) -> bool:
        return self.file.objects.outlines is not None

    def fingerprint(self, numbers: Iterable[int]) -> str:
        """Hash of the names of these images, in order, of the classes, and of all that is annotated in the images."""
        chosen = list(numbers)
        names = [self.images.names[number] for number in chosen]
        digest = hashlib.sha256(json.dumps([self.classes, names]).encode())
        digest.update(self.sizes[chosen].tobytes())
        objects = self.file.objects
        for row in self.rows[chosen]:
            own = objects.of(row)
            for column in (objects.boxes, objects.classes, objects.areas, objects.crowd, objects.usable):
                digest.update(column[own.start : own.stop].tobytes())
            for piece in objects.outlines.pieces(own.start, own.stop) if objects.outlines else ():
                digest.update(piece)
        return digest.hexdigest()[:16]


def check_boxes(config: Config) -> None:
    """Refuses a root that is not in COCO's layout, and counts the classes where they are not set. Raises DataError.

    The files of annotations are read and checked whole; that every image is there is found when a split is listed.
    """
    data = config.data
    root = _checked_root(config)
    train, judged = (_find(root, split) for split in (data.train_split, data.eval_split))
    for one, other in zip(train, judged):
        if one.resolve() == other.resolve():
            raise DataError(
                f"data.root={data.root}: {data.train_split} and {data.eval_split} are the same images, {one}: a model "
                "would be judged on what it was trained on"
            )
    trained, asked = (read_annotations(path).classes for _, path in (train, judged))
    if trained != asked:
        odd = [name for name in (*trained, *asked) if (name in trained) != (name in asked)]
        difference = f"e.g. {', '.join(odd[:3])}" if odd else "in another order"
        raise DataError(f"{train[1]} and {judged[1].name} name different categories, {difference}")
    for _, path in (train, judged):
        _refuse_without_masks(config, path)
    set_classes(config, len(trained))


def check_judged_boxes(config: Config) -> None:
    """``check_boxes`` for an evaluation, which needs the split that is judged and no other."""
    _, path = _find(_checked_root(config), config.data.eval_split)
    _refuse_without_masks(config, path)
    set_classes(config, len(read_annotations(path).classes))


def _checked_root(config: Config) -> Path:
    data = config.data
    root = resolve_root(config)
    if data.reader:
        raise DataError(f"data.reader={data.reader}: images with boxes are read from folders; set data.reader=''")
    if not root.is_dir():
        raise DataError(f"data.root={data.root}: not a folder; unpack the archive and give the folder that it holds")
    if not (root / ANNOTATIONS).is_dir():
        raise DataError(f"data.root={data.root}: no folder {ANNOTATIONS!r} in it; expected {_layout()}{_nearest(root)}")
    return root


def _refuse_without_masks(config: Config, path: Path) -> None:
    wanted = config.task == "detection" and config.detect.head in WITH_MASKS
    if wanted and read_annotations(path).objects.outlines is None:
        raise DataError(
            f"{path}: boxes without masks, which detect.head={config.detect.head} learns; set "
            "detect.head=faster_rcnn or retinanet"
        )


def box_listings(config: Config) -> tuple[BoxListing, BoxListing]:
    """The images that are trained on, without those that training does not use, and those judged, of a checked config.

    Raises DataError where a split cannot be listed, lacks an image, or splits share an image.
    """
    data = config.data
    root = Path(data.root or "")
    train, judged = (_listed(*_find(root, split)) for split in (data.train_split, data.eval_split))
    refuse_shared(train.images, judged.images)
    trained = _of_training(train)
    if not len(trained):
        raise DataError(
            f"{train.file.path}: none of its {len(train)} images has {LEAST_SIDE} px a side and an object to learn from"
        )
    return _without_identities(trained), _without_identities(judged)


def judged_boxes(config: Config) -> BoxListing:
    """The images that are judged, wherever others are. Raises DataError where they cannot be listed."""
    return _without_identities(_listed(*_find(Path(config.data.root or ""), config.data.eval_split)))


def box_fingerprint(config: Config) -> str:
    """What a run of a checked config records of its data: images and annotations. Raises DataError as listings do."""
    data = config.data
    lengths = (data.train_images, data.eval_images)
    return "-".join(
        listed.fingerprint(spread(len(listed), length)) for listed, length in zip(box_listings(config), lengths)
    )


def _layout() -> str:
    return f"SPLIT/NAME.jpg and {ANNOTATIONS}/{PREFIX}SPLIT.json"


def _nearest(root: Path) -> str:
    """Where the layout is found a folder further down, as archives that hold one folder are unpacked, or further up."""
    for near in (*untrusted_files.listed(root), root.parent):
        with suppress(OSError):  # a folder that may not be looked at
            if any((near / ANNOTATIONS).glob(f"{PREFIX}*.json")):
                return f"; did you mean data.root={near}?"
    return ""


def _find(root: Path, split: str) -> tuple[Path, Path]:
    """The folder of a split's images and the file of its annotations. Raises DataError where either lacks."""
    name, folder = _find_folder(root, split)
    files_of = [f"{PREFIX}{folder.name}.json", *(f"{PREFIX}{name}{year}.json" for year in YEARS)]
    for file in files_of:
        if untrusted_files.exists(root / ANNOTATIONS / file):
            return folder, root / ANNOTATIONS / file
    held = [path.name for path in untrusted_files.listed(root / ANNOTATIONS, "*.json")]
    holds = f"it holds {', '.join(held[:6])}" if held else "it holds no JSON file"
    raise DataError(f"{root / ANNOTATIONS}: no {files_of[0]}, the annotations of {folder.name}; {holds}")


def _find_folder(root: Path, split: str) -> tuple[str, Path]:
    """The folder of a split's images, and the name without a year by which it was found. Raises DataError."""
    if own := _folders(root, split):
        return own[0]
    synonyms = [name for names in SPLITS.values() if split in names for name in names]
    found = [folder for name in synonyms for folder in _folders(root, name)]
    if not found:
        inside = in_order([path.name for path in untrusted_files.listed(root) if path.is_dir()])
        raise DataError(f"data.root={root}: no folder {split} or {split}{YEARS[-1]}; it holds {', '.join(inside[:6])}")
    alike = [folder.name for name, folder in found if name in (*ONE_OF, *SPLITS["train"])]
    if len(alike) > 1:
        key = "data.train_split" if split in SPLITS["train"] else "data.eval_split"
        choices = " or ".join(f"{key}={name}" for name in alike)
        raise DataError(f"data.root={root}: {' and '.join(alike)} may both be the {split} split: choose with {choices}")
    return found[0]


def _folders(root: Path, name: str) -> list[tuple[str, Path]]:
    """The folders that the split of a name may have: (name, folder)."""
    return [(name, folder) for year in YEARS if (folder := root / f"{name}{year}").is_dir()]


def _listed(folder: Path, path: Path) -> BoxListing:
    """All images that a file names, each in the folder."""
    file = read_annotations(path)
    places = dict(files(folder, flat=True))
    if not file.names:
        raise DataError(f"{path}: names no image")
    missing = [name for name in file.names if name not in places]
    if missing:
        hint = ": does the file belong to another split?" if len(missing) == len(file.names) else ""
        raise DataError(
            f"{folder}: {len(missing)} of the {len(file.names)} images of {path.name} are not in it, e.g. "
            f"{printable(in_order(missing)[0])}{hint}"
        )
    at: dict[tuple[int, int], str] = {}
    for name in file.names:
        if (other := at.setdefault(places[name], name)) != name:
            raise DataError(f"{folder}: {printable(other)} and {printable(name)} are one image and would count twice")
    number = {name: row for row, name in enumerate(file.names)}
    names = in_order(file.names)
    images = Listing(Split(folder), file.classes, tuple(names), (), identities=frozenset(at))
    return BoxListing(images, file, np.array([number[name] for name in names], np.int64))


def _of_training(listing: BoxListing) -> BoxListing:
    """Without images that are too small or have nothing to learn from."""
    objects = listing.file.objects
    learned = np.concatenate([[0], np.cumsum(objects.usable)])[objects.first]
    is_used = (np.diff(learned)[listing.rows] > 0) & (listing.sizes.min(axis=1) >= LEAST_SIDE)
    names = tuple(name for name, used in zip(listing.images.names, is_used) if used)
    return replace(listing, images=replace(listing.images, names=names), rows=listing.rows[is_used])


def _without_identities(listing: BoxListing) -> BoxListing:
    """The listing as loader processes need it, without what only finds images that two splits share."""
    return replace(listing, images=replace(listing.images, identities=frozenset()))
