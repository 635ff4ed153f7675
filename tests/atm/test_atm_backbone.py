"""ATMNet follows timm's conventions: the checks of timm's own model tests, on the smallest variant."""

import copy
import warnings
from pathlib import Path

import pytest
import timm
import torch
import yaml
from timm.models import group_modules, group_parameters
from timm.optim import create_optimizer_v2
from torch import nn

import atm
from atm.backbone import ATMNet
from atm.variants import VARIANTS

ARMS = [
    {},
    {"offsets": "zero"},
    {"offsets": "zero", "peg": True},
    {"offsets": "token", "offset_interval": "stage"},
    {"offsets": "joint"},
    {"peg": False, "offset_interval": 1},
    {"samples": 3, "offset_sharing": 1},
    {"offsets": "joint", "samples": 3, "offset_sharing": [1, 2, 4, 8]},
    {"offsets": "token", "samples": 3},
    {"fusion": "token"},
    {"fusion": "mean"},
]


def image(batch: int = 2, height: int = 64, width: int = 64, channels: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def nano(**kwargs) -> ATMNet:
    torch.manual_seed(0)
    return timm.create_model("atmnet_nano", **{"num_classes": 7, **kwargs})


def far_reading(**kwargs) -> ATMNet:
    """A nano model in evaluation mode with offsets of about one token, as after training."""
    model = nano(**kwargs).eval()
    for stage in model.stages:
        for block in stage.blocks:
            if block.predicts:
                nn.init.normal_(block.offsets.proj.weight, std=0.5)
    return model


@pytest.mark.parametrize("half", [False, True])
def test_channels_are_last_in_memory_for_blocks_and_first_for_convolutions_in_float32(half: bool) -> None:
    """An addition of two layouts takes four times as long; convolutions of another layout would change bits."""
    model = nano()
    blocks, convolutions = [], []
    for name, module in model.named_modules():
        if name.endswith(("downsample", "peg.conv")) and isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: convolutions.append(inputs[0]))
        if type(module).__name__ == "Block":
            module.register_forward_pre_hook(lambda _, inputs: blocks.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(image())
    assert len(blocks) == 8 and all(x.is_contiguous() for x in blocks)
    layout = torch.channels_last if half else torch.contiguous_format
    assert len(convolutions) == 7 and all(x.is_contiguous(memory_format=layout) for x in convolutions)
    assert {x.dtype for x in [*blocks, *convolutions]} == {torch.bfloat16 if half else torch.float32}


def test_every_variant_of_the_file_is_registered() -> None:
    assert sorted(timm.list_models("atmnet_*")) == sorted(f"atmnet_{variant}" for variant in VARIANTS)
    file = yaml.safe_load(Path(atm.__file__).with_name("variants.yaml").read_text())
    assert file == VARIANTS and len({tuple(variant) for variant in file.values()}) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_default_cfg_describes_the_model(variant: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"atmnet_{variant}")
        cfg, features = model.default_cfg, model.forward_features(torch.empty(1, 3, 224, 224))
    assert cfg["architecture"] == f"atmnet_{variant}" and not cfg["url"] and not cfg.get("hf_hub_id")
    assert features.shape == (1, *cfg["pool_size"], model.num_features) and cfg["input_size"] == (3, 224, 224)
    assert cfg["num_classes"] == model.num_classes == 1000
    assert f"{cfg['classifier']}.weight" in model.state_dict()
    assert model.get_submodule(cfg["first_conv"]).in_channels == 3
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert cfg["interpolation"] == "bicubic" and cfg["crop_pct"] == 0.875
    assert cfg["license"] == "mit"


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_every_arm_trains_every_parameter(arm: dict) -> None:
    model = nano(**arm)
    logits = model(image())
    assert logits.shape == (2, 7) and logits.isfinite().all()
    logits.square().mean().backward()
    untrained = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not untrained
    without_gradient = [name for name, p in model.named_parameters() if p.grad.count_nonzero() == 0]
    assert not without_gradient


@pytest.mark.parametrize("variant", ["xt", "l"])
def test_published_variants_run(variant: str) -> None:
    model = timm.create_model(f"atmnet_{variant}", num_classes=5).eval()
    with torch.no_grad():
        assert model(image(1)).shape == (1, 5)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 47), (32, 32), (20, 9), (3, 3), (225, 33)])
