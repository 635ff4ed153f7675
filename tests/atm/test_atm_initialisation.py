"""Fresh weights have the released model's distributions."""

import math

import pytest
import timm
import torch
from torch import nn

import atm  # noqa: F401  registers the models


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("atmnet_xt")


def test_biases_are_zero_and_norms_are_the_identity(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name
        elif getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all(), name


def test_linear_layers_are_truncated_normal(model: nn.Module) -> None:
    linear = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert any(name.endswith("offsets.proj") for name in linear) and any(name.endswith("fc_w") for name in linear)
    for name, weight in linear.items():
        # Four standard errors of a standard deviation estimated from this many weights.
        assert abs(weight.std().item() / 0.02 - 1) < 4 / math.sqrt(2 * weight.numel()) + 1e-3, name
        assert abs(weight.mean().item()) < 5 * 0.02 / math.sqrt(weight.numel()), name


def test_convolutions_are_normal_over_the_fan_out_per_group(model: nn.Module) -> None:
    expected = {
        "stem": 2 / (64 * 49),
        "stages.1.downsample": 2 / (128 * 9),
        "stages.2.downsample": 2 / (320 * 9),
        "stages.3.downsample": 2 / (512 * 9),
        **{f"stages.{i}.peg.conv": 2 / 9 for i in range(4)},
    }
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions.keys() == expected.keys()
    for name, variance in expected.items():
        weight = convolutions[name].weight
        assert abs(weight.std().item() / math.sqrt(variance) - 1) < 4 / math.sqrt(2 * weight.numel()), name


def test_offsets_start_small_but_not_zero(model: nn.Module) -> None:
    seen = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: seen.append(output))
        for name, module in model.named_modules()
        if name.endswith(".offsets") and not isinstance(module, nn.Identity)
    ]
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 5
    for offsets in seen:
        assert 0.05 < offsets.std() < 1.0
