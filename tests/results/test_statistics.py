"""Estimates are scipy's, whatever the numbers; verdicts follow their definitions in every case."""

from __future__ import annotations

import math
import statistics as elementary
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.statistics import (
    LEVEL,
    MARGIN,
    Comparison,
    Difference,
    Interval,
    Judgement,
    Verdict,
    holm,
    judge,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled_sd,
)

accuracies = st.floats(0, 100).map(lambda x: round(x, 3))
pairs = st.dictionaries(st.integers(0, 30), st.tuples(accuracies, accuracies), min_size=2, max_size=8)
varied = pairs.filter(lambda both: len({round(a - b, 6) for a, b in both.values()}) > 1)


def split(both):
    return {k: a for k, (a, _) in both.items()}, {k: b for k, (_, b) in both.items()}


def numbers(estimate):
    return (estimate.mean, estimate.low, estimate.high, estimate.sd)


@given(varied, accuracies, st.sampled_from([0.8, 0.95, 0.99]))
def test_differences_are_scipys_paired_test(both, value, level):
    arm, base = split(both)
    ours = paired_difference(arm, base, level)
    seeds = sorted(both)
    assert ours.seeds == tuple(seeds) and ours.n == len(seeds)
    assert ours.differences == tuple(arm[seed] - base[seed] for seed in seeds)
    test = stats.ttest_rel([arm[seed] for seed in seeds], [base[seed] for seed in seeds])
    interval = test.confidence_interval(level)
    assert ours.mean == pytest.approx(elementary.fmean(ours.differences), abs=1e-9)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-6)
    assert ours.sd == pytest.approx(elementary.stdev(ours.differences), abs=1e-9)
    assert ours.p == pytest.approx(test.pvalue, rel=1e-6)
    assert ours.p_against(value) == pytest.approx(stats.ttest_1samp(ours.differences, value).pvalue, rel=1e-6)


@given(st.dictionaries(st.integers(0, 30), accuracies, min_size=2, max_size=8), accuracies)
def test_means_are_scipys_one_sample_test(values, value):
    ours, sample = mean_interval(values), list(values.values())
    if len(set(sample)) == 1:
        assert ours == Interval(ours.mean, None, None, len(sample), 0.0) and ours.p_against(value) is None
        return
    test = stats.ttest_1samp(sample, value)
    expected = (elementary.fmean(sample), *test.confidence_interval(LEVEL), elementary.stdev(sample))
    assert numbers(ours) == pytest.approx(expected, abs=1e-6)
    assert ours.n == len(sample) and ours.p_against(value) == pytest.approx(test.pvalue, rel=1e-6)


def test_the_mean_of_one_value_has_no_interval():
    assert mean_interval({3: 79.5}) == Interval(79.5, None, None, 1, None)
    assert mean_interval({3: 79.5}).p_against(80.0) is None


@given(varied)
def test_the_interval_holds_what_its_test_does_not_exclude(both):
    ours = paired_difference(*split(both))
    assert ours.p_against(ours.low) == pytest.approx(1 - LEVEL) == ours.p_against(ours.high)
    assert ours.p_against(ours.mean) == 1.0
    assert ours.p_against(ours.high + 1.0, within=1.0) == pytest.approx(1 - LEVEL)
    assert ours.p_against(ours.mean + 0.5, within=1.0) == 1.0


@given(varied)
def test_swapping_arms_mirrors_everything(both):
    arm, base = split(both)
    forth, back = paired_difference(arm, base), paired_difference(base, arm)
    assert forth.differences == tuple(-gap for gap in back.differences)
    assert (forth.mean, forth.low, forth.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-9)
    assert (forth.sd, forth.p) == pytest.approx((back.sd, back.p))
    assert forth.low <= forth.mean <= forth.high


@given(varied, st.integers(-50, 50), st.floats(0.1, 10))
def test_shifts_of_both_arms_are_nothing_and_scale_is_only_scale(both, shift, scale):
    arm, base = split(both)
    ours = paired_difference(arm, base)
    shifted = paired_difference({k: v + shift for k, v in arm.items()}, {k: v + shift for k, v in base.items()})
    assert numbers(shifted) == pytest.approx(numbers(ours), abs=1e-6)
    scaled = paired_difference({k: v * scale for k, v in arm.items()}, {k: v * scale for k, v in base.items()})
    assert numbers(scaled) == pytest.approx([scale * x for x in numbers(ours)], abs=1e-6)
    assert (shifted.p, scaled.p) == pytest.approx((ours.p, ours.p), rel=1e-6)


@given(varied, st.randoms())
def test_the_order_of_seeds_is_nothing(both, random):
    shuffled = list(both.items())
    random.shuffle(shuffled)
    assert paired_difference(*split(dict(shuffled))) == paired_difference(*split(both))
    assert numbers(mean_interval(split(dict(shuffled))[0])) == numbers(mean_interval(split(both)[0]))


