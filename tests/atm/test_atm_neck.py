"""The layer of ATMFPN: its formula written out, its controls, its gradients, and which of its weights decay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atm.neck import NECK_OFFSETS, ATMLayer


def layer(offsets: str, dim: int = 6, out_dim: int = 4) -> ATMLayer:
    torch.manual_seed(0)
    module = ATMLayer(dim, out_dim, offsets)
    with torch.no_grad():  # offsets of more than a token, and no weight at its initial 0 or 1
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module


def written_out(module: ATMLayer, x: Tensor) -> Tensor:
    """AAAI Eq. 2 to 4 token by token, with fusion weights of the pooled branches."""
    encoded = x + F.conv2d(x, module.peg.conv.weight, module.peg.conv.bias, padding=1, groups=x.shape[1])
    encoded = encoded.permute(0, 2, 3, 1)
    batch, height, width, dim = encoded.shape
    offsets = torch.zeros(batch, height, width, 2 * dim) if module.offsets is None else module.offsets(encoded)
    tokens = F.layer_norm(encoded, (dim,), module.norm.weight, module.norm.bias)

    def read(b: int, i: float, j: float, c: int) -> Tensor:
        """Between the nearest tokens along the axis that is not whole, 0 outside the map."""
        total = torch.zeros(())
        for row in (int(i // 1), int(i // 1) + 1):
            for column in (int(j // 1), int(j // 1) + 1):
                share = max(0.0, 1 - abs(i - row)) * max(0.0, 1 - abs(j - column))
                if share and 0 <= row < height and 0 <= column < width:
                    total = total + share * tokens[b, row, column, c]
        return total

    across, down = torch.zeros_like(tokens), torch.zeros_like(tokens)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for c in range(dim):
                    across[b, i, j, c] = read(b, i, j + float(offsets[b, i, j, c]), c)
                    down[b, i, j, c] = read(b, i + float(offsets[b, i, j, dim + c]), j, c)
    mixer = module.mixer
    branches = [mixer.fc_w(across), mixer.fc_h(down), mixer.fc_c(tokens)]
    scores = mixer.fusion.fc2(F.gelu(mixer.fusion.fc1(sum(branches).mean((1, 2)))))
    weights = scores.reshape(batch, -1, 3).softmax(-1)[:, None, None]
    return mixer.proj(sum(branch * weights[..., k] for k, branch in enumerate(branches))).permute(0, 3, 1, 2)


@torch.no_grad()
@pytest.mark.parametrize("size", [(5, 3), (1, 4), (1, 1)])
@pytest.mark.parametrize("offsets", NECK_OFFSETS)
def test_the_layer_equals_its_formula_written_out(offsets, size):
    module, x = layer(offsets), torch.randn(2, 6, *size)
    output = module(x)
    assert output.shape == (2, 4, *size) and output.is_contiguous()
    torch.testing.assert_close(output, written_out(module, x), rtol=1e-4, atol=1e-5)
    if offsets != "zero" and size == (5, 3):
        assert not torch.allclose(output, layer("zero")(x), atol=1e-2), "offsets change what is read"


@pytest.mark.parametrize("offsets", NECK_OFFSETS)
def test_gradients_reach_every_weight_and_the_input(offsets):
    module, x = layer(offsets), torch.randn(2, 6, 5, 4, requires_grad=True)
    module(x).square().sum().backward()
    gradients = {name: p.grad for name, p in module.named_parameters()} | {"x": x.grad}
    assert [name for name, each in gradients.items() if each is None or not each.any()] == []


def test_zero_offsets_read_each_token_at_its_own_place():
    """Beyond PEG and the pooled fusion, which only the sum over the map reaches, no token sees another."""
    module = ATMLayer(6, 4, "zero").eval()
    nn.init.zeros_(module.peg.conv.weight)
    module.mixer.fusion.weights = lambda pooled: pooled.new_full((*pooled.shape, 3), 1 / 3)  # type: ignore[method-assign]
    x = torch.randn(1, 6, 4, 4, requires_grad=True)
    module(x)[0, :, 1, 2].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    assert seen[1, 2] and seen.sum() == 1


def test_the_number_of_weights_is_that_of_its_parts():
    dim, out = 16, 8
    peg, norm = 10 * dim, 2 * dim
    mixer = 3 * dim * out + 2 * out + (out * (out // 4) + out // 4) + (out // 4 * 3 * out + 3 * out) + out * out + out
    offsets = {"axial": 2 * dim + dim * 2 * dim + 2 * dim, "zero": 0, "static": 2 * dim}
    for mode, number in offsets.items():
        assert sum(p.numel() for p in ATMLayer(dim, out, mode).parameters()) == peg + norm + mixer + number


def test_peg_norms_and_biases_have_no_weight_decay():
    for mode in NECK_OFFSETS:
        assert ATMLayer(6, 4, mode).no_weight_decay() == {"peg.conv.weight", "peg.conv.bias"}


def test_another_offset_mode_is_refused():
    with pytest.raises(ValueError, match=r"unknown offsets 'shift' of a neck .valid: axial, zero, static"):
        ATMLayer(6, 4, "shift")
