"""Reading every channel of a map at its own real-valued position: the heart of Active Token Mixing.

The mixer knows sampling through ``sample_axis`` and ``sample_joint`` only; a faster backend is chosen here, by device
and dtype, and nowhere else. Both agree with deformable convolution's bilinear read, forward and backward.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_axis(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """Reads each channel of ``x`` at its own offset along one spatial axis (AAAI Eq. 2).

    x: [B, H, W, C] channels-last; offsets: [B, H, W, G] in tokens, G divides C, C/G neighbouring
    channels share one offset; dim: 1 for vertical, 2 for horizontal.
    Linear interpolation between the two nearest tokens, zero outside the map. Returns [B, H, W, C] in ``x``'s dtype.
    Offsets of any size are safe: far outside reads 0 with gradient 0, and a NaN offset gives NaN.
    Raises ValueError if ``dim`` or a shape does not fit.
    """
    if dim != 1 and dim != 2:
        raise ValueError(f"dim must be 1 (vertical) or 2 (horizontal), not {dim}")
    _check_shapes(x, offsets)
    batch, height, width, channels = x.shape
    groups = offsets.shape[-1]

    index, fraction = _locate(offsets, dim, x.shape[dim])
    padded = F.pad(x, [0, 0, 2, 2] if dim == 2 else [0, 0, 0, 0, 2, 2])
    padded = padded.reshape(batch, padded.shape[1], padded.shape[2], groups, channels // groups)
    # Expanded, not copied: the channels of a group share one index, one fraction and their arithmetic.
    index = index.unsqueeze(-1).expand(batch, height, width, groups, channels // groups)
    low = padded.gather(dim, index)
    high = padded.gather(dim, index + 1)
    return _lerp(low, high, fraction.unsqueeze(-1)).reshape(batch, height, width, channels).to(x.dtype)


def sample_joint(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Reads each channel of ``x`` at its own two-dimensional offset (AAAI Fig. 2, the joint arm).

    x: [B, H, W, C] channels-last; dy, dx: [B, H, W, G] in tokens (down, right), G divides C.
    Bilinear interpolation between the four nearest tokens, zero outside the map. Returns [B, H, W, C] in ``x``'s dtype.
    Offsets of any size are safe, as in ``sample_axis``. Raises ValueError if a shape does not fit.
    """
    _check_shapes(x, dy)
    _check_shapes(x, dx)
    batch, height, width, channels = x.shape
    groups = dy.shape[-1]
    if dx.shape[-1] != groups:
        raise ValueError(f"dy has {groups} offsets per token, dx has {dx.shape[-1]}")

    row, fraction_y = _locate(dy, 1, height)
    column, fraction_x = _locate(dx, 2, width)
    padded_width = width + 4
    padded = F.pad(x, [0, 0, 2, 2, 2, 2])
    padded = padded.reshape(batch, (height + 4) * padded_width, groups, channels // groups)
    index = (row * padded_width + column).reshape(batch, height * width, groups, 1)
    index = index.expand(batch, height * width, groups, channels // groups)
    fraction_y = fraction_y.reshape(batch, height * width, groups, 1)
    fraction_x = fraction_x.reshape(batch, height * width, groups, 1)
    top = _lerp(padded.gather(1, index), padded.gather(1, index + 1), fraction_x)
    below = index + padded_width
    bottom = _lerp(padded.gather(1, below), padded.gather(1, below + 1), fraction_x)
    return _lerp(top, bottom, fraction_y).reshape(batch, height, width, channels).to(x.dtype)


def _locate(offsets: Tensor, dim: int, size: int) -> tuple[Tensor, Tensor]:
    """Where each offset points on an axis padded by two zeros at both ends.

    offsets: [B, H, W, G]; dim: the axis, ``size`` tokens long.
    Returns the padded index of the lower neighbour, [B, H, W, G] int64 within [0, size + 2],
    and the fraction of the way to the next one, [B, H, W, G] in at least float32.
    """
    if offsets.dtype != torch.float64:
        # In bfloat16 a position beyond 8 would lose its fraction, and beyond 256 its token.
        offsets = offsets.float()
    here = torch.arange(size, dtype=offsets.dtype, device=offsets.device)
    here = here.reshape(1, 1, size, 1) if dim == 2 else here.reshape(1, size, 1, 1)
    # Clamping before the conversion to integers keeps huge offsets from overflowing and gives them no gradient.
    # Both neighbours are zeros at -2 and at size, so it
    # does not matter whether clamp passes a gradient at its very ends. At -1 it would: the upper one is a token.
    position = (here + offsets).clamp(-2.0, float(size))
    lower = position.floor()
    # The second clamp is for NaN, which becomes an arbitrary integer; its fraction keeps the NaN in the output.
    index = (lower.detach().long() + 2).clamp(0, size + 2)
    return index, position - lower


def _lerp(low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    """Linear interpolation in the wider dtype of values and fraction."""
    dtype = torch.promote_types(low.dtype, fraction.dtype)
    return torch.lerp(low.to(dtype), high.to(dtype), fraction.to(dtype))


def _check_shapes(x: Tensor, offsets: Tensor) -> None:
    if x.ndim != 4 or offsets.ndim != 4 or x.shape[:3] != offsets.shape[:3]:
        raise ValueError(
            f"expected x [B, H, W, C] and offsets [B, H, W, G], not {list(x.shape)} and {list(offsets.shape)}"
        )
    if x.shape[3] % offsets.shape[3] != 0:
        raise ValueError(f"{offsets.shape[3]} offsets per token do not divide {x.shape[3]} channels")
