"""Per-image records of a finished run: what every evaluation image does to a metric, in ``records.npz``.

The file holds ``images``, their number, and ``order``, a checksum of what there is to predict, image by image. A metric
of parts that are right is ``<name>.hits``, bits of [N, K] packed along the images, where everything counts once;
otherwise it is ``<name>.correct`` and ``<name>.count``, unsigned [N, K]. A metric that is no mean of such parts, as
average precision, is ``<name>.influence``, float32 [N], and ``<name>.value``, one float64.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.plans import CollectError
from results.run_folders.numbers import DIGITS

if TYPE_CHECKING:
    import numpy as np

IMAGES, ORDER = "images", "order"
HITS, CORRECT, COUNT, INFLUENCE, VALUE = ".hits", ".correct", ".count", ".influence", ".value"
# numpy and zipfile raise these for torn or foreign files, depending on where the damage is
DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One metric of one run, image by image in the order of the evaluation set.

    correct, count: int64 [N, K], how many items (the image itself, tokens, pixels) of an image and column are right,
    and of how many. A column is a class, or there is one. Of a mean IoU, they are intersections and unions.
    order: checksum of what there was to predict (``order_of``).
    Raises ValueError for counts that no evaluation can give.
    """

    correct: np.ndarray
    count: np.ndarray
    order: int = 0

    def __post_init__(self) -> None:
        if self.correct.ndim != 2 or self.correct.shape != self.count.shape or not self.correct.size:
            raise ValueError(f"correct is {list(self.correct.shape)} and count {list(self.count.shape)}, not [N, K]")
        if (self.correct < 0).any() or (self.correct > self.count).any():
            raise ValueError("an image has less than nothing or more than everything right")
        if not self.count.any():
            raise ValueError("nothing was counted")

    @classmethod
    def of(cls, correct: np.ndarray, count: np.ndarray | int = 1, order: int = 0) -> ImageRecord:
        """From whole numbers of any type, [N] or [N, K]; ``count`` is broadcast."""
        import numpy as np

        correct = np.asarray(correct, np.int64)
        count = np.broadcast_to(np.asarray(count, np.int64), correct.shape)
        columns = -1 if correct.ndim > 1 else 1
        return cls(correct.reshape(len(correct), columns), count.reshape(len(correct), columns), order)

    @property
    def images(self) -> int:
        """N"""
        return len(self.count)

    def value(self) -> float:
        """The metric in per cent: the mean over columns of how much is right, without columns where nothing counts."""
        return float(self._percent().mean())

    def contributions(self) -> np.ndarray:
        """float64 [N]: the metric plus the influence of each image, in the metric's points; their mean is ``value()``.

        The spread of these numbers over the square root of N is the standard error of the metric over images: exact
        where every image counts the same, otherwise linearised (the delta method).
        """
        counted = self.count.any(axis=0)
        correct, count = self.correct[:, counted], self.count[:, counted]
        influence = (100.0 * correct - self._percent() * count) / count.mean(axis=0)
        contributions: np.ndarray = self.value() + influence.mean(axis=1)
        return contributions

    def rearranged(self, places: np.ndarray) -> ImageRecord:
        """The record of the images in another order, without a checksum of it. places: [N], the place of each now."""
        return ImageRecord(self.correct[places], self.count[places])

    def _percent(self) -> np.ndarray:
        """float64: how much is right of each column where anything counts."""
        count = self.count.sum(axis=0)
        percent: np.ndarray = 100.0 * self.correct.sum(axis=0)[count > 0] / count[count > 0]
        return percent


@dataclass(frozen=True, eq=False)
class InfluenceRecord:
    """One metric of one run that is no mean over parts of images, e.g. average precision, and what moves it.

    influence: float32 [N], how much each image moves the metric, in its points times N, in the order of the evaluation
    set; metric: its value; order: as of ``ImageRecord``.
    Raises ValueError for influences that are no finite numbers or of no image.
    """

    influence: np.ndarray
    metric: float
    order: int = 0

    def __post_init__(self) -> None:
        import numpy as np

        if self.influence.ndim != 1 or not self.influence.size or self.influence.dtype != np.float32:
            raise ValueError(f"the influence is {self.influence.dtype} {list(self.influence.shape)}, not float32 [N]")
        if not (math.isfinite(self.metric) and np.isfinite(self.influence).all()):
            raise ValueError("a metric or an influence on it is no finite number")

    @classmethod
    def jackknife(cls, metric: float, without: np.ndarray, order: int = 0) -> InfluenceRecord:
        """From the metric and its values without each image, [N].

        The influences are the pseudo-values N · metric - (N - 1) · without, less their mean.
        """
        import numpy as np

        without = np.asarray(without, np.float64)
        influence = (len(without) - 1) * (without.mean() - without)
        return cls(influence.astype(np.float32), float(metric), order)

    @property
    def images(self) -> int:
        """N"""
        return len(self.influence)

    def value(self) -> float:
        return self.metric

    def contributions(self) -> np.ndarray:
        """float64 [N]: the metric plus the influence of each image; their mean is ``value()``.

        The spread of these numbers over the square root of N is the jackknife's standard error over images.
        """
        import numpy as np

        influence = self.influence.astype(np.float64)
        contributions: np.ndarray = self.metric + (influence - influence.mean())
        return contributions

    def rearranged(self, places: np.ndarray) -> InfluenceRecord:
        """As of ``ImageRecord``."""
        return InfluenceRecord(self.influence[places], self.metric)


