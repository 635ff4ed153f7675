"""The images of a split and their classes in one total order, from class folders or a tar archive. No torch.

The class of an image is the first folder below the split. Files are in timm's order, by their path without regard to
case and with numbers by their value; paths that are equal so far are in the order of their bytes. Names that begin with
a dot, and folders that systems add to those of others, are no images and no classes.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from errors import DataError

# what a split's folder or archive may be called, in this order; as timm finds them
SPLITS = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "eval", "test")}
OFFICIAL = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}  # ImageNet's own archives
ONE_OF = ("validation", "valid", "val")  # of these, a data set has one; test and eval may stand beside it
SUFFIXES = (".png", ".jpg", ".jpeg")
OTHER_IMAGES = (".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif", ".heic", ".jxl", ".jfif")
NO_INODES = (0, 2**32 - 1, 2**64 - 1)  # what file systems in user space list where they have no numbers
COMPARED = 20  # images by which two splits of the same names are seen to be copies
OF_SYSTEMS = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


@dataclass(frozen=True)
class Split:
    """Where the images of a split lie: in a folder, or in a tar archive below the folders ``inside`` it.

    labels: of images that lie in one folder, their classes by their names; empty where they lie in class folders.
    """

    path: Path
    inside: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @property
    def is_archive(self) -> bool:
        return self.path.is_file()


@dataclass(frozen=True)
class Listing:
    """The images of a split: their names below it, their classes as numbers, and where each is read.

    Names begin with the class, also where images lie in one folder (``flat``), whose files are called by the rest.
    classes: names in the order of their numbers. places: of an archive, (offset, size) in bytes of each image.
    identities: of a folder, (device, inode) of each image, by which two splits that share one are found.
    """

    split: Split
    classes: tuple[str, ...]
    names: tuple[str, ...]
    targets: tuple[int, ...]
    places: tuple[tuple[int, int], ...] = ()
    identities: frozenset[tuple[int, int]] = field(default=frozenset(), repr=False)
    flat: bool = False

    # what timm's data sets ask of a reader
    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        return self.open(index), self.targets[index]

    def filename(self, index: int, **_: Any) -> str:
        return self.names[index]

    def open(self, index: int) -> BinaryIO:
        """The file of an image. Raises OSError, also for what is no regular file: a pipe would wait for ever."""
        if self.places:
            offset, size = self.places[index]
            with self.split.path.open("rb") as archive:
                archive.seek(offset)
                return io.BytesIO(archive.read(size))
        name = self.names[index]
        path = self.split.path / (name.partition("/")[2] if self.flat else name)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        if not status.st_size:
            raise OSError("the file is empty")
        return path.open("rb")


def natural_key(name: str) -> list[Any]:
    """timm's order of names: numbers by their value, letters without regard to case."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name.lower()))]


def in_order(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (natural_key(name), os.fsencode(name)))


def spread(available: int, length: int | None) -> list[int]:
    """Which images a part of a split has: spread over it evenly, as a listing is sorted by class. None: all."""
    import numpy as np

    numbers: list[int] = np.linspace(0, available - 1, min(length or available, available)).round().astype(int).tolist()
    return numbers