def test_takes_any_input_size(height: int, width: int) -> None:
    model = nano().eval()
    with torch.no_grad():
        features = model.forward_features(image(1, height, width))
        assert model.forward_head(features).isfinite().all()
        maps = model.forward_intermediates(image(1, height, width), intermediates_only=True)
    rows, columns = ((n - 3) // 4 + 1 for n in (height, width))
    for stage_map in maps:
        assert stage_map.shape[2:] == (rows, columns)
        rows, columns = -(-rows // 2), -(-columns // 2)
    assert features.shape[1:3] == maps[-1].shape[2:]


def test_in_chans() -> None:
    assert nano(in_chans=5)(image(channels=5)).shape == (2, 7)


def test_forward_is_features_then_head() -> None:
    model = nano().eval()
    features = model.forward_features(image())
    torch.testing.assert_close(model(image()), model.forward_head(features))
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((1, 2)))
    assert pooled.shape[1] == model.num_features == model.head_hidden_size == 96
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 2, 2), atol=1e-5, rtol=0)  # the final LayerNorm


def test_reset_classifier() -> None:
    model = nano().eval()
    model.reset_classifier(3)
    assert model(image()).shape == (2, 3) and model.num_classes == 3
    assert 0 < model.get_classifier().weight.std() < 0.03  # initialised as the model's other linear layers
    model.reset_classifier(0)
    assert model(image()).shape == (2, 96) and isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(0, "")
    assert model(image()).shape == (2, 2, 2, 96)
    model.reset_classifier(4, "")
    assert model(image()).shape == (2, 2, 2, 4)
    model.reset_classifier(4, "avg")
    assert model(image()).shape == (2, 4)
    assert nano(num_classes=0)(image()).shape == (2, 96)
    assert nano(num_classes=0, global_pool="")(image()).shape == (2, 2, 2, 96)


def test_drop_path_grows_linearly_over_all_blocks() -> None:
    model = nano(drop_path_rate=0.35)
    rates = [
        [getattr(drop, "drop_prob", 0.0) for drop in (block.drop_path1, block.drop_path2)]
        for stage in model.stages
        for block in stage.blocks
    ]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.35, 8)[:, None].expand(8, 2))
    assert not any("DropPath" in str(module) for module in timm.create_model("atmnet_xt").modules())
    assert nano(drop_rate=0.5).head_drop.p == 0.5


def test_features_only_gives_a_normalised_map_per_stage() -> None:
    backbone = timm.create_model("atmnet_nano", features_only=True)
    maps = backbone(image(2, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 16, 24), (2, 32, 8, 12), (2, 64, 4, 6), (2, 96, 2, 3)]
    assert backbone.feature_info.channels() == [16, 32, 64, 96]
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    for m in maps:
        torch.testing.assert_close(m.mean(1), torch.zeros_like(m.mean(1)), atol=1e-5, rtol=0)
    sum(m.square().mean() + m.sin().mean() for m in maps).backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]
    names = {name.split(".")[1] for name, _ in backbone.named_parameters()}
    assert names == {"stem", "stages", "stage_norms"}  # no final norm, no head


def test_features_only_has_no_unused_parameters() -> None:
    backbone = timm.create_model("atmnet_nano", features_only=True, out_indices=(0, 2))
    maps = backbone(image())
    assert [m.shape[1] for m in maps] == backbone.feature_info.channels() == [16, 64]
    sum(m.sin().mean() for m in maps).backward()
    assert not [name for name, p in backbone.named_parameters() if p.grad is None]
    last = timm.create_model("atmnet_nano", features_only=True, out_indices=(-1,))
    assert [m.shape[1] for m in last(image())] == [96]


def test_features_are_taken_before_the_downsampling() -> None:
    model = nano().eval()
    dense = timm.create_model("atmnet_nano", features_only=True).eval()
    dense.model.load_state_dict({k: v for k, v in model.state_dict().items() if "norm." not in k[:5]}, strict=False)
    taps = []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, output: taps.append(output))
    model(image())
    for m, tap, norm in zip(dense(image()), taps, dense.model.stage_norms):
        torch.testing.assert_close(m, norm(tap).permute(0, 3, 1, 2))


