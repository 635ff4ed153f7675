"""The mixer's slot: built-in and foreign token mixers stand in the place of the Active Token Mixer."""

import copy
import re
import warnings
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import atm
from atm import ATMNet
from atm.complexity import count
from atm.mixer import ActiveTokenMixer
from atm.mixers import MIXERS, IdentityMixer, MixerOptions
from atm.offsets import OffsetPredictor
from experiments import schema


class ShiftMixer(nn.Module):
    """A mixer of one's own: every token reads its left neighbour."""

    def __init__(self, dim: int, options: MixerOptions):
        super().__init__()
        self.options = options
        self.fc = nn.Linear(dim, dim)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        return self.fc(x.roll(1, dims=2))


class MeanOffsetMixer(ShiftMixer):
    """A mixer of one's own that uses the predicted offsets."""

    takes_offsets = True

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        assert offsets is not None
        return self.fc(x) * offsets.mean(-1, keepdim=True)


@pytest.fixture
def own_mixers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MIXERS, "shift", ShiftMixer)
    monkeypatch.setitem(MIXERS, "mean_offset", MeanOffsetMixer)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two entry points of another package, one of which cannot be imported."""
    values = {"shift": f"{__name__}:ShiftMixer", "broken": "no_such_package.mixers:Mixer"}
    entries = [metadata.EntryPoint(name, value, "atm.mixers") for name, value in values.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries if group == "atm.mixers" else [])


def nano(**arguments) -> ATMNet:
    torch.manual_seed(0)
    return timm.create_model("atmnet_nano", num_classes=5, **arguments)


def image(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def blocks_of(model: ATMNet) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage.blocks]


def assert_trains_a_step(model: nn.Module) -> None:
    """One optimizer step moves every parameter."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    nn.functional.cross_entropy(model(image()), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]


def test_atm_is_the_default_mixer() -> None:
    model, named = nano(), nano(mixer="atm")
    assert all(isinstance(block.mixer, ActiveTokenMixer) for block in blocks_of(model))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), named.state_dict().values()))
    assert timm.create_model("atmnet_nano", mixer=None).state_dict().keys() == nano().state_dict().keys()


@pytest.mark.parametrize("peg", [None, True])
def test_identity_has_neither_parameters_nor_predictors(peg: bool | None) -> None:
    model, zero = nano(mixer="identity", peg=peg), nano(offsets="zero", peg=peg)
    assert all(isinstance(block.mixer, IdentityMixer) for block in blocks_of(model))
    assert not [module for module in model.modules() if isinstance(module, OffsetPredictor)]
    expected = {name: p.shape for name, p in zero.named_parameters() if ".mixer." not in name}
    assert {name: p.shape for name, p in model.named_parameters()} == expected
    assert any(".peg." in name for name in expected) == bool(peg)
    assert model.no_weight_decay() == zero.no_weight_decay()
    assert_trains_a_step(model)


def test_identity_returns_its_tokens() -> None:
    x, mixer = torch.randn(1, 2, 3, 4), IdentityMixer(4, MixerOptions())
    assert mixer(x) is x and mixer(x, torch.zeros(1, 2, 3, 4)) is x


def test_identity_counts() -> None:
    model, zero = nano(mixer="identity"), nano(offsets="zero")
    tokens = [16 * 16, 8 * 8, 4 * 4, 2 * 2]
    params = flops = 0
    for stage, size in zip(zero.stages, tokens):
        for block in stage.blocks:
            dim = block.mixer.fc_c.in_features
            params += sum(p.numel() for p in block.mixer.parameters())
            # The three FCs and proj are for every token, the two FCs of the fusion for every image.
            flops += size * 4 * dim * dim + dim * (dim // 4) + (dim // 4) * 3 * dim
    ours, reference = count(model, (3, 64, 64)), count(zero, (3, 64, 64))
    assert ours.params == reference.params - params and ours.flops == reference.flops - flops


@pytest.mark.slow
def test_identity_scripts_compiles_and_exports() -> None:
    model = nano(mixer="identity", peg=True).eval()
    expected = model(image())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the retirement of TorchScript
        torch.testing.assert_close(torch.jit.script(model)(image()), expected)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(image()), expected)
    torch.testing.assert_close(torch.export.export(model, (image(),)).module()(image()), expected)


def test_identity_is_a_dense_backbone_and_can_be_checkpointed() -> None:
    dense = timm.create_model("atmnet_nano", mixer="identity", features_only=True)
    assert [m.shape[1] for m in dense(image())] == [16, 32, 64, 96]
    model = nano(mixer="identity")
    model.set_grad_checkpointing()
    assert_trains_a_step(model)


