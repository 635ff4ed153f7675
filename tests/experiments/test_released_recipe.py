"""The papers' recipes do what the released training code does; every expected number is computed here from that code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup
from timm.data.distributed_sampler import RepeatAugSampler
from torch import nn
from torchvision.transforms import functional as F

from errors import ConfigError
from experiments.config import read_recipe, recipe_names, resolve
from experiments.data.batch import unreadable
from experiments.data.images import LabelledImages, eval_transform
from experiments.data.order import EpochOrder, Share, partners
from experiments.tasks.classification import Classification
from experiments.tasks.network import dense_backbone
from experiments.tasks.registry import TASKS, build_task
from experiments.training.optimization import build_optimizer, decay_groups
from experiments.training.schedules import Schedule

PROCESSES, PER_PROCESS = 8, 128  # of the authors' example
RECIPES = {"imagenet": {}, "imagenet_384": {"init": "parent"}}  # of the papers, with what they need


def rates(name: str, epochs: int, **train: object) -> list[set[float]]:
    """The learning rates in the first and in the last step of every epoch of a recipe."""
    config = resolve(name, RECIPES[name], {f"train.{key}": value for key, value in train.items()})
    steps = 1_281_167 // config.train.batch_size
    schedule = Schedule(build_optimizer(nn.Linear(3, 3), config.train), config.train, steps)
    found = []
    for epoch in range(epochs):
        both = set()
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            schedule.set(step)
            both |= {group["lr"] for group in schedule.optimizer.param_groups}
        found.append(both)
    return found


def test_the_learning_rate_of_every_epoch_is_that_of_the_released_code():
    """The optimizer begins at the warm-up's start, and the scheduler is asked for lr(e) after epoch e."""
    peak, least, start, warmup, epochs = 5e-4 * PROCESSES * PER_PROCESS / 512, 1e-5, 1e-6, 5, 300

    def lr(epoch: int) -> float:
        if epoch < warmup:
            return start + epoch * (peak - start) / warmup
        return least + (peak - least) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    expected, current = [], start
    for epoch in range(epochs):
        expected.append(current)
        current = lr(epoch)
    ours = rates("imagenet", epochs)
    assert all(len(both) == 1 for both in ours), "the rate moves between epochs only"
    assert [rate for (rate,) in ours] == pytest.approx(expected, rel=1e-12)
    literal = {0: 1e-6, 1: 1e-6, 2: 2.008e-4, 3: 4.006e-4, 4: 6.004e-4, 5: 8.002e-4, 6: 9.9932162e-4, 151: 5.05e-4,
               299: 1.0108562e-5}  # fmt: skip
    for epoch, rate in literal.items():
        assert next(iter(ours[epoch])) == pytest.approx(rate, rel=1e-7), epoch


def test_without_the_lag_every_epoch_has_its_own_rate():
    late, prompt = rates("imagenet", 300), rates("imagenet", 300, schedule_lag=0)
    assert late == [prompt[0], *prompt[:-1]]


def test_fine_tuning_at_384_px_has_one_rate():
    assert rates("imagenet_384", 30) == [{5e-6}] * 30


