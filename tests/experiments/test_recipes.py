"""Every recipe file trains for a step or two, so that none can rot; the paper's settings reach timm's parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import atm  # noqa: F401
from experiments.config import RECIPES, read_recipe, recipe_names, resolve
from experiments.data.batch import unreadable
from experiments.data.images import LabelledImages
from experiments.data.registry import check_root, needs_root
from experiments.dense_schema import WITH_MASKS
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.schema import Config
from experiments.tasks.classification import Classification
from experiments.training import loop
from experiments.training.optimization import build_ema, build_optimizer
from results.records import order_of, read_records
from run_format import METRICS, RECORDS
from tests.experiments.box_folders import write_boxes
from tests.experiments.mask_folders import unpacked, write_pairs

BRIEF = {"model": "nano", "train.batch_size": 8, "train.precision": "float32", "data.workers": 0, "machine.threads": 1,
         "data.image_size": [64, 64]}  # fmt: skip
TWO_EPOCHS = {"train.epochs": 2, "train.warmup_epochs": 1}
TWO_STEPS = {"train.steps": 2, "train.eval_every_steps": 2, "train.warmup_steps": 1}
DATASETS = {name: resolve(name, {"init": "parent"}).data.dataset for name in recipe_names()}
ON_MASKS = [name for name, dataset in DATASETS.items() if dataset in ("ade20k", "camvid")]
ON_BOXES = [name for name, dataset in DATASETS.items() if dataset in ("coco", "bccd")]
SMALL = {"detect.width": 16, "detect.score_threshold": 0.0, "detect.detections": 5}  # any detector
SMALL_REGIONS = SMALL | {"detect.fc_width": 32, "detect.rois": 32, "detect.proposals": 32, "detect.test_proposals": 32}


def small_detector(recipe: Config, short: int) -> dict[str, Any]:
    """Settings of a detector of few channels, for images of a short side of ``short`` px, too few to be cropped."""
    settings = SMALL if recipe.detect.head == "retinanet" else SMALL_REGIONS
    return settings | {
        "detect.crop": False,
        "detect.resize": [short, short * 5 // 3],
        "detect.short_sides": [short, short * 4 // 3],
    }


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.path / METRICS).read_text().splitlines()]


def started(name: str, given: dict[str, Any], folder: Path) -> RunFolder:
    """The frozen run of a recipe, with a parent's weights where it needs them."""
    if read_recipe(name).get("init") == "required":
        classes = resolve(name, {"init": "parent"}).data.num_classes
        parent = timm.create_model("atmnet_nano", num_classes=classes)
        torch.save({"model": parent.state_dict()}, folder / "parent.pth")
        given = given | {"init": str(folder / "parent.pth")}
    config = resolve(name, given)
    check_root(config)
    run = RunFolder(folder / run_id(config))
    run.freeze(config)
    return run


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.slow
def test_every_recipe_trains(name, tmp_path, shared_images):
    recipe = resolve(name, {"init": "parent"})
    in_steps = recipe.train.steps is not None
    given = BRIEF | (TWO_STEPS if in_steps or name in ON_BOXES else TWO_EPOCHS)
    if recipe.train.schedule == "multistep":
        given |= {"train.milestones": [1]}
    if in_steps and not recipe.train.warmup_steps:
        given.pop("train.warmup_steps")
    if name in ON_MASKS:
        splits = {"training": recipe.data.train_split, "validation": recipe.data.eval_split}
        root = write_pairs(tmp_path / "masks", train=8, val=2)
        for side in ("images", "annotations"):
            for written, split in splits.items():
                (root / side / written).rename(root / side / split)
        given |= {"data.root": str(root), "data.num_classes": 3, "segment.width": 32}
    elif name in ON_BOXES:
        root = write_boxes(tmp_path / "boxes", train=8, val=2)
        given |= {"data.root": str(root), "data.num_classes": 3} | small_detector(recipe, 48)
    elif needs_root(recipe):
        given |= {"data.root": str(shared_images), "data.num_classes": 3}
        given["augment.mix_draws"] = min(2, recipe.augment.mix_draws)
    else:
        given |= {"data.train_images": 16, "data.eval_images": 2}
    folder = started(name, given, tmp_path)
    summary = loop.run(folder)
    assert summary["protocol"] == recipe.protocol
    assert summary["step"] == (2 if in_steps or name in ON_BOXES else 4 if not needs_root(recipe) else 6)
    if recipe.train.ema_decay:
        assert "eval_ema/top1" in summary["metrics"]
    if recipe.train.schedule_lag:  # both epochs at the rate that the warm-up starts from
        assert [row["train/lr"] for row in rows(folder)] == [1e-6, 1e-6]