def test_an_own_mixer_trains_a_step(own_mixers: None) -> None:
    model = nano(mixer="shift", peg=True)
    assert not [module for module in model.modules() if isinstance(module, OffsetPredictor)]
    places = [(block.mixer.options.stage, block.mixer.options.block) for block in blocks_of(model)]
    assert places == [(stage, block) for stage in range(4) for block in range(2)]
    assert model.stages[0].blocks[0].mixer.options.offsets == "zero"
    weights = [block.mixer.fc for block in blocks_of(model)]
    assert all(0.015 < fc.weight.std() < 0.025 and (fc.bias == 0).all() for fc in weights)  # the model's own rule
    assert_trains_a_step(model)


def test_the_mixer_of_the_documentation_trains_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(atm.__file__).parents[1] / "docs" / "sampling.md").read_text("utf-8")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "MIXERS" in block]
    monkeypatch.setitem(MIXERS, "shift", IdentityMixer)  # restores the registry afterwards
    exec(example, {})
    assert_trains_a_step(nano(mixer="shift"))


def test_an_own_mixer_may_use_predicted_offsets(own_mixers: None) -> None:
    model = nano(mixer="mean_offset", offsets="joint", samples=3, offset_sharing=4)
    options = model.stages[2].blocks[1].mixer.options
    assert options == MixerOptions("joint", 3, "pooled", stage=2, block=1, size=(14, 14))
    assert [stage.blocks[0].offsets.proj.out_features for stage in model.stages] == [24, 48, 96, 144]
    assert_trains_a_step(model)


def test_an_own_mixer_gets_the_same_gradients_with_and_without_recomputation(own_mixers: None) -> None:
    model = nano(mixer="shift")
    plain = copy.deepcopy(model)
    for block in blocks_of(plain):
        block.recomputes = False
    for network in (model, plain):
        network(image()).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        assert torch.equal(ours.grad, theirs.grad)


def test_installed_packages_add_mixers(installed: None) -> None:
    model = nano(mixer="shift")
    assert all(isinstance(block.mixer, ShiftMixer) for block in blocks_of(model))
    with pytest.raises(ValueError, match=r"'broken' \(no_such_package\.mixers:Mixer\) cannot be imported"):
        nano(mixer="broken")


def test_an_entry_of_the_registry_comes_before_an_installed_one(installed: None, monkeypatch) -> None:
    monkeypatch.setitem(MIXERS, "shift", IdentityMixer)
    assert isinstance(nano(mixer="shift").stages[0].blocks[0].mixer, IdentityMixer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mixer": "identty"}, r"unknown mixer 'identty'; did you mean 'identity'\? \(valid: atm, identity, .*shift\)"),
        ({"mixer": "zzz"}, r"unknown mixer 'zzz' \(valid: atm, identity"),
        (
            {"mixer": "identity", "offsets": "joint"},
            r"'identity' takes no offsets, so offsets='joint' .*valid for: atm",
        ),
        ({"mixer": "identity", "samples": 3}, r"samples=3 must be unset"),
        ({"mixer": "identity", "offset_sharing": 2}, r"offset_sharing=2 must be unset"),
        ({"mixer": "identity", "fusion": "mean", "samples": 3}, r"samples=3, fusion='mean' must be unset"),
        ({"mixer": "atm", "samples": 2}, r"unknown samples 2"),
    ],
)
def test_refuses_unknown_mixers_and_switches(installed: None, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nano(**arguments)


WRONG = {
    "NoOptions": ("def __init__(self, dim):", "x", r"NoOptions' cannot be built from \(dim, options\): .*positional"),
    "Short": (
        "def __init__(self, dim, options):",
        "x[:, 1:]",
        r"Short' returns \[1, 55, 56, 16\] for tokens \[1, 56, 56, 16\]",
    ),
    "Fails": ("def __init__(self, dim, options):", "x @ x", r"Fails' fails for tokens \[1, 56, 56, 16\]: .*size"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mixer_that_does_not_keep_to_its_contract_is_named_when_it_is_built(name: str, tmp_path: Path) -> None:
    head, returned, message = WRONG[name]
    source = f"""from torch import nn


class {name}(nn.Module):
    {head}
        super().__init__()

    def forward(self, x, offsets=None):
        return {returned}
"""
    (tmp_path / "wrong.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        nano(mixer=f"{tmp_path / 'wrong.py'}:{name}")


def test_the_schema_lists_the_built_in_mixers() -> None:
    assert tuple(MIXERS) == schema.MIXERS
