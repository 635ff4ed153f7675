"""Estimates are scipy's, whatever the numbers."""

from __future__ import annotations

import math
import statistics as elementary

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from results.statistics.estimates import (
    LEVEL,
    Difference,
    Interval,
    Spread,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled,
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
    assert ours.single is None and ours.prediction() is None and ours.p_of_run(2.7) is None


def test_one_pair_and_none():
    assert paired_difference({0: 71.0, 1: 72.0}, {0: 70.0}) == Difference(1.0, None, None, 1, None, (0,), (1.0,))
    assert paired_difference({0: 71.0}, {1: 70.0}) is None
    assert paired_difference({}, {}) is None


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


@given(varied, accuracies)
def test_one_more_pair_is_predicted_by_welch(both, value):
    """The difference of two single runs of other seeds, ours being the mean of as many such differences."""
    arm, base = split(both)
    ours, n = paired_difference(arm, base), len(both)
    first, second = (elementary.variance(values.values()) for values in (arm, base))
    freedom = (first + second) ** 2 * (n - 1) / (first**2 + second**2)
    assert (ours.single.sd, ours.single.freedom) == pytest.approx((math.sqrt(first + second), freedom), rel=1e-6)
    half = stats.t.ppf(0.975, freedom) * math.sqrt((first + second) * (1 + 1 / n))
    assert ours.prediction() == pytest.approx((ours.mean - half, ours.mean + half), abs=1e-6)
    assert ours.p_of_run(ours.prediction()[1]) == pytest.approx(0.05, rel=1e-6)
    assert ours.p_of_run(ours.mean + half + 1, within=1.0) == pytest.approx(0.05, rel=1e-6)
    t = abs(value - ours.mean) / math.sqrt((first + second) * (1 + 1 / n))
    assert ours.p_of_run(value) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-6)


@given(st.dictionaries(st.integers(0, 30), accuracies, min_size=2, max_size=8).filter(lambda d: len({*d.values()}) > 1))
def test_one_more_run_is_predicted_from_those_there_are(values):
    ours, n = mean_interval(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * elementary.stdev(values.values()) * math.sqrt(1 + 1 / n)
    assert ours.single == Spread(pytest.approx(elementary.stdev(values.values())), n - 1)
    assert ours.prediction() == pytest.approx((ours.mean - half, ours.mean + half), abs=1e-6)
    assert ours.interval(LEVEL) == pytest.approx((ours.low, ours.high))


def test_deviations_of_repeats_are_pooled():
    assert pooled([[1.0, 3.0], [5.0, 5.0, 8.0], [9.0]]) == Spread(pytest.approx(math.sqrt((2 + 6) / 3)), 3)
    assert pooled([[1.0], []]) is None