# a sample beside the checkout → the data set it is read as, its splits and its number of classes
SAMPLES = {
    "ade20k-mini": ("ade20k", "training", "validation", 150),
    "coco-semantic-ade-layout": ("masks", "training", "validation", 129),
    "camvid-320": ("camvid", "training", "testing", 11),
}


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_real_samples_are_read_trained_on_and_judged_by_every_recipe(tmp_path):
    assert len(ON_MASKS) >= 3
    for sample, (dataset, train, judged, classes) in SAMPLES.items():
        root = unpacked(sample, tmp_path / "data")
        for name in ON_MASKS:
            recipe = resolve(name, {"init": "parent"})
            given = BRIEF | TWO_STEPS | {"train.batch_size": 2, "data.root": str(root), "data.num_classes": classes}
            if not recipe.train.warmup_steps:
                given.pop("train.warmup_steps")
            given |= {"data.train_split": train, "data.eval_split": judged, "data.eval_images": 2}
            given |= {"data.dataset": dataset, "segment.resize": [128, 512], "segment.width": 32}
            place = tmp_path / sample / name
            place.mkdir(parents=True)
            folder = started(name, given, place)
            summary = loop.run(folder)
            assert summary["step"] == 2, (sample, name)
            assert len(read_records(folder.path / RECORDS)["eval/miou"].count) == 2, (sample, name)
            assert math.isfinite(rows(folder)[0]["train/loss"]) and 0 <= summary["metrics"]["eval/miou"] <= 100


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_real_photographs_with_boxes_are_read_trained_on_and_judged_by_every_recipe(tmp_path):
    assert len(ON_BOXES) >= 8
    for sample, classes in {"coco-mini": 80, "bccd": 3}.items():
        root = unpacked(sample, tmp_path / "data")
        for name in ON_BOXES:
            recipe = resolve(name, {"init": "parent"})
            if sample == "bccd" and recipe.detect.head in WITH_MASKS:  # it has none
                continue
            given = BRIEF | TWO_STEPS | {"train.batch_size": 2, "data.root": str(root), "data.num_classes": classes}
            given |= {"train.milestones": [1]} if recipe.train.schedule == "multistep" else {}
            given |= {"data.dataset": "boxes", "data.eval_images": 3} | small_detector(recipe, 128)
            place = tmp_path / sample / name
            place.mkdir(parents=True)
            folder = started(name, given, place)
            summary = loop.run(folder)
            assert summary["step"] == 2, (sample, name)
            assert read_records(folder.path / RECORDS)["eval/box_ap"].images == 3, (sample, name)
            assert ("eval/mask_ap" in summary["metrics"]) == (recipe.detect.head in WITH_MASKS)
            assert math.isfinite(rows(folder)[0]["train/loss"]) and 0 <= summary["metrics"]["eval/box_ap"] <= 100


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_record(name):
    header = [line for line in (RECIPES / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    for part in ("Reproduces:", "Expected:", "Cost:", "Run:"):
        assert sum(line.startswith(f"# {part}") for line in header) == 1
    assert f"experiment={name}" in next(line for line in header if "Run:" in line)


def test_the_papers_recipe_in_figures():
    """SPEC of AAAI Table 9 as DeiT's code means it."""
    config = resolve("imagenet")
    train = config.train
    assert (train.batch_size, train.epochs, train.weight_decay, train.clip_grad) == (1024, 300, 0.05, None)
    assert build_ema(nn.Linear(3, 3), train).decay == 0.99996


def test_weight_decay_spares_vectors_and_peg():
    model = timm.create_model("atmnet_nano", num_classes=3)
    optimizer = build_optimizer(model, resolve("imagenet").train)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0.05 for p in group["params"]}
    spared = {name for name, p in model.named_parameters() if id(p) not in decayed}
    assert spared == {name for name, p in model.named_parameters() if p.ndim == 1 or "peg" in name}
    assert len(spared) > 20


def test_mixing_is_a_function_of_batch_and_seed(shared_images):
    settings = {"data.root": str(shared_images), "data.num_classes": 3, "train.batch_size": 4, "augment.mix_draws": 2}
    task, places = Classification(resolve("imagenet", settings)), np.arange(4)
    images, classes = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    batches = [LabelledImages(images.clone(), unreadable(()), classes.clone()) for _ in range(3)]
    first, second, third = (task.prepare(batch, seed, places) for batch, seed in zip(batches, (1, 1, 2)))
    assert torch.equal(first.images, second.images) and torch.equal(first.classes, second.classes)
    assert not torch.equal(first.classes, third.classes)
    assert first.classes.shape == (4, 3)
    assert torch.allclose(first.classes.sum(1), torch.ones(4))


def test_top1_and_top5_count_every_image(shared_images):
    task = Classification(resolve("imagenet", {"data.root": str(shared_images), "data.num_classes": 6}))
    logits = torch.eye(6)[[0, 1, 2, 3]] - torch.eye(6)[[5, 5, 5, 5]]
    judge, other = task.judge(), task.judge()
    judge.add(logits[:1], LabelledImages(torch.zeros(1, 1), unreadable(()), torch.tensor([0])))
    other.add(logits[1:3], LabelledImages(torch.zeros(2, 1), unreadable(()), torch.tensor([1, 5])))
    judge.merge(other)
    judged = judge.evaluation()
    assert judged.metrics["top1"] == pytest.approx(200 / 3)
    assert judged.metrics["top5"] == pytest.approx(200 / 3)
    for name in ("top1", "top5"):
        record = judged.records[name]
        assert (record.correct[:, 0].tolist(), record.count[:, 0].tolist()) == ([1, 1, 0], [1, 1, 1])
        assert record.value() == judged.metrics[name] and record.order == order_of(np.array([0, 1, 5]))


@pytest.mark.parametrize("classes", [3, 20])
def test_hits_are_recorded_image_by_image(shared_images, classes):
    task = Classification(resolve("imagenet", {"data.root": str(shared_images), "data.num_classes": classes}))
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(57, classes, generator=generator), torch.randint(classes, (57,), generator=generator)
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)  # how many classes are taken for more likely
    judges = []
    for part in torch.arange(57).split(19):  # of three devices, in batches of 8
        judge = task.judge()
        for batch in part.split(8):
            judge.add(logits[batch], LabelledImages(torch.zeros(len(batch), 1), unreadable(()), labels[batch]))
        judges.append(judge)
    for judge in judges[1:]:
        judges[0].merge(judge)
    judged = judges[0].evaluation()
    for name, places in (("top1", 1), ("top5", 5)):
        assert judged.records[name].correct[:, 0].tolist() == (rank < places).int().tolist()
        assert judged.records[name].order == order_of(labels.numpy())
