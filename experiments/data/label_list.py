"""Splits as they are downloaded, whose images lie in one folder while a list beside them says their classes. No torch.

Read are the validation images of Tiny-ImageNet (``val/images/`` with ``val_annotations.txt``) and of ImageNet
(``ILSVRC2012_val_*.JPEG`` with the list of Kaggle, or with the ground truth and the synsets of the devkit, unpacked or
not). An image is named ``CLASS/FILE``, as if it lay in a folder of its class: the same images have the same order and
fingerprint whether or not somebody has sorted them into folders.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import untrusted_files
from errors import DataError, UnreadableError
from experiments.data.listing import Split, archived, files, find_split, folders, natural_key, printable

TINY_IMAGES, TINY_LIST = "images", "val_annotations.txt"  # in Tiny-ImageNet's folder val
KAGGLE_LIST, KAGGLE_IMAGES = "LOC_val_solution.csv", Path("ILSVRC/Data/CLS-LOC")
DEVKIT = ("ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/data", "data")  # where its files lie, unpacked
DEVKIT_ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH, SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
LONGEST = 1 << 26  # bytes of a list
LISTS = (
    f"Tiny-ImageNet's {TINY_LIST} beside the folder of the images, Kaggle's {KAGGLE_LIST}, or {DEVKIT_ARCHIVE}, packed "
    "or not, in the data root"
)


def labelled_split(root: Path, split: str) -> Split:
    """Where the images of a split lie, and what a list says of their classes if they lie in one folder.

    Raises DataError for images in one folder that no list, or no list of all of them, is found for.
    """
    below = root / KAGGLE_IMAGES
    found = find_split(below if below.is_dir() else root, split)
    if found.is_archive:
        return _of_archive(root, found)
    return _tiny(found) or _imagenet(root, found) or found


def _tiny(found: Split) -> Split | None:
    """Tiny-ImageNet's validation images; None for a folder that is not like theirs."""
    images, path = found.path / TINY_IMAGES, found.path / TINY_LIST
    classes = folders(found.path)
    if TINY_IMAGES not in classes or not _has_images(images):
        if TINY_IMAGES in classes and path.is_file():
            raise DataError(f"{images}: holds no images beside the class folders of {found.path}: remove it")
        return None
    if not path.is_file():
        if len(classes) == 1 and not any(folders(images)) and _has_labelled_neighbours(found.path):
            raise DataError(_no_list(images, found.path))
        return None
    if len(classes) > 1:
        odd = next(name for name in classes if name != TINY_IMAGES)
        raise DataError(
            f"{found.path}: images lie both in {TINY_IMAGES} and in folders such as {odd}; keep them all in "
            f"{TINY_IMAGES}, as {TINY_LIST} lists them, or sort all into folders of their classes"
        )
    labels: dict[str, str] = {}
    for number, line in _lines(path, _text(path)):
        name, _, rest = line.partition("\t")
        _note(labels, path, number, name, rest.partition("\t")[0])
    return _with_labels(replace(found, path=images), path, labels)


def _imagenet(root: Path, found: Split) -> Split | None:
    """ImageNet's validation images in one folder; None for a folder whose images lie in class folders."""
    if folders(found.path) or not _has_images(found.path):
        return None
    path, labels = _imagenet_labels(root, found)
    return _with_labels(found, path, labels)


def _of_archive(root: Path, found: Split) -> Split:
    """A split in an archive, whose images may lie at its top, as those of ImageNet's validation archive do."""
    names = _names(found)
    if any("/" in name for name in names):
        if {name.partition("/")[0] for name in names} == {TINY_IMAGES} and found.inside:
            raise DataError(
                f"data.root={root}: its {found.inside[-1]} split lies in one folder, {TINY_IMAGES}, which is read from "
                "folders alone: unpack the archive and give the folder"
            )
        return found
    if not names:
        return found
    path, labels = _imagenet_labels(root, found)
    return _with_labels(found, path, labels)


def _imagenet_labels(root: Path, found: Split) -> tuple[Path, dict[str, str]]:
    """The list that is found in the folder of the images, in the root or, of Kaggle's folders, above it."""
    places = [found.path.parent if found.is_archive else found.path, root]
    if root.parts[-3:] == KAGGLE_IMAGES.parts:
        places.append(root.parents[2])
    for place in dict.fromkeys(places):
        if (path := place / KAGGLE_LIST).is_file():
            return path, _of_kaggle(path)
        for folder in ("", *DEVKIT):
            if (truth := place / folder / TRUTH).is_file():
                synsets = truth.with_name(SYNSETS)
                if not synsets.is_file():
                    raise DataError(f"{truth}: needs {SYNSETS} of the devkit beside it, which names the classes")
                return truth, _of_devkit(truth, _text(truth), synsets, _content(synsets))
        if (path := place / DEVKIT_ARCHIVE).is_file():
            members = _packed(path)
            return path, _of_devkit(path, members[TRUTH].decode("ascii", "replace"), path, members[SYNSETS])
    raise DataError(_no_list(found.path, root))