def printable(name: str) -> str:
    """A file's name in one line of text, also where it is no UTF-8 or has control characters."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def find_split(root: Path, split: str) -> Split:
    """The folder or archive of a split below a root, or the folders in an archive, by its name or a synonym of it.

    Raises DataError where there is none.
    """
    names = [split, *(name for synonyms in SPLITS.values() if split in synonyms for name in synonyms)]
    if root.is_file():
        return _inside(root, split, names)
    found = [Split(root / name) for name in dict.fromkeys(names) if (root / name).is_dir()]
    found += [Split(root / f"{name}.tar") for name in dict.fromkeys(names) if (root / f"{name}.tar").is_file()]
    _refuse_two(root, split, [each.path.name.removesuffix(".tar") for each in found])
    if found:
        return min(found, key=lambda each: names.index(each.path.name.removesuffix(".tar")))
    for name, archive in OFFICIAL.items():
        if name in names and (root / archive).is_file():
            return Split(root / archive)
    inside = folders(root)
    more = ", …" if len(inside) > 5 else ""
    holds = f"it holds {', '.join(inside[:5])}{more}" if inside else "it is empty"
    if not inside and (packed := in_order([entry.name for entry in _entries(root) if not _is_hidden(entry.name)])):
        holds = f"it holds no folders, only {', '.join(map(printable, packed[:5]))}; unpack archives"
    below = [name for name in inside if any((root / name / each).is_dir() for each in names)]
    near = (
        f"did you mean data.root={root / below[0]}?" if len(below) == 1 else "a split is a folder, such as train or val"
    )
    raise DataError(f"data.root={root}: no folder for the {split} split; {holds}; {near}")


def _refuse_two(root: Path, split: str, found: Sequence[str]) -> None:
    """Raises DataError where it is not clear which of several folders or archives is meant."""
    alike = [] if split in SPLITS else [name for name in found if name == split]
    alike = alike or [name for name in found if name in (*ONE_OF, *SPLITS["train"])]
    if len(alike) > 1:
        key = "data.train_split" if split in SPLITS["train"] else "data.eval_split"
        choices = [f"{key}={name}" for name in alike if name not in SPLITS and alike.count(name) == 1]
        raise DataError(
            f"data.root={root}: {' and '.join(dict.fromkeys(alike))} may both be the {split} split"
            + (", as a folder and as an archive" if len(set(alike)) == 1 else "")
            + ": keep one of them"
            + (f", or choose with {' or '.join(choices)}" if choices else "")
        )


def class_names(split: Split) -> tuple[str, ...]:
    """The classes of a split; of a folder, without looking for images. Raises DataError where there are none."""
    if split.labels:
        return tuple(in_order(list(set(split.labels.values()))))
    if split.is_archive:
        return list_split(split).classes
    found = tuple(folders(split.path))
    if not found:
        raise DataError(f"{split.path}: no class folders (expected {split.path.name}/<class>/<image>)")
    return found


def list_split(split: Split) -> Listing:
    """Lists every image of a split. Raises DataError where it holds none, holds one twice or cannot be listed."""
    found: dict[str, tuple[int, int]] = {}
    at: dict[tuple[int, int], str] = {}
    flat = bool(split.labels)
    for file, place in archived(split, flat) if split.is_archive else files(split.path, flat):
        name = f"{split.labels[file]}/{file}" if flat else file
        if not split.is_archive and (other := at.setdefault(place, name)) != name:
            raise DataError(
                f"{split.path}: {printable(other)} and {printable(name)} are one image and would count twice"
            )
        found[name] = place
    names = in_order(list(found))
    if not names:
        raise DataError(f"{split.path}: no images ({', '.join(SUFFIXES)}) in class folders")
    by_names = split.is_archive and not flat
    classes = tuple(in_order(list({_class(name) for name in names}))) if by_names else class_names(split)
    numbers = {name: number for number, name in enumerate(classes)}
    targets = tuple(numbers[_class(name)] for name in names)
    facts = tuple(found[name] for name in names)
    where = replace(split, labels={})  # the names have them
    if split.is_archive:
        return Listing(where, classes, tuple(names), targets, places=facts)
    return Listing(where, classes, tuple(names), targets, identities=frozenset(facts), flat=flat)


def refuse_shared(train: Listing, judged: Listing) -> None:
    """Raises DataError where two splits share an image, by whatever names and links."""
    one_place = train.split.inside == judged.split.inside and train.split.path.samefile(judged.split.path)
    shared = "share images" if one_place or train.identities & judged.identities else ""
    if not shared and train.names == judged.names and _same_content(train, judged):
        shared = "are copies"
    if shared:
        raise DataError(
            f"{train.split.path} and {judged.split.path} {shared}: a model would be judged on what it was trained on"
        )


def _same_content(one: Listing, other: Listing) -> bool:
    """Whether the first images of two listings of the same names are equal, as those of copies are."""
    try:
        return all(one.open(number).read() == other.open(number).read() for number in range(min(COMPARED, len(one))))
    except OSError:  # named when it is read
        return False


def _class(name: str) -> str:
    return name.partition("/")[0]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in OF_SYSTEMS


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not _is_hidden(name)


def _refuse_other_format(where: Path, name: str) -> None:
    if name.lower().endswith(OTHER_IMAGES) and not any(map(_is_hidden, PurePosixPath(name).parts)):
        raise DataError(
            f"{where}: {printable(name)} would be left out: images are read from {', '.join(SUFFIXES)}; convert it"
        )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds. What cannot be listed is not empty: raises DataError."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None


def folders(folder: Path) -> list[str]:
    """The folders in a folder, in order, without those of systems. Raises DataError."""
    return in_order([entry.name for entry in _entries(folder) if _is_folder(entry) and not _is_hidden(entry.name)])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is a file that cannot be read
            return False
        raise DataError(f"{entry.path}: cannot be looked at ({error.strerror})") from None


def _identity(entry: os.DirEntry[str], device: int) -> tuple[int, int]:
    """(device, inode) of a file in a folder on ``device``; of a link that leads to one, that of its target."""
    if entry.is_symlink():
        with suppress(OSError):  # a dead link is named when it is read
            target = entry.stat()
            return target.st_dev, target.st_ino
    if entry.inode() in NO_INODES:
        with suppress(OSError):
            return device, entry.stat().st_ino
    return device, entry.inode()


def files(folder: Path, flat: bool = False) -> Iterator[tuple[str, tuple[int, int]]]:
    """The images below the class folders of a split: name → (device, inode). Links are followed, each folder once.

    flat: images also lie in ``folder`` itself.
    """
    seen: dict[tuple[int, int], str] = {}
    waiting = [(folder, "")]
    while waiting:
        path, below = waiting.pop()
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be looked at ({error.strerror})") from None
        here = (status.st_dev, status.st_ino)
        if here in seen:
            raise DataError(
                f"{path}: the same folder as {folder / seen[here]}, through a link; its images would count twice"
            )
        seen[here] = below
        for entry in _entries(path):
            name = f"{below}{entry.name}"
            _refuse_other_format(folder, name if below or flat else "")
            if _is_folder(entry):
                if not _is_hidden(entry.name):
                    waiting.append((path / entry.name, f"{name}/"))
            elif (below or flat) and _is_image(entry.name):
                yield name, _identity(entry, status.st_dev)


def _inside(archive: Path, split: str, names: Sequence[str]) -> Split:
    """The folders of a split in an archive: at its top, or in the one folder that is at its top."""
    folders = {PurePosixPath(name).parts[:-1] for name, _, _ in _members(archive)}
    tops = {parts[:1] for parts in folders}
    for above in ((), *(tops if len(tops) == 1 else ())):
        for name in names:
            inside = (*above, name)
            if any(parts[: len(inside)] == inside for parts in folders):
                return Split(archive, inside)
    holds = ", ".join(in_order([part for top in tops for part in top])[:5]) or "no folders"
    raise DataError(
        f"data.root={archive}: no folder for the {split} split in it; it holds {holds}. Of one archive per split, "
        "train.tar and val.tar, give the folder they lie in"
    )


def archived(split: Split, flat: bool = False) -> Iterator[tuple[str, tuple[int, int]]]:
    """The images below the class folders of a split in an archive: name → (offset, size) in bytes.

    flat: images also lie beside these folders.
    """
    for name, offset, size in _members(split.path):
        parts = PurePosixPath(name).parts
        if parts[: len(split.inside)] == split.inside and len(below := parts[len(split.inside) :]) > (not flat):
            yield "/".join(below), (offset, size)


def _members(archive: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, offset, size) of every image in a tar archive, and of those in archives in it, one per class."""
    status = archive.stat()
    return _read_members(archive, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2)  # to find a split and to list it takes one pass over the archives of both splits
