"""The masks of objects as COCO's annotations state them: polygons and run-length encodings. No torch.

They are checked when a file of annotations is read and kept as they are stated, since label maps of all objects of a
data set would fill a memory; the masks of an image are made when it is read, by pycocotools.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_masks

LEAST = 6  # numbers of a polygon; fewer than three points enclose nothing
MOST_CHARACTERS = 7  # of one number in a compressed encoding: 35 bits

RunLengths = dict[str, Any]  # COCO's: ``size``, height and width in px, and the bytes ``counts``


@dataclass(frozen=True, eq=False)
class Outlines:
    """The masks of M objects, by the number of the object.

    points: float64 [P], x, y, x, y, … in px of all polygons; polygon_ends: int64 [R], where each polygon ends in
    points; object_ends: int64 [M], where the polygons of each object end in polygon_ends; runs: of the objects whose
    mask is run-length encoded, the compressed counts.
    """

    points: NDArray[np.float64]
    polygon_ends: NDArray[np.int64]
    object_ends: NDArray[np.int64]
    runs: dict[int, bytes]

    def encoded(self, number: int, size: tuple[int, int]) -> RunLengths:
        """The mask of an object in an image of ``size``, height and width in px, run-length encoded.

        An object without a polygon of three points has an empty mask. What lies outside the image is cut off.
        """
        height, width = size
        if number in self.runs:
            return {"size": [height, width], "counts": self.runs[number]}
        polygons = self.polygons(number)
        if not polygons:
            empty: RunLengths = coco_masks.encode(np.zeros((height, width, 1), np.uint8, order="F"))[0]
            return empty
        merged: RunLengths = coco_masks.merge(coco_masks.frPyObjects(polygons, height, width))
        return merged

    def polygons(self, number: int) -> list[NDArray[np.float64]]:
        """The polygons of an object, each float64 [2 · points]."""
        own = range(_start(self.object_ends, number), int(self.object_ends[number]))
        return [self.points[_start(self.polygon_ends, each) : self.polygon_ends[each]] for each in own]

    def pieces(self, first: int, last: int) -> list[bytes]:
        """Everything that decides the masks of the objects from ``first`` on and before ``last``, for a fingerprint."""
        start, end = _start(self.object_ends, first), _start(self.object_ends, last)
        at, until = _start(self.polygon_ends, start), _start(self.polygon_ends, end)
        ends = self.polygon_ends[start:end]
        counts = self.object_ends[first:last] - start
        encoded = [self.runs.get(number, b"") for number in range(first, last)] if self.runs else []
        return [counts.tobytes(), (ends - at).tobytes(), self.points[at:until].tobytes(), b"\n".join(encoded)]


def decoded(masks: Sequence[RunLengths], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 [n, h, w] of run-length encoded masks of one size, 0 and 1."""
    if not masks:
        return np.zeros((0, *size), np.uint8)
    bitmaps: NDArray[np.uint8] = coco_masks.decode(list(masks)).transpose(2, 0, 1)
    return bitmaps


def encoded(bitmaps: NDArray[np.uint8]) -> tuple[RunLengths, ...]:
    """The run-length encodings of uint8 [n, h, w], 0 and 1."""
    return tuple(coco_masks.encode(np.asfortranarray(bitmaps.transpose(1, 2, 0))))


def areas_of(masks: Sequence[RunLengths]) -> NDArray[np.float64]:
    """float64 [n], the areas in px of run-length encoded masks."""
    return np.array(coco_masks.area(list(masks)), np.float64)


def compact(record: dict[str, Any]) -> dict[str, Any]:
    """A record of JSON with its polygons as arrays, which take a quarter of the memory of lists of numbers.

    Polygons that are no lists of numbers are left for ``gathered`` to refuse.
    """
    polygons = record.get("segmentation")
    if type(polygons) is list:
        with suppress(TypeError, ValueError, OverflowError):
            record["segmentation"] = [array("d", polygon) for polygon in polygons]
    return record