@given(pairs, st.dictionaries(st.integers(31, 60), accuracies, max_size=4))
def test_only_common_seeds_count(both, alone):
    arm, base = split(both)
    assert paired_difference({**arm, **alone}, base) == paired_difference(arm, base)
    assert paired_difference(arm, {**base, **alone}) == paired_difference(arm, base)


@given(accuracies, st.integers(2, 6), st.floats(-5, 5).map(lambda x: round(x, 2)))
def test_identical_differences_have_no_interval_and_are_not_judged(value, n, gap):
    ours = paired_difference({s: value + s + gap for s in range(n)}, {s: value + s for s in range(n)})
    assert (ours.low, ours.high, ours.p, ours.n, ours.sd) == (None, None, None, n, 0.0)
    assert ours.mean == pytest.approx(gap, abs=1e-9)
    assert verdict(ours, 2.7, same_protocol=False) is Verdict.NOT_JUDGED


def test_one_pair_and_none():
    assert paired_difference({0: 71.0, 1: 72.0}, {0: 70.0}) == Difference(1.0, None, None, 1, None, (0,), (1.0,))
    assert paired_difference({0: 71.0}, {1: 70.0}) is None
    assert paired_difference({}, {}) is None


p_values = st.floats(0, 1)


@given(st.lists(p_values, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(family):
    """A hypothesis is rejected where Bonferroni rejects every intersection that it is part of."""
    subsets = [s for size in range(1, len(family) + 1) for s in combinations(range(len(family)), size)]
    by_subset = {s: min(1.0, len(s) * min(family[i] for i in s)) for s in subsets}
    closed = [max(p for s, p in by_subset.items() if i in s) for i in range(len(family))]
    assert holm(family) == pytest.approx(closed)


@given(st.lists(st.none() | p_values, max_size=8), st.randoms())
def test_holm_counts_tests_only_and_in_no_order(family, random):
    adjusted = holm(family)
    assert [p is None for p in adjusted] == [p is None for p in family]
    assert [p for p in adjusted if p is not None] == holm([p for p in family if p is not None])
    assert all(p <= q <= 1 for p, q in zip(family, adjusted) if p is not None)
    order = list(range(len(family)))
    random.shuffle(order)
    assert holm([family[i] for i in order]) == [adjusted[i] for i in order]


@settings(deadline=None)
@given(st.floats(0.01, 5), st.integers(2, 12), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.9, 0.95, 0.999]))
def test_the_detectable_difference_has_its_power(sd, n, power, level):
    detectable = minimal_detectable_difference(sd, n, level, power)
    noncentrality, threshold = detectable / (sd / math.sqrt(n)), stats.t.ppf((1 + level) / 2, n - 1)
    assert stats.ncf.sf(threshold**2, 1, n - 1, noncentrality**2) == pytest.approx(power, abs=1e-6)
    assert minimal_detectable_difference(2 * sd, n, level, power) == pytest.approx(2 * detectable)
    assert minimal_detectable_difference(sd, n + 1, level, power) < detectable


@pytest.mark.parametrize(("effect", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_as_many_pairs_as_the_textbooks_say(effect, needed):
    """Cohen's small, medium and large effect, paired, two-sided 5 %, power 80 %."""
    assert minimal_detectable_difference(1.0, needed) <= effect < minimal_detectable_difference(1.0, needed - 1)


def test_what_cannot_be_detected():
    assert minimal_detectable_difference(1.0, 1) is None and minimal_detectable_difference(0.0, 3) is None
    with pytest.raises(ValueError, match="power"):
        minimal_detectable_difference(1.0, 3, power=0.04)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=1, max_size=5), max_size=5))
def test_pooled_deviations_weigh_by_degrees_of_freedom(arms):
    made = [paired_difference(dict(enumerate(gaps)), dict.fromkeys(range(5), 0.0)) for gaps in arms]
    arms = [
        gaps for gaps, difference in zip(arms, made) if difference.sd
    ]  # pairs that are all equal say nothing of the spread
    squares = sum((gap - elementary.fmean(gaps)) ** 2 for gaps in arms for gap in gaps)
    freedom = sum(len(gaps) - 1 for gaps in arms)
    assert pooled_sd(made) == (pytest.approx(math.sqrt(squares / freedom), abs=1e-6) if freedom else None)


def interval(low, high):
    """A difference with this 95 % interval, of three seeds."""
    sd = (high - low) / 2 / stats.t.ppf(0.975, 2) * math.sqrt(3)
    return Difference((low + high) / 2, low, high, 3, sd, (0, 1, 2), ())


def verdict(difference, papers, *, same_protocol):
    (judgement,) = judge([Comparison(difference, papers, same_protocol)])
    return judgement.verdict


@pytest.mark.parametrize(
    ("low", "high", "papers", "expected"),
    [
        (2.0, 3.0, 2.7, "agrees"),
        (2.0, 3.0, 3.2, "contradicts"),
        (2.0, 3.0, -2.7, "contradicts"),
        (-1.0, 3.0, 2.7, "within noise"),
        (-1.0, 3.0, 3.2, "contradicts"),
        (-1.0, 1.0, 0.0, "within noise"),
        (0.5, 1.0, 0.0, "contradicts"),
        (2.0, 2.7, 2.7, "agrees"),
        (0.0, 3.0, 2.7, "within noise"),
    ],
)
def test_verdicts_on_the_papers_protocol(low, high, papers, expected):
    assert verdict(interval(low, high), papers, same_protocol=True).value == expected


