"""A network of timm's in the place of ATMNet: as a dense backbone, in a run, beside ATMNet in a sweep and its report."""

from __future__ import annotations

import argparse
import json

import pytest
import timm
import torch

from errors import ConfigError
from experiments.config import resolve
from experiments.tasks.network import dense_backbone
from experiments.tasks.registry import build_task
from experiments.training import loop
from reports.commands import report
from sweeps import plan as plans
from sweeps import sweep_file
from tests.experiments.processes import finish, frozen

NAME = "timm/resnet10t"
SWEEP = """# A network of timm's beside ATMNet.
recipes: {smoke: scenes}
seeds: [0]
baseline: atm
arms:
  atm: {label: ATMNet nano}
  resnet: {label: ResNet-10-T, model.name: timm/resnet10t}
"""


@pytest.mark.parametrize("name", ["nano", NAME, "timm/convnext_atto", "timm/swin_tiny_patch4_window7_224"])
def test_maps_come_at_the_strides_that_were_asked_for(name):
    model = resolve("scenes", {"model": name}).model
    backbone = dense_backbone(model, (16, 32)).eval()
    maps = backbone(torch.zeros(1, 3, 224, 224))
    assert [tuple(m.shape[2:]) for m in maps] == [(14, 14), (7, 7)]
    assert [m.shape[1] for m in maps] == backbone.feature_info.channels()
    classifier = timm.create_model(name.removeprefix("timm/") if "/" in name else f"atmnet_{name}")
    own = {key.removeprefix("model.") for key, _ in backbone.named_parameters()}
    assert {key for key in own if not key.startswith("stage_norms")} <= set(classifier.state_dict())


def test_a_network_that_knows_no_drop_path_takes_none_of_0():
    model = resolve("scenes", {"model": "timm/vgg11"}).model
    assert model.drop_path == 0.0, "the recipe says so"
    assert dense_backbone(model, (16, 32)).feature_info.reduction() == [16, 32]


def test_a_network_without_a_map_at_a_stride_is_refused():
    model = resolve("scenes", {"model": "timm/vit_tiny_patch16_224"}).model
    with pytest.raises(ConfigError, match=r"model=timm/vit_tiny_patch16_224 .* none at 32"):
        dense_backbone(model, (16, 32))


@pytest.mark.parametrize(("devices", "most"), [(1, 4), (2, 3)])
def test_batch_norm_over_a_part_of_a_devices_share_is_refused(tmp_path, small_scenes, devices, most):
    machine = {"machine.devices": devices, "machine.batch_per_device": most}  # of 8 images
    code, message = finish(frozen(tmp_path, {**small_scenes, "model": NAME, **machine}))
    assert code == 2 and f"machine.batch_per_device={most}" in message and "batch norm" in message
    assert len(message.splitlines()) == 1


@pytest.mark.slow
def test_an_arm_of_timms_stands_beside_ours_in_one_report(tmp_path, small_scenes, monkeypatch, capsys):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "beside.yaml").write_text(SWEEP)
    monkeypatch.setattr(sweep_file, "SWEEPS", tmp_path / "sweeps")
    settings = {key: value for key, value in small_scenes.items() if key != "train.epochs"} | {"train.epochs": 1}
    plan = plans.load("beside", "smoke", settings)
    for run in plan.runs:
        loop.run(frozen_run(tmp_path / "runs", run))
    options = argparse.Namespace(json=True, mixed=False, check=False, fresh=False)
    planned = lambda sweep, words: (plan.as_dict(), tmp_path / "runs", dict, dict, dict)  # noqa: E731
    assert report("beside", {"protocol": "smoke"}, options, planned) == 0
    rows = {row["arm"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["resnet"]["label"] == "ResNet-10-T" and rows["resnet"]["n"] == 1
    network = timm.create_model("resnet10t", features_only=True)
    heads = 4 * (network.feature_info.channels()[-1] + network.feature_info.channels()[-2] + 2)
    expected = (sum(p.numel() for p in network.parameters()) + heads) / 1e6
    assert rows["resnet"]["params_m"] == pytest.approx(expected, abs=1e-4)
    assert rows["resnet"]["flops_g"] > 0 and rows["resnet"]["difference"] is not None


def frozen_run(runs_dir, run):
    from experiments.folder.run_folder import RunFolder

    folder = RunFolder(runs_dir / run.id)
    folder.freeze(run.config)
    return folder


def test_another_mixer_in_atmnets_frame_has_no_offset_switches():
    config = resolve("scenes", {"model.mixer": "identity"})
    switches = {name: getattr(config.model, name) for name in ("offsets", "samples", "offset_sharing", "fusion")}
    assert set(switches.values()) == {None} and config.model.peg is False
    model = timm.create_model("atmnet_nano", mixer="identity")
    assert not any("atm" in name or "offsets" in name for name, _ in model.named_parameters())
    torch.manual_seed(0)
    built = build_task(config).build_model().backbone
    assert set(dict(built.model.stages.named_parameters())) == set(dict(model.stages.named_parameters()))
    with pytest.raises(ConfigError, match=r"model.offsets=zero: model.mixer=identity has no such switch"):
        resolve("scenes", {"model.mixer": "identity", "model.offsets": "zero"})
    for peg, value in ((False, 2), (True, "foo")):
        with pytest.raises(ConfigError, match=rf"model.offset_interval={value}"):
            resolve("scenes", {"model.mixer": "identity", "model.peg": peg, "model.offset_interval": value})
    with pytest.raises(ConfigError, match=r"did you mean 'identity'"):
        resolve("scenes", {"model.mixer": "identiy"})
