"""One file of annotations in COCO's format, read into arrays and checked. No torch; no image is looked at.

What an annotation says is kept as it stands: a box without area, a box past its image and a crowd are there for the
evaluation, which knows how to take them. ``Objects.usable`` marks what training learns from.
"""

from __future__ import annotations

import gc
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import untrusted_files
from errors import DataError, UnreadableError
from experiments.data.outlines import OutlineError, Outlines, compact, gathered

MOST_BYTES = 1 << 31  # of a file of annotations; COCO's largest has 4.7e8
LEAST_BOX = 1  # px, width and height of a box that training learns from


@dataclass(frozen=True, eq=False)
class Objects:
    """The M objects of a file, image after image and within an image in the order of the file.

    first: int64 [N + 1], objects first[i] … first[i + 1] - 1 are those of image i; ids: int64 [M]; boxes: float64
    [M, 4], x, y of the corner, width, height in px; classes: int64 [M], from 0 on; areas: float64 [M] in px, NaN where
    none is stated; crowd: bool [M], one annotation for several objects; usable: bool [M], whether training learns from
    it; outlines: of data with masks.
    """

    first: NDArray[np.int64]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    outlines: Outlines | None

    def of(self, image: int) -> range:
        """The numbers of the objects of an image."""
        return range(int(self.first[image]), int(self.first[image + 1]))


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """ids: int64 [N] of the images; names: of their files; sizes: int64 [N, 2], height and width in px; classes: names
    of the categories in the order of their ids."""

    path: Path
    ids: NDArray[np.int64]
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    classes: tuple[str, ...]
    objects: Objects


