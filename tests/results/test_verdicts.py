"""Verdicts follow their definitions in every case, and the cases that once gave a wrong one give the right one."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from results.statistics.estimates import mean_interval, paired_difference
from results.statistics.verdicts import (
    CHANCE,
    Comparison,
    Judgement,
    Verdict,
    chance_of_agreement,
    equivalent,
    false_exclusion,
    holm,
    judge,
    seeds_to_agree,
)

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


def difference(mean, sd, n=3, base_sd=None):
    """A difference with this mean, of arms whose seeds move alone: the sample deviations are exactly these."""
    base_sd = sd if base_sd is None else base_sd
    shape = np.linspace(-1, 1, n)
    other = np.roll(shape, 1)
    arm, base = (scale * values / values.std(ddof=1) for scale, values in ((sd, shape), (base_sd, other)))
    return paired_difference(dict(enumerate(70 + mean + arm)), dict(enumerate(70 + base)))


def verdict(ours, papers, *, same=True, rounding=0.0, margin=0.5, **more):
    (judgement,) = judge([Comparison(ours, papers, same, rounding, margin, **more)])
    return judgement.verdict


def test_a_wide_interval_around_the_papers_number_is_not_agreement():
    """Three seeds gave 2.67, 4.4 and 6.13 over the baseline: +4.4 [0.1, 8.7]; the papers print 0.2."""
    ours = paired_difference({0: 72.67, 1: 74.4, 2: 76.13}, {0: 70.0, 1: 70.0, 2: 70.0})
    assert (ours.low, ours.high) == pytest.approx((0.1, 8.7), abs=0.01)
    assert verdict(ours, 0.2, rounding=0.1) is Verdict.INCONCLUSIVE


def test_a_precise_nothing_is_told_from_ignorance():
    """0.01 ± 0.07 and 0.01 ± 7 both leave 0 in their interval."""
    precise, vague = difference(0.01, 0.03, n=5), difference(0.01, 3.0, n=5)
    assert precise.half < 0.1 < 3 < vague.half
    assert verdict(precise, 0.0, rounding=0.1) is Verdict.AGREES, "a printed 0.0 can be agreed with"
    assert verdict(vague, 0.0, rounding=0.1) is Verdict.INCONCLUSIVE


def test_a_printed_zero_has_no_sign():
    resolved = difference(30.0, 1.0)
    assert verdict(resolved, 0.0, same=False) is Verdict.NO_NUMBER
    assert verdict(resolved, 0.1, same=False) is Verdict.SAME_SIGN


def test_one_run_of_theirs_scatters_as_ours_do():
    """A gap that our mean excludes by itself is what one run of theirs may differ by."""
    ours = mean_interval({0: 79.4, 1: 79.6, 2: 79.8, 3: 79.5, 4: 79.7})
    low, high = ours.prediction()
    assert ours.high < 79.9 < high
    assert verdict(ours, 79.9) is Verdict.AGREES
    assert verdict(ours, high + 0.01) is Verdict.EXCLUDED
    assert verdict(ours, high + 0.04, rounding=0.05) is not Verdict.EXCLUDED, "it is printed with one decimal"
    assert verdict(ours, high + 0.06, rounding=0.05) is Verdict.EXCLUDED
    assert verdict(ours, high - 0.01, margin=0.2) is Verdict.INCONCLUSIVE
    assert verdict(ours, low - 0.01) is Verdict.EXCLUDED


def test_excluded_goes_before_agrees():
    """A true gap of 0.25 within a margin of 0.3 can be resolved: both hold."""
    ours = difference(0.25, 0.02, n=5)
    assert equivalent(ours, 0.0, 0.3) and ours.p_of_run(0.0) < 0.05
    assert verdict(ours, 0.0, margin=0.3) is Verdict.EXCLUDED


@pytest.mark.parametrize(
    ("mean", "papers", "expected"),
    [
        (25.0, 2.7, "same sign"),
        (25.0, -2.7, "opposite sign"),
        (-25.0, 2.7, "opposite sign"),
        (-25.0, -0.1, "same sign"),
        (1.0, 2.7, "not resolved"),
        (25.0, 0.0, "–"),
        (25.0, None, "–"),
    ],
)
def test_elsewhere_signs_are_compared(mean, papers, expected):
    assert verdict(difference(mean, 2.0), papers, same=False).value == expected


@pytest.mark.parametrize("same", [True, False])
def test_a_side_without_a_number_is_a_sign_on_any_protocol(same):
    ours = difference(2.8, 0.3)
    assert verdict(ours, None, same=same, sign=-1) is Verdict.OPPOSITE_SIGN
    assert verdict(ours, None, same=same, sign=1) is Verdict.SAME_SIGN
    assert verdict(difference(0.1, 0.3), None, same=same, sign=1) is Verdict.NOT_RESOLVED
    assert verdict(None, None, same=same, sign=1) is Verdict.NOT_RUN


def test_a_sign_has_to_hold_on_new_images_where_that_is_known():
    ours = difference(2.8, 0.3)
    assert verdict(ours, 2.7, same=False, p_new_images=0.04) is Verdict.SAME_SIGN
    assert verdict(ours, 2.7, same=False, p_new_images=0.06) is Verdict.NOT_RESOLVED
    assert judge([Comparison(ours, 2.7, False, p_new_images=1e-9)])[0].p_holm == pytest.approx(ours.p)


@given(st.floats(-50, 50), st.floats(0.01, 20), st.floats(0.1, 9), st.booleans())
def test_mirrored_results_have_mirrored_verdicts(mean, sd, papers, same):
    ours, mirrored = difference(mean, sd), difference(-mean, sd)
    assert verdict(ours, papers, same=same) == verdict(mirrored, -papers, same=same)


@given(st.floats(-5, 5), st.floats(0.01, 2), st.floats(-5, 5), st.floats(0, 2), st.sampled_from([2, 3, 5, 10]))
def test_a_wider_margin_or_rounding_never_costs_agreement(mean, sd, papers, more, n):
    order = [Verdict.EXCLUDED, Verdict.INCONCLUSIVE, Verdict.AGREES]
    ours = difference(mean, sd, n)
    narrow = order.index(verdict(ours, papers))
    assert order.index(verdict(ours, papers, margin=0.5 + more)) >= narrow
    assert order.index(verdict(ours, papers, rounding=more)) >= narrow


def test_verdicts_without_something_to_compare():
    single = paired_difference({0: 72.0}, {0: 70.0})
    ours = difference(1.5, 0.2)
    assert verdict(ours, None) is Verdict.NO_NUMBER
    assert verdict(ours, math.nan) is Verdict.NO_NUMBER
    assert verdict(None, None) is Verdict.NO_NUMBER
    assert verdict(None, 2.7) is Verdict.NOT_RUN
    assert verdict(single, 2.7) is Verdict.NOT_JUDGED
    assert verdict(single, 2.7, same=False) is Verdict.NOT_JUDGED
    assert verdict(mean_interval({0: 79.4}), 79.7) is Verdict.NOT_JUDGED
    assert verdict(mean_interval({0: 79.4, 1: 79.6}), 79.7, same=False) is Verdict.NOT_JUDGED
    assert judge([]) == []


def test_rows_without_a_published_number_are_tests_of_the_table_too():
    """p = 0.02 excludes 0 alone, and among six tests does not."""
    almost = difference(1.75, 0.27)
    assert 0.01 < almost.p < 0.03
    (alone,) = judge([Comparison(almost, 1.0, False)])
    first, *rest = judge([Comparison(almost, 1.0, False)] + [Comparison(difference(0, 1), None, False)] * 5)
    assert alone == Judgement(Verdict.SAME_SIGN, pytest.approx(almost.p), None)
    assert first == Judgement(Verdict.NOT_RESOLVED, pytest.approx(6 * almost.p), None)
    assert {judgement.verdict for judgement in rest} == {Verdict.NO_NUMBER} and rest[0].p_holm == 1.0


def test_two_numbers_of_the_papers_for_one_pair_of_arms_are_one_test_of_0():
    almost = difference(1.75, 0.27)
    twice = judge([Comparison(almost, papers, False, pair=("a", "b")) for papers in (1.0, 2.0)])
    assert [judgement.p_holm for judgement in twice] == pytest.approx([almost.p] * 2)


def test_the_papers_numbers_are_a_family_of_their_own():
    """Two of three rows are on the papers' protocol; p of theirs being a run like ours is 0.03 before correction."""
    ours = difference(2.0, 0.3)
    outside = next(2 + step / 1e3 for step in range(50000) if ours.p_of_run(2 + step / 1e3) < 0.03)
    rows = [Comparison(ours, outside, True), Comparison(ours, 2.0, True), Comparison(ours, outside, False)]
    assert judge(rows[:1])[0].verdict is Verdict.EXCLUDED
    first, second, third = judge(rows)
    assert (first.verdict, second.verdict) == (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)
    assert first.papers_p_holm == pytest.approx(0.06, rel=1e-2) and second.papers_p_holm == 1.0
    assert third.papers_p_holm is None and third.p_holm == pytest.approx(3 * ours.p)