Record = ImageRecord | InfluenceRecord


def order_of(labels: np.ndarray) -> int:
    """A checksum of integer labels [N, ...]: it differs where runs were judged on other images or in another order.

    Shards are read in an order that depends on the number of loader processes.
    """
    import numpy as np

    return zlib.crc32(np.ascontiguousarray(labels, np.int64).tobytes())


def pack(records: Mapping[str, Record]) -> bytes:
    """The content of ``records.npz``; the same records give the same bytes. Metrics are named as in summaries."""
    import numpy as np

    first = next(iter(records.values()))
    arrays: dict[str, np.ndarray] = {}
    arrays[IMAGES], arrays[ORDER] = (np.array(number, np.uint32) for number in (first.images, first.order))
    for name, record in records.items():
        if (record.images, record.order) != (first.images, first.order):
            raise ValueError(f"{name} is of other images than {next(iter(records))}")
        if isinstance(record, InfluenceRecord):
            arrays |= {name + INFLUENCE: record.influence, name + VALUE: np.array(record.metric, np.float64)}
        elif (record.count == 1).all():
            arrays[name + HITS] = np.packbits(record.correct.astype(bool), axis=0)
        else:
            smallest = np.min_scalar_type(record.count.max())
            arrays |= {name + CORRECT: record.correct.astype(smallest), name + COUNT: record.count.astype(smallest)}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def check_value(path: Path, metric: str, record: Record, reported: float | None) -> None:
    """Raises CollectError unless the record gives the metric that the run reports, as far as that has digits.

    path: where the record was read.
    """
    value = record.value()
    if reported is None or not math.isclose(value, reported, rel_tol=10.0 ** (1 - DIGITS)):
        said = "not" if reported is None else f"{reported:g}"
        where = f"{path.parent.name}/{path.name}: {metric}"
        raise CollectError(f"{where} is {value:g} by its images, but {said} in the run's summary")


def read_records(path: Path) -> dict[str, Record]:
    """Metric as named in the run's summary, e.g. ``eval_ema/top1`` → its record. Raises CollectError."""
    where = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise CollectError(f"{where}: {'not a regular file' if path.exists() else 'no such file'}")
    try:
        return _unpacked(path)
    except DAMAGED as error:
        raise CollectError(f"{where}: no per-image records: {' '.join(str(error).split())}") from None


def _unpacked(path: Path) -> dict[str, Record]:
    import numpy as np

    # np.load reads other kinds of files, too
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as members:
        arrays = {name: members[name] for name in members.files}
    for name, array in arrays.items():
        if name.endswith((INFLUENCE, VALUE)):
            wanted = np.float32 if name.endswith(INFLUENCE) else np.float64
            if not isinstance(array, np.ndarray) or array.dtype != wanted:
                raise ValueError(f"{name} holds no numbers of type {wanted.__name__}")
        elif not isinstance(array, np.ndarray) or array.dtype.kind != "u":
            raise ValueError(f"{name} holds no unsigned whole numbers")
    if missing := {IMAGES, ORDER} - arrays.keys():
        raise ValueError(f"it has no {min(missing)}")
    images, order = (int(arrays.pop(name).reshape(())) for name in (IMAGES, ORDER))
    records: dict[str, Record] = {}
    for key in list(arrays):
        name, _, kind = key.rpartition(".")
        if name in records:
            continue  # the second member of a metric, or one too many, which is refused below
        if f".{kind}" == HITS:
            records[name] = ImageRecord.of(_unpacked_bits(arrays.pop(key), images, key), order=order)
        elif f".{kind}" == CORRECT:
            correct, count = arrays.pop(key), arrays.pop(name + COUNT, np.zeros(0, np.uint8))
            if max(correct.max(initial=0), count.max(initial=0)) >= 2**63:
                raise ValueError(f"{name} has counts beyond 64 bits")
            records[name] = ImageRecord(correct.astype(np.int64), count.astype(np.int64), order)
        elif f".{kind}" == INFLUENCE:
            influence, value = arrays.pop(key), arrays.pop(name + VALUE, np.zeros(0))
            if value.shape != ():
                raise ValueError(f"{name} has no value beside its influence")
            records[name] = InfluenceRecord(influence, float(value), order)
    for name in [*arrays, *(name for name, record in records.items() if record.images != images)]:
        raise ValueError(f"{name} does not belong to a metric of {images} images")
    for name in records:
        prefix, _, metric = name.partition("/")
        if not prefix or not metric:
            raise ValueError(f"{name!r} is no metric as summaries name them, e.g. eval/top1")
    if not records:
        raise ValueError("it holds no metric")
    return records


def _unpacked_bits(bits: np.ndarray, images: int, name: str) -> np.ndarray:
    """bool [images, K]"""
    import numpy as np

    if bits.ndim != 2 or bits.dtype != np.uint8 or len(bits) != -(-images // 8):
        raise ValueError(f"{name} is {bits.dtype} {list(bits.shape)}, not the bits of {images} images")
    return np.unpackbits(bits, axis=0, count=images)
