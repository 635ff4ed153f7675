"""Ablations are differences: paired by seed, with a t-interval, and a verdict beside the papers' difference."""

from __future__ import annotations

import math
import statistics as elementary
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

LEVEL = 0.95
TOLERANCE = 1e-9  # in points: what float arithmetic may add to a difference of accuracies


class Verdict(str, Enum):
    """What our difference says about the papers'."""

    AGREES = "agrees"
    WITHIN_NOISE = "within noise"
    CONTRADICTS = "contradicts"
    NOT_RUN = "not run"
    NOT_JUDGED = "not judged"
    NO_NUMBER = "–"


@dataclass(frozen=True)
class Difference:
    """Mean paired difference over the seeds both arms have.

    No interval where there is one pair only, or where all pairs differ by the same amount: accuracies are counts of
    images, so that happens by chance, and an interval of no width would claim certainty.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.seeds)


def paired_difference(
    arm: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL
) -> Difference | None:
    """``arm`` minus ``baseline`` (seed → value), paired by common seed; None where no seed is common."""
    seeds = tuple(sorted(set(arm) & set(baseline)))
    if not seeds:
        return None
    differences = [arm[seed] - baseline[seed] for seed in seeds]
    mean = elementary.fmean(differences)
    if max(differences) - min(differences) <= TOLERANCE:
        return Difference(mean, None, None, seeds)
    from scipy import stats

    test = stats.ttest_rel([arm[seed] for seed in seeds], [baseline[seed] for seed in seeds])
    interval = test.confidence_interval(level)
    return Difference(mean, float(interval.low), float(interval.high), seeds)


def verdict(difference: Difference | None, papers: float | None, *, same_protocol: bool) -> Verdict:
    """Compares our difference with the papers'.

    On the papers' own protocol and model the size counts: the papers' difference lies inside our interval
    (agrees; within noise if 0 does too, unless the papers say 0) or outside (contradicts).
    Elsewhere only the sign can be compared: which side of 0 our interval lies on, if it excludes 0 at all.
    """
    if papers is None or math.isnan(papers):
        return Verdict.NO_NUMBER
    if difference is None:
        return Verdict.NOT_RUN
    if difference.low is None or difference.high is None:
        return Verdict.NOT_JUDGED
    low, high = difference.low - TOLERANCE, difference.high + TOLERANCE
    noise = low <= 0 <= high
    if same_protocol:
        if not low <= papers <= high:
            return Verdict.CONTRADICTS
        return Verdict.WITHIN_NOISE if noise and papers != 0 else Verdict.AGREES
    if noise:
        return Verdict.WITHIN_NOISE
    return Verdict.AGREES if difference.mean * papers > 0 else Verdict.CONTRADICTS


def spread(values: Mapping[int, float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation over seeds; no deviation of a single value."""
    numbers = list(values.values())
    return elementary.fmean(numbers), elementary.stdev(numbers) if len(numbers) > 1 else None
