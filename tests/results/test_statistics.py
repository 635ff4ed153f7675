"""Differences are scipy's paired ones, whatever the numbers; verdicts follow their definitions in every case."""

from __future__ import annotations

import math
import statistics as elementary

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics import Difference, Verdict, paired_difference, spread, verdict

accuracies = st.floats(0, 100).map(lambda x: round(x, 3))
pairs = st.dictionaries(st.integers(0, 30), st.tuples(accuracies, accuracies), min_size=2, max_size=8)
varied = pairs.filter(lambda both: len({round(a - b, 6) for a, b in both.values()}) > 1)


def split(both):
    return {k: a for k, (a, _) in both.items()}, {k: b for k, (_, b) in both.items()}


@given(varied)
def test_interval_is_the_hand_formula(both):
    arm, base = split(both)
    ours = paired_difference(arm, base)
    gaps = [arm[seed] - base[seed] for seed in both]
    n, mean = len(gaps), sum(gaps) / len(gaps)
    assert ours.n == n and ours.mean == pytest.approx(mean, abs=1e-9)
    half = stats.t.ppf(0.975, n - 1) * elementary.stdev(gaps) / math.sqrt(n)
    assert ours.low == pytest.approx(mean - half, abs=1e-6) and ours.high == pytest.approx(mean + half, abs=1e-6)
    if half > 1e-6:
        test = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
        assert (ours.low, ours.high) == pytest.approx((test.low, test.high), abs=1e-6)


@given(varied)
def test_swapping_arms_mirrors_the_interval(both):
    arm, base = split(both)
    there, back = paired_difference(arm, base), paired_difference(base, arm)
    assert there.mean == pytest.approx(-back.mean, abs=1e-9)
    assert there.low == pytest.approx(-back.high, abs=1e-6)
    assert there.low <= there.mean + 1e-9 and there.mean <= there.high + 1e-9


@given(pairs, st.dictionaries(st.integers(31, 60), accuracies, max_size=4))
def test_only_common_seeds_count(both, alone):
    arm, base = split(both)
    assert paired_difference({**arm, **alone}, base) == paired_difference(arm, base)
    assert paired_difference(arm, {**base, **alone}) == paired_difference(arm, base)


@given(accuracies, st.integers(2, 6), st.floats(-5, 5).map(lambda x: round(x, 2)))
def test_identical_differences_have_no_interval_and_are_not_judged(value, n, gap):
    ours = paired_difference({s: value + s + gap for s in range(n)}, {s: value + s for s in range(n)})
    assert (ours.low, ours.high, ours.n) == (None, None, n) and ours.mean == pytest.approx(gap, abs=1e-9)
    assert verdict(ours, 2.7, same_protocol=False) is Verdict.NOT_JUDGED


def test_one_pair_and_none():
    assert paired_difference({0: 71.0, 1: 72.0}, {0: 70.0}) == Difference(1.0, None, None, (0,))
    assert paired_difference({0: 71.0}, {1: 70.0}) is None
    assert paired_difference({}, {}) is None


def test_spread_is_the_sample_deviation():
    assert spread({0: 1.0, 1: 2.0, 2: 3.0}) == (2.0, 1.0)
    assert spread({0: 5.0}) == (5.0, None)


def interval(low, high):
    return Difference((low + high) / 2, low, high, (0, 1, 2))


@pytest.mark.parametrize(
    ("low", "high", "papers", "said"),
    [
        (2.0, 3.0, 2.7, "agrees"),
        (2.0, 3.0, 3.2, "contradicts"),
        (2.0, 3.0, -2.7, "contradicts"),
        (-1.0, 3.0, 2.7, "within noise"),
        (-1.0, 3.0, 3.2, "contradicts"),
        (-1.0, 1.0, 0.0, "agrees"),
        (0.5, 1.0, 0.0, "contradicts"),
        (2.7, 2.7, 2.7, "agrees"),
        (0.0, 3.0, 2.7, "within noise"),
    ],
)
def test_verdicts_on_the_papers_protocol(low, high, papers, said):
    assert verdict(interval(low, high), papers, same_protocol=True).value == said


@pytest.mark.parametrize(
    ("low", "high", "papers", "said"),
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
def test_verdicts_on_another_protocol_compare_signs(low, high, papers, said):
    assert verdict(interval(low, high), papers, same_protocol=False).value == said


@given(st.floats(-50, 50), st.floats(0, 20), st.floats(0.1, 9), st.booleans())
def test_mirrored_results_have_mirrored_verdicts(mean, half, papers, same):
    ours, mirrored = interval(mean - half, mean + half), interval(-mean - half, -mean + half)
    assert verdict(ours, papers, same_protocol=same) == verdict(mirrored, -papers, same_protocol=same)


def test_verdicts_without_something_to_compare():
    one = Difference(2.0, None, None, (0,))
    assert verdict(interval(1, 2), None, same_protocol=True) is Verdict.NO_NUMBER
    assert verdict(None, None, same_protocol=True) is Verdict.NO_NUMBER
    assert verdict(None, 2.7, same_protocol=True) is Verdict.NOT_RUN
    assert verdict(one, 2.7, same_protocol=False) is Verdict.NOT_JUDGED
