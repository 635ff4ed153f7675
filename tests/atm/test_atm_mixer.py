"""The mixer reads at its offsets, fuses as specified, and in mode zero mixes no tokens."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import atm.mixer as mixer_module
from atm.mixer import ActiveTokenMixer, MeanFusion, PooledFusion, TokenFusion
from atm.offsets import OffsetPredictor, opens_set
from atm.sampling import recompose, sample_axis, sample_joint


def open_branch(mixer: ActiveTokenMixer, name: str) -> None:
    """Makes the mixer return a third (joint: half) of the tokens that one branch read, without an embedding."""
    with torch.no_grad():
        for child, layer in mixer.named_children():
            if child.startswith("fc_"):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
                if child == name:
                    for sample in layer.weight.chunk(mixer.samples, dim=1):
                        sample.copy_(torch.eye(layer.out_features))
        nn.init.eye_(mixer.proj.weight)
        nn.init.zeros_(mixer.proj.bias)


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """x [B, H, W, C] read ``down`` tokens below and ``right`` tokens to the right of every token, zero outside."""
    padded = nn.functional.pad(x, (0, 0, 4, 4, 4, 4))
    return padded[:, 4 + down : 4 + down + x.shape[1], 4 + right : 4 + right + x.shape[2]]


def set_offsets(predictor: OffsetPredictor, values: list[float]) -> None:
    nn.init.zeros_(predictor.proj.weight)
    with torch.no_grad():
        predictor.proj.bias.copy_(torch.tensor(values))


def test_the_first_half_of_the_offsets_is_horizontal_and_the_second_vertical() -> None:
    x = torch.randn(2, 5, 6, 4)
    predictor = OffsetPredictor(4, groups=2)
    set_offsets(predictor, [1, -2, 3, 0])
    mixer = ActiveTokenMixer(4, fusion="mean")
    open_branch(mixer, "fc_w")
    expected = torch.cat([shifted(x, 0, 1)[..., :2], shifted(x, 0, -2)[..., 2:]], dim=-1)
    torch.testing.assert_close(3 * mixer(x, predictor(x)), expected)
    open_branch(mixer, "fc_h")
    expected = torch.cat([shifted(x, 3, 0)[..., :2], x[..., 2:]], dim=-1)
    torch.testing.assert_close(3 * mixer(x, predictor(x)), expected)
    open_branch(mixer, "fc_c")
    torch.testing.assert_close(3 * mixer(x, predictor(x)), x)


def test_joint_moves_along_both_axes_at_once() -> None:
    x = torch.randn(2, 5, 6, 4)
    predictor = OffsetPredictor(4, groups=2)
    set_offsets(predictor, [1, -2, 3, -1])
    mixer = ActiveTokenMixer(4, offsets="joint", fusion="mean")
    open_branch(mixer, "fc_j")
    expected = torch.cat([shifted(x, 3, 1)[..., :2], shifted(x, -1, -2)[..., 2:]], dim=-1)
    torch.testing.assert_close(2 * mixer(x, predictor(x)), expected)


def test_three_samples_are_read_by_direction_sample_and_group() -> None:
    x = torch.randn(2, 5, 6, 4)
    predictor = OffsetPredictor(4, groups=2, samples=3)
    set_offsets(predictor, [1, -2, 0, 2, -1, 1, 3, 3, 3, 3, 3, 3])
    mixer = ActiveTokenMixer(4, samples=3, fusion="mean")
    open_branch(mixer, "fc_w")
    first = shifted(x, 0, 1) + x + shifted(x, 0, -1)
    second = shifted(x, 0, -2) + shifted(x, 0, 2) + shifted(x, 0, 1)
    expected = torch.cat([first[..., :2], second[..., 2:]], dim=-1)
    torch.testing.assert_close(3 * mixer(x, predictor(x)), expected)
    open_branch(mixer, "fc_h")
    torch.testing.assert_close(3 * mixer(x, predictor(x)), 3 * shifted(x, 3, 0))


def test_joint_takes_three_samples() -> None:
    x, offsets = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 2 * 3 * 2)
    mixer = ActiveTokenMixer(4, offsets="joint", samples=3, fusion="mean")
    open_branch(mixer, "fc_j")
    dx, dy = offsets.reshape(1, 4, 4, 2, 3, 2).unbind(3)
    expected = sum(sample_joint(x, dy[..., i, :], dx[..., i, :]) for i in range(3))
    torch.testing.assert_close(2 * mixer(x, offsets), expected)


def test_mode_token_moves_all_channels_together() -> None:
    model = timm.create_model("atmnet_nano", offsets="token")
    predictors = [m for m in model.modules() if isinstance(m, OffsetPredictor)]
    assert [p.proj.out_features for p in predictors] == [2, 2, 2, 2]
    x, offsets = torch.randn(1, 4, 4, 16), torch.randn(1, 4, 4, 2)
    mixer = model.stages[0].blocks[0].mixer
    mixer.fusion = MeanFusion(16, 3)
    open_branch(mixer, "fc_w")
    torch.testing.assert_close(3 * mixer(x, offsets), sample_axis(x, offsets[..., :1].expand(1, 4, 4, 16), 2))


def test_mixer_computes_the_specified_formula() -> None:
    torch.manual_seed(0)
    x, offsets = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    mixer = ActiveTokenMixer(8)
    w = mixer.fc_w(sample_axis(x, offsets[..., :4], 2))
    h = mixer.fc_h(sample_axis(x, offsets[..., 4:], 1))
    c = x @ mixer.fc_c.weight.T
    pooled = (w + h + c).mean((1, 2))
    logits = mixer.fusion.fc2(nn.functional.gelu(mixer.fusion.fc1(pooled)))
    # The three branches of channel 0, then those of channel 1, and so on.
    weights = torch.stack([logits[:, 3 * channel : 3 * channel + 3] for channel in range(8)], dim=1).softmax(-1)
    fused = torch.einsum("kbhwc,bck->bhwc", torch.stack([w, h, c]), weights)
    torch.testing.assert_close(mixer(x, offsets), mixer.proj(fused))


def test_pooled_weights_are_one_per_image_and_channel_and_token_weights_one_per_token() -> None:
    torch.manual_seed(0)
    branches = [torch.rand(2, 3, 4, 8) + 0.5 for _ in range(3)]
    only_first = [branches[0], torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 4, 8)]
    for fusion, constant in ((PooledFusion(8, 3), True), (TokenFusion(8, 3), False)):
        weight = fusion(only_first) / branches[0]
        assert torch.allclose(weight, weight[:, :1, :1], atol=1e-5) == constant
        assert not torch.allclose(weight[0], weight[1], atol=1e-4)
        assert not torch.allclose(weight[..., 0], weight[..., 1], atol=1e-4)
    torch.testing.assert_close(MeanFusion(8, 3)(branches), sum(branches) / 3)


@pytest.mark.parametrize("fusion", [PooledFusion, TokenFusion, MeanFusion])
@pytest.mark.parametrize("count", [2, 3])
def test_fusion_weights_sum_to_one(fusion: type[nn.Module], count: int) -> None:
    branch = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(fusion(8, count)([branch] * count), branch)


def test_token_fusion_is_equation_4() -> None:
    branches = [torch.randn(2, 3, 4, 8) for _ in range(3)]
    fusion = TokenFusion(8, 3)
    scores = torch.stack([sum(branches) @ fc.weight.T for fc in fusion.fcs]).softmax(0)
    torch.testing.assert_close(fusion(branches), (scores * torch.stack(branches)).sum(0))
    mixer = ActiveTokenMixer(8, fusion="token")
    assert not [name for name, _ in mixer.named_parameters() if name.startswith("proj")]


def tokens_reached(model: nn.Module, size: int = 9) -> Tensor:
    """The outputs of the first stage that depend on its central input token, as positions relative to it."""
    stage = model.stages[0].double()
    x = torch.randn(1, size, size, 16, dtype=torch.float64)
    changed = x.clone()
    changed[0, size // 2, size // 2] += torch.randn(16, dtype=torch.float64)
    return ((stage(x) - stage(changed)).abs().amax(-1)[0] > 1e-12).nonzero() - size // 2


def test_mode_zero_mixes_no_tokens() -> None:
    model = timm.create_model("atmnet_nano", offsets="zero", fusion="mean")
    assert tokens_reached(model).tolist() == [[0, 0]]
    model = timm.create_model("atmnet_nano", offsets="zero", fusion="token")
    assert tokens_reached(model).tolist() == [[0, 0]]


def test_pooled_fusion_mixes_tokens_even_in_mode_zero() -> None:
    model = timm.create_model("atmnet_nano", offsets="zero", fusion="pooled")
    assert len(tokens_reached(model)) == 81


def test_zero_with_peg_mixes_three_by_three() -> None:
    model = timm.create_model("atmnet_nano", offsets="zero", fusion="mean", peg=True)
    reached = tokens_reached(model)
    assert len(reached) == 9 and reached.abs().max() == 1


def test_axial_reaches_along_its_axes_only() -> None:
    model = timm.create_model("atmnet_nano", fusion="mean", peg=False)
    # Two blocks read 2 tokens to the right and 3 below: tokens to the left of the centre and above it depend on it.
    set_offsets(model.stages[0].blocks[0].offsets, [2.0] * 8 + [3.0] * 8)
    reached = {tuple(place) for place in tokens_reached(model, 17).tolist()}
    assert reached == {(0, 0), (0, -2), (-3, 0), (0, -4), (-6, 0), (-3, -2)}


@pytest.mark.parametrize(
    ("variant", "sets"),
    [
        ("xt", [1, 1, 2, 1]),
        ("t", [1, 1, 5, 1]),
        ("s", [1, 1, 3, 1]),
        ("b", [1, 2, 5, 1]),
        ("l", [1, 1, 4, 1]),
        ("nano", [1, 1, 1, 1]),
    ],
)
def test_offset_sets_per_stage(variant: str, sets: list[int]) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"atmnet_{variant}")
    assert [sum(block.predicts for block in stage.blocks) for stage in model.stages] == sets
    assert not any(stage.blocks[-1].predicts for stage in model.stages)


@pytest.mark.parametrize(
    ("interval", "opening"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (5, [0]), ("stage", [0])]
)
def test_blocks_reuse_the_latest_offsets_and_peg_precedes_each_prediction(interval, opening) -> None:
    model = timm.create_model("atmnet_nano", depths=[6, 1, 2, 2], offset_interval=interval).eval()
    stage, used, predicted, encoded = model.stages[0], [], [], []
    stage.peg.register_forward_hook(lambda module, args, output: encoded.append(output))
    for block in stage.blocks:
        block.mixer.register_forward_hook(lambda module, args, output: used.append(args[1]))
        if block.predicts:
            block.offsets.register_forward_hook(lambda module, args, output: predicted.append((args[0], output)))
    model(torch.randn(1, 3, 32, 32))
    assert [j for j, block in enumerate(stage.blocks) if block.predicts] == opening
    for j, offsets in enumerate(used):
        latest = max(i for i, start in enumerate(opening) if start <= j)
        assert offsets is predicted[latest][1]
    assert len(encoded) == len(predicted) == len(opening)
    assert all(x is raw for x, (raw, _) in zip(encoded, predicted))
    assert model.stages[1].blocks[0].predicts  # the only block of a stage predicts


def test_opens_set_at_every_interval_except_the_last_block() -> None:
    assert [j for j in range(7) if opens_set(j, 7, 3)] == [0, 3]
    assert [j for j in range(7) if opens_set(j, 7, 1)] == [0, 1, 2, 3, 4, 5]
    assert opens_set(0, 1, 4)


def test_autocast_leaves_offsets_in_float32() -> None:
    predictor, x = OffsetPredictor(8, 8), torch.randn(1, 4, 4, 8)
    nn.init.constant_(predictor.proj.bias, 20.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        offsets = predictor(x.bfloat16())
        assert predictor.proj(x).dtype == torch.bfloat16  # autocast is on
    assert offsets.dtype == torch.float32
    torch.testing.assert_close(offsets, predictor(x.bfloat16().float()), rtol=0, atol=0)


def test_mixer_may_change_the_width() -> None:
    mixer = ActiveTokenMixer(8, 12)
    assert mixer(torch.randn(1, 3, 3, 8), torch.zeros(1, 3, 3, 16)).shape == (1, 3, 3, 12)


@pytest.mark.parametrize("size", [(3, 5), (9, 11)], ids=["fewer tokens than FOLD", "more"])
@pytest.mark.parametrize("fusion", ["pooled", "token", "mean"])
@pytest.mark.parametrize(
    "arm", [{}, {"samples": 3}, {"offsets": "joint"}, {"offsets": "joint", "samples": 3}, {"offsets": "zero"}], ids=str
)
def test_the_fast_path_equals_the_formula(arm: dict, fusion: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    mixer = ActiveTokenMixer(8, fusion=fusion, **arm).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    offsets = None
    if arm.get("offsets") != "zero":
        offsets = torch.randn(2, *size, 8 * arm.get("samples", 1), dtype=torch.float64, requires_grad=True)
    assert (size[0] * size[1] < mixer_module.FOLD * 8) == (size == (3, 5))
    plain = mixer.proj(mixer.fusion(mixer._branches(x, offsets)))
    mixed = mixer(x, offsets)
    torch.testing.assert_close(mixed, plain, rtol=1e-10, atol=1e-10)
    variables = [x, *([] if offsets is None else [offsets]), *mixer.parameters()]
    cotangent = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, variables, cotangent)
    for ours, theirs in zip(torch.autograd.grad(mixed, variables, cotangent), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_a_mixer_with_another_output_width_folds_too() -> None:
    mixer = ActiveTokenMixer(8, out_dim=4)
    x, offsets = torch.randn(1, 9, 9, 8), torch.randn(1, 9, 9, 16)
    torch.testing.assert_close(mixer(x, offsets), mixer.proj(mixer.fusion(mixer._branches(x, offsets))))


@pytest.mark.parametrize("size", [(3, 5), (9, 11)])
def test_autocast_reads_tokens_in_half_precision_at_float32_positions(size: tuple[int, int], monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        mixer_module,
        "recompose",
        lambda x, offsets, *options: seen.append((x, offsets)) or recompose(x, offsets, *options),
    )
    torch.manual_seed(0)
    mixer, x, offsets = ActiveTokenMixer(8), torch.randn(2, *size, 8), torch.randn(2, *size, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(x, offsets)
    assert [(x.dtype, offsets.dtype) for x, offsets in seen] == [(torch.bfloat16, torch.float32)]
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), mixer(x, offsets), rtol=0.05, atol=0.02)


def test_hooked_replaced_and_pruned_layers_are_called() -> None:
    torch.manual_seed(0)
    x, offsets = torch.randn(1, 9, 9, 8), torch.randn(1, 9, 9, 16)
    for name in ("fc_w", "fc_c", "proj", "fusion"):
        mixer, calls = ActiveTokenMixer(8), []
        getattr(mixer, name).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        mixer(x, offsets)
        assert calls == [1], name
    mixer = ActiveTokenMixer(8)
    mixer.fc_w = nn.Sequential(mixer.fc_w, nn.Tanh())
    torch.testing.assert_close(mixer(x, offsets), mixer.proj(mixer.fusion(mixer._branches(x, offsets))))
    mixer = ActiveTokenMixer(8)
    prune.l1_unstructured(mixer.fc_h, "weight", amount=0.5)
    for _ in range(2):
        mixer(x, offsets).sum().backward()
