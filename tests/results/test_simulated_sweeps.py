"""Made-up sweeps with known effects: intervals cover the truth at their level, tests have their stated power.

A seed moves all arms of a sweep together, as initialisation and data order do; that is what pairing takes out. Many
sweeps are drawn at once and computed by scipy; that our functions give the same is checked on some of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics import (
    Comparison,
    Verdict,
    holm,
    judge,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled_sd,
)

SWEEPS = 20_000
CHECKED = 40
SEED_SD, RUN_SD = 1.5, 0.3  # points: the effect of a seed on all arms together, and on each run alone


def accuracies(effects, seeds, sweeps=SWEEPS, rng=0):
    """[sweeps, arms, seeds] around 70 points, arm 0 the baseline."""
    random = np.random.default_rng(rng)
    shared = SEED_SD * random.standard_normal((sweeps, 1, seeds))
    alone = RUN_SD * random.standard_normal((sweeps, 1 + len(effects), seeds))
    return 70 + shared + alone + np.array([0.0, *effects])[None, :, None]


def differences(drawn):
    """[sweeps, arms, seeds] to the baseline, and scipy's tests over the seeds."""
    gaps = drawn[:, 1:] - drawn[:, :1]
    return gaps, stats.ttest_1samp(gaps, 0, axis=2)


def ours(sweep):
    """Our differences of one sweep [arms, seeds] to its first arm."""
    by_seed = [dict(enumerate(arm)) for arm in sweep]
    return [paired_difference(arm, by_seed[0]) for arm in by_seed[1:]]


@pytest.mark.parametrize("seeds", [3, 5])
def test_95_of_100_intervals_hold_the_true_difference(seeds):
    drawn = accuracies([0.7], seeds)
    _, test = differences(drawn)
    interval = test.confidence_interval(0.95)
    assert 0.945 < np.mean((interval.low < 0.7) & (interval.high > 0.7)) < 0.955
    for sweep, low, high, p in zip(drawn[:CHECKED], interval.low, interval.high, test.pvalue):
        (difference,) = ours(sweep)
        assert (difference.low, difference.high, difference.p) == pytest.approx((low[0], high[0], p[0]))


@pytest.mark.parametrize("seeds", [3, 5])
def test_95_of_100_intervals_hold_the_true_mean(seeds):
    drawn = accuracies([], seeds)[:, 0]
    interval = stats.ttest_1samp(drawn, 0, axis=1).confidence_interval(0.95)
    assert 0.945 < np.mean((interval.low < 70) & (interval.high > 70)) < 0.955
    for values, low, high in zip(drawn[:CHECKED], interval.low, interval.high):
        mean = mean_interval(dict(enumerate(values)))
        assert (mean.low, mean.high) == pytest.approx((low, high))


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_the_detectable_difference_is_found_four_times_in_five(seeds):
    effect = minimal_detectable_difference(math.sqrt(2) * RUN_SD, seeds)
    _, test = differences(accuracies([effect], seeds, rng=seeds))
    assert 0.79 < np.mean(test.pvalue < 0.05) < 0.81


def test_pairing_is_what_finds_it():
    """Unpaired, the seeds' shared effect would drown the same difference."""
    drawn = accuracies([minimal_detectable_difference(math.sqrt(2) * RUN_SD, 5)], 5)
    assert np.mean(stats.ttest_ind(drawn[:, 1], drawn[:, 0], axis=1).pvalue < 0.05) < 0.2


def test_pooled_deviations_are_of_the_right_size():
    """Of six arms with three seeds, the pooled deviation scatters less than two thirds as much as one arm's."""
    drawn = accuracies([0.0] * 6, 3, sweeps=300)
    truth = math.sqrt(2) * RUN_SD
    pooled = np.array([pooled_sd(ours(sweep)) for sweep in drawn])
    assert np.sqrt(np.mean(pooled**2)) == pytest.approx(truth, rel=0.05)
    assert np.std(pooled) < 0.65 * np.std([ours(sweep)[0].sd for sweep in drawn])


def test_a_table_of_arms_that_do_nothing_shows_a_difference_in_one_of_twenty():
    """Six arms share their baseline, so their tests are correlated; uncorrected, more than twice as many tables err."""
    drawn = accuracies([0.0] * 6, 3)
    _, test = differences(drawn)
    assert np.mean(test.pvalue.min(axis=1) < 0.05) > 0.1
    assert np.mean(6 * test.pvalue.min(axis=1) < 0.05) < 0.052  # Holm's smallest p is Bonferroni's
    for sweep, p in zip(drawn[:CHECKED], test.pvalue):
        p_holm = [judgement.p_holm for judgement in judge([Comparison(gap, None, False) for gap in ours(sweep)])]
        assert p_holm == pytest.approx(holm(list(p))) and min(p_holm) == pytest.approx(min(1.0, 6 * p.min()))


def test_a_wrong_rejection_is_as_rare_where_other_arms_do_something():
    """Three arms do nothing, three do much: the family-wise error of the three stays below 5 %."""
    drawn = accuracies([0.0] * 3 + [9.0] * 3, 3, sweeps=2500)
    _, test = differences(drawn)
    adjusted = np.array([holm(list(p)) for p in test.pvalue])
    assert np.mean(adjusted[:, :3].min(axis=1) < 0.05) < 0.06
    assert np.all(adjusted <= np.minimum(1, 6 * test.pvalue) + 1e-12)


def test_verdicts_find_effects_as_often_as_their_tests_can():
    """Three arms at five seeds with an effect that a test at 5 % / 3 finds four times in five: Holm finds no fewer."""
    effect = minimal_detectable_difference(math.sqrt(2) * RUN_SD, 5, level=1 - 0.05 / 3)
    drawn = accuracies([effect, effect, -effect], 5, sweeps=600)
    verdicts_of = [[j.verdict for j in judge([Comparison(gap, 1.0, False) for gap in ours(sweep)])] for sweep in drawn]
    for arm, right, wrong in ((0, "agrees", "contradicts"), (1, "agrees", "contradicts"), (2, "contradicts", "agrees")):
        words = [verdicts[arm].value for verdicts in verdicts_of]
        assert 0.77 < words.count(right) / len(words) < 0.95 and words.count(wrong) == 0


def test_the_papers_own_effect_is_contradicted_in_no_more_than_one_table_of_twenty():
    effects = [0.0, 0.7, 2.7]
    drawn = accuracies(effects, 3, sweeps=1500)
    verdicts_of = [
        [j.verdict for j in judge([Comparison(gap, e, True) for gap, e in zip(ours(sweep), effects)])]
        for sweep in drawn
    ]
    assert np.mean([Verdict.CONTRADICTS in verdicts for verdicts in verdicts_of]) < 0.06
    assert np.mean([verdicts[0] is Verdict.WITHIN_NOISE for verdicts in verdicts_of]) > 0.95
