"""ATMNet in the programs that models are put into: tracers, exporters, quantisers, feature extractors, transforms."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from timm.models._features_fx import create_feature_extractor as timm_feature_extractor
from timm.models._hub import save_for_hf
from torch import Tensor, nn
from torch.autograd import forward_ad
from torchvision.models.feature_extraction import create_feature_extractor

from atm.mixer import ActiveTokenMixer
from atm.sampling import recompose, use
from tests.atm.clients import client

ARMS = [
    {},
    {"offsets": "zero"},
    {"offsets": "joint", "samples": 3},
    {"offsets": "static"},
    {"offsets": "shift"},
    {"offsets": "random"},
    {"offsets": "token", "fusion": "token"},
    {"fusion": "mean", "peg": "predictor"},
]
OTHER_SIZES = [(1, 96, 128), (3, 65, 81)]


def image(batch: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def nano(**kwargs) -> nn.Module:
    """A shallow nano model in evaluation mode with offsets of about one token."""
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", **{"depths": [2, 1, 1, 1], "num_classes": 7, **kwargs}).eval()
    for name, parameter in model.named_parameters():
        if ".offsets.proj" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def assert_equal_at_other_sizes(program: Callable[[Tensor], Tensor], model: nn.Module) -> None:
    for size in OTHER_SIZES:
        torch.testing.assert_close(program(image(*size)), model(image(*size)), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_a_traced_model_takes_sizes_that_it_was_not_traced_with(arm: dict) -> None:
    model = nano(**arm)
    assert_equal_at_other_sizes(torch.jit.trace(model, image()), model)


@pytest.mark.filterwarnings("ignore")
def test_the_traced_formula_has_no_size_in_it() -> None:
    def sample(x: Tensor, offsets: Tensor) -> Tensor:
        return recompose(x, offsets, False, 1)[0]

    small, large = ((torch.randn(1, n, n, 4), torch.full((1, n, n, 4), 6.0)) for n in (4, 12))
    use("reference")
    try:
        torch.testing.assert_close(torch.jit.trace(sample, small)(*large), sample(*large))
    finally:
        use("auto")


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_fx_records_every_arm(arm: dict) -> None:
    model = nano(**arm)
    graph = torch.fx.symbolic_trace(model)
    assert_equal_at_other_sizes(graph, model)
    graph.train()(image()).sum().backward()
    assert not [name for name, p in graph.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arm", [{}, {"offsets": "random"}], ids=str)
def test_an_fx_graph_scripts(arm: dict) -> None:
    model = nano(**arm)
    assert_equal_at_other_sizes(torch.jit.script(torch.fx.symbolic_trace(model)), model)


def test_an_fx_graph_keeps_offsets_out_of_autocast() -> None:
    predictor = nano().stages[0].blocks[0].offsets
    graph, x = torch.fx.symbolic_trace(predictor), torch.randn(1, 4, 4, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(graph(x), predictor(x)) and graph(x).dtype == torch.float32


@pytest.mark.parametrize("extractor", [create_feature_extractor, timm_feature_extractor])
def test_feature_extractors_see_the_layers_of_a_mixer(extractor: Callable) -> None:
    model, seen = nano(), []
    names = ["stages.0.blocks.0.mixer.fc_w", "stages.1", "head"]
    outputs = extractor(model, names)(image())
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output))
    model(image())
    for name, output in zip(names, seen):
        torch.testing.assert_close(outputs[name], output)


@pytest.mark.parametrize("kind", ["hook", "fx"])
def test_every_kind_of_features_gives_the_normalised_maps(kind: str) -> None:
    torch.manual_seed(0)
    getter = timm.create_model("atmnet_nano", features_only=True)
    torch.manual_seed(0)
    features = timm.create_model("atmnet_nano", features_only=True, feature_cls=kind)
    maps = features(image())
    for ours, expected in zip(maps, getter(image())):
        torch.testing.assert_close(ours.permute(0, 3, 1, 2), expected)
    sum(m.sin().mean() for m in maps).backward()
    assert not [name for name, p in features.named_parameters() if p.grad is None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (0, 2)])
def test_features_only_scripts(indices: tuple[int, ...]) -> None:
    features = timm.create_model("atmnet_nano", features_only=True, out_indices=indices).eval()
    for ours, expected in zip(torch.jit.script(features)(image()), features(image()), strict=True):
        torch.testing.assert_close(ours, expected)


def test_stopping_early_returns_the_truncated_map() -> None:
    model = nano()
    x, maps = model.forward_intermediates(image(), indices=[0], stop_early=True, output_fmt="NHWC")
    assert torch.equal(x, maps[0]) and x.shape == (2, 16, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("arm", [{}, {"offsets": "zero"}], ids=str)
def test_exports_with_dynamic_height_and_width(arm: dict) -> None:
    model, sizes = nano(**arm), torch.export.Dim.AUTO
    program = torch.export.export(model, (image(),), dynamic_shapes=({0: sizes, 2: sizes, 3: sizes},)).module()
    for size in ((3, 65, 81), (2, 224, 224)):
        torch.testing.assert_close(program(image(*size)), model(image(*size)), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("arm", [{}, {"offsets": "joint"}, {"offsets": "random"}], ids=str)
@pytest.mark.slow
def test_onnxruntime_equals_pytorch_at_other_sizes(arm: dict, dynamo: bool, tmp_path: Path) -> None:
    _, _, runtime = (client(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    model, path = nano(depths=[1, 1, 1, 1], **arm), str(tmp_path / "model.onnx")
    dim = torch.export.Dim
    shapes = (
        {"dynamic_shapes": ({0: dim("b", max=64), 2: dim("h", min=64, max=512), 3: dim("w", min=64, max=512)},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "b", 2: "h", 3: "w"}}, "opset_version": 17}
    )
    torch.onnx.export(model, (image(),), path, dynamo=dynamo, input_names=["x"], **shapes)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert_equal_at_other_sizes(lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), model)


@pytest.mark.parametrize("arm", [{}, {"offsets": "joint"}], ids=str)
@pytest.mark.parametrize("gradients", [False, True])
def test_dual_levels_have_the_derivatives_of_the_formula(arm: dict, gradients: bool) -> None:
    model, x = nano(**arm).double(), image().double()
    tangent = torch.randn_like(x)
    with torch.set_grad_enabled(gradients), forward_ad.dual_level():
        ours = forward_ad.unpack_dual(model(forward_ad.make_dual(x, tangent))).tangent
    difference = (model(x + 1e-6 * tangent) - model(x - 1e-6 * tangent)) / 2e-6
    torch.testing.assert_close(ours, difference, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(ours, torch.func.jvp(model, (x,), (tangent,))[1])


def test_the_operator_refuses_forward_mode_derivatives() -> None:
    x, offsets = torch.randn(1, 3, 3, 4), torch.randn(1, 3, 3, 4)
    with forward_ad.dual_level():
        for inputs in ((forward_ad.make_dual(x, x), offsets), (x, forward_ad.make_dual(offsets, offsets))):
            with pytest.raises(RuntimeError, match="no forward-mode derivative"):
                torch.ops.atm.read(*inputs, "cross", 1, True)


def hook_layer(layer: nn.Module, kind: str, calls: list) -> None:
    def hook(*args) -> None:
        calls.append(args)

    getattr(layer, f"register_{kind}")(hook)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_every_kind_of_hook_sees_every_layer_of_a_mixer(kind: str) -> None:
    for name in ("fc_w", "fc_h", "fc_c", "proj", "fusion"):
        mixer, calls = ActiveTokenMixer(8), []
        hook_layer(getattr(mixer, name), kind, calls)
        mixer(torch.randn(1, 9, 9, 8, requires_grad=True), torch.randn(1, 9, 9, 16)).sum().backward()
        assert len(calls) == 1, name
        if name != "fusion":
            shown = calls[0][-1]
            assert (shown[0] if isinstance(shown, tuple) else shown).shape == (1, 9, 9, 8)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_of_all_modules_see_every_layer_of_a_mixer(kind: str) -> None:
    mixer, calls = ActiveTokenMixer(8), []
    register = getattr(nn.modules.module, f"register_module_{kind}")
    handle = register(lambda module, *args: calls.append(module) and None)
    try:
        mixer(torch.randn(1, 9, 9, 8, requires_grad=True), torch.randn(1, 9, 9, 16)).sum().backward()
    finally:
        handle.remove()
    assert {mixer.fc_w, mixer.fc_h, mixer.fc_c, mixer.proj} <= set(calls)


def test_a_layer_with_a_forward_of_its_own_is_called() -> None:
    mixer, x, offsets = ActiveTokenMixer(8), torch.randn(1, 9, 9, 8), torch.randn(1, 9, 9, 16)
    forward = mixer.fc_w.forward
    mixer.fc_w.forward = lambda x: forward(x).tanh()
    torch.testing.assert_close(mixer(x, offsets), mixer.proj(mixer.fusion(mixer._branches(x, offsets))))


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_runs() -> None:
    model = nano()
    expected = model(image())
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert (quantised(image()) - expected).abs().max() < 0.1 * expected.abs().max()
    assert isinstance(quantised.stages[0].blocks[0].offsets.proj, torch.ao.nn.quantized.dynamic.Linear)


def test_weight_only_quantisation_keeps_the_logits() -> None:
    torchao = client("torchao.quantization")
    model = nano()
    expected, plain = model(image()), type(model.head.weight)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    block = model.stages[0].blocks[0]
    for layer in (block.mixer.fc_w, block.mixer.fc_h, block.mixer.fc_c, block.mixer.proj, block.offsets.proj):
        assert type(layer.weight) is not plain
    assert 0 < (model(image()) - expected).abs().max() < 0.1 * expected.abs().max()


class OwnTensor(torch.Tensor):
    """Stands for the weights of a library: supports linear layers only."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.cat or func is torch.matmul:
            raise NotImplementedError(func)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("size", [3, 9])