def test_forward_intermediates() -> None:
    model = nano().eval()
    final, maps = model.forward_intermediates(image())
    torch.testing.assert_close(final, model.forward_features(image()))
    assert [m.shape[1] for m in maps] == [16, 32, 64, 96]
    nhwc = model.forward_intermediates(image(), indices=[1, 3], output_fmt="NHWC", intermediates_only=True)
    torch.testing.assert_close(nhwc[0], maps[1].permute(0, 2, 3, 1))
    normed = model.forward_intermediates(image(), indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(normed[0].permute(0, 2, 3, 1), final)
    early = model.forward_intermediates(image(), indices=[0, 1], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early[1], maps[1])
    with pytest.raises(ValueError, match="valid: NCHW, NHWC"):
        model.forward_intermediates(image(), output_fmt="NLC")


def test_prune_intermediate_layers() -> None:
    model = nano().eval()
    expected = model.forward_intermediates(image(), indices=[0, 1], intermediates_only=True)
    assert model.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    assert len(model.stages) == 2 and model.num_features == 32
    torch.testing.assert_close(model.forward_intermediates(image(), [0, 1], intermediates_only=True), expected)
    assert model(image()).shape == (2, 8, 8, 32)


@pytest.mark.parametrize("arm", [{}, {"offsets": "joint"}, {"offsets": "joint", "samples": 3}], ids=str)
@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_a_stage_that_is_taken_early_or_pruned_to_is_the_whole_models(arm: dict, last: int) -> None:
    """The contract of timm's own tests (``test_prune_intermediate_layers_contract``)."""
    model = nano(**arm).eval()
    expected, taps = model(image()), model.forward_intermediates(image(), intermediates_only=True)
    early = model.forward_intermediates(image(), indices=[last], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(early, [taps[last]])
    with_head = copy.deepcopy(model)
    with_head.prune_intermediate_layers([3], prune_head=False)
    torch.testing.assert_close(with_head(image()), expected)
    pruned = copy.deepcopy(model)
    take = pruned.prune_intermediate_layers([last], prune_norm=True)
    torch.testing.assert_close(pruned.forward_intermediates(image(), take, intermediates_only=True), [taps[last]])
    torch.testing.assert_close(pruned.forward_features(image()).permute(0, 3, 1, 2), taps[last])
    pruned.train().forward_features(image()).sin().sum().backward()
    assert not [name for name, p in pruned.named_parameters() if p.requires_grad and p.grad is None]
    features = timm.create_model("atmnet_nano", features_only=True, out_indices=(last,), **arm)
    assert [m.shape[1] for m in features(image())] == features.feature_info.channels() == [taps[last].shape[1]]


@pytest.mark.parametrize("arm", [{}, {"offsets": "zero"}, {"offsets": "joint"}], ids=str)
def test_grad_checkpointing_changes_no_gradient(arm: dict) -> None:
    model = nano(**arm)
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(image()).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)
    recomputed = []
    model.stages[0].blocks[0].mixer.register_forward_hook(lambda *hook: recomputed.append(1))
    model(image()).sum().backward()
    assert len(recomputed) == 2


def test_no_grad_and_inference_mode_give_the_same_logits() -> None:
    model = far_reading()
    expected = model(image())
    with torch.no_grad():
        torch.testing.assert_close(model(image()), expected.detach())
    with torch.inference_mode():
        torch.testing.assert_close(model(image()).clone(), expected.detach())


def test_images_of_a_batch_are_independent() -> None:
    model = far_reading()
    torch.testing.assert_close(model(image(3))[1:2], model(image(3)[1:2]), rtol=1e-4, atol=1e-5)


def test_autocast_trains() -> None:
    model = far_reading().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(image())
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), model(image()), rtol=0.1, atol=0.1)
    logits.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_double_and_bfloat16_models_run() -> None:
    model = far_reading().double()
    assert model(image().double()).dtype == torch.float64
    model.bfloat16()
    logits = model(image().bfloat16())
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.parametrize(
    "arm", [{}, {"offsets": "zero"}, {"offsets": "joint", "samples": 3}, {"fusion": "token"}], ids=str
)
def test_scripts(arm: dict) -> None:
    model = far_reading(**arm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the retirement of TorchScript
        scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(image(2, 64, 48)), model(image(2, 64, 48)))


@pytest.mark.slow
@pytest.mark.parametrize("arm", [{}, {"offsets": "joint"}], ids=str)
def test_compiles_without_graph_breaks(arm: dict) -> None:
    torch._dynamo.reset()
    model = far_reading(depths=[2, 1, 1, 1], **arm)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), model(image()), rtol=1e-4, atol=1e-5)
    compiled(image()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("arm", [{}, {"offsets": "zero"}, {"offsets": "joint"}], ids=str)
def test_exports_with_a_dynamic_batch(arm: dict) -> None:
    model = far_reading(depths=[2, 1, 1, 1], **arm)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (image(2),), dynamic_shapes=({0: batch},))
    for size in (1, 5):
        torch.testing.assert_close(program.module()(image(size)), model(image(size)), rtol=1e-4, atol=1e-5)


def test_state_dict_round_trip() -> None:
    model, copy = far_reading(), nano().eval()
    assert not torch.allclose(copy(image()), model(image()))
    copy.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(copy(image()), model(image()))


