"""The layout of several reads within the offsets and the tokens of ``torch.ops.atm.read``."""

import torch
from torch import Tensor

PATTERNS = ("row", "column", "cross", "joint")
"""In the order of ``Pattern`` in native.cpp."""


def reads_per_token(pattern: str, samples: int, keep: bool) -> int:
    """How many tokens of C channels one output token consists of, including the appended input token."""
    return samples * (2 if pattern == "cross" else 1) + keep


def groups_per_read(offsets: Tensor, pattern: str, samples: int) -> int:
    """G, the number of offsets of one sample in one direction. offsets: [B, H, W, O]."""
    return offsets.shape[-1] // (samples * (2 if pattern in ("cross", "joint") else 1))


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype of positions, sums and means: float64 for float64, else float32."""
    return torch.promote_types(x.dtype, torch.float32)
