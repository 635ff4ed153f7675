"""ATMFPN beneath every head, and on backbones of timm's: training steps, weight decay, and bits after a kill."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from atm.neck import NECK_OFFSETS, ATMLayer
from experiments import dense_schema
from experiments.config import resolve
from experiments.identity import run_id
from experiments.schema import Model
from experiments.tasks.necks.detection_fpn import DetectionFPN
from experiments.tasks.necks.fpn import FPN
from experiments.tasks.network import NormedMaps, dense_backbone
from experiments.tasks.registry import build_task
from experiments.tasks.segmenter import STRIDES
from experiments.training import loop
from experiments.training.optimization import parameter_groups
from tests.experiments.processes import assert_equal_runs, finish, frozen, saved_steps, start, wait_for_step

CHANNELS = (6, 4, 8)
SMALL = {"data.image_size": [64, 64], "data.train_images": 8, "data.eval_images": 2, "train.batch_size": 4,
         "train.epochs": 1, "train.warmup_epochs": 0, "train.eval_every": 1, "machine.threads": 1}  # fmt: skip
MASKS = SMALL | {"segment.width": 8, "segment.neck_width": 8, "segment.neck": "atmfpn"}
BOXES = SMALL | {"detect.width": 8, "detect.neck": "atmfpn", "detect.detections": 5, "detect.anchor_scale": 2.0}
REGIONS = {"detect.fc_width": 16, "detect.rois": 16, "detect.proposals": 32, "detect.test_proposals": 32}
HEADS = {
    "semantic_fpn": ("scenes_masks", MASKS),
    "retinanet": ("scenes_boxes", BOXES | {"detect.head": "retinanet"}),
    **{
        head: ("scenes_boxes", BOXES | REGIONS | {"detect.head": head})
        for head in ("faster_rcnn", "mask_rcnn", "cascade_mask_rcnn")
    },
}
SWIN = "timm/swin_tiny_patch4_window7_224"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@torch.no_grad()
@pytest.mark.parametrize("offsets", NECK_OFFSETS)
def test_the_pyramid_equals_one_written_out(offsets):
    neck = FPN(CHANNELS, 4, offsets)
    maps = [torch.randn(2, channels, *size) for channels, size in zip(CHANNELS, ((12, 10), (6, 5), (3, 3)))]
    lateral, output = neck.pyramid.inner_blocks, neck.pyramid.layer_blocks
    assert {type(layer) for layer in (*lateral, *output)} == {ATMLayer}
    sums = [lateral[2](maps[2])]
    for i in (1, 0):
        sums.insert(0, lateral[i](maps[i]) + F.interpolate(sums[0], maps[i].shape[-2:], mode="nearest"))
    for level, expected in zip(neck(maps), [layer(each) for layer, each in zip(output, sums)], strict=True):
        torch.testing.assert_close(level, expected)


def test_extra_levels_stay_convolutions():
    neck = DetectionFPN(CHANNELS, 4, convolved=2, offsets="axial")
    assert [type(layer) for layer in neck.extra] == [torch.nn.Conv2d] * 2
    levels = neck([torch.randn(1, channels, side, side) for channels, side in zip(CHANNELS, (16, 8, 4))])
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2, 1]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("offsets", NECK_OFFSETS)
def test_every_head_takes_two_steps_with_it(tmp_path, head, offsets):
    recipe, settings = HEADS[head]
    section = "segment" if head == "semantic_fpn" else "detect"
    folder = frozen(tmp_path, settings | {f"{section}.neck_offsets": offsets}, recipe)
    before = {n: p.clone() for n, p in build_task(folder.config()).build_model().named_parameters()}
    loop.run(folder)
    summary = folder.finished()
    assert summary["step"] == 2 and any("neck.pyramid.layer_blocks.0.peg" in name for name in before)


@pytest.mark.parametrize("name", ["timm/resnet10t", SWIN])
@pytest.mark.parametrize("head", ["semantic_fpn", "retinanet"])
def test_backbones_of_timms_learn_with_it(name, head):
    recipe, settings = HEADS[head]
    config = resolve(recipe, settings | {"model": name})
    task = build_task(config)
    model = task.build_model()
    batch = task.prepare(task.example(), 0, places=torch.arange(2).numpy()) if head == "retinanet" else task.example()
    task.loss(model.train(), batch).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None and n.startswith(("neck.", "backbone.stage_"))]
    assert without == []


def test_a_dense_swin_takes_any_size_and_has_a_norm_on_every_map():
    backbone = dense_backbone(Model(SWIN, drop_path=None), STRIDES).eval()
    assert isinstance(backbone, NormedMaps)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 96, 160))
    assert [tuple(each.shape[1:]) for each in maps] == [(96, 24, 40), (192, 12, 20), (384, 6, 10), (768, 3, 5)]
    for each in maps:  # as they begin, norms leave a mean of 0 and a variance of 1 over the channels
        torch.testing.assert_close(each.mean(1), torch.zeros_like(each[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(each.var(1, correction=0), torch.ones_like(each[:, 0]), atol=1e-2, rtol=0)


def test_its_weights_decay_as_those_of_the_backbone():
    config = resolve("scenes_masks", MASKS)
    model = build_task(config).build_model()
    names = {id(p): name for name, p in model.named_parameters()}

    def spared(no_decay: str) -> set[str]:
        groups = parameter_groups(model, replace(config.train, no_decay=no_decay))
        return {names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]}

    layer = "neck.pyramid.inner_blocks.0."
    own = {name.removeprefix(layer) for name in names.values() if name.startswith(layer)}
    decayed = {"offsets.proj.weight", *(f"mixer.{part}.weight" for part in ("fc_w", "fc_h", "fc_c", "proj")),
               "mixer.fusion.fc1.weight", "mixer.fusion.fc2.weight"}  # fmt: skip
    assert own - {name.removeprefix(layer) for name in spared("vectors")} == decayed
    assert {n.removeprefix(layer) for n in spared("norm") if n.startswith(layer)} == {"norm.weight", "norm.bias"}


@pytest.mark.slow
def test_a_run_with_it_that_is_killed_ends_bit_by_bit_as_if_not(tmp_path):
    settings = MASKS | {"data.train_images": 16, "train.epochs": 4, "train.ema_decay": 0.9}
    undisturbed = frozen(tmp_path / "undisturbed", settings, "scenes_masks")
    loop.run(undisturbed)
    folder = frozen(tmp_path / "disturbed", settings | {"machine.checkpoint_minutes": 0.0}, "scenes_masks")
    process = start(folder)
    wait_for_step(folder, 5, process)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert 5 <= saved_steps(folder)[-1] < 16
    assert finish(folder) == (0, "")
    assert_equal_runs(folder, undisturbed)


@pytest.mark.parametrize(("recipe", "section"), [("scenes_masks", "segment"), ("scenes_boxes", "detect")])
def test_the_plain_neck_is_neutral_and_atmfpns_offsets_are_part_of_the_identity(recipe, section):
    plain = run_id(resolve(recipe))
    assert run_id(resolve(recipe, {f"{section}.neck": "fpn"})) == plain
    ids = [run_id(resolve(recipe, {f"{section}.neck": "atmfpn", f"{section}.neck_offsets": o})) for o in NECK_OFFSETS]
    assert len({plain, *ids}) == 4
    assert run_id(resolve(recipe, {f"{section}.neck": "atmfpn"})) == ids[NECK_OFFSETS.index("axial")]


def test_the_names_of_the_settings_are_those_of_the_layer():
    assert dense_schema.NECK_OFFSETS == NECK_OFFSETS


@pytest.mark.parametrize("width", [32, 256])
@pytest.mark.parametrize("offsets", NECK_OFFSETS)
def test_untrained_maps_of_atmfpn_are_about_as_large_as_those_of_convolutions(width, offsets):
    """With the backbone's initialisation they were 30 to 300 times as small, and a small RetinaNet learned nothing."""
    torch.manual_seed(0)
    maps = [torch.randn(1, channels, 32 // stride, 32 // stride) for channels, stride in ((48, 1), (96, 2), (192, 4))]
    convolved, mixed = (FPN((48, 96, 192), width, offsets=each)(maps) for each in (None, offsets))
    for own, other in zip(mixed, convolved, strict=True):
        assert 0.2 < own.std() / other.std() < 1
