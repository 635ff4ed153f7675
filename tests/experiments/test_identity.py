"""What a run's id depends on, and that ids stay as they are while the schema grows."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import pytest

from errors import ConfigError
from experiments import config as configs
from experiments.config import from_dict, get, recipe_names, resolve, scientific
from experiments.identity import run_id
from experiments.schema import FIELDS, SECTIONS, Config, Train
from experiments.setting import setting
from experiments.tasks.registry import TASKS, TaskEntry

# Ids at a time when no setting had a neutral value and no section belonged to a task. Those of `imagenet` and
# `imagenet_384` are later: these recipes came to follow the released code in schedule_lag, mix_draws and crop_pct.
IDS = [
    ("imagenet", {}, "imagenet-xt-s0-c9a0a5df"),
    ("imagenet", {"seed": 3}, "imagenet-xt-s3-71653a24"),
    ("imagenet", {"model": "xt", "model.offsets": "joint"}, "imagenet-xt-s0-c1504e46"),
    (
        "imagenet",
        {"model": "nano", "model.offsets": "token", "model.samples": 3, "train.epochs": 2},
        "imagenet-nano-s0-c9eb6590",
    ),
    ("imagenet", {"model": "t", "model.offsets": "zero", "augment.hflip": 0.0}, "imagenet-t-s0-fc3c7b74"),
    ("imagenet_384", {}, "imagenet_384-l-s0-5a8aa122"),
    ("imagenet_384", {"seed": 3}, "imagenet_384-l-s3-319b437b"),
    ("imagenet_384", {"model": "xt", "model.offsets": "joint"}, "imagenet_384-xt-s0-bfb60664"),
    (
        "imagenet_384",
        {"model": "nano", "model.offsets": "token", "model.samples": 3, "train.epochs": 2},
        "imagenet_384-nano-s0-e568b6df",
    ),
    ("imagenet_384", {"model": "t", "model.offsets": "zero", "augment.hflip": 0.0}, "imagenet_384-t-s0-edd6e0c6"),
    ("scenes", {}, "scenes-nano-s0-96c9b221"),
    ("scenes", {"seed": 3}, "scenes-nano-s3-0597f84a"),
    ("scenes", {"model": "xt", "model.offsets": "joint"}, "scenes-xt-s0-cd161e40"),
    (
        "scenes",
        {"model": "nano", "model.offsets": "token", "model.samples": 3, "train.epochs": 2},
        "scenes-nano-s0-6638f2c2",
    ),
    ("scenes", {"model": "t", "model.offsets": "zero", "augment.hflip": 0.0}, "scenes-t-s0-d530efd3"),
    ("scenes_256", {}, "scenes_256-nano-s0-f11b0331"),
    ("scenes_256", {"seed": 3}, "scenes_256-nano-s3-2424b2df"),
    ("scenes_256", {"model": "xt", "model.offsets": "joint"}, "scenes_256-xt-s0-6b9275af"),
    (
        "scenes_256",
        {"model": "nano", "model.offsets": "token", "model.samples": 3, "train.epochs": 2},
        "scenes_256-nano-s0-607381ae",
    ),
    ("scenes_256", {"model": "t", "model.offsets": "zero", "augment.hflip": 0.0}, "scenes_256-t-s0-0c27fe4a"),
    ("tiny_imagenet", {}, "tiny_imagenet-nano-s0-d2931f7e"),
    ("tiny_imagenet", {"seed": 3}, "tiny_imagenet-nano-s3-0f3ab92b"),
    ("tiny_imagenet", {"model": "xt", "model.offsets": "joint"}, "tiny_imagenet-xt-s0-c884600f"),
    (
        "tiny_imagenet",
        {"model": "nano", "model.offsets": "token", "model.samples": 3, "train.epochs": 2},
        "tiny_imagenet-nano-s0-ae99a312",
    ),
    ("tiny_imagenet", {"model": "t", "model.offsets": "zero", "augment.hflip": 0.0}, "tiny_imagenet-t-s0-ba84f94f"),
]
STARTS = {"imagenet_384": {"init": "parent-run"}, "scenes_256": {"init": "parent-run"}}


def current_ids() -> list[str]:
    return [run_id(resolve(recipe, STARTS.get(recipe, {}), overrides)) for recipe, overrides, _ in IDS]


GOLDEN = [run for *_, run in IDS]


def test_ids_do_not_drift():
    """A change of a default or of the hash would orphan every run folder there is: it must be meant."""
    assert {recipe for recipe, *_ in IDS} >= {"imagenet", "imagenet_384", "scenes", "scenes_256", "tiny_imagenet"}
    assert current_ids() == GOLDEN


def test_neutral_values_are_pinned():
    """A run that was started before a setting existed is the run with the neutral value: it must never change."""
    neutral = {key: f.metadata["neutral"] for key, f in FIELDS.items() if f.metadata["neutral"] is not MISSING}
    assert neutral == {
        "model.mixer": "atm",
        "model.mixer_source": None,
        "model.window_size": None,
        "model.dims": None,
        "model.match": None,
        "model.shift_width": None,
        "model.random_spread": None,
        "model.mlp_ratios": None,
        "data.max_distance": None,
        "data.shuffled": None,
        "augment.mix_draws": 1,
        "train.steps": None,
        "train.warmup_steps": None,
        "train.eval_every_steps": None,
        "train.schedule": "cosine",
        "train.schedule_lag": 0,
        "train.power": 1.0,
        "train.milestones": [],
        "train.decay_factor": 0.1,
        "train.warmup_ratio": None,
        "train.no_decay": "vectors",
        "train.head_lr_scale": 1.0,
        "segment.neck": "fpn",
        "segment.neck_offsets": None,
        "detect.neck": "fpn",
        "detect.neck_offsets": None,
    }


def grow(monkeypatch, train: type = Train, **sections: type) -> None:
    """Makes the schema of this process one with another class for ``train`` and with further sections."""
    grown = [("train", train), *sections.items()]
    annotations = {name: cls.__name__ for name, cls in grown}
    members: dict[str, Any] = {name: field(default_factory=cls) for name, cls in grown}
    monkeypatch.setattr(
        configs, "Config", dataclass(type("Grown", (Config,), {"__annotations__": annotations, **members}))
    )
    for section, cls in grown:
        monkeypatch.setitem(SECTIONS, section, cls)
        for f in fields(cls):
            monkeypatch.setitem(FIELDS, f"{section}.{f.name}", f)
    configs._typed_once.cache_clear()


@dataclass
class LongerTrain(Train):
    layer_decay: float = setting(1.0, "learning rate of a layer, as a share of the next one's", neutral=1.0)


@dataclass
class Boxes:
    anchors: int = setting(9, "boxes per place")


def test_a_new_setting_with_a_neutral_value_moves_no_id(monkeypatch):
    grow(monkeypatch, LongerTrain)
    assert current_ids() == GOLDEN
    assert resolve("scenes").train.layer_decay == 1.0
    changed = resolve("scenes", {"train.layer_decay": 0.9})
    assert run_id(changed) != run_id(resolve("scenes"))
    assert scientific(changed)["train.layer_decay"] == 0.9


def test_the_neutral_value_does_not_follow_the_default(monkeypatch):
    @dataclass
    class Other(Train):
        layer_decay: float = setting(0.9, "its default was 1.0 once", neutral=1.0)

    grow(monkeypatch, Other)
    assert not set(current_ids()) & set(GOLDEN)
    assert run_id(resolve("scenes", {"train.layer_decay": 1.0})) == run_id_of("scenes")
    frozen_before = resolve("scenes", {"train.layer_decay": 1.0}).as_dict()
    del frozen_before["train"]["layer_decay"]
    assert from_dict(frozen_before).train.layer_decay == 1.0, "a run that was frozen before the setting was added"


def test_a_changed_default_moves_ids(monkeypatch):
    @dataclass
    class Other(Train):
        clip_grad: float | None = setting(1.0, "gradient norm bound; null = off")

    grow(monkeypatch, Other)
    assert not set(current_ids()) & set(GOLDEN)


def test_a_section_of_another_task_moves_no_id(monkeypatch):
    grow(monkeypatch, boxes=Boxes)
    monkeypatch.setitem(TASKS, "boxing", TaskEntry("package.boxing:Boxing", "ap", "AP", sections=("boxes",)))
    assert current_ids() == GOLDEN
    with pytest.raises(ConfigError, match=r"boxes\.anchors: not a setting of task=token_labelling"):
        resolve("scenes", {"boxes.anchors": 3})
    few, many = (resolve("scenes", {"task": "boxing", "boxes.anchors": n}) for n in (3, 9))
    assert run_id(few) != run_id(many)


def test_augmentation_is_part_of_every_identity():
    assert "augment.hflip" in scientific(resolve("scenes"))


SECTION_OF = {"segmentation": "segment", "detection": "detect"}  # a task → its section, younger than checkpoints


def run_id_of(recipe: str) -> str:
    return next(run for name, overrides, run in IDS if name == recipe and not overrides)


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if resolve(name, {"init": None}).task not in SECTION_OF]
)
def test_a_checkpoint_of_the_old_schema_holds_the_same_settings(name):
    """Checkpoints hold the scientific settings of their run and are refused where one differs."""
    config = resolve(name, STARTS.get(name, {}))
    assert not {"model.mixer", "train.steps", "train.schedule"} & scientific(config).keys()


OTHER = {"train.steps": 9, "train.warmup_steps": 3, "train.eval_every_steps": 3, "train.schedule": "polynomial",
         "train.milestones": [1.0], "model.mixer": "identity", "init": "parent-run", "model.name": "xt", "model.peg": False, "model.offset_sharing": 1, "model.offset_interval": 1,
         "model.shift_width": 2, "model.random_spread": 2.0, "model.mlp_ratios": 7, "model.window_size": 8,
         "augment.auto_augment": "rand-m5", "train.clip_grad": 1.0, "train.ema_decay": 0.9, "train.lr_batch": 512,
         "data.train_images": 77, "data.eval_images": 77, "data.num_classes": 9, "data.image_size": [96, 96],
         "augment.scale": [0.5, 1.0], "model.samples": 3, "protocol": "tiny", "task": "classification",
         "model.offsets": "joint", "model.fusion": "mean", "train.precision": "bfloat16", "train.schedule_on": "epoch",
         "augment.interpolation": "bilinear", "segment.width": 9, "segment.neck_width": 9, "segment.auxiliary": 0.1,
         "segment.resize": [64, 64], "segment.scale": [0.9, 1.1], "segment.max_share": 0.9, "segment.hflip": 0.1,
         "segment.distortion": False, "segment.test_window": 9, "segment.test_stride": 9,
         "segment.test_scales": [1.5], "detect.fc_width": 9, "detect.rois": 9, "detect.proposals": 9,
         "detect.test_proposals": 9, "detect.resize": [64, 64], "detect.short_sides": [64], "detect.crop": True,
         "detect.hflip": 0.1, "data.root": "/elsewhere", "machine.threads": 2}  # fmt: skip


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_identity_is_every_scientific_setting_and_no_other(key):
    task = next((task for task, section in SECTION_OF.items() if key.startswith(f"{section}.")), None)
    base = resolve("scenes", {"task": task, "data.num_classes": 5} if task else {})
    before = get(base, key)
    changed = OTHER.get(key, before + 1 if isinstance(before, int | float) and not isinstance(before, bool) else None)
    if changed is None:
        changed = (not before) if isinstance(before, bool) else f"{before}x"
    other = from_dict(base.as_dict())
    section, _, name = key.rpartition(".")
    setattr(getattr(other, section) if section else other, name, changed)
    assert (run_id(other)[-8:] != run_id(base)[-8:]) == FIELDS[key].metadata["scientific"]


def test_identity_of_a_weights_file_is_its_content(tmp_path):
    first_file, second_file = tmp_path / "one.pth", tmp_path / "two.pth"
    first_file.write_bytes(b"weights")
    second_file.write_bytes(b"weights")
    first, second = (run_id(resolve("imagenet_384", {"init": str(path)})) for path in (first_file, second_file))
    assert first == second
    second_file.write_bytes(b"other weights")
    assert run_id(resolve("imagenet_384", {"init": str(second_file)})) != first


def test_ids_of_foreign_backbones_have_the_name_after_the_slash():
    run = run_id(resolve("scenes", {"model": "timm/resnet10t"}))
    assert run.startswith("scenes-resnet10t-s0-") and "/" not in run
