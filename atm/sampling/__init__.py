"""Sampling: reading every channel of a map at its own real-valued position, the core of Active Token Mixing.

The mixer calls ``recompose``; ``sample_axis`` and ``sample_joint`` are for all other callers. They are computed by a
backend, which ``atm.sampling.backends`` chooses:

reference   the formula in PyTorch operations, differentiated by autograd; the other backends are tested against it
eager       the same operations, which recompute their indices in the backward pass; runs on every device
native      C++ for the CPU, compiled when first used
triton      Triton kernels for CUDA

All agree with the bilinear read of deformable convolution, forward and backward, and all except ``eager`` on CUDA give
the same bits every time. All except ``reference`` are one PyTorch operator, ``torch.ops.atm.read``, which compiles and
exports without a graph break and looks up its backend when it runs.
"""

import torch
from torch import Tensor

from atm.sampling import backends, reference
from atm.sampling.backends import BACKENDS, backend_for, describe, use
from atm.sampling.operator import read
from atm.shortcuts import traced, transformed

__all__ = ["BACKENDS", "backend_for", "describe", "recompose", "sample_axis", "sample_joint", "use"]


def sample_axis(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """Reads each channel of ``x`` at its own offset along one spatial axis (AAAI Eq. 2).

    x: [B, H, W, C] channels-last; offsets: [B, H, W, G] in tokens, G divides C, C/G neighbouring
    channels share one offset; dim: 1 for vertical, 2 for horizontal.
    Linear interpolation between the two nearest tokens, zero outside the map. Returns [B, H, W, C] in ``x``'s dtype.
    Offsets may have any size: positions far outside read 0 with gradient 0, and a NaN offset gives NaN.
    Raises ValueError if ``dim`` or a shape does not fit.
    """
    reference.check_axis(x, offsets, dim)
    if torch.jit.is_scripting() or by_formula():
        return reference.sample_axis(x, offsets, dim)
    else:
        return read(x, offsets, "row" if dim == 2 else "column", 1, False)[0]


def sample_joint(x: Tensor, dy: Tensor, dx: Tensor, samples: int = 1) -> Tensor:
    """Reads each channel of ``x`` at its own two-dimensional offsets (AAAI Fig. 2, joint).

    x: [B, H, W, C] channels-last; dy, dx: [B, H, W, samples * G] in tokens (down, right), G divides C, the offsets of
    the first sample first.
    Bilinear interpolation between the four nearest tokens, zero outside the map. Returns [B, H, W, samples * C] in
    ``x``'s dtype. Offsets may have any size, as in ``sample_axis``. Raises ValueError if a shape does not fit.
    """
    reference.check_joint(x, dy, dx, samples)
    if torch.jit.is_scripting() or by_formula():
        return reference.sample_joint(x, dy, dx, samples)
    else:
        return read(x, torch.cat([dx, dy], dim=-1), "joint", samples, False)[0]


def recompose(x: Tensor, offsets: Tensor, joint: bool, samples: int) -> tuple[Tensor, Tensor]:
    """All tokens that a mixer reads, concatenated along channels, and their means over the map.

    x: [B, H, W, C]; offsets: [B, H, W, 2 * samples * G] in tokens, the horizontal half first.
    Returns tokens [B, H, W, R * C] in ``x``'s dtype and means [B, R * C] in at least float32. The last axis holds
    ``samples`` horizontal and as many vertical reads (with ``joint``, ``samples`` two-dimensional reads), then ``x``
    itself. Raises ValueError if a shape does not fit.
    """
    reference.check_recompose(x, offsets, samples)
    if torch.jit.is_scripting() or by_formula():
        return reference.recompose(x, offsets, joint, samples)
    else:
        return read(x, offsets, "joint" if joint else "cross", samples, True)


@torch.jit.unused
def by_formula() -> bool:
    """Whether the reference formula samples, in place of the operator."""
    return backends.chosen() == "reference" or transformed() or traced()
