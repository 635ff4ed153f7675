"""The network on deform_conv2d has the weights, outputs and gradients of the ATMNet."""

import pytest
import timm
import torch

import atm  # noqa: F401  (registers the models)
from benchmarks.deformable import DeformableMixer, deformed_fc, on_deform_conv2d


@pytest.mark.parametrize(
    "arguments",
    [{}, {"offsets": "joint"}, {"offsets": "token"}, {"samples": 3}, {"offsets": "joint", "samples": 3}],
    ids=lambda arguments: "-".join(map(str, arguments.values())) or "axial",
)
def test_same_outputs_and_gradients(arguments) -> None:
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", num_classes=10, **arguments)
    for name, parameter in model.named_parameters():
        if ".offsets.proj." in name:  # as after training: some tokens read at a distance
            torch.nn.init.normal_(parameter, std=0.5)
    deformed = on_deform_conv2d(model)
    assert any(isinstance(module, DeformableMixer) for module in deformed.modules())
    assert model.state_dict().keys() == deformed.state_dict().keys()

    images, cotangent = torch.randn(2, 3, 96, 64, requires_grad=True), torch.randn(2, 10)
    results = []
    for network in (model, deformed):
        inputs = [images, *dict(sorted(network.named_parameters())).values()]
        logits = network(images)
        results.append([logits, *torch.autograd.grad(logits, inputs, cotangent, allow_unused=True)])
    for ours, theirs in zip(*results, strict=True):
        if ours is None or theirs is None:
            assert ours is theirs
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_copy_shares_nothing_with_the_original() -> None:
    model = timm.create_model("atmnet_nano")
    deformed = on_deform_conv2d(model)
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in deformed.parameters()}
    assert not shared and not any(isinstance(module, DeformableMixer) for module in model.modules())


def test_refuses_models_that_the_released_code_does_not_have() -> None:
    with pytest.raises(ValueError, match="pooled"):
        on_deform_conv2d(timm.create_model("atmnet_nano", fusion="mean"))
    with pytest.raises(ValueError, match="mixer='atm'"):
        on_deform_conv2d(timm.create_model("atmnet_nano", mixer="identity"))
    with pytest.raises(ValueError, match="without offsets"):
        on_deform_conv2d(timm.create_model("atmnet_nano", offsets="zero"))(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype) -> None:
    x, dx, weight = torch.randn(1, 4, 4, 8, dtype=dtype), torch.randn(1, 4, 4, 2), torch.randn(6, 8, dtype=dtype)
    half = deformed_fc(x, None, dx, weight, None)
    assert half.dtype == dtype
    torch.testing.assert_close(half, deformed_fc(x.float(), None, dx, weight.float(), None).to(dtype))