@pytest.mark.parametrize(
    ("low", "high", "papers", "expected"),
    [
        (20.0, 30.0, 2.7, "agrees"),
        (20.0, 30.0, -2.7, "contradicts"),
        (-30.0, -20.0, 2.7, "contradicts"),
        (-30.0, -20.0, -0.1, "agrees"),
        (-1.0, 30.0, 2.7, "within noise"),
        (-1.0, 30.0, 0.0, "within noise"),
        (1.0, 3.0, 0.0, "contradicts"),
    ],
)
def test_verdicts_on_another_protocol_compare_signs(low, high, papers, expected):
    assert verdict(interval(low, high), papers, same_protocol=False).value == expected


@given(st.floats(-50, 50), st.floats(0.01, 20), st.floats(0.1, 9), st.booleans())
def test_mirrored_results_have_mirrored_verdicts(mean, half, papers, same):
    ours, mirrored = interval(mean - half, mean + half), interval(-mean - half, -mean + half)
    assert verdict(ours, papers, same_protocol=same) == verdict(mirrored, -papers, same_protocol=same)


def test_verdicts_without_something_to_compare():
    single = paired_difference({0: 72.0}, {0: 70.0})
    assert verdict(interval(1, 2), None, same_protocol=True) is Verdict.NO_NUMBER
    assert verdict(interval(1, 2), math.nan, same_protocol=True) is Verdict.NO_NUMBER
    assert verdict(None, None, same_protocol=True) is Verdict.NO_NUMBER
    assert verdict(None, 2.7, same_protocol=True) is Verdict.NOT_RUN
    assert verdict(single, 2.7, same_protocol=False) is Verdict.NOT_JUDGED
    assert judge([]) == []


def test_a_printed_number_stands_for_all_that_round_to_it():
    ours = interval(2.74, 2.79)
    assert judge([Comparison(ours, 2.7, True)])[0].verdict is Verdict.CONTRADICTS
    assert judge([Comparison(ours, 2.7, True, rounding=0.05)])[0].verdict is Verdict.AGREES
    assert judge([Comparison(ours, 2.6, True, rounding=0.05)])[0].verdict is Verdict.CONTRADICTS


def test_means_are_judged_by_their_size_alone():
    ours = mean_interval({0: 79.4, 1: 79.8, 2: 79.6})
    assert verdict(ours, 79.7, same_protocol=True) is Verdict.AGREES
    assert verdict(ours, 81.7, same_protocol=True) is Verdict.CONTRADICTS
    assert verdict(ours, 79.7, same_protocol=False) is Verdict.NOT_JUDGED
    vague = mean_interval({0: 79.0, 1: 80.2, 2: 79.6})
    assert vague.half > MARGIN > ours.half
    assert verdict(vague, 79.7, same_protocol=True) is Verdict.WITHIN_NOISE
    assert verdict(vague, 85.0, same_protocol=True) is Verdict.CONTRADICTS
    assert verdict(mean_interval({0: 79.4}), 79.7, same_protocol=True) is Verdict.NOT_JUDGED
    assert judge([Comparison(ours, 79.7, True)])[0].p_holm is None


def test_rows_without_a_published_number_are_tests_of_the_table_too():
    """p = 0.02 excludes 0 alone, and among six tests does not."""
    almost = interval(0.5, 3.0)
    assert 0.01 < almost.p < 0.03
    (alone,) = judge([Comparison(almost, 1.0, False)])
    first, *rest = judge([Comparison(almost, 1.0, False)] + [Comparison(interval(-1, 1), None, False)] * 5)
    assert alone == Judgement(Verdict.AGREES, pytest.approx(almost.p), None)
    assert first == Judgement(Verdict.WITHIN_NOISE, pytest.approx(6 * almost.p), None)
    assert {judgement.verdict for judgement in rest} == {Verdict.NO_NUMBER} and rest[0].p_holm == 1.0


def test_the_papers_numbers_are_a_family_of_their_own():
    """Two of three rows are on the papers' protocol; p against their numbers is 0.03 before the correction."""
    ours = interval(1.0, 3.0)
    outside = next(2 + step / 1e4 for step in range(50000) if ours.p_against(2 + step / 1e4) < 0.03)
    rows = [Comparison(ours, outside, True), Comparison(ours, 2.0, True), Comparison(ours, outside, False)]
    assert judge(rows[:1])[0].verdict is Verdict.CONTRADICTS
    first, second, third = judge(rows)
    assert (first.verdict, second.verdict) == (Verdict.AGREES, Verdict.AGREES)
    assert first.papers_p_holm == pytest.approx(0.06, rel=1e-2) and second.papers_p_holm == 1.0
    assert third.papers_p_holm is None and third.p_holm == pytest.approx(3 * ours.p)
