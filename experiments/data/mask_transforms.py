"""The augmentation of an image together with its label map, and how images are resized.

They are those of segmentation's reference configurations (mmseg; Swin, PVT): every size, limit and order of draws is
theirs. torchvision's kernels compute them wherever they give the same. Images are uint8 [3, h, w] until they are
normalised, label maps uint8 [h, w] with IGNORED where there is no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torchvision.transforms.v2.functional as kernels
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import InterpolationMode

from experiments.data.colour_distortion import distort
from experiments.data.mask_layout import IGNORED

TRIES = 10  # crops that are looked at; the next one is taken as it is


@dataclass(frozen=True)
class MaskAugment:
    """Scales, crops, flips and distorts the colours of a training image; ADE20K's published settings by default.

    size: height and width in px of what it returns; base: px, the longest and the shortest side at scale 1, between
    which the image fits with its aspect ratio kept; scale: range of the random factor of ``base``; max_share: a crop in
    which one class has this share of the labelled pixels or more is drawn again, 1 = never; hflip: probability;
    distortion: whether colours change. Source: the configurations of mmseg for ADE20K, which the papers follow.
    """

    size: tuple[int, int] = (512, 512)
    base: tuple[int, int] = (2048, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    max_share: float = 0.75
    hflip: float = 0.5
    distortion: bool = True

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A view of uint8 [3, h, w] and uint8 [h, w]: float32 [3, H, W], normalised, and int64 [H, W].

        Smaller ones are padded at the bottom and on the right: images with zeros after normalising, which is the mean
        colour, and masks with IGNORED.
        """
        size = fitted(image.shape[-2:], limits(self.base, rng.uniform(*self.scale)))
        image, mask = resize(image, size), resize_mask(mask, size)
        top, left = choose_crop(mask, self.size, self.max_share, rng)
        height, width = (min(side, most) for side, most in zip(size, self.size))
        image, mask = (kernels.crop(each, top, left, height, width) for each in (image, mask))
        if rng.random() < self.hflip:
            image, mask = kernels.horizontal_flip(image), kernels.horizontal_flip(mask)
        if self.distortion:
            image = distort(image, rng)
        missing = (0, self.size[1] - width, 0, self.size[0] - height)  # px on the left, on the right, above and below
        return pad(normalise(image), missing), pad(mask, missing, value=IGNORED).long()


def limits(base: tuple[int, int], ratio: float) -> tuple[int, int]:
    """``ratio`` times the longest and the shortest side, in whole px, rounded down."""
    long, short = base
    return int(long * ratio), int(short * ratio)


def fitted(size: torch.Size | tuple[int, int], within: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the largest image of the aspect ratio of ``size`` that has sides of at most ``within``.

    Source: mmcv, ``rescale_size``; at least 1 px, where it would fail.
    """
    height, width = size
    factor = min(max(within) / max(height, width), min(within) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, h, w] by bilinear interpolation without antialias: on average 0.2 grey levels from OpenCV's."""
    resized: Tensor = kernels.resize(image, list(size), InterpolationMode.BILINEAR, antialias=False)
    return resized


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """[h, w], or [n, h, w] of n masks, by the nearest label at or before each place, as OpenCV does it."""
    resized: Tensor = kernels.resize(mask[None], list(size), InterpolationMode.NEAREST)
    return resized[0]


def choose_crop(mask: Tensor, size: tuple[int, int], max_share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a random crop of ``size`` that has several classes, none with too large a share.

    The shares are of the labelled pixels, and have to be less than ``max_share``. After TRIES crops without success the
    next one is taken. Where the mask is smaller than the crop, the crop begins at its edge.
    Source: mmseg, ``RandomCrop`` with ``cat_max_ratio``.
    """
    rows, columns = (max(0, side - crop) + 1 for side, crop in zip(mask.shape, size))
    top, left = int(rng.integers(rows)), int(rng.integers(columns))
    for _ in range(TRIES if max_share < 1 else 0):
        seen = torch.bincount(mask[top : top + size[0], left : left + size[1]].flatten(), minlength=IGNORED)[:IGNORED]
        if seen.count_nonzero() > 1 and seen.max() / seen.sum() < max_share:
            break
        top, left = int(rng.integers(rows)), int(rng.integers(columns))
    return top, left


def normalise(image: Tensor) -> Tensor:
    """uint8 [3, h, w] to float32, by the mean and standard deviation of ImageNet's colours."""
    levels = kernels.to_dtype(image, torch.float32, scale=True)
    normalised: Tensor = kernels.normalize(levels, list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
    return normalised
