"""When the model may compute the formula in another way than layer after layer, in PyTorch's own operations.

The faster ways use the weights of layers without calling them, operators of our own, and hooks on saved tensors.
"""

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as global_hooks

_PLAIN_TENSORS = (nn.Parameter, Tensor, type(None))


def is_plain(layer: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether using the weights of ``layer`` equals calling it: it is of one of these types itself, and neither hooks
    (of the layer or of all modules), nor a replaced ``forward``, nor weights of a type of their own (quantised or
    sharded ones) would do something else. Parametrised layers have another type."""
    hooked = (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or global_hooks._global_forward_hooks
        or global_hooks._global_forward_pre_hooks
        or global_hooks._global_backward_hooks
        or global_hooks._global_backward_pre_hooks
    )
    return (
        type(layer) in types
        and not hooked
        and "forward" not in vars(layer)
        and all(type(weight) in _PLAIN_TENSORS for weight in layer._parameters.values())
    )


@torch.jit.unused
def traced() -> bool:
    """Whether ``torch.jit.trace`` or an export to ONNX records the operations. Neither knows our operator."""
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()


@torch.jit.unused
def recorded(x: Tensor) -> bool:
    """Whether ``x`` stands for a tensor in a program that ``torch.fx`` records, or ``traced()``."""
    return isinstance(x, fx.Proxy) or traced()


@torch.jit.unused
def transformed() -> bool:
    """Whether a transform of ``torch.func`` or a dual level of ``torch.autograd.forward_ad`` is active; they support
    neither hooks on saved tensors nor our operator."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def reaches(tokens: int, threshold: float) -> bool:
    """Whether ``tokens`` is at least ``threshold``. While ``torch.export`` records a size that is not fixed, the answer
    is False rather than a guard, which would limit the program to sizes with the same answer."""
    if torch.compiler.is_exporting():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(tokens >= threshold)
    return tokens >= threshold
