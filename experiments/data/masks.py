"""Images with a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.data.batch import ImageBatch

IGNORED = 255  # the label of a pixel that counts nowhere


@dataclass(frozen=True)
class LabelledMasks(ImageBatch):
    """masks: int64 [B, H, W], or a tuple of [h, w] of unequal size: classes from 0 on, or IGNORED.

    Evaluation batches hold tuples: images uint8 [3, h, w] of their original size and masks of the same.
    """

    masks: Any
