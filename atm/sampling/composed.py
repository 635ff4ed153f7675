"""``torch.ops.atm.read`` composed of kernels that each compute one axial or joint read."""

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from atm.sampling import reference
from atm.sampling.patterns import groups_per_read, wide_dtype


@dataclass(frozen=True)
class Composed:
    """A backend that calls the four functions of a module, which write to the tensors passed to them:

    axis_forward(x, offsets, dim, out), joint_forward(x, dy, dx, out),
    axis_backward(grad, x, offsets, dim, grad_x, grad_offsets, grad_mean) and
    joint_backward(grad, x, dy, dx, grad_x, grad_dy, grad_dx, grad_mean).

    Maps are [B, H, W, C] or slices of wider maps. The functions add to ``grad_x`` (at least float32) and overwrite the
    other gradients. ``grad_mean`` [B, C], or None, is added to the gradient of every token.
    """

    kernels: ModuleType

    def forward(self, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
        """``torch.ops.atm.read``."""
        reads = _reads(pattern, samples)
        channels = x.shape[-1]
        tokens = x.new_empty(*x.shape[:3], (len(reads) + keep) * channels)
        parts, outputs = offsets.split(groups_per_read(offsets, pattern, samples), -1), tokens.split(channels, -1)
        for (dim, first, second), output in zip(reads, outputs):
            if dim:
                self.kernels.axis_forward(x, parts[first], dim, output)
            else:
                self.kernels.joint_forward(x, parts[second], parts[first], output)
        if not keep:
            return tokens, x.new_empty(0, dtype=wide_dtype(x))
        outputs[-1].copy_(x)
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
        parts, grad_parts = offsets.split(groups, -1), grad_offsets.split(groups, -1)
        grads = grad.split(channels, -1)
        grad_means: list[Tensor | None] = [None] * len(grads)
        if grad_mean is not None:
            grad_means = [*(grad_mean / (x.shape[1] * x.shape[2])).to(grad_x.dtype).split(channels, -1)]
        if keep:
            grad_x += grads[-1]
            if grad_means[-1] is not None:
                grad_x += grad_means[-1][:, None, None]
        for (dim, first, second), grad_read, mean in zip(reads, grads, grad_means):
            if dim:
                self.kernels.axis_backward(grad_read, x, parts[first], dim, grad_x, grad_parts[first], mean)
            else:
                self.kernels.joint_backward(
                    grad_read, x, parts[second], parts[first], grad_x, grad_parts[second], grad_parts[first], mean
                )
        return grad_x.to(x.dtype), grad_offsets


def _reads(pattern: str, samples: int) -> list[tuple[int, int, int]]:
    """The axis of every read (0: joint) and the indices of its offsets: horizontal and vertical, or only the first."""
    if pattern == "joint":
        return [(0, i, samples + i) for i in range(samples)]
    dims = {"row": (2,), "column": (1,), "cross": (2, 1)}[pattern]
    return [(dim, i * samples + k, 0) for i, dim in enumerate(dims) for k in range(samples)]
