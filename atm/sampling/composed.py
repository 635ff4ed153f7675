"""``torch.ops.atm.read`` out of kernels that know one axis or one joint read at a time."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from atm.sampling import reference
from atm.sampling.patterns import groups_per_read, wide_dtype


@dataclass(frozen=True)
class Composed:
    """A backend made of a module with four functions, which write where they are told to:

    axis_forward(x, offsets, dim, out), joint_forward(x, dy, dx, out),
    axis_backward(grad, x, offsets, dim, grad_x, grad_offsets, grad_mean) and
    joint_backward(grad, x, dy, dx, grad_x, grad_dy, grad_dx, grad_mean).

    Maps are [B, H, W, C] or slices of wider ones; ``grad_x`` (at least float32) is added to, the other gradients are
    written; ``grad_mean`` [B, C], or None, is added to the gradient of every token.
    """

    kernels: ModuleType

    def forward(self, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
        """``torch.ops.atm.read``."""
        reads = _reads(pattern, samples)
        channels = x.shape[-1]
        tokens = x.new_empty(*x.shape[:3], (len(reads) + keep) * channels)
        moves, places = offsets.split(groups_per_read(offsets, pattern, samples), -1), tokens.split(channels, -1)
        for (dim, first, second), place in zip(reads, places):
            if dim:
                self.kernels.axis_forward(x, moves[first], dim, place)
            else:
                self.kernels.joint_forward(x, moves[second], moves[first], place)
        if not keep:
            return tokens, x.new_empty(0, dtype=wide_dtype(x))
        places[-1].copy_(x)
        return tokens, reference.mean(tokens)

    def backward(
        self, grad: Tensor, grad_mean: Tensor | None, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        """``torch.ops.atm.read_backward``."""
        reads = _reads(pattern, samples)
        channels = x.shape[-1]
        grad_x = torch.zeros(x.shape, dtype=wide_dtype(x), device=x.device)
        grad_offsets = torch.empty(offsets.shape, dtype=offsets.dtype, device=x.device)
        groups = groups_per_read(offsets, pattern, samples)
        moves, owed = offsets.split(groups, -1), grad_offsets.split(groups, -1)
        grads = grad.split(channels, -1)
        shares: list[Tensor | None] = [None] * len(grads)
        if grad_mean is not None:
            shares = [*(grad_mean / (x.shape[1] * x.shape[2])).to(grad_x.dtype).split(channels, -1)]
        if keep:
            grad_x += grads[-1]
            if shares[-1] is not None:
                grad_x += shares[-1][:, None, None]
        for (dim, first, second), part, share in zip(reads, grads, shares):
            if dim:
                self.kernels.axis_backward(part, x, moves[first], dim, grad_x, owed[first], share)
            else:
                self.kernels.joint_backward(
                    part, x, moves[second], moves[first], grad_x, owed[second], owed[first], share
                )
        return grad_x.to(x.dtype), grad_offsets


def _reads(pattern: str, samples: int) -> list[tuple[int, int, int]]:
    """Every read's axis (0: joint) and which of the offsets move it, to the right or along its axis first."""
    if pattern == "joint":
        return [(0, i, samples + i) for i in range(samples)]
    dims = {"row": (2,), "column": (1,), "cross": (2, 1)}[pattern]
    return [(dim, i * samples + k, 0) for i, dim in enumerate(dims) for k in range(samples)]