@pytest.mark.parametrize("features_only", [False, True])
def test_group_matcher_orders_every_parameter(features_only: bool) -> None:
    model = timm.create_model("atmnet_nano", num_classes=7)
    if features_only:
        model = timm.create_model("atmnet_nano", features_only=True).model
    for coarse, groups in ((False, 9), (True, 5)):
        by_layer = group_parameters(model, model.group_matcher(coarse=coarse))
        assert sorted(name for layer in by_layer.values() for name in layer) == sorted(
            name for name, _ in model.named_parameters()
        )
        assert len(by_layer) == groups + (not features_only)
        assert set(by_layer[0]) == {"stem.weight", "stem.bias"}
        modules = group_modules(model, model.group_matcher(coarse=coarse))
        assert len(modules) == len(by_layer)
        if not features_only:
            assert sorted(by_layer[groups]) == ["head.bias", "head.weight"]
            assert "norm.weight" in by_layer[groups - 1]
    layer_of = group_parameters(model, model.group_matcher(), reverse=True)
    assert layer_of["stages.1.downsample.weight"] == layer_of["stages.1.peg.conv.weight"] == 3
    assert layer_of["stages.1.blocks.0.norm1.weight"] == 3 and layer_of["stages.1.blocks.1.norm1.weight"] == 4


def test_no_weight_decay_names_the_pegs() -> None:
    model = nano()
    expected = {f"stages.{i}.peg.conv.{kind}" for i in range(4) for kind in ("weight", "bias")}
    assert model.no_weight_decay() == expected
    assert nano(peg=False).no_weight_decay() == set()


def test_no_weight_decay_names_parameters_relative_to_the_backbone() -> None:
    """An optimizer that asks every submodule finds the PEGs of a backbone inside another module, pruned or not."""
    features = timm.create_model("atmnet_nano", features_only=True, out_indices=(0, 2))
    parameters = dict(nn.ModuleDict({"backbone": features}).named_parameters())
    names = {f"backbone.model.{name}" for name in features.model.no_weight_decay()}
    assert names == {name for name in parameters if ".peg." in name} and len(names) == 6


def test_layer_decay_and_weight_decay_through_timm() -> None:
    model = nano()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    settings = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    names = dict(model.named_parameters())
    assert len(settings) == len(names)
    for name, parameter in names.items():
        decays = parameter.ndim > 1 and ".peg." not in name
        assert settings[id(parameter)]["weight_decay"] == (0.05 if decays else 0.0), name
    scales = [
        settings[id(names[name])]["lr_scale"]
        for name in ("stem.weight", "stages.0.blocks.0.mlp.fc1.weight", "stages.3.blocks.1.norm1.weight", "head.weight")
    ]
    assert scales == sorted(scales) and len(set(scales)) == 4 and scales[-1] == 1.0


def test_none_means_the_default_of_the_variant() -> None:
    arguments = dict.fromkeys(
        ("offsets", "samples", "peg", "offset_sharing", "offset_interval", "fusion", "drop_path_rate")
    )
    from atm.variants import atmnet_nano

    assert atmnet_nano(**arguments).state_dict().keys() == atmnet_nano().state_dict().keys()
    assert atmnet_nano(offsets="token", offset_sharing=None).stages[0].blocks[0].offsets.groups == 1


def test_offset_sharing_sets_the_number_of_offsets() -> None:
    for sharing, outputs in ((None, [16, 16, 32, 24]), (1, [32, 64, 128, 192]), ([16, 32, 1, 3], [2, 2, 128, 64])):
        model = nano(**({} if sharing is None else {"offset_sharing": sharing}))
        assert [stage.blocks[0].offsets.proj.out_features for stage in model.stages] == outputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"offsets": "axail"}, r"offsets 'axail' \(valid: zero, token, joint, axial, static, shift, random, frozen\)"),
        ({"samples": 2}, r"samples 2 \(valid: 1, 3\)"),
        ({"fusion": "sum"}, r"fusion 'sum' \(valid: pooled, token, mean\)"),
        ({"offsets": "zero", "samples": 3}, r"samples=3 is valid for: token, joint, axial, static, random, frozen"),
        ({"offsets": "token", "offset_sharing": 2}, r"leave offset_sharing unset"),
        ({"offset_sharing": 5}, r"offset_sharing 5 must be a divisor of \[16, 32, 64, 96\]"),
        ({"offset_sharing": 0}, r"must be a divisor"),
        ({"offset_sharing": [2, 2, 2]}, r"one divisor per stage"),
        ({"offset_interval": 0}, r"positive whole number or 'stage', not 0"),
        ({"offset_interval": "block"}, r"'stage', not 'block'"),
        ({"depths": [2, 2, 2]}, r"one entry per stage"),
        ({"global_pool": "max"}, r"unknown global_pool 'max'"),
    ],
)
def test_refuses_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nano(**arguments)


def test_mode_zero_ignores_sharing() -> None:
    assert nano(offsets="zero", offset_sharing=5).state_dict().keys() == nano(offsets="zero").state_dict().keys()
