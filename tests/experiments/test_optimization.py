"""The optimizer's step: one kernel where PyTorch has one, and checkpoints of either kind go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.schema import Train
from experiments.training.optimization import build_optimizer, restore_optimizer
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
