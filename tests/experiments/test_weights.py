"""One loader of weights: which models may start from which, and what begins afresh."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import atm  # noqa: F401  (registers the models with timm)
from errors import ConfigError
from experiments.folder.weights import export, load_backbone, read


class Dense(nn.Module):
    """A backbone with a head, as tasks with maps build it."""

    def __init__(self, name: str, classes: int = 4, indices: tuple[int, ...] = (2, 3), **arguments):
        super().__init__()
        self.backbone = timm.create_model(
            name, features_only=True, feature_cls="getter", out_indices=indices, **arguments
        )
        self.head = nn.Conv2d(8, classes, 1)


def classifier(name: str, classes: int = 4, **arguments) -> nn.Module:
    return timm.create_model(name, num_classes=classes, **arguments)


def differing(model: nn.Module, state: dict[str, torch.Tensor], prefix: str = "") -> set[str]:
    """Names in ``state`` whose weights are not those of the model."""
    own = model.state_dict()
    return {name for name in state if prefix + name in own and not torch.equal(own[prefix + name], state[name])}


@pytest.mark.parametrize("averaged", [True, False])
def test_of_a_runs_own_checkpoint_the_averaged_weights_are_taken(tmp_path, averaged):
    raw, ema = classifier("atmnet_nano").state_dict(), classifier("atmnet_nano").state_dict()
    content = {"model": raw, "ema": ema if averaged else None, "split": [1, 1]}
    torch.save(content, tmp_path / "copied.pt")
    state = read(tmp_path / "copied.pt")
    assert all(torch.equal(state[name], tensor) for name, tensor in (ema if averaged else raw).items())


@pytest.mark.parametrize("name", ["atmnet_nano", "resnet10t", "convnext_atto"])
def test_a_classifier_of_the_same_size_takes_everything(name):
    state, model = classifier(name).state_dict(), classifier(name)
    loaded = load_backbone(model, state, "init=x")
    assert (loaded.taken, loaded.fresh, loaded.left, loaded.note("init=x")) == (len(state), [], [], None)
    assert not differing(model, state)


@pytest.mark.parametrize(("name", "head"), [("atmnet_nano", "head"), ("resnet10t", "fc"), ("convnext_atto", "head.fc")])
def test_a_classifier_of_another_size_begins_afresh_and_is_named(name, head):
    state, model = classifier(name).state_dict(), classifier(name, classes=7)
    before = model.state_dict()[f"{head}.weight"].clone()
    loaded = load_backbone(model, state, "init=x")
    assert sorted(loaded.fresh) == [f"{head}.bias", f"{head}.weight"] and not loaded.left
    assert f"{head}.weight" in loaded.note("init=x")
    assert torch.equal(model.state_dict()[f"{head}.weight"], before)
    body = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    assert not differing(model, body)


@pytest.mark.parametrize("name", ["atmnet_nano", "resnet10t", "convnext_atto"])
@pytest.mark.parametrize("indices", [(2, 3), (1, 2)])
def test_a_dense_model_takes_the_backbone_of_a_classifier(name, indices):
    state, model = classifier(name).state_dict(), Dense(name, indices=indices)
    before = model.head.weight.clone()
    loaded = load_backbone(model, state, "init=x")
    assert {"head.weight", "head.bias"} <= set(loaded.fresh)
    assert all(name.startswith("head.") or "norm" in name for name in loaded.fresh)
    assert torch.equal(model.head.weight, before)
    assert not differing(model, state, "backbone.model.")
    assert loaded.taken == sum(f"backbone.model.{name}" in model.state_dict() for name in state) > 10
    assert loaded.left and not any(name.startswith("stages.0") for name in loaded.left)


@pytest.mark.parametrize("name", ["atmnet_nano", "resnet10t", "convnext_atto"])
def test_a_classifier_takes_the_backbone_of_a_dense_model(name):
    dense, model = Dense(name, indices=(0, 4 if name == "resnet10t" else 3)), classifier(name)
    loaded = load_backbone(model, dense.state_dict(), "init=x")
    assert all(name.startswith(("head.", "fc.", "norm.")) for name in loaded.fresh) and loaded.fresh
    assert {"head.weight", "head.bias"} <= set(loaded.left)
    state = {name.removeprefix("backbone.model."): value for name, value in dense.state_dict().items()}
    assert not differing(model, {name: value for name, value in state.items() if name not in loaded.left})


def test_dense_models_of_other_heads_share_the_backbone_alone():
    source, model = Dense("atmnet_nano"), Dense("atmnet_nano")
    model.neck = nn.Conv2d(8, 8, 1)
    loaded = load_backbone(model, source.state_dict(), "init=x")
    assert set(loaded.fresh) == {"head.weight", "head.bias", "neck.weight", "neck.bias"}, "heads of equal names, too"
    same = load_backbone(Dense("atmnet_nano"), source.state_dict(), "init=x")
    assert same.fresh == same.left == []
    wider = load_backbone(Dense("atmnet_nano", classes=9), source.state_dict(), "init=x")
    assert sorted(wider.fresh) == ["head.bias", "head.weight"]


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: (classifier("atmnet_nano", offsets="token"), classifier("atmnet_nano")), "stages.0"),
        (lambda: (classifier("atmnet_nano", peg=False), classifier("atmnet_nano")), "peg"),
        (lambda: (classifier("atmnet_nano"), classifier("atmnet_nano", peg=False)), "peg"),
        (lambda: (classifier("resnet10t"), classifier("atmnet_nano")), "in one only"),
        (lambda: (classifier("resnet18"), classifier("resnet10t")), "in one only"),
        (lambda: (classifier("atmnet_nano", samples=3), classifier("atmnet_nano")), "not ["),
        (lambda: (classifier("atmnet_nano", offsets="token"), Dense("atmnet_nano")), "stages.0"),
        (lambda: (Dense("resnet10t", indices=(2, 3)), Dense("resnet10t", indices=(3, 4))), "layer4"),
        (lambda: (Dense("resnet10t", indices=(2, 3)), classifier("resnet10t")), "layer4"),
        (lambda: (classifier("atmnet_nano", depths=[2, 2, 3, 2]), Dense("atmnet_nano")), "stages.2.blocks.2"),
    ],
)  # fmt: skip
def test_a_backbone_that_differs_is_refused_and_nothing_is_loaded(build, name):
    source, model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match="init=x does not fit this model") as refused:
        load_backbone(model, source.state_dict(), "init=x")
    assert name in str(refused.value) and "\n" not in str(refused.value)
    assert not differing(model, before)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "efficientnet_b0"])
def test_a_file_of_timms_whose_names_resemble_the_released_ones_is_read_as_it_is(tmp_path, name):
    model = classifier(name)
    path = tmp_path / "weights.safetensors"
    export(model.state_dict(), path)
    assert read(path).keys() == model.state_dict().keys()
    assert load_backbone(classifier(name), read(path), "init=x").fresh == []
