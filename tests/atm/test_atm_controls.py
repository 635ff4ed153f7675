"""The controls are built as documented: what is constant, what is trained, what they cost and what they refuse."""

import copy
import math
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import atm.offsets as atm_offsets
from atm import mixer as atm_mixer
from atm.backbone import UNSHARED, ATMNet
from atm.complexity import Complexity, count
from atm.mixer import ActiveTokenMixer
from atm.offsets import OffsetLayer, OffsetPredictor, RandomOffsets, ShiftedOffsets, StaticOffsets
from atm.sampling import recompose
from experiments import model_completion, schema
from experiments.schema import Train
from experiments.training.optimization import build_ema, build_optimizer, decay_groups

CONSTANT = [
    {"offsets": "static"},
    {"offsets": "static", "samples": 3, "offset_sharing": 1},
    {"offsets": "shift"},
    {"offsets": "shift", "shift_width": 3},
    {"offsets": "random"},
    {"offsets": "random", "samples": 3, "random_spread": 2},
]
CONTENT = [{"offsets": "frozen"}, {"offsets": "frozen", "samples": 3}, {"peg": "predictor"}]
BACKENDS = pytest.mark.parametrize("backend", ["reference", "eager", "native"], indirect=True, scope="module")
DOCS = Path(__file__).parents[2] / "docs" / "offset_modes.md"


def nano(seed: int = 0, **arguments) -> ATMNet:
    torch.manual_seed(seed)
    return timm.create_model("atmnet_nano", **{"num_classes": 7, **arguments})


