"""Average precision without each of the images, from the matches of one evaluation. Must not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.tasks.coco_evaluation import ALL_SIZES

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

AT_ONCE = 2_000_000  # numbers in a table of images by right detections


def precision_without(evaluation: COCOeval) -> NDArray[np.float64]:
    """float64 [N]: the average precision in per cent over all sizes, without each image, in the order of their numbers.

    It is what COCOeval gives for the N - 1 other images: a class whose only objects are in an image does not count
    without it. Where no class remains, it is the average precision of all images.
    """
    images, per_class = len(evaluation.params.imgIds), len(evaluation.params.areaRng) * len(evaluation.params.imgIds)
    total, classes, whole = np.zeros(images), np.zeros(images), []
    for number in range(len(evaluation.params.catIds)):
        start = number * per_class + ALL_SIZES * images
        entries = [(image, entry) for image, entry in enumerate(evaluation.evalImgs[start : start + images]) if entry]
        objects = np.array([np.count_nonzero(entry["gtIgnore"] == 0) for _, entry in entries], np.int64)
        if not objects.any():
            continue
        precision = float(evaluation.eval["precision"][:, :, number, ALL_SIZES, -1].mean())
        without = np.full(images, precision)
        matches = [entry for _, entry in entries]
        without[[image for image, _ in entries]] = _of_class(matches, objects, evaluation.params.recThrs)
        remains = ~np.isnan(without)
        total[remains] += without[remains]
        classes += remains
        whole.append(precision)
    everything = float(np.mean(whole)) if whole else np.nan
    return 100.0 * np.where(classes > 0, total / np.maximum(classes, 1), everything)


def _of_class(
    entries: list[dict[str, Any]], objects: NDArray[np.int64], recalls: NDArray[np.float64]
) -> NDArray[np.float64]:
    """float64 [M]: the average precision of a class without each of its images; NaN where no object remains.

    entries: the matches in M images; objects: [M], in each of them; recalls: [R].
    """
    scores = np.concatenate([entry["dtScores"] for entry in entries])
    best_first = np.argsort(-scores, kind="mergesort")  # as COCOeval sorts, so that ties fall alike
    image = np.repeat(np.arange(len(entries)), [len(entry["dtScores"]) for entry in entries])[best_first]
    matched, ignored = (
        np.concatenate([entry[key] for entry in entries], axis=1)[:, best_first].astype(bool)
        for key in ("dtMatches", "dtIgnore")
    )
    everything = int(objects.sum())
    left, rows = np.unique([*(everything - objects), everything], return_inverse=True)
    weights = _weights(left, everything, recalls)
    parts = zip(matched & ~ignored, ~matched & ~ignored)
    without: NDArray[np.float64] = np.mean([_without(image, *part, objects, weights[rows]) for part in parts], axis=0)
    without[objects == everything] = np.nan
    return without


def _weights(left: NDArray[np.int64], most: int, recalls: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [L, most + 1]: for how much each right detection counts, the n-th one in column n.

    left: [L], numbers of objects. COCOeval reads the precision at a recall at the first detection that reaches it.
    """
    weights = np.zeros((len(left), most + 1))
    for row, count in zip(weights, left.tolist()):
        if count:
            reached = np.maximum(np.searchsorted(np.arange(count + 1) / count, recalls, side="left"), 1)
            row[:] = np.bincount(reached, minlength=most + 1) / len(recalls)
    return weights


def _without(
    image: NDArray[np.int64],
    right: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    objects: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """float64 [M]: the average precision at one IoU without each image.

    image, right, wrong: [D], of the detections, best first; objects: [M]; weights: [M + 1, .], the last row without
    any image left out. The highest precision from a recall on is reached at a right detection, so that only those are
    looked at.
    """
    places = np.flatnonzero(right)
    count, images = len(places), len(objects)
    if not count:
        return np.zeros(images)
    owner, mistakes = image[places], np.cumsum(wrong, dtype=np.int64)[places]
    whole = _highest(np.arange(1, count + 1), mistakes)
    result = np.full(images, whole @ weights[-1, 1 : count + 1])
    follower = np.searchsorted(places, np.flatnonzero(wrong))  # the first right detection after each wrong one
    culprit, follower = image[wrong][follower < count], follower[follower < count]
    changing = np.flatnonzero((np.bincount(culprit, minlength=images) > 0) | (objects > 0))
    step = max(1, AT_ONCE // count)
    for rows in np.split(changing, range(step, len(changing), step)):
        own = owner == rows[:, None]  # [m, right detections]
        among = (culprit >= rows[0]) & (culprit <= rows[-1])
        cells = np.searchsorted(rows, culprit[among]) * count + follower[among]
        fewer = np.bincount(cells, minlength=own.size).reshape(own.shape)
        found = np.arange(1, count + 1) - np.cumsum(own, axis=1)
        highest = _highest(found, mistakes - np.cumsum(fewer, axis=1))
        result[rows] = (highest * weights[rows[:, None], found] * ~own).sum(axis=1)
    return result


def _highest(found: NDArray[np.int64], mistakes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The highest precision from each place on, along the last axis."""
    precision = found / (mistakes + found + np.spacing(1))
    highest: NDArray[np.float64] = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return highest