def test_weights_of_another_type_are_used_by_their_layers_only(size: int) -> None:
    mixer, x, offsets = ActiveTokenMixer(8), torch.randn(1, size, size, 8), torch.randn(1, size, size, 16)
    expected = mixer(x, offsets)
    for layer in (mixer.fc_w, mixer.fc_h, mixer.fc_c, mixer.proj):
        layer.weight = nn.Parameter(layer.weight.detach().as_subclass(OwnTensor))
    torch.testing.assert_close(mixer(x, offsets).as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize("classes", [0, 5])
def test_features_load_from_a_saved_classifier(classes: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classifier = timm.create_model("atmnet_nano", num_classes=classes)
    save_for_hf(classifier, tmp_path)
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    assert torch.equal(features.model.stem.weight, classifier.stem.weight)
    assert "Unexpected keys" not in caplog.text
    assert all(torch.equal(norm.weight, torch.ones_like(norm.weight)) for norm in features.model.stage_norms)


def test_device_and_dtype_of_a_new_model() -> None:
    for options in ({}, {"features_only": True}):
        model = timm.create_model("atmnet_nano", device="meta", dtype=torch.bfloat16, **options)
        assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def test_a_new_classifier_is_in_the_mode_of_the_model() -> None:
    model = nano()
    model.reset_classifier(3)
    assert not model.head.training
    model.train().reset_classifier(3)
    assert model.head.training


def test_programs_are_saved_and_loaded() -> None:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(nano(), image()), file)
        file.seek(0)
        assert_equal_at_other_sizes(torch.jit.load(file), nano())


def test_a_released_file_loads_as_a_checkpoint(tmp_path: Path) -> None:
    from atm.released import _layout

    model = timm.create_model("atmnet_nano")
    ours = model.state_dict()
    path = tmp_path / "released.pth"
    torch.save({"model_ema": {key: ours[name] for key, (name, _) in _layout("nano").items()}}, path)
    loaded = timm.create_model("atmnet_nano", checkpoint_path=str(path))
    assert all(torch.equal(tensor, ours[name]) for name, tensor in loaded.state_dict().items())