def images(batch: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def layers_of(model: nn.Module) -> list[OffsetLayer]:
    return [module for module in model.modules() if isinstance(module, OffsetLayer)]


def offsets_of(model: nn.Module, batch: Tensor) -> list[Tensor]:
    """The offsets of every layer that has them, [B, H, W, O]."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, args, output: seen.append(output)) for layer in layers_of(model)
    ]
    with torch.no_grad():
        model(batch)
    for hook in hooks:
        hook.remove()
    return seen


def train(model: nn.Module, steps: int = 3) -> nn.Module:
    """Trains with the optimizer of runs, weight decay included. Returns the averaged model."""
    settings = Train(lr=0.01, weight_decay=0.1, ema_decay=0.9)
    optimizer, ema = build_optimizer(model, settings), build_ema(model, settings)
    assert ema is not None
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images(seed=step)), torch.tensor([0, 1])).backward()
        optimizer.step()
        ema.update(model, step)
    return ema.module


@pytest.mark.parametrize("arm", CONSTANT, ids=str)
def test_constant_offsets_are_alike_at_every_token_of_every_image(arm: dict) -> None:
    model = nano(**arm)
    train(model)
    first, other = offsets_of(model, images()), offsets_of(model, images(3, 96, 32, seed=1))
    assert [stage.blocks[0].predicts for stage in model.stages] == [True] * 4 and len(first) == len(other) == 4
    for layer, here, there in zip(layers_of(model), first, other):
        assert here.shape[-1] == 2 * layer.samples * layer.groups and here[0, 0, 0].count_nonzero() > 0
        assert torch.equal(here, here[:1, :1, :1].expand_as(here))
        assert torch.equal(there, here[:1, :1, :1].expand_as(there))


@pytest.mark.parametrize("arm", CONTENT, ids=str)
def test_predicted_offsets_differ_between_tokens_and_images(arm: dict) -> None:
    for offsets in offsets_of(nano(**arm), images()):
        assert not torch.allclose(offsets[:, :1, :1].expand_as(offsets), offsets, atol=1e-4)
        assert not torch.allclose(offsets[0], offsets[1], atol=1e-4)


def test_static_offsets_are_learned_and_begin_with_the_spread_of_predicted_ones() -> None:
    model = nano(offsets="static", offset_sharing=1)
    before = [layer.values.detach().clone() for layer in layers_of(model)]
    predicted = offsets_of(nano(offset_sharing=1, peg=False), images())
    for layer, values, offsets in zip(layers_of(model), before, predicted):
        spread = (layer.scale * values).std().item()
        assert abs(spread / offsets.std().item() - 1) < 4 / math.sqrt(2 * values.numel()) + 0.1
    train(model)
    assert all((layer.values != values).all() for layer, values in zip(layers_of(model), before))


def test_static_offsets_have_no_weight_decay() -> None:
    model = nano(offsets="static")
    spared, decayed = decay_groups(model, 0.05)
    assert (spared["weight_decay"], decayed["weight_decay"]) == (0.0, 0.05)
    values = {id(layer.values) for layer in layers_of(model)}
    assert values <= {id(parameter) for parameter in spared["params"]}
    assert not values & {id(parameter) for parameter in decayed["params"]}


@BACKENDS
@pytest.mark.parametrize("samples", [1, 3])
def test_the_gradient_of_static_offsets_is_the_sum_over_tokens_and_images(backend: str, samples: int) -> None:
    torch.manual_seed(0)
    layer, mixer = StaticOffsets(8, 4, samples).double(), ActiveTokenMixer(8, samples=samples).double()
    nn.init.uniform_(layer.values, -1, 1)
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64, requires_grad=True)
    at_every_token = (layer.scale * layer.values).detach().expand(2, 5, 6, -1).clone().requires_grad_()
    cotangent = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    formula = mixer.proj(mixer.fusion(mixer._branches(x, at_every_token)))
    expected = torch.autograd.grad(formula, [x, at_every_token], cotangent)
    mixed = mixer(x, layer(x))
    torch.testing.assert_close(mixed, formula, rtol=1e-10, atol=1e-10)
    grad_x, grad_values = torch.autograd.grad(mixed, [x, layer.values], cotangent)
    torch.testing.assert_close(grad_x, expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(grad_values, layer.scale * expected[1].sum((0, 1, 2)), rtol=1e-9, atol=1e-9)


@BACKENDS
def test_the_gradient_of_static_offsets_is_that_of_finite_differences(backend: str) -> None:
    torch.manual_seed(0)
    layer = StaticOffsets(4, 2).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    values = torch.tensor([0.3, -0.6, 0.7, -0.2], dtype=torch.float64, requires_grad=True)  # between two tokens

    def read(values: Tensor) -> Tensor:
        return recompose(x, torch.func.functional_call(layer, {"values": values}, (x,)), False, 1)[0]

    assert torch.autograd.gradcheck(read, (values,))


@BACKENDS
@pytest.mark.parametrize("joint", [False, True])
def test_offsets_that_are_expanded_read_as_copies_do(backend: str, joint: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, 12)
    expanded = torch.randn(2 * 3 * 4).expand(2, 5, 7, -1)
    results = []
    for offsets in (expanded.detach(), expanded.contiguous()):
        x_leaf, offsets_leaf = x.clone().requires_grad_(), offsets.requires_grad_()
        tokens, means = recompose(x_leaf, offsets_leaf, joint, 3)
        results.append([tokens, means, *torch.autograd.grad(tokens.sin().sum() + means.sum(), [x_leaf, offsets_leaf])])
    assert all(torch.equal(*pair) for pair in zip(*results))


def test_shift_reads_whole_steps_by_equal_parts_of_neighbouring_channels() -> None:
    for dim, width in ((16, 1), (64, 1), (320, 2), (96, 5), (7, 3)):
        offsets = ShiftedOffsets(dim, width)(torch.empty(2, 3, 4, dim))
        assert offsets.shape == (2, 3, 4, 2 * dim)
        horizontal, vertical = (half[0, 0, 0].tolist() for half in offsets.chunk(2, dim=-1))
        assert horizontal == vertical == sorted(horizontal)
        sizes = [horizontal.count(step) for step in range(-width, width + 1)]
        assert sum(sizes) == dim and max(sizes) - min(sizes) <= 1


def test_shift_moves_each_part_along_both_axes() -> None:
    x, layer = torch.randn(2, 5, 6, 3), ShiftedOffsets(3, 1)
    right, below, here = recompose(x, layer(x), False, 1)[0].chunk(3, dim=-1)
    padded = nn.functional.pad(x, (0, 0, 1, 1, 1, 1))
    for channel, step in enumerate((-1, 0, 1)):
        assert torch.equal(right[..., channel], padded[:, 1:-1, 1 + step : 7 + step, channel])
        assert torch.equal(below[..., channel], padded[:, 1 + step : 6 + step, 1:-1, channel])
    assert torch.equal(here, x)


def test_shift_is_set_by_its_width_and_not_by_loaded_weights() -> None:
    narrow, wide = nano(offsets="shift"), nano(offsets="shift", shift_width=2)
    assert not [name for name in narrow.state_dict() if ".offsets." in name]
    wide.load_state_dict(narrow.state_dict())
    assert [layer.values.max().item() for layer in layers_of(wide)] == [2.0] * 4


FIRST_OF_SEED_0 = [-0.0644073486328125, 0.8211350440979004, 1.5783696174621582, -2.482670783996582]


def test_random_offsets_of_a_seed_are_these_on_every_machine() -> None:
    """Drawn as whole multiples of the spread / 2^23, so that no processor rounds them in its own way."""
    model = nano(offsets="random")
    assert layers_of(model)[0].values[:4].tolist() == FIRST_OF_SEED_0
    for layer in layers_of(model):
        assert torch.equal(layer.values * 2**23 / 4, (layer.values * 2**23 / 4).round())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = nano(offsets="random", num_classes=3, drop_path_rate=0.1)
    finally:
        torch.set_num_threads(threads)
    for layer, same, other in zip(layers_of(model), layers_of(again), layers_of(nano(1, offsets="random"))):
        assert torch.equal(layer.values, same.values) and not torch.equal(layer.values, other.values)


def test_random_offsets_are_uniform_within_their_spread() -> None:
    torch.manual_seed(0)
    values = RandomOffsets(512, 512, 3, spread=2.5).values
    assert values.abs().max() <= 2.5
    for edge in torch.linspace(-2.5, 2.5, 11):  # a fraction within four standard errors of the uniform one
        expected = (edge.item() + 2.5) / 5
        error = 4 * math.sqrt(expected * (1 - expected) / values.numel())
        assert abs((values < edge).double().mean().item() - expected) <= error + 1e-12
    halves = values.reshape(2, 3, 512)
    assert abs(torch.corrcoef(halves.flatten(0, 1)).fill_diagonal_(0)).max() < 0.2


def test_random_offsets_are_never_trained_and_travel_with_the_weights() -> None:
    model = nano(offsets="random")
    before = copy.deepcopy(model)
    averaged = train(model)
    assert not [name for name, _ in model.named_parameters() if ".offsets." in name]
    for trained in (model, averaged):
        for layer, initial in zip(layers_of(trained), layers_of(before)):
            assert torch.equal(layer.values, initial.values)
    loaded = nano(5, offsets="random", random_spread=1)
    loaded.load_state_dict(model.state_dict())
    assert torch.equal(loaded.eval()(images()), model.eval()(images()))


def test_frozen_is_axial_whose_predictors_keep_their_initial_bits() -> None:
    model, axial = nano(offsets="frozen"), nano()
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), axial.state_dict().values()))
    assert torch.equal(model.eval()(images()), axial.eval()(images()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averaged = train(model.train())
    for state in (model.state_dict(), averaged.state_dict()):
        unchanged = {name for name, value in state.items() if torch.equal(value, before[name])}
        assert unchanged == {name for name in before if ".offsets." in name}
    train(axial.train())
    assert all(not torch.equal(value, before[name]) for name, value in axial.state_dict().items())


def test_frozen_predictors_pass_gradients_on_to_the_tokens() -> None:
    layer = OffsetPredictor(8, 4, trained=False)
    x = torch.randn(1, 2, 3, 8, requires_grad=True)
    layer(x).square().sum().backward()
    assert x.grad is not None and x.grad.count_nonzero() > 0 and layer.proj.weight.grad is None


@pytest.mark.parametrize("offsets", ["token", "joint", "axial", "frozen"])
def test_a_peg_for_the_predictor_is_not_in_the_blocks_path(offsets: str) -> None:
    model = nano(offsets=offsets, peg="predictor", depths=[4, 2, 2, 2])
    stage, encoded, predicted, entered = model.stages[0], [], [], []
    stage.peg.register_forward_hook(lambda module, args, output: encoded.append((args[0], output)))
    for block in stage.blocks:
        block.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
        if block.predicts:
            block.offsets.register_forward_pre_hook(lambda module, args: predicted.append(args[0]))
    model(images()).square().sum().backward()
    assert len(encoded) == len(predicted) == 2
    assert all(x is output for x, (_, output) in zip(predicted, encoded))
    assert entered[0] is encoded[0][0] and entered[2] is encoded[1][0]
    assert all(p.grad.count_nonzero() > 0 for p in stage.peg.parameters())
    assert {name for name in model.no_weight_decay() if "stages.0" in name} == {
        f"stages.0.peg.conv.{kind}" for kind in ("weight", "bias")
    }


def test_a_peg_for_the_predictor_changes_nothing_but_the_path() -> None:
    arms = [nano(peg=peg).eval() for peg in (True, "predictor", False)]
    assert arms[0].state_dict().keys() == arms[1].state_dict().keys()
    for model in arms[:2]:
        for stage in model.stages:
            nn.init.zeros_(stage.peg.conv.weight)
    arms[1].load_state_dict(arms[0].state_dict())
    arms[2].load_state_dict({name: value for name, value in arms[0].state_dict().items() if ".peg." not in name})
    outputs = [model(images()) for model in arms]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("arm", [*CONSTANT, *CONTENT], ids=str)
def test_every_control_trains_scripts_counts_and_survives_a_state_dict(arm: dict) -> None:
    model = nano(**arm)
    model(images()).square().mean().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.count_nonzero() > 0 for p in trained.values())
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {
        name for name, _ in model.named_parameters() if arm.get("offsets") == "frozen" and ".offsets." in name
    }
    gradients = [p.grad.clone() for p in trained.values()]
    model.set_grad_checkpointing()
    model.zero_grad()
    model(images()).square().mean().backward()
    for gradient, parameter in zip(gradients, trained.values()):
        torch.testing.assert_close(parameter.grad, gradient)

    expected = model.eval()(images())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the retirement of TorchScript
        torch.testing.assert_close(torch.jit.script(model)(images()), expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(offsets.dtype == torch.float32 for offsets in offsets_of(model, images()))
    other = nano(9, **arm).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(images()), expected.detach())

    on_cpu = count(model, (3, 64, 64))
    with torch.device("meta"):
        weightless = nano(**arm)
        assert weightless(torch.empty(1, 3, 64, 64)).shape == (1, 7)
    assert count(weightless, (3, 64, 64)) == on_cpu


@pytest.mark.slow
@pytest.mark.parametrize("arm", [{"offsets": "static"}, {"offsets": "random"}, {"peg": "predictor"}], ids=str)
def test_controls_compile_export_and_transform(arm: dict) -> None:
    torch._dynamo.reset()
    model = nano(depths=[2, 1, 1, 1], **arm).eval()
    expected = model(images())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected, rtol=1e-4, atol=1e-5)
    compiled(images()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    dynamic = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(model, (images(),), dynamic_shapes=dynamic)
    torch.testing.assert_close(program.module()(images(5)), model(images(5)), rtol=1e-4, atol=1e-5)
    each = torch.func.vmap(lambda image: model(image[None])[0])(images())
    torch.testing.assert_close(each, expected, rtol=1e-3, atol=1e-4)


def counted(variant: str, **arguments) -> Complexity:
    with torch.device("meta"):
        return count(timm.create_model(f"atmnet_{variant}", **arguments), (3, 224, 224))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["nano", "xt"])
def test_controls_have_the_parameters_and_flops_they_claim(variant: str) -> None:
    with torch.device("meta"):
        axial = timm.create_model(f"atmnet_{variant}")
    reads = sum(2 * layer.groups for layer in layers_of(axial))
    zero, papers = counted(variant, offsets="zero", peg=True), counted(variant)
    assert counted(variant, offsets="shift") == counted(variant, offsets="random") == zero
    static = counted(variant, offsets="static")
    assert (static.params, static.flops) == (zero.params + reads, zero.flops)
    assert counted(variant, offsets="frozen") == counted(variant, peg="predictor") == papers
    three = counted(variant, offsets="static", samples=3)
    fcs = 2 * 2 * sum(block.mixer.fc_c.weight.numel() for stage in axial.stages for block in stage.blocks)
    assert three.params == zero.params + 3 * reads + fcs
    assert three.flops == counted(variant, samples=3).flops - predictor_flops(variant, samples=3)


def predictor_flops(variant: str, **arguments) -> int:
    with torch.device("meta"):
        model = timm.create_model(f"atmnet_{variant}", **arguments)
    tokens = [(224 // 4 // 2**i) ** 2 for i in range(4)]
    return sum(
        size * (5 * block.offsets.dim + block.offsets.proj.weight.numel())
        for stage, size in zip(model.stages, tokens)
        for block in stage.blocks
        if block.predicts
    )


@pytest.mark.parametrize("variant", ["nano", "xt"])
def test_axial_with_wider_mlps_has_the_flops_and_the_parameters_of_three_samples(variant: str) -> None:
    wide = counted(variant, offset_sharing=1, mlp_ratios=7)
    three = counted(variant, offset_sharing=1, samples=3)
    assert abs(wide.flops / three.flops - 1) < 0.002
    assert abs(wide.params / three.params - 1) < 0.002
    joint, axial = (
        counted(variant, offsets="joint", offset_sharing=1, mlp_ratios=4.5),
        counted(variant, offset_sharing=1),
    )
    assert abs(joint.flops / axial.flops - 1) < 0.02


@pytest.mark.slow
def test_every_variant_has_a_widening_that_matches_three_samples() -> None:
    """The rule of the docs: 2 + 2 p / d more, of a stage of d blocks of which p have offsets of their own."""
    for variant in ("t", "s", "b", "l"):
        with torch.device("meta"):
            stages = timm.create_model(f"atmnet_{variant}").stages
        ratios = [
            stage.blocks[0].mlp.fc1.out_features / stage.blocks[0].mlp.fc1.in_features
            + 2
            + 2 * sum(block.predicts for block in stage.blocks) / len(stage.blocks)
            for stage in stages
        ]
        wide = counted(variant, offset_sharing=1, mlp_ratios=ratios)
        three = counted(variant, offset_sharing=1, samples=3)
        assert abs(wide.flops / three.flops - 1) < 0.002, variant
        assert abs(wide.params / three.params - 1) < 0.002, variant


def test_mlp_ratios_are_one_number_or_one_per_stage() -> None:
    assert nano(mlp_ratios=4).state_dict().keys() == nano().state_dict().keys()
    widths = [stage.blocks[0].mlp.fc1.out_features for stage in nano(mlp_ratios=[1, 2, 0.5, 3]).stages]
    assert widths == [16, 64, 32, 288]
    with pytest.raises(ValueError, match="one entry per stage"):
        nano(mlp_ratios=[4, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offsets": "shift", "samples": 3}, r"'shift' reads one token, not 3 .*: token, joint, axial, static, random"),
        ({"offsets": "shift", "offset_sharing": 2}, r"'shift' has fixed parts of channels: leave offset_sharing unset"),
        ({"offsets": "shift", "shift_width": 8}, r"shift_width=8 .*16 channels \(valid: 1 to 7\)"),
        ({"offsets": "shift", "shift_width": 0}, r"shift_width=0 .*\(valid: 1 to 7\)"),
        ({"offsets": "random", "random_spread": 0}, r"random_spread=0 must be a positive number"),
        ({"offsets": "random", "random_spread": math.inf}, r"random_spread=inf must be a positive number"),
        ({"shift_width": 1}, r"shift_width=1 is valid for offsets='shift' only, not for offsets='axial'"),
        ({"offsets": "static", "random_spread": 4}, r"random_spread=4 is valid for offsets='random' only"),
        *(
            (
                {"offsets": mode, "peg": "predictor"},
                rf"offsets='{mode}' has none \(valid for: token, joint, axial, frozen\)",
            )
            for mode in ("zero", "static", "shift", "random")
        ),
        ({"mixer": "identity", "peg": "predictor"}, r"feeds predicted offsets"),
        ({"mixer": "identity", "shift_width": 1}, r"takes no offsets, so shift_width=1 must be unset"),
        ({"peg": "blocks"}, r"unknown peg 'blocks' \(valid: True, False, 'predictor'\)"),
    ],
)
def test_refuses_what_does_not_go_together(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nano(**arguments)


def test_the_schema_repeats_the_models_modes_and_defaults() -> None:
    for name in ("PREDICTED", "SHIFT_WIDTH", "RANDOM_SPREAD"):
        assert getattr(schema, name) == getattr(atm_offsets, name)
    assert schema.OFFSET_MODES == atm_mixer.OFFSET_MODES and model_completion.ONE_READ == atm_mixer.ONE_READ
    assert set(model_completion.UNSHARED) == {"zero", *UNSHARED}


@pytest.mark.slow
def test_the_docs_state_the_counted_parameters_and_flops() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+) \|$", DOCS.read_text(), re.M)
    assert len(rows) >= 12
    for settings, *printed in rows:
        arguments = {}
        for word in settings.split():
            key, _, value = word.partition("=")
            arguments[key] = {"true": True, "false": False}.get(value, float(value) if value[0].isdigit() else value)
        arguments = {
            key: int(value) if key != "mlp_ratios" and isinstance(value, float) else value
            for key, value in arguments.items()
        }
        for variant, (params, flops) in zip(("nano", "xt"), (printed[:2], printed[2:])):
            complexity = counted(variant, **arguments)
            assert (f"{complexity.params_m:.3f}", f"{complexity.flops_g:.3f}") == (params, flops), (settings, variant)
