"""How the reads of one call lie side by side, in its offsets and in its tokens (``torch.ops.atm.read``)."""

import torch
from torch import Tensor

PATTERNS = ("row", "column", "cross", "joint")
"""Numbered as in native.cpp."""


def reads_per_token(pattern: str, samples: int, keep: bool) -> int:
    """How many tokens of C channels lie side by side in what is read, the kept one included."""
    return samples * (2 if pattern == "cross" else 1) + keep


def groups_per_read(offsets: Tensor, pattern: str, samples: int) -> int:
    """G, the offsets of one sample in one direction. offsets: [B, H, W, O]."""
    return offsets.shape[-1] // (samples * (2 if pattern in ("cross", "joint") else 1))


def wide_dtype(x: Tensor) -> torch.dtype:
    """What positions, sums and means are computed in: float64 for float64, else float32."""
    return torch.promote_types(x.dtype, torch.float32)
