"""Configs: merging, checking, completing, and the identity that follows from them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from errors import ConfigError
from experiments.config import ROOT, from_dict, get, parse_overrides, read_yaml, recipe_names, resolve, site_settings
from experiments.identity import run_id
from experiments.schema import FIELDS


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"train.epoch": 3}, "train.epochs"),
        ({"modle": "xt"}, "model"),
        ({"model": "xs"}, "'xt'"),
        ({"model.offsets": "axail"}, "'axial'"),
        ({"model.fusion": "pool"}, "'pooled'"),
        ({"train.precision": "bf16"}, "bfloat16"),
        ({"train.epochs": "many"}, "train.epochs=many"),
        ({"train.epochs": 0}, "at least 1"),
        ({"model.samples": 2}, "1 and 3"),
        ({"augment.mixup": 0.8, "train.batch_size": 7}, "must be even"),
        ({"model.offset_sharing": 3}, "divisors"),
        ({"model.offsets": "token", "model.offset_sharing": 2}, "nothing to share"),
        ({"model.offset_interval": "stages"}, "stage"),
        ({"data.image_size": [64]}, "height and width"),
        ({"model.offsets": "zero", "model.samples": 3}, "model.samples=3"),
    ],
)
def test_bad_settings_are_refused_in_one_line_that_names_the_valid_choice(overrides, names):
    with pytest.raises(ConfigError) as caught:
        resolve("scenes", overrides)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="'scenes'"):
        resolve("scene")


def test_later_layers_win_and_site_is_below_the_command_line():
    site = {"data": {"tiny_imagenet": {"root": "/site", "workers": 7}}, "machine": {"threads": 3}}
    config = resolve("tiny_imagenet", {"train.epochs": 5}, {"train.epochs": 6, "data.root": "/given"}, site=site)
    assert (config.train.epochs, config.data.root, config.data.workers, config.machine.threads) == (6, "/given", 7, 3)


def test_site_may_not_change_numbers():
    with pytest.raises(ConfigError, match=r"data\.image_size decides"):
        resolve("tiny_imagenet", site={"data": {"tiny_imagenet": {"image_size": [32, 32]}}})


def test_the_example_of_a_site_is_one():
    site = read_yaml(ROOT / "site.example.yaml")
    for dataset in site["data"]:
        assert site_settings(site, dataset)["data.root"].startswith("/datasets/")


def test_the_lock_file_pins_every_package_and_names_no_host():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line.partition(";")[0] and "://" not in line for line in lines)
    assert any(line.startswith("torch==") for line in lines)


def test_nulls_become_the_variants_values():
    model = resolve("imagenet", {"model": "s"}).model
    assert (model.offset_sharing, model.offset_interval, model.peg, model.drop_path) == ([2, 4, 4, 8], 6, True, 0.2)
    zero = resolve("imagenet", {"model.offsets": "zero"}).model
    assert (zero.offset_sharing, zero.offset_interval, zero.peg) == (None, None, False)


def test_values_of_the_command_line_are_typed():
    given = parse_overrides(["train.lr=1e-3", "model.peg=false", "seeds=[0,1]", "data.root=/a b=c"])
    assert given == {"train.lr": 1e-3, "model.peg": False, "seeds": [0, 1], "data.root": "/a b=c"}
    for word in ("train.lr", "=3", "seeds=[0"):
        with pytest.raises(ConfigError):
            parse_overrides([word])


def test_planning_does_not_import_torch():
    code = "import sys, sweeps.plan, sweeps.local; sweeps.plan.load('ablation_peg', 'smoke'); print([m for m in sys.modules if m in ('torch', 'pandas')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", recipe_names())
def test_a_frozen_config_comes_back_as_it_was(name):
    config = resolve(name, {"init": "some-run"})
    again = from_dict(config.as_dict())
    assert again == config
    assert run_id(again) == run_id(config)


OTHER = {"init": "parent-run", "model.name": "xt", "model.peg": False, "model.offset_sharing": 1, "model.offset_interval": 1,
         "augment.auto_augment": "rand-m5", "train.clip_grad": 1.0, "train.ema_decay": 0.9, "train.lr_batch": 512,
         "data.train_images": 77, "data.eval_images": 77, "data.num_classes": 9, "data.image_size": [96, 96],
         "augment.scale": [0.5, 1.0], "model.samples": 3, "protocol": "tiny", "task": "classification",
         "model.offsets": "joint", "model.fusion": "mean", "train.precision": "bfloat16", "train.schedule_on": "epoch",
         "augment.interpolation": "bilinear", "data.root": "/elsewhere", "machine.threads": 2}  # fmt: skip


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_identity_is_every_scientific_setting_and_no_other(key):
    base = resolve("scenes")
    before = get(base, key)
    changed = OTHER.get(key, before + 1 if isinstance(before, int | float) and not isinstance(before, bool) else None)
    if changed is None:
        changed = (not before) if isinstance(before, bool) else f"{before}x"
    other = from_dict(base.as_dict())
    section, _, name = key.rpartition(".")
    setattr(getattr(other, section) if section else other, name, changed)
    assert (run_id(other)[-8:] != run_id(base)[-8:]) == FIELDS[key].metadata["scientific"]


def test_identity_of_a_weights_file_is_its_content(tmp_path):
    one, two = tmp_path / "one.pth", tmp_path / "two.pth"
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    first, second = (run_id(resolve("imagenet_384", {"init": str(path)})) for path in (one, two))
    assert first == second
    two.write_bytes(b"other weights")
    assert run_id(resolve("imagenet_384", {"init": str(two)})) != first


def test_fine_tuning_needs_weights_to_start_from():
    with pytest.raises(ConfigError, match="init="):
        resolve("imagenet_384")


def test_ids_do_not_drift():
    """A change of a default or of the hash would orphan every run folder there is: it must be meant."""
    assert run_id(resolve("imagenet", {"model": "t", "seed": 1})) == "imagenet-t-s1-" + GOLDEN


GOLDEN = "7c1fed0a"
