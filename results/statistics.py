"""Differences between arms, paired by seed, with a t-interval and a verdict on the papers' difference.

All values are in the metric's unit, differences and deviations in its points; seeds are the unit of repetition.
"""

from __future__ import annotations

import math
import statistics as elementary
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

LEVEL, POWER = 0.95, 0.8
MARGIN = 0.5  # in points: a mean whose interval is wider to either side is too vague to agree with a printed number
TOLERANCE = 1e-9  # in points: the error that float arithmetic may add to a difference of accuracies


class Verdict(str, Enum):
    """How our difference compares with the papers'."""

    AGREES = "agrees"
    WITHIN_NOISE = "within noise"
    CONTRADICTS = "contradicts"
    NOT_RUN = "not run"
    NOT_JUDGED = "not judged"
    NO_NUMBER = "–"


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` seeds, their sample deviation (None of one value) and the t-interval of the mean.

    There is no interval of a single value or of equal values: accuracies are counts of images, so equal values happen
    by chance, and an interval of no width would claim certainty.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    sd: float | None

    @property
    def half(self) -> float | None:
        """Half of the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def p_against(self, value: float, within: float = 0.0) -> float | None:
        """Two-sided p of the t-test that the true mean is ``value``; None where there is no interval.

        within: how far the exact value may lie from ``value`` (a printed number is rounded); the p is that of the
        nearest possible value.
        """
        if self.low is None or self.sd is None:
            return None
        from scipy.special import stdtr  # a third of the start-up time of scipy.stats

        away = max(0.0, abs(self.mean - value) - within)
        return float(2 * stdtr(self.n - 1, -away / (self.sd / math.sqrt(self.n))))


@dataclass(frozen=True)
class Difference(Interval):
    """The mean paired difference over the seeds that both arms have; ``differences`` of the pairs in seed order."""

    seeds: tuple[int, ...]
    differences: tuple[float, ...]

    @property
    def p(self) -> float | None:
        """Two-sided p of the paired t-test that there is no difference."""
        return self.p_against(0.0)


@dataclass(frozen=True)
class Comparison:
    """One row of a table: our number, and the papers' number where they print one.

    ours: a Difference between arms, or the Interval of a mean that stands beside a printed mean.
    same_protocol: whether ours was made on the papers' own protocol and model, so that sizes can be compared.
    rounding: how far the papers' exact value may lie from the printed one, in points.
    """

    ours: Interval | None
    papers: float | None
    same_protocol: bool
    rounding: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """The verdict on a comparison, with adjusted p-values of our difference being 0 and being the papers'."""

    verdict: Verdict
    p_holm: float | None = None
    papers_p_holm: float | None = None


def mean_interval(values: Mapping[int, float], level: float = LEVEL) -> Interval:
    """The mean of ``values`` (seed → value, at least one) and its one-sample t-interval."""
    return Interval(*_estimate(list(values.values()), level))


def paired_difference(
    arm: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL
) -> Difference | None:
    """``arm`` minus ``baseline`` (seed → value), paired by common seed; None where no seed is common."""
    seeds = tuple(sorted(set(arm) & set(baseline)))
    if not seeds:
        return None
    differences = tuple(arm[seed] - baseline[seed] for seed in seeds)
    return Difference(*_estimate(differences, level), seeds, differences)


def judge(comparisons: Sequence[Comparison]) -> list[Judgement]:
    """Judges all rows of one table against the papers' numbers, in their order.

    A table is as many tests as it has rows, so its p-values are corrected together (Holm), those against 0 and those
    against the papers' numbers as one family each. "Excluded" below is an adjusted p under 1 - LEVEL.
    On the papers' own protocol and model the size counts: the papers' value is excluded (contradicts) or not (agrees;
    within noise if 0 is not excluded either, or where a mean's interval reaches further than MARGIN). Elsewhere only
    the sign of a difference can be compared: which side of 0 ours is on, if 0 is excluded at all; means are not judged
    there.
    """
    against_zero = holm([_p_against_zero(comparison) for comparison in comparisons])
    against_papers = holm([_p_against_papers(comparison) for comparison in comparisons])
    return [
        Judgement(_verdict(comparison, zero, papers), zero, papers)
        for comparison, zero, papers in zip(comparisons, against_zero, against_papers)
    ]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values (Scand. J. Statist. 6, 1979). None stays None and is not of the family."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = largest
    return adjusted


def pooled_sd(differences: Iterable[Difference]) -> float | None:
    """The deviation of paired differences, estimated from all arms together: an arm's own, of three seeds, is poor.

    It is the root of the variances' mean, weighted by their degrees of freedom; None where no arm has two pairs.
    """
    # equal pairs say nothing about the spread
    variances = [(difference.n - 1, difference.sd**2) for difference in differences if difference.sd]
    freedom = sum(weight for weight, _ in variances)
    return math.sqrt(sum(weight * variance for weight, variance in variances) / freedom) if freedom else None


def minimal_detectable_difference(sd: float, n: int, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest true difference that a two-sided paired t-test of ``n`` seeds finds with probability ``power``.

    sd: of the paired differences. None for n < 2 or sd 0, where there is no test.
    """
    if n < 2 or sd <= 0:
        return None
    return _detectable_effect(n, level, power) * sd / math.sqrt(n)


def _estimate(values: Sequence[float], level: float) -> tuple[float, float | None, float | None, int, float | None]:
    """mean, low, high, n, sd."""
    n, mean = len(values), elementary.fmean(values)
    if n == 1:
        return mean, None, None, n, None
    if max(values) - min(values) <= TOLERANCE:
        return mean, None, None, n, 0.0
    from scipy.special import stdtrit

    sd = elementary.stdev(values)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return mean, mean - half, mean + half, n, sd


def _p_against_zero(comparison: Comparison) -> float | None:
    return comparison.ours.p_against(0.0, TOLERANCE) if isinstance(comparison.ours, Difference) else None


def _p_against_papers(comparison: Comparison) -> float | None:
    ours, papers = comparison.ours, comparison.papers
    if ours is None or not comparison.same_protocol or papers is None or math.isnan(papers):
        return None
    return ours.p_against(papers, comparison.rounding + TOLERANCE)


def _verdict(comparison: Comparison, zero: float | None, papers: float | None) -> Verdict:
    """``zero`` and ``papers`` are the adjusted p-values."""
    ours = comparison.ours
    if comparison.papers is None or math.isnan(comparison.papers):
        return Verdict.NO_NUMBER
    if ours is None:
        return Verdict.NOT_RUN
    if zero is None and papers is None:
        return Verdict.NOT_JUDGED
    noise = zero is not None and not zero < 1 - LEVEL
    if not isinstance(ours, Difference):
        noise = ours.half is not None and ours.half > MARGIN
    if papers is not None:
        if papers < 1 - LEVEL:
            return Verdict.CONTRADICTS
        return Verdict.WITHIN_NOISE if noise else Verdict.AGREES
    if noise:
        return Verdict.WITHIN_NOISE
    return Verdict.AGREES if ours.mean * comparison.papers > 0 else Verdict.CONTRADICTS


@cache
def _detectable_effect(n: int, level: float, power: float) -> float:
    """The detectable difference in standard errors: the noncentrality at which the test has this power."""
    from scipy import optimize, stats

    threshold = stats.t.ppf((1 + level) / 2, n - 1)

    def lack(noncentrality: float) -> float:
        # the lower tail as the upper one of the mirrored test: nct.cdf is NaN far out, and ncf.sf is wrong at 0
        tails = (stats.nct.sf(threshold, n - 1, nc) for nc in (noncentrality, -noncentrality))
        return power - float(sum(tails))

    if not 1 - level < power < 1:
        raise ValueError(f"power {power} must lie between {1 - level:.3g}, which no difference has, and 1")
    upper = float(threshold)
    while lack(upper) > 0:
        upper *= 2
    return float(optimize.brentq(lack, 0.0, upper, xtol=1e-10))
