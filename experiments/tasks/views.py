"""Predicts the classes of an image's pixels from one or several views of it: whole or in windows, scaled, mirrored.

As mmsegmentation tests (``whole_inference``, ``slide_inference``, ``MultiScaleFlipAug``), with sizes as mmcv rounds
them. Images are predicted one by one: one padded to the size of another would be seen by modules that average all of
an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F

from errors import ConfigError
from experiments.data.mask_transforms import fitted, limits, resize


@dataclass(frozen=True)
class TestPlan:
    """How images are shown to a model in evaluation.

    scale: px, the box (longer side, shorter side) that an image is fitted into, either way round and keeping its ratio;
    None keeps its size. ratios: of that box, a view for each; flip: also the mirror image of each view.
    multiple_of: px, both sides of a view are then stretched up to multiples of this, as PVT's Semantic FPN is tested.
    window, stride: px, side and step of the square windows that a view is predicted in; None for all of it at once.
    mean, std: of the red, green and blue of a pixel in 0 … 1.
    """

    scale: tuple[int, int] | None = (2048, 512)
    ratios: tuple[float, ...] = (1.0,)
    flip: bool = False
    multiple_of: int = 1
    window: int | None = None
    stride: int | None = None
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD

    def __post_init__(self) -> None:
        if not self.ratios or min(self.ratios) <= 0:
            raise ConfigError(f"scales of a test: {list(self.ratios)}; at least one, each above 0")
        if (self.window is None) != (self.stride is None):
            raise ConfigError("windows of a test need both a side and a stride")
        if self.window is not None and self.stride is not None and not 1 <= self.stride <= self.window:
            raise ConfigError(
                f"stride of windows: {self.stride} px; valid are 1 to {self.window}, the side of a window"
            )

    def sizes(self, height: int, width: int) -> Iterator[list[tuple[int, int]]]:
        """For each view of an image of this size, the sizes that it is resized to one after another."""
        for ratio in self.ratios:
            box = self.scale or (max(height, width), min(height, width))
            size = fitted((height, width), limits(box, ratio))
            yield [size, _rounded_up(size, self.multiple_of)]


def predict_classes(model: nn.Module, images: Iterable[Tensor], plan: TestPlan) -> tuple[Tensor, ...]:
    """The likeliest class of every pixel, int64 [h, w] of each image uint8 [3, h, w]."""
    return tuple(predict_probabilities(model, image, plan).argmax(0) for image in images)


def predict_probabilities(model: nn.Module, image: Tensor, plan: TestPlan) -> Tensor:
    """float32 [K, h, w] for an image uint8 [3, h, w]: the mean over views of their softmax at the image's own size.

    model: from normalised images [1, 3, H, W] to logits [1, K, H, W].
    """
    height, width = image.shape[1:]
    total: Tensor | None = None
    views = 0
    for sizes in plan.sizes(height, width):
        view = normalised(resized(image, sizes), plan)
        for mirrored in (False, True)[: 1 + plan.flip]:
            logits = view_logits(model, view.flip(3) if mirrored else view, plan)
            answer = _interpolated(logits, (height, width)).softmax(1)[0]
            answer = answer.flip(2) if mirrored else answer
            total = answer if total is None else total + answer
            views += 1
    assert total is not None
    return total / views


def resized(image: Tensor, sizes: Iterable[tuple[int, int]]) -> Tensor:
    """uint8 [3, h, w] resized to each size in turn."""
    for size in sizes:
        if size != tuple(image.shape[1:]):
            image = resize(image, size)
    return image


def normalised(image: Tensor, plan: TestPlan) -> Tensor:
    """uint8 [3, h, w] to float32 [1, 3, h, w]."""
    mean, std = (torch.tensor(values, device=image.device)[:, None, None] for values in (plan.mean, plan.std))
    return ((image.float() / 255 - mean) / std)[None]


def view_logits(model: nn.Module, view: Tensor, plan: TestPlan) -> Tensor:
    """float32 [1, K, H, W] for a view [1, 3, H, W], at once or as the mean over the windows that cover a pixel.

    Windows start every ``stride`` px; the last ones of rows and columns are moved back so that they end with the view,
    and a view that is smaller than a window along a side is a window along that side.
    """
    if plan.window is None or plan.stride is None:
        return _interpolated(model(view).float(), tuple(view.shape[2:]))
    height, width = view.shape[2:]
    total: Tensor | None = None
    count = view.new_zeros(1, 1, height, width)
    for top in starts(height, plan.window, plan.stride):
        for left in starts(width, plan.window, plan.stride):
            rows, columns = slice(top, top + plan.window), slice(left, left + plan.window)
            window = view[:, :, rows, columns]
            logits = _interpolated(model(window).float(), tuple(window.shape[2:]))
            if total is None:
                total = logits.new_zeros(1, logits.shape[1], height, width)
            total[:, :, rows, columns] += logits
            count[:, :, rows, columns] += 1
    assert total is not None
    return total / count


def starts(side: int, window: int, stride: int) -> list[int]:
    """px, where windows begin along a side."""
    number = math.ceil(max(side - window, 0) / stride) + 1
    return [max(min(place * stride, side - window), 0) for place in range(number)]


def _interpolated(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    """[1, K, h, w] to [1, K, *size], bilinearly, corners not aligned."""
    if tuple(logits.shape[2:]) == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def _rounded_up(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    height, width = (math.ceil(side / multiple) * multiple for side in size)
    return height, width