@pytest.mark.parametrize(
    ("name", "resized", "crop"), [("imagenet", (256, 320), 224), ("imagenet_384", (438, 547), 384)]
)
def test_evaluation_resizes_and_crops_as_the_released_code_does(name, resized, crop, tmp_path):
    """There: Resize(int(256 / 224 * size), bicubic) of the shorter side, then CenterCrop(size)."""
    pixels = np.random.default_rng(0).integers(0, 256, (480, 600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.jpg")
    image = Image.open(tmp_path / "image.jpg").convert("RGB")
    transform, sizes, value = eval_transform(resolve(name, RECIPES[name])), [], image
    for step in transform.transforms:
        value = step(value)
        sizes.append(tuple(value.size)[::-1] if isinstance(value, Image.Image) else tuple(value.shape[1:]))
    assert sizes[:2] == [resized, (crop, crop)]
    assert resized[0] == int(256 / 224 * crop)
    left, top = (round((side - crop) / 2) for side in (resized[1], resized[0]))
    by_hand = image.resize(resized[::-1], Image.Resampling.BICUBIC).crop((left, top, left + crop, top + crop))
    assert torch.equal(value, F.normalize(F.to_tensor(by_hand), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))


def test_each_part_of_a_batch_holds_what_the_released_sampler_gives_a_process():
    """Repeated views of an image are in different parts, as they are in different processes there."""
    config = resolve("imagenet")
    batch_size, draws, repeats = config.train.batch_size, config.augment.mix_draws, config.augment.repeats
    assert (draws, batch_size // draws) == (PROCESSES, PER_PROCESS)
    length, epoch = 3 * batch_size, 4
    plain = EpochOrder(length, batch_size, seed=0, shuffle=True).at(epoch)
    shuffled = [key.index for batch in plain for key in batch]
    batches = list(EpochOrder(length, batch_size, seed=0, shuffle=True, repeats=repeats).at(epoch))
    for process in range(PROCESSES):
        sampler = RepeatAugSampler(shuffled, PROCESSES, process, shuffle=False, num_repeats=repeats)
        theirs = [shuffled[index] for index in sampler]
        ours = [key.index for batch in batches for key in batch[process::draws]]
        assert ours == theirs
        for batch in batches:
            assert len({key.index for key in batch[process::draws]}) == PER_PROCESS


@pytest.mark.parametrize(("batch_size", "parts"), [(1024, 8), (24, 1), (24, 3), (24, 12), (7, 1)])
def test_partners_mirror_each_other_within_their_part(batch_size, parts):
    places = np.arange(batch_size)
    mirrored = partners(places, batch_size, parts)
    for part in range(parts):
        assert mirrored[part::parts].tolist() == places[part::parts][::-1].tolist()


def mixing_task(draws: int, images: int, **settings: object) -> Classification:
    """A task in which every one of ``images`` images is a class of its own, so that labels say what was mixed."""
    settings = {"augment.mix_draws": draws, "train.batch_size": images, "data.num_classes": images} | settings
    return Classification(resolve("imagenet", settings))


def batch_of(places: np.ndarray) -> LabelledImages:
    places = torch.from_numpy(places)
    noise = torch.rand(240, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return LabelledImages(noise[places], unreadable(()), places)


@pytest.mark.parametrize("draws", [1, 2, 3, 12])
def test_every_part_has_a_draw_of_its_own_and_mixes_within_itself(draws):
    count, mixup_alone = 24, {"augment.cutmix": 0.0}  # the area of a rectangle has few values in so small an image
    task, places = mixing_task(draws, count, **mixup_alone), np.arange(count)
    for seed in range(4):
        mixed = task.prepare(batch_of(places), seed, places)
        smoothing = task.config.augment.smoothing
        shares = (mixed.classes - smoothing / count) / (1 - smoothing)  # of each image in each label
        own, others = shares[places, places], shares[places, partners(places, count, draws)]
        torch.testing.assert_close(own + others, torch.ones(count))
        assert torch.allclose(shares.sum(1), torch.ones(count), atol=1e-5)
        for part in range(draws):
            torch.testing.assert_close(own[part::draws], own[part].expand(count // draws))
        assert len({round(float(share), 4) for share in own}) == draws
        # the first part is mixed as a batch of its own would be
        apart = mixing_task(1, count, **mixup_alone)
        alone = apart.prepare(batch_of(places[::draws]), seed, np.arange(count // draws))
        assert torch.equal(mixed.images[::draws], alone.images) and torch.equal(mixed.classes[::draws], alone.classes)


def test_one_draw_is_timms_mixup_of_the_whole_batch():
    task, places = mixing_task(1, 24), np.arange(24)
    mixup = Mixup(0.8, 1.0, switch_prob=0.5, mode="batch", label_smoothing=0.1, num_classes=24)
    for seed in range(4):
        ours, batch = task.prepare(batch_of(places), seed, places), batch_of(places)
        np.random.seed(seed)
        images, classes = mixup(batch.images, batch.classes)
        assert torch.equal(ours.images, images) and torch.equal(ours.classes, classes)


def test_mixup_and_cutmix_are_drawn_for_each_part():
    """With equal chances, as their ``mix_switch`` says; a mixed pixel of mixup is in neither image."""
    places, kinds = np.arange(8), {part: set() for part in range(4)}
    task = mixing_task(4, 8)
    for seed in range(20):
        before, after = batch_of(places).images, task.prepare(batch_of(places), seed, places).images
        for part in kinds:
            image, partner = before[part], before[partners(places, 8, 4)[part]]
            kinds[part].add(bool(((after[part] == image) | (after[part] == partner)).all()))
    assert all(seen == {True, False} for seen in kinds.values())


@pytest.mark.parametrize("draws", [1, 2, 4, 6])
@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("at_once", [None, 2, 6])
def test_a_batch_is_mixed_alike_however_it_is_split(draws, devices, at_once):
    """Bit by bit, on any number of devices and micro-batches."""
    count = 24
    task, places = mixing_task(draws, count), np.arange(count)
    whole, seen = task.prepare(batch_of(places), 7, places), []
    for rank in range(devices):
        for own in Share(rank, devices, at_once, task.mixed_parts).places(count):
            part = task.prepare(batch_of(own), 7, own)
            assert torch.equal(part.images, whole.images[own]) and torch.equal(part.classes, whole.classes[own])
            seen += own.tolist()
    assert sorted(seen) == places.tolist()


@pytest.mark.parametrize(
    ("batch_size", "draws", "nearest"), [(8, 8, 4), (1024, 7, 8), (100, 8, 10), (24, 5, 4), (12, 1000, 6)]
)
def test_draws_that_do_not_divide_the_batch_are_refused_with_the_nearest_that_do(batch_size, draws, nearest):
    settings = {"train.batch_size": batch_size}
    with pytest.raises(ConfigError, match=rf"augment\.mix_draws={draws}: .* is {nearest}$") as caught:
        resolve("imagenet", settings, {"augment.mix_draws": draws})
    assert "\n" not in str(caught.value)
    resolve("imagenet", settings, {"augment.mix_draws": nearest})
    resolve("imagenet", settings, {"augment.mix_draws": draws, "augment.mixup": 0.0, "augment.cutmix": 0.0})


def spared(optimizer: torch.optim.Optimizer, model: nn.Module) -> set[str]:
    """Names of the parameters that have no weight decay; every parameter must be in the optimizer."""
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if decay[id(p)] == 0.0}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_peg_biases_and_norms_have_no_decay_in_any_task(task, shared_images):
    """Also where the backbone is a part of the task's model, and timm's own list does not reach it.

    Recipes that follow a dense configuration with other rules (``train.no_decay``) are asked for this one.
    """
    recipes = [name for name in recipe_names() if read_recipe(name)["task"] == task]
    assert recipes, f"no recipe of {task}"
    for name in recipes:
        given = {"init": "parent", "model": "nano", "data.root": str(shared_images), "train.no_decay": "vectors"}
        config = resolve(name, given | {"data.num_classes": read_recipe(name).get("data.num_classes") or 3})
        built = build_task(config)
        model = built.build_model()
        optimizer = build_optimizer(model, config.train, built.parameter_groups(model))
        expected = {name for name, p in model.named_parameters() if p.ndim == 1 or ".peg." in name}
        assert spared(optimizer, model) == expected
        assert sum(".peg." in name for name in expected) == 8


@pytest.mark.parametrize("name", ["nano", "timm/swin_tiny_patch4_window7_224"])
def test_what_a_network_lists_has_no_decay_inside_any_wrapper(name):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleList([dense_backbone(resolve("imagenet", {"model": name}).model, (16, 32))])

    model, listed = Wrapper(), {"nano": ".peg.", "timm/swin_tiny_patch4_window7_224": "relative_position_bias_table"}
    groups = decay_groups(model, 0.05)
    free = {id(p) for group in groups if group["weight_decay"] == 0.0 for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in free}
    expected = {
        key for key, p in model.named_parameters() if p.ndim == 1 or key.endswith(".bias") or listed[name] in key
    }
    assert names == expected and any(listed[name] in key for key in names)


@pytest.mark.parametrize("variant", ["nano", "xt", "t", "s", "b", "l"])
def test_every_layer_norm_has_the_released_epsilon(variant):
    for arguments in ({}, {"features_only": True}):
        with torch.device("meta"):
            model = timm.create_model(f"atmnet_{variant}", **arguments)
        norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
        assert norms and {module.eps for module in norms} == {1e-5}


def test_settings_that_only_the_recipes_say():
    """SPEC, section 5: what the released arguments set, beside the schedule and the mixing."""
    config = resolve("imagenet")
    assert (config.augment.auto_augment, config.augment.interpolation) == ("rand-m9-mstd0.5-inc1", "bicubic")
    assert (config.augment.mixup, config.augment.cutmix, config.augment.mix_switch) == (0.8, 1.0, 0.5)
    assert (config.augment.smoothing, config.augment.erase, config.augment.repeats) == (0.1, 0.25, 3)
    assert (config.augment.scale, config.augment.hflip) == ([0.08, 1.0], 0.5)
    assert (config.train.ema_decay, config.train.clip_grad, config.train.optimizer) == (0.99996, None, "adamw")
    group = build_optimizer(nn.Linear(2, 2), config.train).param_groups[0]
    assert (tuple(group["betas"]), group["eps"]) == ((0.9, 0.999), 1e-8)
    drop_paths = {name: resolve("imagenet", {"model": name}).model.drop_path for name in ("xt", "t", "s", "b", "l")}
    assert drop_paths == {"xt": 0.1, "t": 0.1, "s": 0.2, "b": 0.3, "l": 0.3}
