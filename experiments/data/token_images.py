"""Drawn images whose tokens are labelled: what ``scenes`` and the probes share, and what a task has to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from errors import ConfigError, unknown
from experiments.data.batch import ImageBatch, unreadable
from experiments.data.order import SampleKey, stream

SPLITS = {"train": 1, "eval": 2}
EVAL_SEED = 20220311  # of the evaluation images, whatever the seed of the run
IGNORED = -1  # the label of a token that is not asked


@dataclass(frozen=True, eq=False)
class Labelling:
    """What the labels of a data set are, and how they are read off a backbone and counted.

    token: px, side of the square that one label is for; strides: of the backbone's maps that a head reads;
    class_names: K names; palette: uint8 [K, 3], or [K, P, 3] where a class consists of P parts, each with a colour;
    directions: of the ways from a token to its evidence; deep: px, distances from which on accuracy is also counted
    apart; on_grid: distances are whole tokens, so that bins lie around multiples of ``token`` and not between them;
    mean, std: of a pixel in 0 … 1, all channels alike.
    """

    token: int
    strides: tuple[int, ...]
    class_names: tuple[str, ...]
    palette: NDArray[np.uint8]
    directions: tuple[str, ...]
    deep: int
    on_grid: bool
    mean: float
    std: float

    def normalise(self, image: NDArray[np.uint8]) -> Tensor:
        """uint8 [h, w, 3] to float32 [3, h, w]."""
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        return torch.from_numpy(
            (planes.astype(np.float32) / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        )

    def pixels(self, images: Tensor) -> NDArray[np.uint8]:
        """The inverse of ``normalise`` for a batch: float32 [B, 3, h, w] to uint8 [B, h, w, 3]."""
        grey_levels = (images.float() * self.std + self.mean) * 255
        return grey_levels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def bins(self, distance: Tensor) -> Tensor:
        """px to the number of the bin, int64."""
        return torch.floor(distance / self.token + (0.5 if self.on_grid else 0.0)).long()

    def middle(self, number: int) -> int:
        """px, the middle of a bin."""
        return number * self.token + (0 if self.on_grid else self.token // 2)


@dataclass(frozen=True)
class LabelledTokens(ImageBatch):
    """labels: int64 [B, h, w], a row or column per token, IGNORED where nothing is asked.

    Of evaluation images also distance: float32 [B, h, w], px to the evidence; direction: int64 [B, h, w], an index
    into ``Labelling.directions``; and, of probes, places: int64 [B, h, w, P, 2], row and column of the tokens that hold
    the evidence, -1 where nothing is asked.
    """

    labels: Tensor
    distance: Tensor | None = None
    direction: Tensor | None = None
    places: Tensor | None = None


class TokenImages(Dataset[tuple[Tensor, ...]]):
    """``length`` drawn images of ``size`` (height, width).

    Training images are a function of (seed, epoch, index): fresh ones in every epoch. Evaluation images are a
    function of the index alone, so that runs of different seeds are judged on the same ones. Indexing gives an image
    float32 [3, h, w], normalised, and labels; in the evaluation split also the further fields of ``LabelledTokens``.
    """

    labelling: ClassVar[Labelling]
    plural: ClassVar[str]  # what a person calls the images

    def __init__(self, size: tuple[int, int], seed: int, length: int, split: str):
        height, width = size
        if height % 32 or width % 32 or min(height, width) < 64:
            raise ConfigError(
                f"{self.plural} of {height}x{width} px: both sides must be multiples of 32, and at least 64"
            )
        if split not in SPLITS:
            raise ConfigError(unknown(f"split of {self.plural}", split, SPLITS))
        self.size, self.seed, self.length, self.split = (height, width), seed, length, split

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def collate(self, samples: Sequence[tuple[Tensor, ...]]) -> LabelledTokens:
        images, labels, *rest = (torch.stack(part) for part in zip(*samples))
        return LabelledTokens(images, unreadable(()), labels, *rest)

    def name(self, index: int) -> str:
        return f"{self.split} {self.plural} {index}"

    def problem(self, index: int) -> str:
        return f"{self.name(index)}: generated, not read from a file"

    def fingerprint(self) -> str:
        """Hash of what the images are drawn from, the same for runs of every seed."""
        raise NotImplementedError

    def stream(self, key: SampleKey, purpose: str = "") -> np.random.Generator:
        """The random stream that an image is drawn from."""
        seed, epoch = (self.seed, key.epoch) if self.split == "train" else (EVAL_SEED, 0)
        # The split comes last and is never 0: a SeedSequence does not tell (a, b) from (a, b, 0).
        return stream(seed, epoch, key.index, SPLITS[self.split], purpose=purpose)
