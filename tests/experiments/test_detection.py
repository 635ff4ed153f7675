"""Runs of detection: what is learned and judged, and the same numbers after a kill and on two devices."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from errors import ConfigError
from experiments.config import resolve
from experiments.data.drawn import normalisation
from experiments.data.labelled_boxes import Detections
from experiments.data.order import SampleKey
from experiments.folder.run_folder import RunFolder
from experiments.tasks.detection_judge import DetectionJudge
from experiments.tasks.registry import build_task
from experiments.training import loop
from results.records import read_records
from run_format import METRICS, RECORDS, WEIGHTS
from tests.experiments.chaos import assert_disturbed_run_equals_undisturbed
from tests.experiments.processes import assert_equal_runs, finish, frozen, saved_steps, start, wait_for_step

RECIPE = "scenes_boxes"
IMAGES = 5  # judged, so that two devices have unequal shares
STEPS = 12
SETTINGS = {"data.image_size": [64, 64], "data.train_images": 16, "data.eval_images": IMAGES, "train.batch_size": 4,
            "train.epochs": 3, "train.warmup_epochs": 0, "train.eval_every": 1, "train.ema_decay": 0.9,
            "model.drop_path": 0.2, "detect.width": 16, "detect.score_threshold": 0.0, "detect.detections": 5,
            "detect.anchor_scale": 2.0, "machine.threads": 1}  # fmt: skip
REGIONS = {"detect.fc_width": 32, "detect.rois": 32, "detect.proposals": 64, "detect.test_proposals": 64}
HEADS: dict[str, dict[str, Any]] = {
    "retinanet": SETTINGS | {"detect.head": "retinanet"},
    "mask_rcnn": SETTINGS | REGIONS | {"detect.head": "mask_rcnn"},
    "cascade_mask_rcnn": SETTINGS | REGIONS | {"detect.head": "cascade_mask_rcnn"},
}


@pytest.fixture(scope="module", params=HEADS)
def alone(request, tmp_path_factory) -> tuple[RunFolder, dict[str, Any]]:
    """The undisturbed run on one device, and its settings."""
    settings = HEADS[request.param]
    folder = frozen(tmp_path_factory.mktemp("alone"), settings, RECIPE)
    loop.run(folder)
    return folder, settings


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.path / METRICS).read_text().splitlines()]


@torch.no_grad()
def test_every_image_is_judged_once_by_the_weights_that_are_kept(alone):
    folder, _ = alone
    config = folder.config()
    task = build_task(config)
    model = task.build_model().eval()
    model.load_state_dict(load_file(folder.path / WEIGHTS))
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation(config))
    judge = DetectionJudge(task.eval_set.class_names)
    for index in range(IMAGES):
        batch = task.eval_set.collate([task.eval_set[SampleKey(0, index)]])
        (found,) = model(((batch.images[0] / 255 - mean) / std)[None], batch.sizes)
        assert 0 < len(found.boxes) <= 5
        masks = task.predict(model, batch)[0].masks
        assert (masks is None) == (config.detect.head == "retinanet")
        judge.add([Detections(found.boxes, found.scores, found.classes, masks)], batch)
    evaluation = judge.evaluation()
    records, summary = read_records(folder.path / RECORDS), folder.finished()
    assert set(records) == {f"{way}/{name}" for way in ("eval", "eval_ema") for name in evaluation.records}
    for name, value in evaluation.metrics.items():
        assert summary["metrics"][f"eval_ema/{name}"] == pytest.approx(value, abs=1e-6), name
        assert rows(folder)[-1][f"eval_ema/{name}"] == summary["metrics"][f"eval_ema/{name}"]
    for name, record in records.items():
        assert record.images == IMAGES and record.value() == pytest.approx(summary["metrics"][name], abs=1e-4)


@pytest.mark.slow
def test_a_run_that_is_killed_and_started_again_ends_bit_by_bit_as_if_not(tmp_path, alone):
    undisturbed, settings = alone
    folder = frozen(tmp_path, settings | {"machine.checkpoint_minutes": 0.0}, RECIPE)
    assert folder.id == undisturbed.id
    process = start(folder)
    wait_for_step(folder, 5, process)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert 5 <= saved_steps(folder)[-1] < STEPS
    assert finish(folder) == (0, "")
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_a_run_on_two_devices_that_is_stopped_goes_on_bit_by_bit(tmp_path):
    settings = HEADS["cascade_mask_rcnn"] | {"machine.devices": 2}
    undisturbed = frozen(tmp_path / "undisturbed", settings, RECIPE)
    assert finish(undisturbed) == (0, "")
    folder = frozen(tmp_path / "disturbed", settings | {"machine.checkpoint_minutes": 0.0}, RECIPE)
    process = start(folder)
    wait_for_step(folder, 5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert saved_steps(folder)[-1] < STEPS
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("alone", ["retinanet"], indirect=True)
def test_two_devices_learn_what_one_does_but_for_rounding(tmp_path, alone):
    """Of RetinaNet: detectors of regions suppress and rank proposals, which rounding turns over."""
    one, settings = alone
    two = frozen(tmp_path, settings | {"machine.devices": 2}, RECIPE)
    assert one.id == two.id
    assert finish(two) == (0, "")
    for ours, theirs in zip(rows(two), rows(one), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=2e-4)
    for name, record in read_records(one.path / RECORDS).items():
        other = read_records(two.path / RECORDS)[name]
        assert (other.order, other.images) == (record.order, record.images)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("head", HEADS)
def test_a_run_disturbed_25_times_ends_like_an_undisturbed_one(tmp_path, head, devices):
    settings = HEADS[head] | {"train.epochs": 60, "train.eval_every": 10, "machine.checkpoint_minutes": 0.003}
    settings |= {"machine.devices": devices}
    assert_disturbed_run_equals_undisturbed(
        tmp_path / "reference", tmp_path / "disturbed", settings, RECIPE, 4 * 60, 25, fillable=False
    )


def prepared(task, seed: int, places: list[int]):
    batch = task.train_set.collate([task.train_set[SampleKey(0, place)] for place in places])
    return task.prepare(batch, seed, np.array(places))


@pytest.mark.parametrize("head", HEADS)
def test_the_choices_for_an_image_follow_from_the_step_and_its_place_alone(head):
    task = build_task(resolve(RECIPE, HEADS[head]))
    whole, part = prepared(task, 7, [0, 1, 2, 3]), prepared(task, 7, [1, 2])
    draws = [[generator.get_state() for generator in batch.targets.generators] for batch in (whole, part)]
    assert all(torch.equal(draws[0][place], state) for place, state in zip((1, 2), draws[1]))
    other = prepared(task, 8, [1, 2]).targets.generators
    assert not torch.equal(other[0].get_state(), draws[1][0])
    assert whole.targets.groups.tolist() == [0, 1, 1, 0] and part.targets.groups.tolist() == [1, 1]
    single = build_task(resolve(RECIPE, HEADS[head] | {"detect.images_per_loss": 1}))
    assert prepared(single, 7, [0, 1, 2, 3]).targets.groups.tolist() == [0, 1, 2, 3]
    assert (task.mixed_parts, single.mixed_parts) == (1, 0)


def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_pairs():
    torch.manual_seed(0)
    task = build_task(resolve(RECIPE, HEADS["retinanet"] | {"model.drop_path": 0.0}))
    model = task.build_model().train()
    whole, outer, inner = (task.loss(model, prepared(task, 7, places)) for places in ([0, 1, 2, 3], [0, 3], [1, 2]))
    assert float(whole) == pytest.approx(float(outer + inner) / 2, rel=1e-5)


def test_an_image_is_found_the_same_beside_others_and_alone_and_boxes_are_of_its_own_size():
    config = resolve("bccd", {"data.num_classes": 3, "detect.width": 16, "detect.score_threshold": 0.0})
    task = build_task(config)
    torch.manual_seed(0)
    model = task.build_model().eval()
    images = tuple(torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in ((60, 80), (120, 90)))
    example = replace(task.example(), sizes=torch.zeros(0))
    with torch.no_grad():
        both = task.predict(model, replace(example, images=images))
        alone = [task.predict(model, replace(example, images=(image,)))[0] for image in images]
    for together, single, image in zip(both, alone, images):
        assert torch.equal(together.boxes, single.boxes) and torch.equal(together.scores, single.scores)
        height, width = image.shape[1:]
        assert (single.boxes >= 0).all() and (single.boxes[:, [0, 2]] <= width).all()
        assert (single.boxes[:, [1, 3]] <= height).all() and single.boxes[:, 3].max() > height / 2


def test_drawn_data_with_another_number_of_classes_are_refused():
    with pytest.raises(ConfigError, match=r"data\.num_classes=9: scenes with boxes have 4 classes"):
        build_task(resolve(RECIPE, {"data.num_classes": 9}))
    with pytest.raises(ConfigError, match="has labels for"):
        resolve(RECIPE, {"data.dataset": "search"})