def _no_list(images: Path, root: Path) -> str:
    return (
        f"{images}: images in one folder, and no list that says their classes: sort them into folders of their "
        f"classes, or put there what they were downloaded with ({LISTS}); looked in {root}"
    )


def _of_kaggle(path: Path) -> dict[str, str]:
    """``ILSVRC2012_val_00048981,n03995372 85 1 499 272 …``: an image and its boxes, all of one class."""
    labels: dict[str, str] = {}
    for number, line in _lines(path, _text(path)):
        name, _, boxes = line.partition(",")
        if number > 1 or name != "ImageId":
            _note(labels, path, number, f"{name}.JPEG", boxes.partition(" ")[0])
    return labels


def _of_devkit(truth: Path, text: str, where: Path, synsets: bytes) -> dict[str, str]:
    """Line ``i`` of the ground truth has the number of the class of image ``i``; the synsets name the numbers."""
    names = _synsets(where, synsets)
    labels: dict[str, str] = {}
    for number, line in _lines(truth, text):
        _note(labels, truth, number, f"ILSVRC2012_val_{number:08d}.JPEG", names.get(line.strip(), ""))
    return labels


def _synsets(path: Path, content: bytes) -> dict[str, str]:
    """The number of a class, as text → its name, from the devkit's file of MATLAB."""
    from scipy.io import loadmat

    try:
        table = loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in table}
    except Exception as error:  # scipy raises what it comes across
        raise DataError(f"{path}: not the {SYNSETS} of ImageNet's devkit ({type(error).__name__})") from None


def _packed(path: Path) -> dict[str, bytes]:
    """The two files of the packed devkit."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in (TRUTH, SYNSETS) and member.size < LONGEST and (file := archive.extractfile(member)):
                    found[name] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{path}: not an archive that can be read ({error}): download it again") from None
    if missing := {TRUTH, SYNSETS} - found.keys():
        raise DataError(f"{path}: holds no {' and no '.join(sorted(missing))}")
    return found


def _note(labels: dict[str, str], path: Path, number: int, name: str, label: str) -> None:
    if not label.strip() or not name.strip():
        raise DataError(f"{path}: line {number} does not name an image and its class, such as n01443537")
    if name in labels:
        raise DataError(f"{path}: line {number} names {printable(name)} a second time")
    labels[name] = label


def _with_labels(found: Split, path: Path, labels: Mapping[str, str]) -> Split:
    """The split with the classes of its images. Raises DataError unless the list is of exactly these images."""
    names = set(_names(found))
    if extra := names - labels.keys():
        raise DataError(
            f"{found.path}: {path.name} does not say the class of {_some(extra)}; remove what is not of the split, or "
            "unpack the archive again"
        )
    if missing := labels.keys() - names:
        raise DataError(f"{found.path}: lacks {_some(missing)} of {path.name}: unpack the archive again")
    return replace(found, labels=labels)


def _some(names: set[str]) -> str:
    first = min(names, key=natural_key)
    return f"{printable(first)}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")


def _names(found: Split) -> list[str]:
    listed = archived(found, flat=True) if found.is_archive else files(found.path, flat=True)
    return [name for name, _ in listed]


def _has_images(folder: Path) -> bool:
    return next(files(folder, flat=True), None) is not None


def _has_labelled_neighbours(folder: Path) -> bool:
    """Whether another split beside this one has classes, so that a folder called images is none."""
    beside = (path for name in ("train", "training") if (path := folder.parent / name).is_dir())
    return any(TINY_IMAGES not in folders(path) for path in beside)


def _lines(path: Path, text: str) -> Iterator[tuple[int, str]]:
    lines = text.splitlines()
    if not any(lines):
        raise DataError(f"{path}: is empty")
    return enumerate(lines, start=1)


def _text(path: Path) -> str:
    return _content(path).decode("utf-8", "replace")


def _content(path: Path) -> bytes:
    try:
        return untrusted_files.content(path, LONGEST)
    except (UnreadableError, FileNotFoundError) as error:
        raise DataError(str(error)) from None
