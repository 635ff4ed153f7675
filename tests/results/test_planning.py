"""A plan of seeds holds what it promises: in simulation, its tests find the difference as often as it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics import planning
from results.statistics.estimates import Spread, paired_difference
from results.statistics.images import new_images
from results.statistics.verdicts import holm

PLANS = 3000
TRUE_SD = 2.0  # of paired differences; the difference to be found is 1


def arms_of(values):
    """values: [arms, seeds]"""
    return [dict(enumerate(arm)) for arm in values]


def test_the_deviation_of_two_arms_is_that_of_their_differences():
    drawn = np.random.default_rng(0).normal(70, 2, (2, 5))
    spread = planning.paired_spread(arms_of(drawn))
    assert spread.sd == pytest.approx(np.std(drawn[1] - drawn[0], ddof=1)) and spread.freedom == 4


def test_the_deviation_of_many_arms_has_the_degrees_of_freedom_that_it_says():
    """Against a common baseline differences depend on one another; their pooled variance would scatter more."""
    random = np.random.default_rng(0)
    found = [
        planning.paired_spread(arms_of(random.normal(0, TRUE_SD / math.sqrt(2), (5, 3)) + random.normal(0, 9, (1, 3))))
        for _ in range(3000)
    ]
    assert {spread.freedom for spread in found} == {8}
    scaled = np.array([8 * spread.sd**2 / TRUE_SD**2 for spread in found])
    assert stats.kstest(scaled, stats.chi2(8).cdf).pvalue > 0.01


def test_seeds_that_some_arms_lack_are_left_out_of_nothing_else():
    drawn = np.random.default_rng(0).normal(70, 2, (3, 4))
    arms = arms_of(drawn)
    del arms[2][3]
    assert planning.paired_spread(arms).freedom == 5
    assert planning.paired_spread(arms_of(drawn[:1])) is None and planning.paired_spread([]) is None
    assert planning.paired_spread([{0: 1.0, 1: 2.0}, {2: 1.0, 3: 3.0}]) is None, "no seed in common"
    alike = planning.paired_spread([{0: 71.3, 1: 72.9}, {0: 73.3, 1: 74.9}])
    assert alike.sd == pytest.approx(0, abs=1e-12)


def test_the_bound_is_exceeded_as_often_as_it_says():
    random = np.random.default_rng(0)
    bounds = [planning.upper_bound(Spread(math.sqrt(x / 2), 2)) for x in random.chisquare(2, 20_000)]
    assert np.mean(np.array(bounds) >= 1) == pytest.approx(planning.CONFIDENCE, abs=0.01)


def power(n, level=0.05):
    limit, away = stats.t.ppf(1 - level / 2, n - 1), math.sqrt(n) / TRUE_SD
    return stats.nct.sf(limit, n - 1, away) + stats.nct.cdf(-limit, n - 1, away)


@pytest.mark.parametrize("comparisons", [1, 6])
def test_the_seeds_are_the_fewest_that_have_the_power(comparisons):
    level = planning.corrected_level(comparisons)
    n = planning.seeds_needed(1.0, TRUE_SD, level)
    assert power(n, 1 - level) >= 0.8 > power(n - 1, 1 - level)
    assert planning.seeds_needed(1e-6, TRUE_SD) is None


def found_by_plans(pilots, comparisons, bounded, others=0.0):
    """How often the first comparison is found, over plans from pilots of two arms each.

    others: true difference of the other comparisons, whose p-values are corrected together with its own.
    """
    random = np.random.default_rng(pilots)
    found = 0
    for _ in range(PLANS):
        spread = planning.paired_spread(arms_of(random.normal(0, TRUE_SD / math.sqrt(2), (2, pilots))))
        sd = planning.upper_bound(spread) if bounded else spread.sd
        n = planning.seeds_needed(1.0, sd, planning.corrected_level(comparisons))
        truth = np.array([1.0, *[others] * (comparisons - 1)])
        means = truth + TRUE_SD / math.sqrt(n) * random.standard_normal(comparisons)
        sds = TRUE_SD * np.sqrt(random.chisquare(n - 1, comparisons) / (n - 1))
        p = 2 * stats.t.sf(np.abs(means) * math.sqrt(n) / sds, n - 1)
        found += holm(list(p))[0] < 0.05
    return found / PLANS


@pytest.mark.slow
@pytest.mark.parametrize("pilots", [3, 5, 10])
@pytest.mark.parametrize(("comparisons", "others"), [(1, 0.0), (6, 0.0), (6, 1.0)])
def test_a_plan_that_says_80_percent_finds_the_difference_in_78_at_least(pilots, comparisons, others):
    assert found_by_plans(pilots, comparisons, True, others) >= 0.78


@pytest.mark.slow
def test_by_the_plain_deviation_of_three_pilots_it_would_not():
    assert found_by_plans(3, 1, False) < 0.72


def test_the_simulation_tests_as_the_reports_do():
    drawn = np.random.default_rng(3).normal(1, TRUE_SD, 20)
    ours = paired_difference(dict(enumerate(drawn)), dict.fromkeys(range(20), 0.0))
    t = drawn.mean() * math.sqrt(20) / drawn.std(ddof=1)
    assert ours.p == pytest.approx(2 * stats.t.sf(abs(t), 19))


SEED, IMAGE, REST = 0.5, 8.0, 20.0  # deviations of an image's difference: of its seed, of the image, of both


def differences(random, seeds, images, mean=0.0):
    """[seeds, images] with random effects of both."""
    by_seed, by_image = random.normal(0, SEED, (seeds, 1)), random.normal(0, IMAGE, (1, images))
    return mean + by_seed + by_image + random.normal(0, REST, (seeds, images))


def test_the_variances_of_images_are_estimated_without_bias():
    random = np.random.default_rng(0)
    spread = planning.image_spread([differences(random, 3, 2000) for _ in range(20)])
    assert (spread.image, spread.residual) == (pytest.approx(IMAGE**2, rel=0.05), pytest.approx(REST**2, rel=0.02))
    assert spread.images == 2000 and planning.image_spread([np.zeros((1, 9))]) is None


@pytest.mark.slow
def test_seeds_and_images_for_new_images_find_the_difference_there():
    """Both ways of planning: seeds for the images that there are, and images for a number of seeds."""
    random = np.random.default_rng(0)
    pilot = planning.ImageSpread(IMAGE**2, REST**2, 600)
    sd = math.hypot(SEED, REST / math.sqrt(600))  # over seeds, on these images
    seeds = planning.seeds_on_images(1.2, sd, pilot, 600)
    images = planning.images_needed(1.2, sd, pilot, 2 * seeds)
    assert images < 600
    for n, m in ((seeds, 600), (2 * seeds, images)):
        p = [new_images(differences(random, n, m, 1.2)).p for _ in range(600)]
        assert np.mean(np.array(p) < 0.05) >= 0.78, (n, m)


def test_what_images_alone_hide_no_number_of_seeds_shows():
    few = planning.ImageSpread(IMAGE**2, REST**2, 100)
    assert planning.seeds_on_images(1.2, SEED, few, 100) is None
    assert planning.images_needed(0.1, SEED, few, 3) is None
