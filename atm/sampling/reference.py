"""The sampling formula in plain PyTorch operations, against which every backend is tested.

Autograd differentiates it any number of times and TorchScript compiles it. The arguments are those of
``atm.sampling``, which checks them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_axis(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """``atm.sampling.sample_axis``: two neighbours per channel, interpolated."""
    batch, height, width, channels = x.shape
    groups = offsets.shape[-1]

    index, fraction = locate(offsets, dim, x.shape[dim])
    padded = F.pad(x, [0, 0, 2, 2] if dim == 2 else [0, 0, 0, 0, 2, 2])
    padded = padded.reshape(batch, padded.shape[1], padded.shape[2], groups, channels // groups)
    # Expanded, not copied: the channels of a group share one index, one fraction and their arithmetic.
    index = index.unsqueeze(-1).expand(batch, height, width, groups, channels // groups)
    low = padded.gather(dim, index)
    high = padded.gather(dim, index + 1)
    return _lerp(low, high, fraction.unsqueeze(-1)).reshape(batch, height, width, channels).to(x.dtype)


def sample_joint(x: Tensor, dy: Tensor, dx: Tensor, samples: int = 1) -> Tensor:
    """``atm.sampling.sample_joint``: four neighbours per channel, interpolated, one sample after the other."""
    tokens: list[Tensor] = []
    for i in range(samples):
        tokens.append(_sample_joint(x, dy.chunk(samples, dim=-1)[i], dx.chunk(samples, dim=-1)[i]))
    return tokens[0] if samples == 1 else torch.cat(tokens, dim=-1)


def _sample_joint(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    groups = dy.shape[-1]

    row, fraction_y = locate(dy, 1, height)
    column, fraction_x = locate(dx, 2, width)
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


def recompose(x: Tensor, offsets: Tensor, joint: bool, samples: int) -> tuple[Tensor, Tensor]:
    """``atm.sampling.recompose``: one read after the other, concatenated."""
    dx, dy = offsets.chunk(2, dim=-1)
    tokens: list[Tensor] = []
    if joint:
        tokens.append(sample_joint(x, dy, dx, samples))
    else:
        for i in range(samples):
            tokens.append(sample_axis(x, dx.chunk(samples, dim=-1)[i], 2))
        for i in range(samples):
            tokens.append(sample_axis(x, dy.chunk(samples, dim=-1)[i], 1))
    tokens.append(x)
    recomposed = torch.cat(tokens, dim=-1)
    return recomposed, mean(recomposed)


def mean(tokens: Tensor) -> Tensor:
    """The mean token of every image, [B, H, W, C] to [B, C], in at least float32."""
    return tokens.mean(dim=(1, 2), dtype=tokens.dtype if tokens.dtype == torch.float64 else torch.float32)


def locate(offsets: Tensor, dim: int, size: int) -> tuple[Tensor, Tensor]:
    """The position of each read on an axis that is padded by two zeros at both ends.

    offsets: [B, H, W, G]; dim: the axis, ``size`` tokens long.
    Returns the padded index of the lower neighbour, [B, H, W, G] int64 within [0, size + 2],
    and the fraction of the way to the next one, [B, H, W, G] in at least float32.
    """
    if offsets.dtype != torch.float64:
        # In bfloat16 a position above 8 would lose its fraction, and above 256 its token.
        offsets = offsets.float()
    here = torch.arange(size, dtype=offsets.dtype, device=offsets.device)
    here = here.reshape(1, 1, size, 1) if dim == 2 else here.reshape(1, size, 1, 1)
    # Clamping before the conversion to integers prevents an overflow by huge offsets and gives them no gradient.
    # At -2 and at ``size`` both neighbours are zeros, so it does not matter whether clamp passes a gradient at its
    # ends. At -1 it would matter, because the upper neighbour is a token.
    # `float(size)` would be a constant in a traced or exported program, so the upper end is a tensor.
    end = torch.arange(size, size + 1, dtype=offsets.dtype, device=offsets.device)
    position = (here + offsets).clamp(min=-2.0).clamp(max=end)
    lower = position.floor()
    # NaN would become an integer that differs between processors, and its gradient would go to the token at that index.
    # The fraction keeps the NaN in the output.
    index = lower.detach().nan_to_num(-2.0).long() + 2
    return index, position - lower


def _lerp(low: Tensor, high: Tensor, fraction: Tensor) -> Tensor:
    """Linear interpolation in the wider dtype of values and fraction."""
    dtype = torch.promote_types(low.dtype, fraction.dtype)
    return torch.lerp(low.to(dtype), high.to(dtype), fraction.to(dtype))


def check_axis(x: Tensor, offsets: Tensor, dim: int) -> None:
    """Raises ValueError unless these are valid arguments of ``sample_axis``."""
    if dim != 1 and dim != 2:
        raise ValueError(f"dim must be 1 (vertical) or 2 (horizontal), not {dim}")
    _check_shapes(x, offsets)


def check_joint(x: Tensor, dy: Tensor, dx: Tensor, samples: int) -> None:
    """Raises ValueError unless these are valid arguments of ``sample_joint``."""
    if dy.shape[-1] % samples != 0:
        raise ValueError(f"{dy.shape[-1]} offsets per token are not {samples} samples")
    _check_shapes(x, dy[..., : dy.shape[-1] // samples])
    _check_shapes(x, dx[..., : dx.shape[-1] // samples])
    if dx.shape[-1] != dy.shape[-1]:
        raise ValueError(f"dy has {dy.shape[-1]} offsets per token, dx has {dx.shape[-1]}")


def check_recompose(x: Tensor, offsets: Tensor, samples: int) -> None:
    """Raises ValueError unless these are valid arguments of ``recompose``."""
    if offsets.shape[-1] % (2 * samples) != 0:
        raise ValueError(f"{offsets.shape[-1]} offsets per token are not two directions of {samples} samples each")
    _check_shapes(x, offsets[..., : offsets.shape[-1] // (2 * samples)])


def _check_shapes(x: Tensor, offsets: Tensor) -> None:
    if x.ndim != 4 or offsets.ndim != 4 or x.shape[:3] != offsets.shape[:3]:
        raise ValueError(
            f"expected x [B, H, W, C] and offsets [B, H, W, G], not {list(x.shape)} and {list(offsets.shape)}"
        )
    if x.device != offsets.device:
        raise ValueError(f"x is on {x.device}, its offsets are on {offsets.device}")
    if x.shape[3] % offsets.shape[3] != 0:
        raise ValueError(f"{offsets.shape[3]} offsets per token do not divide {x.shape[3]} channels")
