"""Random changes of brightness, contrast, saturation and hue, as segmentation's reference configurations make them.

mmseg's ``PhotoMetricDistortion`` computes in 8 bits, with OpenCV's HSV. torchvision's transform of that name cannot
stand in for it: it multiplies the brightness, swaps channels, and turns the hue in floating point.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BRIGHTNESS = 32.0  # grey levels, added or taken away at most
CONTRAST = (0.5, 1.5)  # range of the factor of all channels
SATURATION = (0.5, 1.5)  # range of the factor of HSV's S
HUE = 18  # steps of 2° that the hue is turned by at most
HUES = 180  # steps of a full turn
SHIFT = 12  # bits after the point in OpenCV's conversion to HSV


def distort(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Each of the four changes with probability ½; contrast comes second or last, with equal probability.

    image: uint8 [3, H, W]; returns the same. Source: mmseg, ``PhotoMetricDistortion`` with its default settings.
    """
    if rng.integers(2):
        image = linear(image, offset=rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    contrast_last = not rng.integers(2)
    if not contrast_last:
        image = _contrast(image, rng)
    if rng.integers(2):
        hue, saturation, value = to_hsv(image)
        image = from_hsv(hue, linear(saturation, factor=rng.uniform(*SATURATION)), value)
    if rng.integers(2):
        hue, saturation, value = to_hsv(image)
        image = from_hsv((hue + rng.integers(-HUE, HUE).item()) % HUES, saturation, value)  # without HUE itself
    return _contrast(image, rng) if contrast_last else image


def linear(levels: Tensor, factor: float = 1.0, offset: float = 0.0) -> Tensor:
    """``levels · factor + offset``, limited to 0 … 255 and cut to whole levels, in the type of ``levels``."""
    return levels.float().mul_(factor).add_(offset).clamp_(0, 255).to(levels.dtype)


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0 … 179, saturation and value in 0 … 255 of an RGB image uint8 [3, H, W]; int32 [H, W] each.

    Source: OpenCV, ``cvtColor`` with ``COLOR_RGB2HSV`` on 8 bits, which multiplies by rounded reciprocals.
    """
    red, green, blue = image.int().unbind()
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    hue = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    )
    hue = _scaled(hue, HUES / 6, chroma)
    return hue + HUES * (hue < 0), _scaled(chroma, 255, value), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The inverse of ``to_hsv``, computed in float32 and rounded: uint8 [3, H, W].

    Source: OpenCV, ``cvtColor`` with ``COLOR_HSV2RGB`` on 8 bits. Over a turn of the hue, in sixths, each channel is
    ``value`` for two of them, falls to its least within one, stays there for two, and rises again.
    """
    sixths, share, level = hue.float() * (6 / HUES), saturation.float() * (1 / 255), value.float() * (1 / 255)
    lacking = (
        torch.minimum(sixths - 1, 5 - sixths),  # red is least in the third and the fourth sixth,
        torch.maximum(1 - sixths, sixths - 3),  # green in the last two,
        torch.maximum(3 - sixths, sixths - 5),  # and blue in the first two
    )
    channels = [level * (1 - share * each.clamp_(0, 1)) for each in lacking]
    return torch.stack(channels).mul_(255).round_().to(torch.uint8)


def _contrast(image: Tensor, rng: np.random.Generator) -> Tensor:
    return linear(image, factor=rng.uniform(*CONTRAST)) if rng.integers(2) else image


def _scaled(numerator: Tensor, scale: float, denominator: Tensor) -> Tensor:
    """``numerator · scale / denominator``, rounded; 0 where the denominator is 0. int32 tensors of one shape."""
    reciprocals = torch.zeros(256, dtype=torch.int32)
    reciprocals[1:] = torch.round((scale * 2**SHIFT) / torch.arange(1, 256, dtype=torch.float64)).int()
    factors = reciprocals.index_select(0, denominator.flatten()).view_as(denominator)
    return (numerator * factors + (1 << (SHIFT - 1))) >> SHIFT
