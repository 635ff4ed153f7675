"""How our results compare with a published number, which is one run, or the difference of two single runs.

Their runs are taken to scatter as ours do. Everything is in the metric's unit, differences in its points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache

from results.statistics.estimates import LEVEL, TOLERANCE, Difference, Interval, t_quantile

# level of the interval of two one-sided tests at 5 % (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987)
EQUIVALENCE = 0.9
CHANCE = 0.8  # with which equal arms are to agree where a page says how many seeds would resolve a verdict
MOST_SEEDS = 100
PLACES = 2000  # quantiles that stand for the distribution of an estimated deviation


class Verdict(str, Enum):
    """On the papers' protocol and model sizes are compared; elsewhere only the signs of differences."""

    EXCLUDED = "excluded"
    AGREES = "agrees"
    INCONCLUSIVE = "inconclusive"
    SAME_SIGN = "same sign"
    OPPOSITE_SIGN = "opposite sign"
    NOT_RESOLVED = "not resolved"
    NOT_RUN = "not run"
    NOT_JUDGED = "not judged"
    NO_NUMBER = "–"


@dataclass(frozen=True)
class Comparison:
    """Our number, and the papers' where they print one.

    ours: a Difference between arms, or the Interval of a mean that stands beside a printed mean.
    sign: of the papers' difference, where they state it without a number.
    same_protocol: whether ours was made on the papers' own protocol and model, so that sizes can be compared.
    rounding: how far the papers' exact value may lie from the printed one; margin: the largest gap that is none.
    p_new_images: p that our difference is 0 on new images, where that is known.
    pair: names of what ours is the difference of; comparisons of one pair are one test of its being 0.
    """

    ours: Interval | None
    papers: float | None
    same_protocol: bool
    rounding: float = 0.0
    margin: float = 0.0
    sign: int | None = None
    p_new_images: float | None = None
    pair: tuple[str, ...] | None = None

    @property
    def papers_sign(self) -> int:
        """0 where there is none: nothing is printed, or 0.0."""
        if self.papers is None or math.isnan(self.papers):
            return self.sign or 0
        return int(math.copysign(1, self.papers)) if self.papers else 0

    @property
    def by_size(self) -> bool:
        return self.same_protocol and self.papers is not None and not math.isnan(self.papers)


@dataclass(frozen=True)
class Judgement:
    """The verdict, with adjusted p-values of our difference being 0 and of the papers' being one run like ours."""

    verdict: Verdict
    p_holm: float | None = None
    papers_p_holm: float | None = None


def judge(comparisons: Sequence[Comparison]) -> list[Judgement]:
    """Judges all comparisons of one family, in their order.

    By size: *excluded* where the papers' number is no run like ours (prediction interval); else *agrees* where the
    interval of two one-sided tests lies within the margin around the printed number; else *inconclusive*.
    By sign, where ours is tested against 0: *same sign* or *opposite sign* where 0 is excluded, else *not resolved*.
    Both families of tests are corrected (Holm); agreement is not, each being a statement of its own.
    """
    pairs = [(number,) if each.pair is None else each.pair for number, each in enumerate(comparisons)]
    tested = {pair: _p_against_zero(comparison) for pair, comparison in zip(pairs, comparisons)}
    adjusted = dict(zip(tested, holm(list(tested.values()))))
    against_zero = [adjusted[pair] for pair in pairs]
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


def equivalent(ours: Interval, value: float, margin: float) -> bool:
    """Two one-sided tests: whether our true mean lies within ``margin`` of ``value``."""
    interval = ours.interval(EQUIVALENCE)
    return interval is not None and value - margin <= interval[0] and interval[1] <= value + margin


@cache
def chance_of_agreement(sd: float, single_sd: float, n: int, margin: float) -> float:
    """How often n seeds are ``equivalent`` to one run of theirs where both have the same true mean.

    sd: of our values, or paired differences; single_sd: of one run of theirs, or the difference of two.
    """
    from scipy.special import chdtri, ndtr

    if n < 2:
        return 0.0
    total = math.hypot(sd / math.sqrt(n), single_sd)
    estimates = (sd * math.sqrt(chdtri(n - 1, (k + 0.5) / PLACES) / (n - 1)) for k in range(PLACES))
    rooms = (margin - t_quantile(n - 1, EQUIVALENCE) * estimate / math.sqrt(n) for estimate in estimates)
    return sum(max(0.0, 2 * float(ndtr(room / total)) - 1) for room in rooms) / PLACES


def seeds_to_agree(sd: float, single_sd: float, margin: float) -> int | None:
    """The fewest seeds with which equal arms agree with probability CHANCE; None beyond MOST_SEEDS."""
    if chance_of_agreement(sd, single_sd, MOST_SEEDS, margin) < CHANCE:
        return None
    few, many = 1, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        enough = chance_of_agreement(sd, single_sd, middle, margin) >= CHANCE
        few, many = (few, middle) if enough else (middle, many)
    return many


def false_exclusion(freedom: float, n: int, ratio: float) -> float:
    """How often a run of equal true mean is excluded whose deviation is ``ratio`` times ours, before rounding."""
    from scipy.special import stdtr

    wider = math.sqrt((ratio**2 + 1 / n) / (1 + 1 / n))
    return float(2 * stdtr(freedom, -t_quantile(freedom, LEVEL) / wider))


def _p_against_zero(comparison: Comparison) -> float | None:
    """On new images where that is known: a sign is a statement about the task, not about these images."""
    if not isinstance(comparison.ours, Difference):
        return None
    p = comparison.ours.p_against(0.0, TOLERANCE)
    return p if p is None or comparison.p_new_images is None else max(p, comparison.p_new_images)


def _p_against_papers(comparison: Comparison) -> float | None:
    if comparison.ours is None or comparison.papers is None or not comparison.by_size:
        return None
    return comparison.ours.p_of_run(comparison.papers, comparison.rounding + TOLERANCE)


def _verdict(comparison: Comparison, zero: float | None, papers: float | None) -> Verdict:
    """``zero`` and ``papers`` are the adjusted p-values."""
    ours, number, sign = comparison.ours, comparison.papers, comparison.papers_sign
    if not comparison.by_size and not sign:
        return Verdict.NO_NUMBER
    if ours is None:
        return Verdict.NOT_RUN
    if comparison.by_size and number is not None:
        if papers is None:
            return Verdict.NOT_JUDGED
        if papers < 1 - LEVEL:
            return Verdict.EXCLUDED
        return Verdict.AGREES if equivalent(ours, number, comparison.margin) else Verdict.INCONCLUSIVE
    if zero is None:
        return Verdict.NOT_JUDGED
    if not zero < 1 - LEVEL:
        return Verdict.NOT_RESOLVED
    return Verdict.SAME_SIGN if ours.mean * sign > 0 else Verdict.OPPOSITE_SIGN
