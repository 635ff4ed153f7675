"""Runs of segmentation: what is learned and judged, and the same numbers after a kill and on two devices."""

from __future__ import annotations

import json
import math
import random
import signal
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from errors import ConfigError
from experiments.config import resolve
from experiments.data.batch import unreadable
from experiments.data.drawn import normalisation
from experiments.data.masks import IGNORED, LabelledMasks
from experiments.data.order import SampleKey
from experiments.folder.run_folder import RunFolder
from experiments.tasks.registry import build_task
from experiments.training import loop
from results.records import order_of, read_records
from run_format import METRICS, RECORDS, WEIGHTS
from tests.experiments.chaos import assert_disturbed_run_equals_undisturbed
from tests.experiments.processes import assert_equal_runs, finish, frozen, saved_steps, start, wait_for_step

RECIPE = "scenes_masks"
IMAGES = 5  # judged, so that two devices have unequal shares
SETTINGS = {"data.image_size": [64, 64], "data.train_images": 20, "data.eval_images": IMAGES, "train.batch_size": 5,
            "train.epochs": 3, "train.warmup_epochs": 0, "train.eval_every": 1, "train.ema_decay": 0.9,
            "model.drop_path": 0.2, "segment.width": 16, "segment.neck_width": 16, "machine.threads": 1}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "semantic_fpn": SETTINGS,
    "upernet": SETTINGS | {"segment.head": "upernet", "segment.neck_width": None},
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
    task = build_task(folder.config())
    model = task.build_model().eval()
    model.load_state_dict(load_file(folder.path / WEIGHTS))
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation(folder.config()))
    right, orders = [], []
    for index in range(IMAGES):
        image, mask = task.eval_set[SampleKey(0, index)]
        classes = model(((image / 255 - mean) / std)[None]).argmax(1)[0]
        right.append(int((classes == mask).sum()))
        orders.append(order_of(mask.numpy()))
    records = read_records(folder.path / RECORDS)
    record = records["eval_ema/pixel_accuracy"]
    assert record.count[:, 0].tolist() == [64 * 64] * IMAGES, "no pixel is ignored"
    assert record.correct[:, 0] == pytest.approx(right, abs=4), "but for what rounding turns"
    assert record.order == records["eval_ema/miou"].order == order_of(np.array(orders))
    summary = folder.finished()
    for name, one in records.items():
        assert one.value() == summary["metrics"][name] == rows(folder)[-1][name]