def read_annotations(path: Path) -> AnnotationFile:
    """The content of a file. Raises DataError naming the file, and the record at fault by its id.

    COCO's largest file takes a while, so the last two are remembered as long as they are not changed.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    return _read(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=2)
def _read(path: Path, *_: int) -> AnnotationFile:
    with _without_collection():
        document = _document(path)
        images, categories, annotations = (
            _Records(path, document, key, noun)
            for key, noun in (("images", "image"), ("categories", "category"), ("annotations", "annotation"))
        )
        numbers = images.identifiers()
        sizes = np.stack([images.whole_numbers(key, least=1) for key in ("height", "width")], axis=1)
        names, classes, places = images.texts("file_name"), *_classes(categories)
        objects = _objects(annotations, numbers, sizes, places)
    _refuse_twice(images, names, "file_name")
    for number, name in enumerate(names):
        if name.startswith("/") or ".." in name.split("/"):
            images.refuse(number, f"file_name {name!r} leads out of the folder of the split")
    return AnnotationFile(path, np.array(list(numbers), np.int64), names, sizes, classes, objects)


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(untrusted_files.content(path, MOST_BYTES), object_hook=compact)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnreadableError as error:
        raise DataError(str(error)) from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply") from None
    except ValueError as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: torn or not JSON") from None
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected an object with the lists images, annotations and categories")
    return document


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python would search millions of new records for cycles, again and again; there are none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Records:
    """The records of one list of a file, by column. Every method raises DataError naming the record at fault."""

    def __init__(self, path: Path, document: dict[str, Any], key: str, noun: str) -> None:
        records = document.get(key)
        if not isinstance(records, list):
            raise DataError(f"{path}: no list {key!r} in it; expected images, annotations and categories, as of COCO")
        self.path, self.key, self.noun, self.records = path, key, noun, records
        if set(map(type, records)) - {dict}:
            number = next(number for number, record in enumerate(records) if type(record) is not dict)
            raise DataError(f"{path}: {key}[{number}] is {_shown(records[number])}, not a record with an id")

    def refuse(self, number: int, problem: str) -> NoReturn:
        identifier = self.records[number].get("id")
        who = f"{self.noun} {identifier}" if type(identifier) is int else f"{self.key}[{number}]"
        raise DataError(f"{self.path}: {who}: {problem}")

    def column(self, key: str) -> list[Any]:
        return [record.get(key) for record in self.records]

    def whole_numbers(self, key: str, least: int | None = None) -> NDArray[np.int64]:
        values = self.column(key)
        self._check(key, values, lambda value: type(value) is int, "not a whole number", always=int)
        try:
            numbers = np.array(values, np.int64)
        except OverflowError:
            self._check(key, values, lambda value: abs(value) < 2**63, "too large")
            raise
        if least is not None and len(numbers) and numbers.min() < least:
            self.refuse(int(np.argmax(numbers < least)), f"{key} is {numbers[numbers < least][0]}, not {least} or more")
        return numbers

    def finite(self, key: str, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        """float64 [n, m] of m numbers for each record, stated under ``key``."""

        def together(some: Sequence[Sequence[Any]]) -> NDArray[np.float64] | None:
            try:
                numbers = np.array(array("d", chain.from_iterable(some)))
            except (TypeError, OverflowError):
                return None
            return numbers if np.isfinite(numbers).all() else None

        numbers = together(rows)
        if numbers is None:
            number = next(number for number, row in enumerate(rows) if together([row]) is None)
            self.refuse(number, f"{key} is {_shown(self.records[number][key])}, which is not finite numbers")
        return numbers.reshape(len(rows), len(rows[0]) if rows else 4)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.column(key)
        self._check(key, values, lambda value: type(value) is str and value != "", "not a name", always=str)
        try:
            "".join(values).encode()
        except UnicodeEncodeError:  # half a surrogate pair is JSON, but no text
            self._check(key, values, lambda value: value.isprintable(), "not a text")
        return tuple(values)

    def flags(self, key: str) -> NDArray[np.bool_]:
        """False where nothing is stated."""
        values = self.column(key)
        self._check(key, values, lambda value: value is None or value in (0, 1), "neither 0 nor 1")
        return np.array([bool(value) for value in values], np.bool_)

    def identifiers(self) -> dict[int, int]:
        """id → number of the record, in the order of the file."""
        ids = self.whole_numbers("id").tolist()
        _refuse_twice(self, ids, "id")
        return {identifier: number for number, identifier in enumerate(ids)}

    def references(self, key: str, places: dict[int, int], noun: str) -> NDArray[np.int64]:
        """What other records these ones point at. places: id → number of the other record."""
        values = self.whole_numbers(key).tolist()
        found = [places.get(value, -1) for value in values]
        if -1 in found:
            number = found.index(-1)
            self.refuse(number, f"{key} is {values[number]}, but no {noun} has this id")
        return np.array(found, np.int64)

    def _check(
        self, key: str, values: list[Any], is_valid: Callable[[Any], bool], says: str, always: type | None = None
    ) -> None:
        """always: the type of valid values, by which a column of them is seen to be valid at once."""
        if set(map(type, values)) == {always} and "" not in values:
            return
        for number, value in enumerate(values):
            if not is_valid(value):
                self.refuse(number, f"{key} is {_shown(value)}, {says}" if value is not None else f"{key} is missing")


def _refuse_twice(records: _Records, values: Sequence[Any], key: str) -> None:
    if len(set(values)) == len(values):
        return
    value = next(value for value, count in Counter(values).items() if count > 1)
    times = sum(each == value for each in values)
    raise DataError(f"{records.path}: {times} {records.key} have the {key} {_shown(value)}: each needs its own")


def _classes(categories: _Records) -> tuple[tuple[str, ...], dict[int, int]]:
    """The names of the categories in the order of their ids, and id → class: ids may have gaps, classes have none."""
    names = dict(zip(categories.identifiers(), categories.texts("name")))
    if not names:
        raise DataError(f"{categories.path}: names no category")
    _refuse_twice(categories, list(names.values()), "name")
    for number, name in enumerate(names.values()):
        if not name.isprintable():
            categories.refuse(number, "its name has control characters")
    ids = sorted(names)
    return tuple(names[each] for each in ids), {identifier: number for number, identifier in enumerate(ids)}


def _objects(
    annotations: _Records, images: dict[int, int], sizes: NDArray[np.int64], classes: dict[int, int]
) -> Objects:
    ids = np.array(list(annotations.identifiers()), np.int64)
    image_of = annotations.references("image_id", images, "image")
    class_of = annotations.references("category_id", classes, "category")
    boxes, areas, crowd = _boxes(annotations), _areas(annotations), annotations.flags("iscrowd")
    order = np.argsort(image_of, kind="stable")
    masks = annotations.column("segmentation")
    try:
        outlines = gathered([masks[number] for number in order], sizes[image_of[order]])
    except OutlineError as error:
        annotations.refuse(int(order[error.number]), str(error))
    usable = _usable(boxes, areas, sizes[image_of]) & ~crowd & ~annotations.flags("ignore")
    return Objects(
        first=np.searchsorted(image_of[order], np.arange(len(images) + 1)).astype(np.int64),
        ids=ids[order],
        boxes=boxes[order],
        classes=class_of[order],
        areas=areas[order],
        crowd=crowd[order],
        usable=usable[order],
        outlines=outlines,
    )


def _boxes(annotations: _Records) -> NDArray[np.float64]:
    stated = annotations.column("bbox")
    for number, box in enumerate(stated):
        if type(box) is not list or len(box) != 4:
            problem = "is missing" if box is None else f"is {_shown(box)}, not x, y, width and height"
            annotations.refuse(number, f"bbox {problem}")
    boxes = annotations.finite("bbox", stated)
    if (wrong := (boxes[:, 2:] < 0).any(axis=1)).any():
        number = int(np.argmax(wrong))
        annotations.refuse(number, f"bbox is {_shown(stated[number])}, with a negative width or height")
    return boxes


def _areas(annotations: _Records) -> NDArray[np.float64]:
    """NaN where none is stated."""
    stated = annotations.column("area")
    areas = annotations.finite("area", [[0.0 if area is None else area] for area in stated])[:, 0]
    if (areas < 0).any():
        number = int(np.argmax(areas < 0))
        annotations.refuse(number, f"area is {_shown(stated[number])}, which is negative")
    areas[[area is None for area in stated]] = np.nan
    return areas


def _usable(boxes: NDArray[np.float64], areas: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Objects with an area, a box of at least 1 px a side and a part of it inside the image. Source: mmdet."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    inside = np.minimum(high, sizes[:, ::-1]) > np.maximum(low, 0)
    has_area = ~(areas <= 0)
    return inside.all(axis=1) & (boxes[:, 2:] >= LEAST_BOX).all(axis=1) & has_area


def _shown(value: object) -> str:
    return repr(value)[:60]
