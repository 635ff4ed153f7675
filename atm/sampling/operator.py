"""The PyTorch operator that samples: ``torch.ops.atm.read`` and its backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from atm.sampling import eager
from atm.sampling.backends import backend_for
from atm.sampling.composed import Composed
from atm.sampling.patterns import reads_per_token, wide_dtype


@torch.library.custom_op("atm::read", mutates_args=())
def read(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    """Reads every channel of a map at its own ``samples`` positions per direction, concatenated along channels.

    x: [B, H, W, C]; offsets: [B, H, W, O] in tokens, G of them per direction and sample, G divides C. pattern:
    "row" (horizontal, O = samples * G), "column" (vertical, the same O), "cross" (horizontal, then vertical reads,
    O = 2 * samples * G, the horizontal half first) or "joint" (two-dimensional reads, offsets as for "cross").
    keep: append ``x`` to the reads and compute means. Shapes are not checked here.
    Returns the tokens [B, H, W, R * C] in ``x``'s dtype and their means over the map [B, R * C] in at least float32,
    or an empty tensor without ``keep``.
    """
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in (x, offsets)):
        # A compiled or exported program calls the operator where the model itself would take the formula.
        raise RuntimeError(
            "torch.ops.atm.read has no forward-mode derivative: call the model uncompiled, or compile or export it "
            'after atm.sampling.use("reference")'
        )
    return _implementation(x).forward(x, offsets, pattern, samples, keep)


@torch.library.custom_op("atm::read_backward", mutates_args=())
def read_backward(
    grad: Tensor, grad_mean: Tensor | None, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of ``read`` for ``x`` and ``offsets``, from those of its outputs; ``grad_mean`` may be None."""
    return _implementation(x).backward(grad, grad_mean, x, offsets, pattern, samples, keep)


@read.register_fake
def _(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = x.shape
    read_channels = reads_per_token(pattern, samples, keep) * channels
    means = x.new_empty((batch, read_channels) if keep else (0,), dtype=wide_dtype(x))
    return x.new_empty(batch, height, width, read_channels), means


@read_backward.register_fake
def _(
    grad: Tensor, grad_mean: Tensor | None, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), offsets.new_empty(offsets.shape)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, offsets, *ctx.options = inputs
    ctx.save_for_backward(x, offsets)


def _differentiate(ctx: Any, grad: Tensor, grad_mean: Tensor) -> tuple[Tensor | None, ...]:
    pattern, samples, keep = ctx.options
    grads = read_backward(grad, grad_mean if keep else None, *ctx.saved_tensors, pattern, samples, keep)
    return *grads, None, None, None


read.register_autograd(_differentiate, setup_context=_save_inputs)


def _implementation(x: Tensor) -> Any:
    """The module or object whose ``forward`` and ``backward`` functions sample ``x``."""
    backend = backend_for(x.device.type)
    if backend == "native":
        from atm.sampling import native

        if native.supports(x):
            return native
    if backend == "triton":
        from atm.sampling import triton_backend

        return Composed(triton_backend)
    return Composed(eager)