class OutlineError(ValueError):
    """A mask that cannot be meant. number: of the object."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


def gathered(stated: Sequence[Any], sizes: NDArray[np.int64]) -> Outlines | None:
    """The masks of objects from what their annotations state under ``segmentation``, after ``compact``.

    sizes: int64 [M, 2], height and width of the image of each object. None where no object has a mask. Raises
    OutlineError where only some have, and for masks that cannot be meant.
    """
    lacking = [number for number, mask in enumerate(stated) if mask is None or mask == []]
    if len(lacking) == len(stated):
        return None
    if lacking:
        raise OutlineError(lacking[0], "has no mask, others of the file have one: give all of them a mask, or none")
    points, polygon_ends, object_ends, runs = array("d"), array("q"), array("q"), {}
    for number, mask in enumerate(stated):
        if type(mask) is list:
            for polygon in mask:
                if type(polygon) is not array:
                    raise OutlineError(number, "segmentation holds a polygon that is no list of numbers")
                if len(polygon) % 2:
                    raise OutlineError(number, f"a polygon has {len(polygon)} numbers; expected x, y, x, y, …")
                if len(polygon) >= LEAST:
                    points.extend(polygon)
                    polygon_ends.append(len(points))
        elif type(mask) is dict:
            try:
                runs[number] = _compressed(mask, (int(sizes[number, 0]), int(sizes[number, 1])))
            except ValueError as error:
                raise OutlineError(number, str(error)) from None
        else:
            raise OutlineError(number, f"segmentation is {str(mask)[:40]!r}; expected polygons or run lengths")
        object_ends.append(len(polygon_ends))
    outlines = Outlines(np.array(points), np.array(polygon_ends, np.int64), np.array(object_ends, np.int64), runs)
    _refuse_far(outlines, sizes)
    return outlines


def run_lengths(counts: bytes) -> NDArray[np.int64]:
    """The lengths in px of the runs of a compressed encoding, of zeros first.

    A number takes a character for every 5 bits, the lowest first, and from the fourth number on it is the difference to
    the last but one. Raises ValueError for what is no such encoding; pycocotools would read past its end.
    """
    values = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(values) or values.min() < 0 or values.max() > 63:
        raise ValueError("counts has characters that no encoding has")
    is_last = (values & 32) == 0
    ends = np.flatnonzero(is_last)
    if not is_last[-1]:
        raise ValueError("counts is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(values)) - np.repeat(starts, ends - starts + 1)
    if place.max() >= MOST_CHARACTERS:
        raise ValueError("counts has a number of more than 35 bits")
    numbers = np.add.reduceat((values & 31) << (5 * place), starts)
    is_negative = (values[ends] & 16) != 0
    numbers -= is_negative.astype(np.int64) << (5 * (ends - starts + 1))
    runs = numbers.copy()
    for first in (1, 2):
        runs[first::2] = np.cumsum(numbers[first::2])
    if runs.min() < 0:
        raise ValueError("counts has a negative run")
    return runs


def _compressed(mask: dict[str, Any], size: tuple[int, int]) -> bytes:
    """The compressed counts of a mask. Raises ValueError where it is not one of an image of this size."""
    stated, counts = mask.get("size"), mask.get("counts")
    if not isinstance(stated, list) or len(stated) != 2 or any(type(side) is not int for side in stated):
        raise ValueError("its mask states no size of two whole numbers")
    if tuple(stated) != size:
        raise ValueError(f"its mask has {str(stated[1])[:20]}x{str(stated[0])[:20]} px, its image {size[1]}x{size[0]}")
    if isinstance(counts, list):
        if any(type(run) is not int or run < 0 for run in counts):
            raise ValueError("counts holds something else than whole numbers from 0 on")
        runs = sum(counts)
    elif isinstance(counts, str):
        counts = counts.encode()
        runs = int(run_lengths(counts).sum())
    else:
        raise ValueError("counts is neither a list of numbers nor a text")
    if runs != math.prod(size):
        raise ValueError(f"the runs of its mask have {str(runs)[:20]} px together, its image {math.prod(size)}")
    compressed: bytes = counts if isinstance(counts, bytes) else coco_masks.frPyObjects(mask, *size)["counts"]
    return compressed


def _start(ends: NDArray[np.int64], number: int) -> int:
    """Where the part ``number`` starts, of parts that end at ``ends``."""
    return int(ends[number - 1]) if number else 0


def _refuse_far(outlines: Outlines, sizes: NDArray[np.int64]) -> None:
    """Raises OutlineError for a point that is no number, or farther from its image than its longest side.

    pycocotools walks along every edge, so a point at the end of the world would take all memory.
    """
    if not len(outlines.points):
        return
    starts = np.concatenate([[0], outlines.polygon_ends[:-1]])
    low, high = (each.reduceat(outlines.points, starts) for each in (np.minimum, np.maximum))
    polygons = np.diff(outlines.object_ends, prepend=0)
    longest = np.repeat(sizes.max(axis=1), polygons)
    wrong = ~((low >= -longest) & (high <= 2 * longest))
    if wrong.any():
        number = int(np.repeat(np.arange(len(polygons)), polygons)[np.argmax(wrong)])
        is_number = math.isfinite(low[np.argmax(wrong)]) and math.isfinite(high[np.argmax(wrong)])
        problem = "farther from its image than its longest side" if is_number else "that is no number"
        raise OutlineError(number, f"a polygon has a point {problem}")
