"""How many seeds and images resolve a difference, from pilot runs. Never imports torch.

A deviation that three pilots give is often too small by half, so a plan by it misses its power. The plan is made by the
upper confidence bound of the deviation instead (Browne, Statistics in Medicine 14, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.statistics.estimates import LEVEL, POWER, Spread, detectable_effect

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.8  # that the true deviation is no larger than the bound
MOST = 100_000  # seeds


@dataclass(frozen=True)
class ImageSpread:
    """Variances of one image's difference between two arms, in squared points.

    image: of its part that all seeds have in common; residual: of what it has in one seed alone; images: how many
    there were.
    """

    image: float
    residual: float
    images: int

    def variance(self, seeds: int, images: int) -> float:
        """What new images add to the variance of the mean difference."""
        return (self.image + self.residual / seeds) / images


def paired_spread(arms: Sequence[Mapping[int, float]]) -> Spread | None:
    """The deviation of the paired differences of two arms, from several (seed → value each) at once.

    Values are taken as the effect of an arm, one of the seed and a rest of equal variance, whose root, times √2, is the
    deviation. Differences of all arms to a common one would be pooled as if they were independent. None where no rest
    is left: fewer than two arms with two seeds in common.
    """
    import numpy as np

    seeds = sorted({seed for arm in arms for seed in arm})
    cells = [(number, seeds.index(seed), value) for number, arm in enumerate(arms) for seed, value in arm.items()]
    if not cells:
        return None
    design = np.zeros((len(cells), len(arms) + len(seeds)))
    for row, (arm, seed, _) in enumerate(cells):
        design[row, [arm, len(arms) + seed]] = 1
    values = np.array([value for *_, value in cells])
    values -= values.mean()  # so that the rest is not lost in rounding
    solution, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    if (freedom := len(cells) - int(rank)) < 1:
        return None
    rest = float(((values - design @ solution) ** 2).sum())
    return Spread(math.sqrt(2 * rest / freedom), freedom)


def upper_bound(spread: Spread, confidence: float = CONFIDENCE) -> float:
    """What the true deviation exceeds with probability 1 − ``confidence``, of normal values."""
    from scipy.special import chdtri

    return spread.sd * math.sqrt(spread.freedom / float(chdtri(spread.freedom, confidence)))


def corrected_level(comparisons: int, level: float = LEVEL) -> float:
    """The level of the strictest test of Holm's correction over several comparisons: whichever place a comparison has
    among them, it is tested at no less."""
    return 1 - (1 - level) / comparisons


def seeds_needed(difference: float, sd: float, level: float = LEVEL, power: float = POWER) -> int | None:
    """The fewest seeds with which the paired t-test finds a true difference with this power; None beyond MOST.

    sd: of the paired differences, in the unit of ``difference``. Raises ValueError where ``power`` is no power of a
    test at this level.
    """
    return _fewest(lambda n: detectable_effect(n, level, power) * sd / math.sqrt(n) <= difference)


def image_spread(differences: Sequence[np.ndarray]) -> ImageSpread | None:
    """The mean over pairs of arms; differences: of each pair [seeds, images], in points. None for fewer than two seeds
    or images."""
    found = [_variances(each) for each in differences if min(each.shape) > 1]
    if not found:
        return None
    image, residual = (sum(values) / len(found) for values in zip(*found))
    return ImageSpread(image, residual, min(each.shape[1] for each in differences))


def seeds_on_images(
    difference: float, sd: float, spread: ImageSpread, images: int, level: float = LEVEL, power: float = POWER
) -> int | None:
    """The fewest seeds that find a true difference for new images as well; None where no number of them does."""

    def is_found(n: int) -> bool:
        return detectable_effect(n, level, power) ** 2 * (sd**2 / n + spread.variance(n, images)) <= difference**2

    return _fewest(is_found)


def images_needed(
    difference: float, sd: float, spread: ImageSpread, seeds: int, level: float = LEVEL, power: float = POWER
) -> int | None:
    """The fewest images with which so many seeds find a true difference for new images; None where the seeds alone
    scatter too much."""
    room = (difference / detectable_effect(seeds, level, power)) ** 2 - sd**2 / seeds
    return max(1, math.ceil(spread.variance(seeds, 1) / room)) if room > 0 else None


def _variances(differences: np.ndarray) -> tuple[float, float]:
    """Of the image and of the rest, by the analysis of variance of [seeds, images] without repetition."""
    seeds, images = differences.shape
    by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_image[None, :] + differences.mean()
    residual = float((rest**2).sum()) / ((seeds - 1) * (images - 1))
    return max(0.0, float(by_image.var(ddof=1)) - residual / seeds), residual


def _fewest(is_enough: Callable[[int], bool]) -> int | None:
    """The smallest number from 2 to MOST from which on ``is_enough`` holds; None where it does not."""
    few, many = 1, 2
    while not is_enough(many):
        if many >= MOST:
            return None
        few, many = many, min(2 * many, MOST)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if is_enough(middle) else (middle, many)
    return many
