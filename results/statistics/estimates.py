"""Means over seeds and differences between arms, paired by seed, with the t-intervals of these images.

All values are in the metric's unit, differences and deviations in its points; seeds are the unit of repetition.
"""

from __future__ import annotations

import math
import statistics as elementary
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

LEVEL, POWER = 0.95, 0.8
TOLERANCE = 1e-9  # in points: the error that float arithmetic may add to a difference of accuracies


@dataclass(frozen=True)
class Spread:
    """A standard deviation and the degrees of freedom it was estimated with."""

    sd: float
    freedom: float


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

    @property
    def single(self) -> Spread | None:
        """How one more run scatters around the true mean; None where there is no interval."""
        return Spread(self.sd, self.n - 1) if self.low is not None and self.sd is not None else None

    def interval(self, level: float) -> tuple[float, float] | None:
        """The t-interval of the mean at another level."""
        if self.low is None or self.sd is None:
            return None
        half = t_quantile(self.n - 1, level) * self.sd / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    def prediction(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Where one more run lies, or for a difference one more pair, of the same true mean and scatter.

        The pair is not paired with ours, nor within itself: its scatter is that of both arms together.
        """
        if self.single is None:
            return None
        half = t_quantile(self.single.freedom, level) * self.single.sd * math.sqrt(1 + 1 / self.n)
        return self.mean - half, self.mean + half

    def p_of_run(self, value: float, within: float = 0.0) -> float | None:
        """Two-sided p of ``value`` being one more run; it may lie ``within`` of the exact value."""
        if self.single is None:
            return None
        away = max(0.0, abs(self.mean - value) - within)
        return _two_sided(self.single.freedom, away / (self.single.sd * math.sqrt(1 + 1 / self.n)))

    def p_against(self, value: float, within: float = 0.0) -> float | None:
        """Two-sided p of the t-test that the true mean is ``value``; None where there is no interval.

        within: how far the exact value may lie from ``value`` (a printed number is rounded); the p is that of the
        nearest possible value.
        """
        if self.low is None or self.sd is None:
            return None
        away = max(0.0, abs(self.mean - value) - within)
        return _two_sided(self.n - 1, away / (self.sd / math.sqrt(self.n)))


@dataclass(frozen=True)
class Difference(Interval):
    """The mean paired difference over the seeds that both arms have; ``differences`` of the pairs in seed order.

    unpaired: how the difference of two single runs of other seeds scatters (Welch), None as the interval is.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    unpaired: Spread | None = None

    @property
    def single(self) -> Spread | None:
        return None if self.low is None else self.unpaired

    @property
    def p(self) -> float | None:
        """Two-sided p of the paired t-test that there is no difference."""
        return self.p_against(0.0)


def mean_interval(values: Mapping[int, float], level: float = LEVEL) -> Interval:
    """The mean of ``values`` (seed → value, at least one) and its one-sample t-interval."""
    return Interval(*_estimate(list(values.values()), level))


def paired_difference(
    arm: Mapping[int, float], baseline: Mapping[int, float], level: float = LEVEL
) -> Difference | None:
    """``arm`` minus ``baseline`` (seed → value), paired by common seed; None where no seed is common."""
    return contrast([arm], [baseline], level)


def contrast(
    plus: Sequence[Mapping[int, float]], minus: Sequence[Mapping[int, float]], level: float = LEVEL
) -> Difference | None:
    """The arms of ``plus`` minus those of ``minus`` (seed → value each), by seed.

    None where no seed is common to all.
    """
    arms = [*plus, *minus]
    seeds = tuple(sorted(set.intersection(*map(set, arms))))
    if not seeds:
        return None
    differences = tuple(sum(arm[seed] for arm in plus) - sum(arm[seed] for arm in minus) for seed in seeds)
    each = [elementary.variance([arm[seed] for seed in seeds]) if len(seeds) > 1 else 0.0 for arm in arms]
    return Difference(*_estimate(differences, level), seeds, differences, _welch(each, len(seeds) - 1))


def pooled(samples: Iterable[Sequence[float]]) -> Spread | None:
    """The deviation within samples, estimated from all together; None where no sample has two values.

    It is the root of the variances' mean, weighted by their degrees of freedom.
    """
    variances = [(len(sample) - 1, elementary.variance(sample)) for sample in samples if len(sample) > 1]
    freedom = sum(weight for weight, _ in variances)
    if not freedom:
        return None
    return Spread(math.sqrt(sum(weight * variance for weight, variance in variances) / freedom), freedom)


def pooled_sd(differences: Iterable[Difference]) -> float | None:
    """The deviation of paired differences, estimated from all arms together: an arm's own, of three seeds, is poor.

    None where no arm has two pairs. Equal pairs say nothing about the spread and are left out.
    """
    spread = pooled(difference.differences for difference in differences if difference.sd)
    return None if spread is None else spread.sd


def minimal_detectable_difference(sd: float, n: int, level: float = LEVEL, power: float = POWER) -> float | None:
    """The smallest true difference that a two-sided paired t-test of ``n`` seeds finds with probability ``power``.

    sd: of the paired differences. None for n < 2 or sd 0, where there is no test.
    """
    if n < 2 or sd <= 0:
        return None
    return detectable_effect(n, level, power) * sd / math.sqrt(n)


def t_quantile(freedom: float, level: float) -> float:
    """Half of the width, in standard errors, of a two-sided t-interval at this level."""
    from scipy.special import stdtrit  # a third of the start-up time of scipy.stats

    return float(stdtrit(freedom, (1 + level) / 2))


def _two_sided(freedom: float, t: float) -> float:
    """p of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))


def _welch(variances: Sequence[float], freedom: int) -> Spread | None:
    """The scatter of a sum of independent values with these variances (Welch, Biometrika 34, 1947)."""
    total = sum(variances)
    if not total:
        return None
    shares = sum((variance / total) ** 2 for variance in variances)  # of the total, as squares alone can underflow
    return Spread(math.sqrt(total), freedom / shares)


def _estimate(values: Sequence[float], level: float) -> tuple[float, float | None, float | None, int, float | None]:
    """mean, low, high, n, sd."""
    n, mean = len(values), elementary.fmean(values)
    if n == 1:
        return mean, None, None, n, None
    if max(values) - min(values) <= TOLERANCE:
        return mean, None, None, n, 0.0
    sd = elementary.stdev(values)
    half = t_quantile(n - 1, level) * sd / math.sqrt(n)
    return mean, mean - half, mean + half, n, sd


@cache
def detectable_effect(n: int, level: float, power: float) -> float:
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
