"""Every recipe file trains for a step or two, so that none can rot; the paper's settings reach timm's parts."""

from __future__ import annotations

import json

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
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.tasks.classification import Classification
from experiments.tasks.registry import build_task
from experiments.training import loop
from experiments.training.optimization import build_ema, build_optimizer
from results.records import order_of
from run_format import METRICS

BRIEF = {"model": "nano", "train.epochs": 2, "train.batch_size": 8, "train.warmup_epochs": 1, "train.precision": "float32",
         "data.workers": 0, "machine.threads": 1, "data.image_size": [64, 64]}  # fmt: skip


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.path / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains(name, tmp_path, shared_images):
    given = dict(BRIEF)
    recipe = resolve(name, {"init": "parent"})
    if needs_root(recipe):
        given |= {"data.root": str(shared_images), "data.num_classes": 3}
        given["augment.mix_draws"] = min(2, recipe.augment.mix_draws)
    else:
        given |= {"data.train_images": 16, "data.eval_images": 2}
    if read_recipe(name).get("init") == "required":
        parent = resolve(name, given | {"data.num_classes": recipe.data.num_classes, "init": "parent"})
        torch.save({"model": build_task(parent).build_model().state_dict()}, tmp_path / "parent.pth")
        given["init"] = str(tmp_path / "parent.pth")
    config = resolve(name, given)
    check_root(config)
    folder = RunFolder(tmp_path / run_id(config))
    folder.freeze(config)
    summary = loop.run(folder)
    assert summary["protocol"] == recipe.protocol
    assert summary["step"] == (4 if not needs_root(recipe) else 6)
    if recipe.train.ema_decay:
        assert "eval_ema/top1" in summary["metrics"]
    if recipe.train.schedule_lag:  # both epochs at the rate that the warm-up starts from
        assert [row["train/lr"] for row in rows(folder)] == [1e-6, 1e-6]


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