@pytest.mark.parametrize(("n", "chance"), [(3, 0.29), (5, 0.56), (10, 0.75)])
def test_how_often_equal_arms_agree(n, chance):
    """A deviation of 0.2 and a margin of 0.5, by integration and by drawing."""
    sd, rng = 0.2 * math.sqrt(2), np.random.default_rng(n)
    expected = chance_of_agreement(sd, sd, n, 0.5)
    assert expected == pytest.approx(chance, abs=0.006)
    ours, theirs = rng.normal(0, sd, (50_000, n)), rng.normal(0, sd, 50_000)
    half = stats.t.ppf(0.95, n - 1) * ours.std(axis=1, ddof=1) / math.sqrt(n)
    assert np.mean(np.abs(ours.mean(axis=1) - theirs) + half <= 0.5) == pytest.approx(expected, abs=0.01)


def test_how_many_seeds_would_resolve_it():
    sd = 0.2 * math.sqrt(2)
    needed = seeds_to_agree(sd, sd, 0.5)
    assert chance_of_agreement(sd, sd, needed - 1, 0.5) < CHANCE <= chance_of_agreement(sd, sd, needed, 0.5)
    assert seeds_to_agree(0.5, 0.5, 0.5) is None, "one run of theirs lies further off than the margin"
    assert chance_of_agreement(sd, sd, 1, 0.5) == 0.0


@pytest.mark.parametrize("n", [3, 5, 10])
def test_how_often_equal_runs_that_scatter_more_are_excluded(n):
    assert false_exclusion(n - 1, n, 1.0) == pytest.approx(0.05)
    rng = np.random.default_rng(n)
    ours, theirs = rng.normal(0, 1, (50_000, n)), 1.5 * rng.normal(0, 1, 50_000)
    half = stats.t.ppf(0.975, n - 1) * ours.std(axis=1, ddof=1) * math.sqrt(1 + 1 / n)
    assert np.mean(np.abs(ours.mean(axis=1) - theirs) > half) == pytest.approx(
        false_exclusion(n - 1, n, 1.5), abs=0.006
    )