def _read_members(archive: Path, *_: int) -> tuple[tuple[str, int, int], ...]:
    try:
        with tarfile.open(archive, "r:") as opened:
            return tuple(_members_of(archive, opened, "", 0))
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{archive}: not a tar archive that can be read ({error}); unpack it and give the folder that it holds"
        ) from None


def _members_of(where: Path, opened: tarfile.TarFile, above: str, start: int) -> Iterator[tuple[str, int, int]]:
    for member in opened:
        parts = [part for part in PurePosixPath(member.name).parts if part not in (".", "/")]
        if not parts or any(map(_is_hidden, parts)):
            continue
        if (member.islnk() or member.issym() or member.issparse()) and _is_image(parts[-1]):
            raise DataError(
                f"{where}: {printable(member.name)} is {'a sparse file' if member.issparse() else 'a link'}; in an "
                "archive, only regular files are read: pack it again with tar --dereference --hard-dereference"
            )
        if not member.isfile():
            continue
        _refuse_other_format(where, member.name)
        name, offset = above + "/".join(parts), start + member.offset_data
        if member.name.lower().endswith(".tar") and not above and (inner := opened.extractfile(member)):
            with tarfile.open(fileobj=inner, mode="r:") as child:
                yield from _members_of(where / member.name, child, f"{name[:-4]}/", offset)
        elif _is_image(parts[-1]):
            yield name, offset, member.size
    _refuse_unfinished(where, opened)


def _refuse_unfinished(where: Path, opened: tarfile.TarFile) -> None:
    """Raises DataError where a tar archive does not end with zeros: at a damaged header, tarfile stops in silence."""
    assert opened.fileobj
    opened.fileobj.seek(opened.offset)
    zeros = 0
    while (block := opened.fileobj.read(1 << 20)) and not any(block):
        zeros += len(block)
    if block or zeros < tarfile.BLOCKSIZE:
        raise DataError(f"{where}: damaged or cut off: its list of files breaks off after {opened.offset:,} bytes")
