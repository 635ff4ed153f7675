"""One run on several devices: the same numbers as on one, and an end for all when one of them ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import nn

from experiments.config import ROOT, resolve
from experiments.data.order import SampleKey
from experiments.folder.run_folder import RunFolder
from experiments.tasks.registry import build_task
from experiments.training import loop
from experiments.training.draws import place_draws
from results.records import order_of, read_records
from run_format import RECORDS, WEIGHTS
from tests.conftest import write_images
from tests.experiments.processes import (
    EVERYTHING_RANDOM,
    assert_equal_runs,
    finish,
    frozen,
    ranks,
    saved_steps,
    start,
    wait_for_step,
)

# 32 training images in 4 steps, 12 to be judged: with 3 devices that take 2 at once nothing comes out even
SETTINGS = {**EVERYTHING_RANDOM, "train.epochs": 3, "data.eval_images": 11, "train.warmup_epochs": 0}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images", train=12)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, images) -> RunFolder:
    """The run on one device."""
    folder = frozen(tmp_path_factory.mktemp("alone"), {**SETTINGS, "data.root": str(images)}, "tiny_imagenet")
    loop.run(folder)
    return folder


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def together(runs_dir: Path, images: Path, **machine: object) -> RunFolder:
    """The frozen run on several devices."""
    given = {f"machine.{key}": value for key, value in machine.items()}
    return frozen(runs_dir, {**SETTINGS, "data.root": str(images), **given}, "tiny_imagenet")


def assert_same_curves(folder: RunFolder, other: RunFolder) -> None:
    """Losses and accuracies of every epoch, to float tolerance."""
    assert len(rows(folder)) == len(rows(other)) == SETTINGS["train.epochs"]
    for ours, theirs in zip(rows(folder), rows(other)):
        assert ours == pytest.approx(theirs, rel=2e-4)


@pytest.mark.slow
def test_micro_batches_change_nothing_but_the_rounding(tmp_path, images, alone):
    folder = together(tmp_path, images, batch_per_device=3)
    assert folder.id == alone.id, "how a batch is split is no part of a run's identity"
    loop.run(folder)
    assert_same_curves(folder, alone)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, images) -> RunFolder:
    """The undisturbed run on two devices."""
    folder = together(tmp_path_factory.mktemp("pair"), images, devices=2)
    assert finish(folder) == (0, "")
    return folder


@pytest.fixture(scope="module")
def trio(tmp_path_factory, images) -> RunFolder:
    """The undisturbed run on three devices that accumulate, none of which has as many images as another."""
    folder = together(tmp_path_factory.mktemp("trio"), images, devices=3, batch_per_device=2)
    assert finish(folder) == (0, "")
    return folder


@pytest.mark.parametrize("devices", [2, 3])
def test_several_devices_give_the_same_curve_as_one(alone, pair, trio, devices):
    folder = {2: pair, 3: trio}[devices]
    assert_same_curves(folder, alone)
    assert (folder.path / RECORDS).read_bytes() == (alone.path / RECORDS).read_bytes(), "the same images are right"
    assert folder.finished()["devices"] == devices
    log = folder.log.read_text()
    assert f"on {devices} × cpu" in log and "WARNING" not in log


@torch.no_grad()
def test_hits_are_recorded_in_the_order_of_the_evaluation_set(alone, trio):
    """They are those that the final weights give when they are asked image by image."""
    for folder in (alone, trio):
        task = build_task(folder.config())
        model = task.build_model().eval()
        model.load_state_dict(load_file(folder.path / WEIGHTS))
        samples = [task.eval_set[SampleKey(0, index)] for index in range(len(task.eval_set))]
        hits = [int(model(image[None]).argmax() == label) for image, label, _ in samples]
        records = read_records(folder.path / RECORDS)
        assert records["eval_ema/top1"].correct[:, 0].tolist() == hits
        assert records["eval_ema/top1"].order == order_of(np.array([label for _, label, _ in samples]))
        metrics = folder.finished()["metrics"]
        assert {name: record.value() for name, record in records.items()} == {
            f"{weights}/{name}": metrics[f"{weights}/{name}"]
            for weights in ("eval", "eval_ema")
            for name in ("top1", "top5")
        }


@pytest.mark.slow
def test_several_draws_of_mixup_and_cutmix_give_the_same_curve_on_any_number_of_devices(tmp_path, images):
    settings = {**SETTINGS, "data.root": str(images), "train.batch_size": 12, "augment.mix_draws": 3}
    one = frozen(tmp_path / "one", settings, "tiny_imagenet")
    loop.run(one)
    for number, machine in enumerate(({"devices": 2}, {"devices": 3, "batch_per_device": 2})):
        several = {f"machine.{key}": value for key, value in machine.items()}
        folder = frozen(tmp_path / str(number), {**settings, **several}, "tiny_imagenet")
        assert folder.id == one.id
        assert finish(folder) == (0, "")
        assert_same_curves(folder, one)
    single = frozen(tmp_path / "single", {**settings, "augment.mix_draws": 1}, "tiny_imagenet")
    loop.run(single)
    assert rows(single)[0]["train/loss"] != pytest.approx(rows(one)[0]["train/loss"], rel=2e-4), "other draws"


@pytest.mark.slow
def test_a_task_whose_loss_counts_tokens_weighs_devices_by_them(tmp_path, small_scenes):
    one, two = (frozen(tmp_path / str(n), {**small_scenes, "machine.devices": n}) for n in (1, 2))
    loop.run(one)
    assert finish(two) == (0, "")
    for ours, theirs in zip(rows(one), rows(two), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)
    with np.load(one.path / "examples.npz") as ours, np.load(two.path / "examples.npz") as theirs:
        assert np.array_equal(ours["images"], theirs["images"])
    ours, theirs = read_records(one.path / RECORDS), read_records(two.path / RECORDS)
    assert ours.keys() == theirs.keys() and len(ours) > 0
    for name, record in ours.items():
        assert np.array_equal(record.count, theirs[name].count) and record.order == theirs[name].order
        assert record.value() == pytest.approx(one.finished()["metrics"][name], rel=1e-12)
        assert theirs[name].value() == pytest.approx(two.finished()["metrics"][name], rel=1e-12)


@pytest.mark.slow
def test_torchrun_starts_the_same_run(tmp_path, images, alone):
    words = [f"{key}={json.dumps(value)}" for key, value in {**SETTINGS, "data.root": str(images)}.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run.py"]
    command += ["experiment=tiny_imagenet", *words, f"runs_dir={tmp_path}", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["devices"] == 2
    assert_same_curves(RunFolder(tmp_path / alone.id), alone)


@pytest.mark.slow
def test_three_devices_stopped_and_started_again_end_bit_by_bit_as_if_not(tmp_path, images, trio):
    folder = together(tmp_path, images, devices=3, batch_per_device=2, checkpoint_minutes=0.0)
    process = start(folder)
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 143
    assert folder.read_json("state.json")["state"] == "interrupted"
    assert saved_steps(folder)[-1] < 12
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, trio)
    assert not any(path.stat().st_size for path in folder.path.glob("log.rank-*.txt")), "nothing to warn of"


@pytest.mark.slow
def test_going_on_with_another_number_of_devices_is_said(tmp_path, images, alone):
    folder = together(tmp_path, images, checkpoint_minutes=0.0)
    process = start(folder)
    wait_for_step(folder, 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    folder = together(tmp_path, images, devices=2)
    assert finish(folder)[0] == 0
    (note,) = folder.finished()["notes"]
    assert "another split of the batch (devices × micro-batches: 2 × 1, before: 1 × 1)" in note
    assert "not bit by bit" in note and note in folder.log.read_text()
    assert_same_curves(folder, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_device_is_killed_the_other_ends_and_the_restart_is_exact(tmp_path, images, pair, victim):
    folder = together(tmp_path, images, devices=2, checkpoint_minutes=0.0)
    process = start(folder)
    wait_for_step(folder, 2, process)
    os.kill(ranks(process)[victim], signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30
    assert process.returncode == 1
    assert f"process {victim} was ended by SIGKILL" in said
    if victim == 1:  # the first process lived to say it
        assert folder.read_json("state.json")["state"] == "interrupted"
        assert "lost contact with another of the 2 processes" in said
    assert finish(folder)[0] == 0
    assert_equal_runs(folder, pair)


@pytest.mark.slow
def test_a_device_that_is_killed_before_all_have_met_ends_the_others(tmp_path, images):
    folder = together(tmp_path, images, devices=2)
    process = start(folder)
    while len(ranks(process)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(ranks(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=45)
    assert process.returncode == 1
    assert "process 1 was ended by SIGKILL" in said


@pytest.mark.slow
def test_a_device_that_hangs_ends_the_run_after_the_stated_time(tmp_path, images):
    folder = together(tmp_path, images, devices=2, checkpoint_minutes=0.0, timeout_minutes=0.05)
    process = start(folder)
    wait_for_step(folder, 2, process)
    hanging = ranks(process)[1]
    os.kill(hanging, signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        while folder.read_json("state.json")["state"] == "running":
            assert time.monotonic() - stopped < 25
            time.sleep(0.1)
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert process.wait(60) == 1
    assert "lost contact" in folder.read_json("state.json")["cause"]


@pytest.mark.slow
def test_what_one_device_stumbles_over_is_the_cause_of_the_whole_run(tmp_path):
    images = write_images(tmp_path / "images", train=12)
    (images / "val" / "class2" / "3.jpg").write_bytes(b"no image")  # judged by the second device
    folder = together(tmp_path / "runs", images, devices=2)
    config = resolve("tiny_imagenet", {**SETTINGS, "data.root": str(images), "data.eval_images": 12})
    config.machine.devices = 2
    folder = RunFolder(tmp_path / "runs" / "unreadable")
    folder.freeze(config)
    code, said = finish(folder)
    assert code in (1, 2)
    assert "class2/3.jpg: unreadable image" in said
    state = folder.read_json("state.json")
    assert state["state"] == "failed" and "class2/3.jpg" in state["cause"]


@pytest.mark.slow
def test_unreadable_training_images_are_listed_for_all_devices(tmp_path):
    images = write_images(tmp_path / "images", train=12)
    for label in range(3):
        (images / "train" / f"class{label}" / "5.jpg").write_bytes(b"no image")
    settings = {**SETTINGS, "data.root": str(images), "data.bad_image_tolerance": 0.1, "augment.repeats": 1}
    one, two = (frozen(tmp_path / str(n), {**settings, "machine.devices": n}, "tiny_imagenet") for n in (1, 2))
    loop.run(one)
    assert finish(two)[0] == 0
    assert sorted(two.finished()["bad_images"]) == sorted(one.finished()["bad_images"])
    assert [f"class{label}/5.jpg" in name for label, name in enumerate(sorted(two.finished()["bad_images"]))] == [
        True
    ] * 3
    strict = frozen(
        tmp_path / "strict", {**settings, "machine.devices": 2, "data.bad_image_tolerance": 0.0}, "tiny_imagenet"
    )
    code, said = finish(strict)
    assert code == 1 and "training images are unreadable, more than" in said and len(said.splitlines()) == 1


@pytest.mark.slow
def test_a_non_finite_loss_stops_all_devices(tmp_path, small_scenes):
    folder = frozen(tmp_path, {**small_scenes, "train.lr": 1e30, "train.min_lr": 1e30, "machine.devices": 2})
    code, said = finish(folder)
    assert code == 1
    assert "non-finite loss at step" in said and len(said.splitlines()) == 1
    assert folder.read_json("state.json")["state"] == "failed"


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5], [0, 5], [1, 4], [2, 3]])
def test_drop_path_depends_on_the_place_in_the_batch_not_on_who_has_it(places):
    model = nn.Sequential(DropPath(0.5), nn.Linear(1, 1), nn.Sequential(DropPath(0.25)))
    draws = place_draws(model, torch.device("cpu"))
    assert not any(isinstance(module, DropPath) for module in model.modules())
    layers = [model[0], model[2][0]]
    draws.draw(0, 7, 6, np.arange(6))
    whole = [layer(torch.ones(6, 2, 2)) for layer in layers]
    draws.draw(0, 7, 6, np.array(places))
    for layer, expected in zip(layers, whole):
        assert torch.equal(layer(torch.ones(len(places), 2, 2)), expected[places])
        assert torch.equal(layer.eval()(torch.ones(9, 1)), torch.ones(9, 1))


def test_drop_path_keeps_the_share_it_says_and_the_mean():
    model = nn.Sequential(DropPath(0.3))
    draws = place_draws(model, torch.device("cpu"))
    kept = []
    for step in range(200):
        draws.draw(1, step, 64, np.arange(64))
        kept.append(model(torch.ones(64, 1)))
    values = torch.cat(kept)
    assert values.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert values.mean().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5], [0, 5], [1, 4], [2, 3]])
def test_dropped_channels_depend_on_the_place_in_the_batch_not_on_who_has_it(places):
    model = nn.Sequential(nn.Dropout2d(0.5), nn.Conv2d(1, 1, 1), nn.Sequential(nn.Dropout2d(0.25)))
    draws = place_draws(model, torch.device("cpu"))
    assert not any(isinstance(module, nn.Dropout2d) for module in model.modules())
    layers, images = [model[0], model[2][0]], torch.rand(6, 5, 2, 3)
    draws.draw(0, 7, 6, np.arange(6))
    whole = [layer(images) for layer in layers]
    assert (whole[0] == 0).any() and (whole[0] == 0).flatten(2).all(2).equal((whole[0] == 0).flatten(2).any(2))
    assert not torch.equal(whole[0] == 0, whole[1] == 0), "each layer has its own draws"
    draws.draw(0, 7, 6, np.array(places))
    for layer, expected in zip(layers, whole):
        assert torch.equal(layer(images[places]), expected[places])
        assert torch.equal(layer.eval()(images), images)
    draws.draw(0, 8, 6, np.arange(6))
    assert not torch.equal(layers[0].train()(images), whole[0]), "each step has its own draws"


def test_dropout_of_channels_drops_the_share_it_says_and_keeps_the_mean():
    model = nn.Sequential(nn.Dropout2d(0.1))
    draws = place_draws(model, torch.device("cpu"))
    kept = []
    for step in range(50):
        draws.draw(1, step, 8, np.arange(8))
        kept.append(model(torch.ones(8, 128, 1, 1)))
    values = torch.cat(kept)  # 51,200 channels: the share is known to 0.0013
    assert values.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
    assert (values == 0).float().mean().item() == pytest.approx(0.1, abs=0.006)


def test_dropout_of_nothing_is_no_layer_and_drop_paths_draw_as_without_dropouts():
    with_dropouts = nn.Sequential(nn.Dropout2d(0.0), DropPath(0.5), nn.Dropout2d(0.5), DropPath(0.5))
    without = nn.Sequential(DropPath(0.5), DropPath(0.5))
    ours, theirs = (place_draws(model, torch.device("cpu")) for model in (with_dropouts, without))
    assert isinstance(with_dropouts[0], nn.Identity)
    for draws in (ours, theirs):
        draws.draw(3, 5, 16, np.arange(16))
    assert ours.layers == 2 and torch.equal(ours.uniform, theirs.uniform)
