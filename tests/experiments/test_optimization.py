"""The optimizer's step: one kernel where PyTorch has one, and checkpoints of either kind go on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from errors import ConfigError
from experiments.config import resolve
from experiments.schema import Train
from experiments.tasks.registry import build_task
from experiments.training.optimization import build_optimizer, parameter_groups, restore_optimizer
from experiments.training.schedules import Schedule
from tests.experiments.processes import same


class Steps:
    """A small model and its optimizer, which takes steps along gradients that follow from their number."""

    def __init__(self, name: str, fused: bool):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(40, 70), nn.BatchNorm1d(70), nn.Linear(70, 3))
        self.optimizer = build_optimizer(self.model, replace(Train(), optimizer=name, lr=1e-2))
        if not fused:
            for group in [self.optimizer.defaults, *self.optimizer.param_groups]:
                group["fused"] = None

    def take(self, *numbers: int) -> list[Tensor]:
        for number in numbers:
            random = torch.Generator().manual_seed(number)
            for parameter in self.model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=random)
            self.optimizer.step()
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        restore_optimizer(self.optimizer, state["optimizer"])


@pytest.mark.parametrize(
    ("name", "fused"),
    [("adamw", True), ("AdamW", True), ("adam", True), ("sgd", True), ("momentum", True), ("lookahead_adamw", True),
     ("nadamw", None), ("lamb", None), ("rmsprop", None)],
)  # fmt: skip
def test_the_step_is_fused_where_pytorch_has_it(name, fused):
    steps = Steps(name, fused=True)
    assert {group.get("fused") for group in steps.optimizer.param_groups} == {fused}
    steps.take(0, 1)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "momentum"])
def test_a_fused_step_is_the_same_step(name):
    ours, theirs = (Steps(name, fused).take(*range(6)) for fused in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert same(ours, Steps(name, fused=True).take(*range(6)))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize(("before", "now"), [(False, True), (True, False), (True, True)])
def test_a_checkpoint_goes_on_with_the_step_of_this_process(tmp_path, name, before, now):
    earlier, going_on = Steps(name, before), Steps(name, now)
    earlier.take(0, 1, 2)
    torch.save(earlier.state(), tmp_path / "state.pt")
    going_on.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert {group["fused"] for group in going_on.optimizer.param_groups} == {True if now else None}
    ours, theirs = (steps.take(3, 4, 5) for steps in (going_on, earlier))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    if before and now:
        assert same(ours, theirs)


def test_the_scaler_skips_a_fused_step_whose_gradients_overflow():
    steps = Steps("adamw", fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(factor: float) -> list[Tensor]:
        images = factor * torch.ones(4, 40)
        images[0] += 1
        scaler.scale(steps.model(images).square().sum()).backward()
        scaler.step(steps.optimizer)
        scaler.update()
        steps.optimizer.zero_grad(set_to_none=True)
        return [parameter.detach().clone() for parameter in steps.model.parameters()]

    start = [parameter.detach().clone() for parameter in steps.model.parameters()]
    first = step(1.0)
    assert not same(first, start) and scaler.get_scale() == 8.0
    assert same(step(float("inf")), first) and scaler.get_scale() == 4.0
    assert {float(state["step"]) for state in steps.optimizer.state.values()} == {1.0}


HEADS = {
    "semantic_fpn": {"segment.head": "semantic_fpn"},
    "upernet": {"segment.head": "upernet", "segment.neck_width": None},
}


def decays(head: str, **train: Any) -> tuple[set[str], set[str]]:
    """The names of all weights of a segmentation model, and of those that have weight decay."""
    config = resolve("scenes_masks", HEADS[head])
    model = build_task(config).build_model()
    groups = parameter_groups(model, replace(config.train, weight_decay=0.05, **train))
    in_groups = [weight for group in groups for weight in group["params"]]
    assert len(in_groups) == len({id(weight) for weight in in_groups}) == len(list(model.parameters()))
    decayed = {id(weight) for group in groups if group["weight_decay"] == 0.05 for weight in group["params"]}
    assert {group["weight_decay"] for group in groups} <= {0.0, 0.05}
    names = dict(model.named_parameters())
    return set(names), {name for name, weight in names.items() if id(weight) in decayed}


@pytest.mark.parametrize("head", HEADS)
def test_norm_spares_the_norms_of_blocks_and_stages_alone(head):
    names, decayed = decays(head, no_decay="norm")
    layer_norm = re.compile(r"backbone\.model\.(stages\.\d\.blocks\.\d+\.norm[12]|stage_norms\.\d)\.(weight|bias)")
    spared = names - decayed
    assert spared == {name for name in names if layer_norm.fullmatch(name)} and len(spared) > 16
    for part in ("offsets.norm.weight", "offsets.norm.bias", "peg.conv.weight", "peg.conv.bias", "mlp.fc1.bias"):
        assert any(name.endswith(part) for name in decayed), part
    of_heads = {name for name in names if not name.startswith("backbone.")}
    assert of_heads and of_heads <= decayed
    assert any(re.search(r"\.1\.(weight|bias)$", name) for name in of_heads), "batch norms of heads"


@pytest.mark.parametrize("head", HEADS)
def test_nothing_spares_nothing(head):
    names, decayed = decays(head, no_decay="nothing")
    assert decayed == names


@pytest.mark.parametrize("head", HEADS)
def test_vectors_spares_vectors_and_peg_in_a_segmentation_model_too(head):
    names, decayed = decays(head, no_decay="vectors")
    model = build_task(resolve("scenes_masks", HEADS[head])).build_model()
    assert names - decayed == {name for name, weight in model.named_parameters() if weight.ndim == 1 or ".peg." in name}


@pytest.mark.parametrize("no_decay", ["vectors", "norm", "nothing"])
def test_a_scaled_head_learns_faster_than_its_backbone(no_decay):
    config = resolve("scenes_masks", {"train.head_lr_scale": 10.0, "train.no_decay": no_decay})
    model = build_task(config).build_model()
    optimizer = build_optimizer(model, config.train)
    schedule = Schedule(optimizer, config.train, 100)
    schedule.set(150)
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    of_backbone = {rates[id(weight)] for weight in model.backbone.parameters()}
    of_head = {rates[id(w)] for name, w in model.named_parameters() if not name.startswith("backbone.")}
    (slow,), (fast,) = of_backbone, of_head
    assert fast == pytest.approx(10 * slow) and slow > 0
    decayed = {id(w): g["weight_decay"] for g in optimizer.param_groups for w in g["params"]}
    for group in parameter_groups(model, replace(config.train, head_lr_scale=1.0)):
        assert {decayed[id(weight)] for weight in group["params"]} == {group["weight_decay"]}


def test_a_classifier_has_no_head_to_scale():
    with pytest.raises(ConfigError, match=r"train\.head_lr_scale=10\.0: a classifier"):
        resolve("imagenet", {"train.head_lr_scale": 10.0})
    with pytest.raises(ConfigError, match=r"train\.head_lr_scale=10\.0: this model has no backbone"):
        parameter_groups(nn.Linear(2, 2), replace(Train(), head_lr_scale=10.0))
