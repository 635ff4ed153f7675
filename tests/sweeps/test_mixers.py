"""The sweep of mixers: every arm can be planned and trained, and matched arms cost what axial costs."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from atm.complexity import count
from atm.mixers import MIXERS
from experiments.config import read_variants
from experiments.equal_cost import TOLERANCE, frame_of
from experiments.model_costs import cost
from experiments.schema import Config
from experiments.tasks.network import dense_backbone
from run import main
from sweeps.plan import load
from sweeps.sweep_file import read_sweep

CLASSES = {"data.num_classes": 200}  # stands for those of the folders of images
ARMS = read_sweep("mixers")["arms"]


def configs(protocol: str) -> dict[str, Config]:
    return {run.arm: run.config for run in load("mixers", protocol, CLASSES, seeds=[0]).runs}


def flops(config: Config) -> int:
    """Of the network alone, as it is counted for a table; by formula where it is an ATMNet, which tests hold to this."""
    name = config.model.name
    if name.startswith("timm/"):
        network = timm.create_model(name.removeprefix("timm/"), num_classes=200)
        return count(network, (3, *config.data.image_size)).flops
    variant = read_variants()[name]
    return cost(frame_of(config, config.model, variant), config.model.dims or variant["dims"]).flops


@pytest.mark.parametrize("protocol", ["smoke", "tiny", "paper"])
def test_every_arm_dry_runs(protocol, tmp_path, capsys):
    words = ["sweep=mixers", f"protocol={protocol}", "data.num_classes=200", f"runs_dir={tmp_path}"]
    assert main([*words, "--dry-run", "--json"]) == 0
    planned = {run["arm"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert planned == {arm for arm, body in ARMS.items() if protocol in body.get("recipes", [protocol])}


@pytest.mark.parametrize("protocol", ["smoke", "tiny", "paper"])
def test_matched_arms_cost_what_axial_costs(protocol):
    planned = configs(protocol)
    axial = flops(planned["axial"])
    matched = [arm for arm in planned if ARMS[arm].get("model.match") == "flops"]
    assert {planned[arm].model.mixer for arm in matched} == MIXERS.keys() - {"atm"}
    assert len(matched) == 2 * len(MIXERS.keys() - {"atm", "global"}) + 1
    for arm in (*matched, "axial_nopeg"):
        assert flops(planned[arm]) == pytest.approx(axial, rel=TOLERANCE), arm
    for mixer in MIXERS.keys() - {"atm"}:
        assert planned[f"{mixer}_unmatched"].model.dims is None and planned[f"{mixer}_unmatched"].model.peg is True


def test_networks_of_timm_are_of_like_size():
    planned = configs("paper")
    for arm in ("resnet26", "convnext_nano", "pvt_v2_b1"):
        assert flops(planned[arm]) == pytest.approx(flops(planned["axial"]), rel=0.15)


@pytest.mark.parametrize("arm", [arm for arm, body in ARMS.items() if "smoke" in body.get("recipes", ["smoke"])])
def test_every_arm_trains_two_steps(arm):
    torch.manual_seed(0)
    config = configs("smoke")[arm]
    network = dense_backbone(config.model, (16, 32), config.data.image_size)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.train.lr)
    images = torch.randn(2, 3, *config.data.image_size)
    for _ in range(2):
        optimizer.zero_grad()
        sum(each.square().mean() + each.mean() for each in network(images)).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, network.parameters()))