@pytest.mark.slow
def test_a_run_that_is_killed_and_started_again_ends_bit_by_bit_as_if_not(tmp_path, alone):
    undisturbed, settings = alone
    folder = frozen(tmp_path, settings | {"machine.checkpoint_minutes": 0.0}, RECIPE)
    assert folder.id == undisturbed.id
    process = start(folder)
    wait_for_step(folder, 5, process)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert 5 <= saved_steps(folder)[-1] < 12
    assert finish(folder) == (0, "")
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_two_devices_give_the_same_curve_as_one_and_go_on_bit_by_bit(tmp_path, alone):
    single, settings = alone
    undisturbed = frozen(tmp_path / "undisturbed", settings | {"machine.devices": 2}, RECIPE)
    assert undisturbed.id == single.id
    assert finish(undisturbed) == (0, "")
    for ours, theirs in zip(rows(undisturbed), rows(single), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if name.startswith("eval") and not name.endswith("loss"):  # per cent of pixels, which rounding may turn
                assert ours[name] == pytest.approx(value, abs=0.1), name
            else:
                assert ours[name] == pytest.approx(value, rel=2e-4), name
    two, one = (read_records(folder.path / RECORDS) for folder in (undisturbed, single))
    for name, record in one.items():
        assert two[name].order == record.order and len(two[name].count) == IMAGES
    folder = frozen(
        tmp_path / "disturbed", settings | {"machine.devices": 2, "machine.checkpoint_minutes": 0.0}, RECIPE
    )
    process = start(folder)
    wait_for_step(folder, 5, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert saved_steps(folder)[-1] < 12
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("head", HEADS)
def test_a_run_disturbed_25_times_ends_like_an_undisturbed_one(tmp_path, head, devices):
    settings = HEADS[head] | {"train.epochs": 120, "train.eval_every": 10, "machine.checkpoint_minutes": 0.003}
    settings |= {"machine.devices": devices}
    assert_disturbed_run_equals_undisturbed(
        tmp_path / "reference", tmp_path / "disturbed", settings, RECIPE, 4 * 120, 25, fillable=False
    )


def labelled(classes: int, ignored: float) -> tuple[LabelledMasks, torch.Tensor, torch.Tensor]:
    """A batch of 2 images of 3 x 4 px, some of which have no label, and two answers to it."""
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    pixels = [IGNORED if draw.random() < ignored else draw.randrange(classes) for _ in range(2 * 3 * 4)]
    masks = torch.tensor(pixels).reshape(2, 3, 4)
    logits, auxiliary = (3 * torch.randn(2, classes, 3, 4, generator=generator) for _ in range(2))
    return LabelledMasks(torch.zeros(2, 3, 3, 4), unreadable(()), masks), logits, auxiliary


def by_pixel(logits: torch.Tensor, masks: torch.Tensor) -> float:
    """Cross entropy, summed over labelled pixels and divided by all pixels."""
    total = 0.0
    for image in range(2):
        for y in range(3):
            for x in range(4):
                label = int(masks[image, y, x])
                if label != IGNORED:
                    values = logits[image, :, y, x].tolist()
                    total += math.log(sum(math.exp(value) for value in values)) - values[label]
    return total / (2 * 3 * 4)


@pytest.mark.parametrize("ignored", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("weight", [0.4, 1.5])
def test_the_loss_is_that_of_a_loop_over_pixels(ignored, weight):
    task = build_task(resolve(RECIPE, HEADS["upernet"] | {"segment.auxiliary": weight}))
    batch, logits, auxiliary = labelled(5, ignored)
    main, other = by_pixel(logits, batch.masks), by_pixel(auxiliary, batch.masks)
    assert float(task.loss(lambda images: (logits, auxiliary), batch)) == pytest.approx(main + weight * other, rel=1e-5)
    assert float(task.loss(lambda images: (logits, None), batch)) == pytest.approx(main, rel=1e-5)
    assert (main == 0) == (ignored == 1.0)


def test_an_auxiliary_head_of_weight_0_is_not_built():
    without, with_head = (
        build_task(resolve(RECIPE, HEADS["upernet"] | {"segment.auxiliary": weight})) for weight in (0.0, None)
    )
    assert without.config.segment.auxiliary == 0.0 and with_head.config.segment.auxiliary == 0.4
    model = without.build_model()
    assert model.auxiliary is None and with_head.build_model().auxiliary is not None
    batch = without.example()
    logits, auxiliary = model(batch.images)
    assert auxiliary is None
    expected = torch.nn.functional.cross_entropy(logits, batch.masks)
    torch.testing.assert_close(without.loss(lambda images: (logits, None), batch), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"machine.batch_per_device": 4}, "machine.batch_per_device=4: heads have batch norm"),
        ({"machine.batch_per_device": 2, "machine.devices": 2}, "its share of 3 images at once"),
        (
            {"segment.head": "upernet", "segment.neck_width": None, "train.batch_size": 1},
            "train.batch_size=1: segment.h",
        ),
    ],
)
def test_a_batch_too_small_for_batch_norm_is_refused_when_the_run_is_planned(settings, message):
    with pytest.raises(ConfigError) as refused:
        resolve(RECIPE, SETTINGS | settings)
    assert message in str(refused.value) and "\n" not in str(refused.value)
    enough = {"machine.batch_per_device": 3, "machine.devices": 2}
    assert resolve(RECIPE, SETTINGS | enough).machine.batch_per_device == 3
