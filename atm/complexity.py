"""Parameters and FLOPs of any model under the papers' convention, without running it.

One multiply-accumulate is one FLOP; LayerNorm costs 5 per element, evaluation BatchNorm 2, bilinear upsampling 4 per
output element and nearest upsampling 1, both also where the size stays, adaptive average pooling 1 per input element;
sampling, activations, softmax, sums and biases are free. This is fvcore's convention.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from atm.backbone import ATMNet

aten = torch.ops.aten


@dataclass(frozen=True)
class Complexity:
    """params: number of parameters, used in the forward pass or not; flops: FLOPs of one forward pass."""

    params: int
    flops: int

    @property
    def params_m(self) -> float:
        """Parameters in millions."""
        return self.params / 1e6

    @property
    def flops_g(self) -> float:
        """FLOPs in units of 10^9."""
        return self.flops / 1e9


def count(
    model: nn.Module, input_size: Sequence[int] = (3, 224, 224), inputs: tuple[Any, ...] | None = None
) -> Complexity:
    """Counts one forward pass of ``model`` in evaluation mode, on the meta device: nothing is computed.

    input_size: (channels, height, width) of the single image passed in. inputs: the call's arguments in place of that
    image, tensors on the meta device. The model may be on any device and is not changed.
    """
    if inputs is None:
        inputs = (torch.empty(1, *input_size, device="meta"),)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    weightless = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    training = {module: module.training for module in model.modules()}
    counter = FlopCounterMode(display=False, custom_mapping=_ELEMENTWISE)
    model.eval()
    try:
        with torch.no_grad(), _without_deterministic_forms(), counter:
            functional_call(model, weightless, inputs)
    finally:
        for module, mode in training.items():
            module.training = mode
    return Complexity(params=sum(p.numel() for p in model.parameters()), flops=counter.get_total_flops() // 2)


def architecture(model: ATMNet) -> list[dict[str, float]]:
    """Per stage: channels, blocks, MLP ratio (``expansion``), offsets per token and direction (AAAI Table 10)."""
    stages = []
    for info, stage in zip(model.feature_info, model.stages):
        mlp = stage.blocks[0].mlp
        own = [block.offsets for block in stage.blocks if block.predicts]
        stages.append({
            "channels": info["num_chs"],
            "blocks": len(stage.blocks),
            "expansion": mlp.fc1.out_features / mlp.fc1.in_features,
            "offsets": own[0].groups * own[0].samples if own else 0,
        })  # fmt: skip
    return stages


@contextmanager
def _without_deterministic_forms() -> Iterator[None]:
    # With them, interpolation consists of other operators off the CPU, which would not be counted.
    forms, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(forms, warn_only=warn_only)


def _per_input_element(cost: int) -> Callable[..., int]:
    return lambda shape, *args, **kwargs: 2 * cost * prod(shape)


def _per_output_element(cost: int) -> Callable[..., int]:
    return lambda shape, *args, out_shape, **kwargs: 2 * cost * prod(out_shape)


def _mean(shape: torch.Size, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> int:
    # Adaptive pooling to one cell is dispatched as exactly this mean. Other means cost nothing.
    pools = keepdim and dim is not None and list(dim) == [-1, -2]
    return 2 * prod(shape) if pools else 0


# The counter passes shapes in place of tensors and counts a multiply-accumulate as two operations, hence the factor 2.
_OF_OPERATOR = {
    aten.native_layer_norm: _per_input_element(5),
    aten.native_batch_norm: _per_input_element(2),
    aten._native_batch_norm_legit_no_training: _per_input_element(2),
    aten.cudnn_batch_norm: _per_input_element(2),
    aten._adaptive_avg_pool2d: _per_input_element(1),
    aten.mean: _mean,
    aten.upsample_bilinear2d: _per_output_element(4),
    aten.upsample_nearest2d: _per_output_element(1),
}
# torch 2.14 decomposes an operator whose overload is not named, and counts what it consists of.
_ELEMENTWISE = _OF_OPERATOR | {
    getattr(operator, overload): flops for operator, flops in _OF_OPERATOR.items() for overload in operator.overloads()
}
