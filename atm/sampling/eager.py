"""The reference formula with explicit gradients: the backward pass recomputes the indices."""

import torch
from torch import Tensor
from torch.nn import functional as F

from atm.sampling import reference


def axis_forward(x: Tensor, offsets: Tensor, dim: int, out: Tensor) -> None:
    """Writes ``reference.sample_axis`` to ``out``."""
    out.copy_(reference.sample_axis(x, offsets, dim))


def joint_forward(x: Tensor, dy: Tensor, dx: Tensor, out: Tensor) -> None:
    """Writes ``reference.sample_joint`` to ``out``."""
    out.copy_(reference.sample_joint(x, dy, dx))


def axis_backward(
    grad: Tensor, x: Tensor, offsets: Tensor, dim: int, grad_x: Tensor, grad_offsets: Tensor, grad_mean: Tensor | None
) -> None:
    """The gradients of ``reference.sample_axis``, added to ``grad_x`` and written to ``grad_offsets``."""
    total = grad.to(grad_x.dtype) if grad_mean is None else grad + grad_mean[:, None, None]
    axes = [_stay(x, 1), _stay(x, 2)]
    axes[dim - 1] = _move(offsets, dim, x.shape[dim])
    slopes = _backward(total, x, axes[0], axes[1], grad_x)
    grad_offsets.copy_(slopes[dim - 1])


def joint_backward(
    grad: Tensor,
    x: Tensor,
    dy: Tensor,
    dx: Tensor,
    grad_x: Tensor,
    grad_dy: Tensor,
    grad_dx: Tensor,
    grad_mean: Tensor | None,
) -> None:
    """The gradients of ``reference.sample_joint``, added to ``grad_x`` and written to ``grad_dy`` and ``grad_dx``."""
    total = grad.to(grad_x.dtype) if grad_mean is None else grad + grad_mean[:, None, None]
    slope_y, slope_x = _backward(total, x, _move(dy, 1, x.shape[1]), _move(dx, 2, x.shape[2]), grad_x)
    grad_dy.copy_(slope_y)
    grad_dx.copy_(slope_x)


# One axis of a read: the padded index of the first neighbour, [B, H, W, G] or a shape that broadcasts to it, and for
# each neighbour its weight and the derivative of that weight.
_Axis = tuple[Tensor, list[tuple[Tensor, int]]]


def _move(offsets: Tensor, dim: int, size: int) -> _Axis:
    index, fraction = reference.locate(offsets, dim, size)
    fraction = fraction.nan_to_num(0.0)  # both neighbours of a NaN position are zeros
    return index, [(1 - fraction, -1), (fraction, 1)]


def _stay(x: Tensor, dim: int) -> _Axis:
    here = torch.arange(x.shape[dim], device=x.device) + 2
    return here.reshape([1, -1, 1, 1] if dim == 1 else [1, 1, -1, 1]), [(torch.ones(1, 1, 1, 1, device=x.device), 0)]


def _backward(grad: Tensor, x: Tensor, rows: _Axis, columns: _Axis, grad_x: Tensor) -> tuple[Tensor, Tensor]:
    """Adds to ``grad_x``; returns the gradients of the vertical and the horizontal offsets, [B, H, W, G]."""
    batch, height, width, channels = x.shape
    groups = max(rows[0].shape[-1], columns[0].shape[-1])
    shape = [batch, height * width, groups, channels // groups]
    grad = grad.reshape(shape)
    padded = F.pad(x.to(grad_x.dtype), [0, 0, 2, 2, 2, 2]).reshape(batch, (height + 4) * (width + 4), *shape[2:])
    padded_grad = torch.zeros_like(padded)
    index = (rows[0] * (width + 4) + columns[0]).expand(batch, height, width, groups)
    index = index.reshape(*shape[:3], 1).expand(shape)
    slope_y, slope_x = torch.zeros(2, batch, height, width, groups, dtype=grad_x.dtype, device=x.device)
    for i, (down, d_down) in enumerate(rows[1]):
        for j, (right, d_right) in enumerate(columns[1]):
            corner = index + (i * (width + 4) + j)
            value = (grad * padded.gather(1, corner)).sum(-1).reshape(slope_y.shape)
            slope_y += d_down * right * value
            slope_x += d_right * down * value
            weight = (down * right).expand(slope_y.shape).reshape(*shape[:3], 1).to(grad_x.dtype)
            padded_grad.scatter_add_(1, corner, weight * grad)
    grad_x += padded_grad.reshape(batch, height + 4, width + 4, channels)[:, 2:-2, 2:-2]
    return slope_y, slope_x
