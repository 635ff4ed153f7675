"""Made-up sweeps with known effects: intervals cover the truth at their level, tests have their stated power.

A seed moves all arms of a sweep together, as initialisation and data order do; that is what pairing takes out. Many
sweeps are drawn at once and computed by scipy; that our functions give the same is checked on some of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics.estimates import (
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled_sd,
)
from results.statistics.images import mcnemar, new_images
from results.statistics.verdicts import Comparison, Verdict, holm, judge

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
    same, opposite = Verdict.SAME_SIGN, Verdict.OPPOSITE_SIGN
    for arm, right, wrong in ((0, same, opposite), (1, same, opposite), (2, opposite, same)):
        words = [verdicts[arm] for verdicts in verdicts_of]
        assert 0.77 < words.count(right) / len(words) < 0.95 and words.count(wrong) == 0


def verdicts_on_runs_of_theirs(seeds, ratio=1.0, gap=0.0, margin=0.5, sweeps=4000, sd=0.15):
    """Of means and of differences: our arms and single runs of theirs, which move ``ratio`` times as much as ours.

    Nothing is paired between arms; theirs are printed with one decimal. gap: of the true difference to theirs.
    """
    rng = np.random.default_rng(seeds)
    means, differences = [], []
    for _ in range(sweeps):
        arm, base = sd * rng.standard_normal((2, seeds)) + [[82.0 + gap], [79.3]]
        theirs = np.round(ratio * sd * rng.standard_normal(2) + [82.0, 79.3], 1)
        alone, gaps = mean_interval(dict(enumerate(arm))), paired_difference(*(dict(enumerate(a)) for a in (arm, base)))
        printed = round(theirs[0] - theirs[1], 1)
        means += judge([Comparison(alone, theirs[0], True, 0.05, margin)])
        differences += judge([Comparison(gaps, printed, True, 0.1, margin)])
    return [[judgement.verdict for judgement in judgements] for judgements in (means, differences)]


def share(verdicts, wanted):
    return verdicts.count(wanted) / len(verdicts)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_runs_are_seldom_excluded_however_many_seeds(seeds):
    for verdicts in verdicts_on_runs_of_theirs(seeds):
        assert share(verdicts, Verdict.EXCLUDED) <= 0.055


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_runs_that_scatter_more_than_ours_are_excluded_as_often_as_the_pages_say(seeds):
    """Rounding takes something off what is computed without it."""
    for verdicts in verdicts_on_runs_of_theirs(seeds, ratio=1.5):
        assert 0.04 < share(verdicts, Verdict.EXCLUDED) < 0.13


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_gap_of_the_margin_is_seldom_called_agreement(seeds):
    """Two one-sided tests at 5 % each, taking the printed number for their true mean."""
    rng = np.random.default_rng(seeds)
    drawn = 0.15 * rng.standard_normal((4000, seeds)) + 80.5
    verdicts = [
        judge([Comparison(mean_interval(dict(enumerate(values))), 80.0, True, 0.05, 0.5)])[0].verdict
        for values in drawn
    ]
    assert share(verdicts, Verdict.AGREES) <= 0.055


def images(seeds, count, effect=1.0, sweeps=400, arm_seed=0.2, arm_image=17.0, interaction=26.6):
    """[sweeps, seeds, images]: differences in points between two arms, about 10 % of the images discordant."""
    rng = np.random.default_rng(seeds * count)
    for _ in range(sweeps):
        of_seeds, of_images = arm_seed * rng.standard_normal((seeds, 1)), arm_image * rng.standard_normal((1, count))
        yield effect + of_seeds + of_images + interaction * rng.standard_normal((seeds, count)), of_images.mean()


@pytest.mark.parametrize("count", [500, 2500])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_each_interval_covers_its_own_target(seeds, count):
    """Over seeds: the difference on these images. Over seeds and images: the difference in the task, of which the
    interval over seeds holds too little, and the less the more seeds there are."""
    on_these = on_new = seeds_alone = 0
    for drawn, of_these_images in images(seeds, count):
        over_seeds = paired_difference(dict(enumerate(drawn.mean(axis=1))), dict.fromkeys(range(seeds), 0.0))
        both = new_images(drawn)
        on_these += over_seeds.low < 1.0 + of_these_images < over_seeds.high
        on_new += both.low < 1.0 < both.high
        seeds_alone += over_seeds.low < 1.0 < over_seeds.high
        assert both.mean == pytest.approx(over_seeds.mean) and (both.seeds, both.images) == (seeds, count)
    assert 0.91 <= on_these / 400 <= 0.98 and 0.91 <= on_new / 400 <= 0.98
    assert seeds_alone / 400 < (0.93 if seeds == 3 else 0.89)


def test_right_and_wrong_images_are_covered_too():
    """Images of unequal difficulty, two arms one of which is better on some of them: 0 or 100 points an image."""
    rng, seeds, count, covered = np.random.default_rng(0), 5, 1000, 0
    for _ in range(300):
        difficulty, skill = rng.normal(1.0, 2.0, count), rng.normal(0.25, 0.5, count)
        chances = [
            1 / (1 + np.exp(-(difficulty + gain + 0.05 * rng.standard_normal((seeds, 1))))) for gain in (skill, 0)
        ]
        drawn = [100.0 * (rng.random((seeds, count)) < chance) for chance in chances]
        interval = new_images(drawn[0] - drawn[1])
        covered += interval.low < TRUTH < interval.high
    assert 0.91 <= covered / 300 <= 0.985


# points that the better arm gains on average over new images and seeds, by integration
def _truth():
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    probability = weights / weights.sum()

    def right(mean, deviation):
        return float((probability / (1 + np.exp(-(mean + deviation * nodes)))).sum())

    noise = 0.05**2
    return 100 * (right(1.25, math.sqrt(4 + 0.25 + noise)) - right(1.0, math.sqrt(4 + noise)))


TRUTH = _truth()


def test_the_interval_over_seeds_and_images_is_the_analysis_of_variance():
    """On one data set, with the mean squares written out, against scipy's tests where one factor does nothing."""
    rng = np.random.default_rng(1)
    drawn = rng.normal(0, 1, (4, 7)) + rng.normal(0, 2, (4, 1)) + rng.normal(0, 3, (1, 7))
    grand, rows, columns = drawn.mean(), drawn.mean(axis=1), drawn.mean(axis=0)
    ms_rows, ms_columns = 7 * ((rows - grand) ** 2).sum() / 3, 4 * ((columns - grand) ** 2).sum() / 6
    ms_rest = ((drawn - rows[:, None] - columns + grand) ** 2).sum() / 18
    variance = (ms_rows + ms_columns - ms_rest) / 28
    freedom = (ms_rows + ms_columns - ms_rest) ** 2 / (ms_rows**2 / 3 + ms_columns**2 / 6 + ms_rest**2 / 18)
    ours = new_images(drawn)
    assert (ours.se, ours.freedom) == pytest.approx((math.sqrt(variance), freedom))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert (ours.low, ours.high) == pytest.approx((grand - half, grand + half))
    assert ours.p == pytest.approx(2 * stats.t.sf(abs(grand) / math.sqrt(variance), freedom))
    only_seeds = np.repeat(rows[:, None], 7, axis=1)
    alone = new_images(only_seeds)
    expected = stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    assert (alone.low, alone.high) == pytest.approx((expected.low, expected.high))
    assert new_images(drawn[:1]) is None and new_images(np.ones((3, 5))) is None


@pytest.mark.parametrize(("only_first", "only_second", "both"), [(0, 0, 5), (3, 9, 20), (40, 41, 0), (700, 600, 9)])
def test_mcnemar_is_the_binomial_test_of_discordant_images(only_first, only_second, both):
    first = [True] * only_first + [False] * only_second + [True] * both
    second = [False] * only_first + [True] * only_second + [True] * both
    discordant = only_first + only_second
    expected = stats.binomtest(only_first, discordant).pvalue if discordant else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=2e-4 if discordant > 1000 else 1e-12)
    assert mcnemar(second, first) == pytest.approx(mcnemar(first, second))
