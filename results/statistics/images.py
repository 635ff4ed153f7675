"""What a difference is worth on new images: seeds and images are both samples.

The unit of a record is the image, and the images of all runs must be the same in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.statistics.estimates import LEVEL, t_quantile

if TYPE_CHECKING:
    import numpy as np

EXACT = 1000  # discordant images up to which McNemar's test is computed exactly


@dataclass(frozen=True)
class NewImages:
    """The interval of a mean difference over new seeds and new images, in points.

    se: its standard error; freedom: Satterthwaite's degrees of freedom; images, seeds: how many there were.
    """

    mean: float
    low: float
    high: float
    se: float
    freedom: float
    seeds: int
    images: int

    @property
    def p(self) -> float:
        """Two-sided p of there being no difference."""
        from scipy.special import stdtr

        return float(2 * stdtr(self.freedom, -abs(self.mean) / self.se)) if self.se else float(self.mean == 0)


def new_images(differences: np.ndarray, level: float = LEVEL) -> NewImages | None:
    """The random-effects interval of the mean of ``differences`` [seeds, images], in points.

    Two-way analysis of variance without repetition: a difference is a mean, an effect of its seed, one of its image
    and their interaction. The variance of the mean is (MS seeds + MS images − MS interaction) / (seeds · images), and
    at least what either factor gives alone; its degrees of freedom are Satterthwaite's (Biometrics Bulletin 2, 1946).
    None for fewer than two seeds or images, and where nothing varies.
    """
    seeds, images = differences.shape
    if min(seeds, images) < 2:
        return None
    mean = float(differences.mean())
    by_seed, by_image = differences.mean(axis=1), differences.mean(axis=0)
    residual = differences - by_seed[:, None] - by_image[None, :] + mean
    free = (seeds - 1, images - 1)
    squares = (images * float(by_seed.var(ddof=1)), seeds * float(by_image.var(ddof=1)))
    interaction = float((residual**2).sum()) / (free[0] * free[1])
    crossed = squares[0] + squares[1] - interaction
    largest = max(crossed, *squares)
    if largest <= 1e-12:
        return None
    if largest == crossed:
        parts = zip((*squares, interaction), (*free, free[0] * free[1]))
        freedom = crossed**2 / sum(square**2 / each for square, each in parts)
    else:
        freedom = free[squares.index(largest)]
    se = math.sqrt(largest / (seeds * images))
    half = t_quantile(freedom, level) * se
    return NewImages(mean, mean - half, mean + half, se, freedom, seeds, images)


def half_width(by_image: np.ndarray, level: float = LEVEL) -> float | None:
    """Half of the t-interval of the mean of numbers of images [N], for one model; None where they do not vary."""
    if len(by_image) < 2 or by_image.min() == by_image.max():
        return None
    return t_quantile(len(by_image) - 1, level) * float(by_image.std(ddof=1)) / math.sqrt(len(by_image))


def mcnemar(first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray) -> float:
    """Two-sided p of McNemar's test that two models are right on equally many images (exact, or with continuity
    correction where more than EXACT images are discordant). first, second: whether each image was right.
    """
    import numpy as np
    from scipy.special import bdtr, ndtr

    ours, theirs = np.asarray(first, bool), np.asarray(second, bool)
    only = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    discordant = sum(only)
    if not discordant:
        return 1.0
    if discordant <= EXACT:
        return min(1.0, 2 * float(bdtr(min(only), discordant, 0.5)))
    return float(2 * ndtr(-max(0.0, abs(only[0] - only[1]) - 1) / math.sqrt(discordant)))
