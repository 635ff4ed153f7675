"""Images and their label maps in ADE20K's layout, found and checked without decoding one and without torch.

``images/SPLIT/NAME.jpg`` and ``annotations/SPLIT/NAME.png`` below the root are a pair; a split may have folders of its
own. ``classes.txt`` at the root names the classes, a line each, in the order of their labels 1, 2, …; label 0 is none
of them. ADE20K itself comes without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import untrusted_files
from errors import DataError, UnreadableError
from experiments.data.layout import resolve_root, set_classes
from experiments.data.listing import Listing, Split, files, find_split, in_order, printable, refuse_shared, spread
from experiments.folder.provenance import listing_fingerprint
from experiments.schema import Config
from yaml_files import read_yaml

IMAGES, MASKS = "images", "annotations"
CLASSES = "classes.txt"
LONGEST = 1 << 16  # bytes of the list of classes
IGNORED = 255  # in a label map, a pixel without a label; classes are 0, 1, …
MOST_CLASSES = IGNORED
ADE20K = Path(__file__).with_name("ade20k.yaml")

Places = dict[str, tuple[int, int]]  # of files: name below images/ or annotations/ → (device, inode)


@dataclass(frozen=True)
class MaskListing:
    """The pairs of a split: image ``i`` and mask ``i`` belong together, and ``classes`` are in the order of labels."""

    images: Listing
    masks: Listing

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.masks.classes

    def without_identities(self) -> MaskListing:
        """The listing as loader processes need it, without what only finds images that two splits share."""
        return replace(self, images=replace(self.images, identities=frozenset()))

    def fingerprint(self, numbers: Iterable[int]) -> str:
        """Hash of the names of these pairs, in order."""
        chosen = list(numbers)
        return listing_fingerprint([side.names[number] for side in (self.images, self.masks) for number in chosen])


def check_masks(config: Config) -> None:
    """Refuses a root that is not in ADE20K's layout, and counts the classes where they are not set. Raises DataError.

    That every image of a split has its mask is found when the split is listed; labels are checked when they are read.
    """
    data = config.data
    root = _checked_root(config)
    train, judged = (_folders(root, split)[0].path for split in (data.train_split, data.eval_split))
    if train.resolve() == judged.resolve():
        raise DataError(
            f"data.root={data.root}: {data.train_split} and {data.eval_split} are the same images, {train}: a model "
            "would be judged on what it was trained on"
        )
    set_classes(config, len(class_names(root, data.dataset)))


def check_judged_masks(config: Config) -> None:
    """``check_masks`` for an evaluation, which needs the split that is judged and no other."""
    root = _checked_root(config)
    _folders(root, config.data.eval_split)
    set_classes(config, len(class_names(root, config.data.dataset)))


def _checked_root(config: Config) -> Path:
    data = config.data
    root = resolve_root(config)
    if data.reader:
        raise DataError(f"data.reader={data.reader}: images with masks are read from folders; set data.reader=''")
    if not root.is_dir():
        raise DataError(f"data.root={data.root}: not a folder; unpack the archive and give the folder that it holds")
    for folder in (IMAGES, MASKS):
        if not (root / folder).is_dir():
            raise DataError(f"data.root={data.root}: no folder {folder!r} in it; expected {_layout()}{_nearest(root)}")
    return root


def mask_listings(config: Config) -> tuple[MaskListing, MaskListing]:
    """The pairs that are trained on and judged, of a checked config.

    Raises DataError where a split cannot be listed, an image has no mask or a mask no image, or splits share an image.
    """
    train, judged = _listed(config, config.data.train_split, config.data.eval_split)
    refuse_shared(train.images, judged.images)
    return train.without_identities(), judged.without_identities()


def judged_masks(config: Config) -> MaskListing:
    """The pairs that are judged, wherever others are. Raises DataError where they cannot be listed."""
    return next(_listed(config, config.data.eval_split)).without_identities()


def _listed(config: Config, *splits: str) -> Iterator[MaskListing]:
    root = Path(config.data.root or "")
    classes = class_names(root, config.data.dataset)
    images, masks = (dict(files(root / folder)) for folder in (IMAGES, MASKS))
    return (_paired(_folders(root, split), images, masks, classes) for split in splits)


def mask_fingerprint(config: Config) -> str:
    """What a run of a checked config records of its data, from a listing alone. Raises DataError as listings do."""
    data = config.data
    lengths = (data.train_images, data.eval_images)
    return "-".join(
        listed.fingerprint(spread(len(listed), length)) for listed, length in zip(mask_listings(config), lengths)
    )


def class_names(root: Path, dataset: str) -> tuple[str, ...]:
    """The names of the classes in the order of their labels, from ``classes.txt`` or, of ADE20K, from our own list.

    Of a line with columns that tabs divide, the last one is the name. Raises DataError where the list cannot be read,
    is empty, or names a class twice.
    """
    path = root / CLASSES
    try:
        text = untrusted_files.content(path, LONGEST).decode("utf-8-sig")
    except FileNotFoundError:
        if dataset == "ade20k":
            return tuple(read_yaml(ADE20K)["classes"])
        raise DataError(
            f"data.root={root}: no {CLASSES} in it, which names the classes, a line each, in the order of their labels"
        ) from None
    except UnreadableError as error:
        raise DataError(str(error)) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save it as UTF-8") from None
    names = [line.rpartition("\t")[2].strip() for line in text.rstrip().split("\n")] if text.strip() else []
    if not names:
        raise DataError(f"{path}: names no class; expected a name on each line, in the order of the labels")
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable():
            problem = "has control characters" if name else "is empty, and the labels of all that follow would shift"
            raise DataError(f"{path}: line {number} {problem}")
        if name in first:
            raise DataError(f"{path}: {name!r} stands on line {first[name]} and on line {number}")
        first[name] = number
    if len(names) > MOST_CLASSES:
        raise DataError(f"{path}: names {len(names)} classes; a label map of 8 bits has room for {MOST_CLASSES}")
    return tuple(names)


def _layout() -> str:
    return f"{IMAGES}/SPLIT/NAME.jpg and {MASKS}/SPLIT/NAME.png"


def _nearest(root: Path) -> str:
    """Where the layout is found a folder further down, as archives that hold one folder are unpacked."""
    for below in untrusted_files.listed(root):
        with suppress(OSError):  # a folder that may not be looked at
            if (below / IMAGES).is_dir() and (below / MASKS).is_dir():
                return f"; did you mean data.root={below}?"
    return ""


def _folders(root: Path, split: str) -> tuple[Split, Split]:
    """Where the images and the masks of a split lie, in folders of one name. Raises DataError where either lacks."""
    images = find_split(root / IMAGES, split)
    masks = Split(root / MASKS / images.path.name)
    for found in (images, masks):
        if not found.path.is_dir():
            raise DataError(f"data.root={root}: {found.path} is not a folder; expected {_layout()}")
    return images, masks


def _paired(folders: tuple[Split, Split], images: Places, masks: Places, classes: tuple[str, ...]) -> MaskListing:
    """The pairs of a split, of all images and masks below the root, in the order of the images' names."""
    image_names, mask_names = (_by_stem(split, places) for split, places in zip(folders, (images, masks)))
    where = folders[0].path
    if not image_names:
        raise DataError(f"{where}: no images; expected {_layout()}")
    for side, own, other, partners in (
        ("images", image_names, "a mask", mask_names),
        ("masks", mask_names, "an image", image_names),
    ):
        if missing := own.keys() - partners.keys():
            example = printable(own[in_order(list(missing))[0]])
            raise DataError(
                f"{where.parent.parent}: {len(missing)} of {len(own)} {side} of {where.name} without {other} of the "
                f"same name, e.g. {example}"
            )
    names = in_order(list(image_names.values()))
    masks_of = [mask_names[_stem(name)] for name in names]
    if odd := [name for name in masks_of if not name.lower().endswith(".png")]:
        raise DataError(f"{folders[1].path}: {printable(odd[0])} is no PNG: JPEG changes labels; save masks as PNG")
    at: dict[tuple[int, int], str] = {}
    for name in names:
        if (other := at.setdefault(images[f"{where.name}/{name}"], name)) != name:
            raise DataError(f"{where}: {printable(other)} and {printable(name)} are one image and would count twice")
    return MaskListing(
        Listing(folders[0], classes, tuple(names), (), identities=frozenset(at)),
        Listing(folders[1], classes, tuple(masks_of), ()),
    )


def _by_stem(split: Split, places: Places) -> dict[str, str]:
    """Name below the split without its suffix → name. Raises DataError where two files would be one side of a pair."""
    found: dict[str, str] = {}
    for name in in_order([name for name in places if name.startswith(f"{split.path.name}/")]):
        below = name.partition("/")[2]
        if (other := found.setdefault(_stem(below), below)) != below:
            raise DataError(
                f"{split.path}: {printable(other)} and {printable(below)} differ in their suffix only: keep one"
            )
    return found


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
