"""Configs: merging, checking, completing, and the identity that follows from them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from errors import ConfigError
from experiments import backbones
from experiments.backbones import timm_names
from experiments.config import (
    ROOT,
    from_dict,
    merge,
    parse_overrides,
    read_site,
    read_yaml,
    recipe_names,
    resolve,
    site_settings,
)
from experiments.identity import run_id
from experiments.schema import FIELDS
from experiments.tasks.network import backbone


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
        ({"model.offsets": "zero", "model.samples": 3}, "token, joint, axial, static, random, frozen"),
        ({"model.offsets": "shift", "model.samples": 3}, "with model.offsets=shift all three would be one token"),
        ({"model.offsets": "shift", "model.offset_sharing": 2}, "model.offsets=shift has nothing to share"),
        ({"model.shift_width": 1}, "only model.offsets=shift has it, not axial"),
        ({"model.offsets": "random", "model.shift_width": 1}, "only model.offsets=shift"),
        ({"model.offsets": "static", "model.random_spread": 2}, "only model.offsets=random"),
        ({"model.offsets": "shift", "model.shift_width": 8}, "steps of 1 to 7 tokens"),
        ({"model.offsets": "shift", "model.shift_width": 0}, "at least 1"),
        ({"model.offsets": "random", "model.random_spread": -1}, "must be above 0"),
        ({"model.offsets": "random", "model.random_spread": float("inf")}, "must be above 0"),
        ({"model.peg": "predicter"}, "true, false, predictor"),
        ({"model.peg": 2}, "true, false, predictor"),
        ({"model.peg": [True]}, "true, false, predictor"),
        *(
            ({"model.offsets": mode, "model.peg": "predictor"}, "valid with: token, joint, axial, frozen")
            for mode in ("zero", "static", "shift", "random")
        ),
        ({"model.mixer": "identity", "model.peg": "predictor"}, "no offsets that could be predicted"),
        ({"model.mixer": "identity", "model.shift_width": 1}, "model.shift_width=1"),
        ({"model": "timm/resnet10t", "model.random_spread": 1}, "model.random_spread=1"),
        ({"model": "timm/resnet10t", "model.mlp_ratios": 4}, "model.mlp_ratios=4"),
        ({"model.mlp_ratios": [4, 4]}, "one positive number, or one per stage"),
        ({"model.mlp_ratios": 0}, "one positive number"),
        ({"model.mlp_ratios": "wide"}, "one positive number"),
        ({"task": "classificatoin"}, "'classification'"),
        ({"model.mixer": "identiy"}, "'identity'"),
        ({"train.steps": 9, "train.epochs": 2}, "set one of them"),
        ({"train.warmup_steps": 9, "train.warmup_epochs": 2}, "set one of them"),
        ({"train.steps": 9, "train.warmup_steps": 9}, "less than train.steps=9"),
        ({"train.steps": 9, "train.schedule_on": "epoch"}, "train.schedule_on=epoch"),
        ({"train.warmup_steps": 3, "train.schedule_on": "epoch"}, "train.schedule_on=step"),
        ({"train.warmup_epochs": 0.5, "train.schedule_on": "epoch"}, "whole epochs"),
        ({"train.epochs": None}, "both null"),
        ({"train.schedule": "multi_step"}, "'multistep'"),
        ({"train.schedule": "multistep"}, "train.milestones"),
        ({"train.schedule": "multistep", "train.milestones": [2, 1]}, "rising"),
        ({"train.schedule": "multistep", "train.milestones": [1, 3]}, "train.epochs=3"),
        ({"train.schedule": "multistep", "train.milestones": [9], "train.steps": 9}, "train.steps=9"),
        ({"train.milestones": [1]}, "only train.schedule=multistep"),
        ({"train.power": 0.9}, "only train.schedule=polynomial"),
        ({"model": "timm/convnext_tyny"}, "'timm/convnext_tiny'"),
        ({"model": "convnext_tiny"}, "timm/NAME"),
        ({"model": "timm/resnet10t", "model.offsets": "axial"}, "model.offsets=axial"),
        ({"model": "timm/resnet10t", "model.mixer": "identity"}, "model.mixer=identity"),
        ({"model.mixer": "identity", "model.offsets": "joint"}, "model.offsets=joint"),
        ({"model.mixer": "identity", "model.samples": 3}, "model.samples=3"),
        ({"devices": 9}, "a batch of 8 images is enough for at most 8 devices"),
        ({"devices": 5, "augment.cutmix": 1.0}, "at most 4 devices, a pair"),
        ({"machine.batch_per_device": 1, "augment.mixup": 0.8}, "in pairs"),
        ({"machine.batch_per_device": 0}, "at least 1"),
        ({"augment.mixup": 0.8, "augment.mix_draws": 3}, "nearest valid number is 2"),
        ({"augment.mix_draws": 0}, "at least 1"),
        ({"train.schedule_lag": -1}, "at least 0"),
        ({"train.schedule_lag": 0.5}, "train.schedule_lag=0.5"),
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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"slurm": {"partitions": "gpu"}}, "site.yaml: unknown key 'slurm.partitions'; did you mean 'slurm.partition'"),
        ({"slurm": {"cpus_per_task": "four"}}, "site.yaml: .*slurm.cpus_per_task"),
        ({"data": {"scenes": {"wrokers": 2}}}, "site.yaml: unknown key 'data.wrokers'"),
    ],
)
def test_a_wrong_entry_of_a_site_names_the_file(entry, message):
    with pytest.raises(ConfigError, match=message):
        resolve("scenes", site=entry)


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


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"model.offsets": "shift"}, {"model.shift_width": 1}),
        ({"model.offsets": "random"}, {"model.random_spread": 4}),
        ({"model.peg": True}, {"model.peg": "on"}),
        ({"model.peg": True}, {"model.peg": 1}),
        ({"model.peg": False}, {"model.peg": "off"}),
        ({}, {"model.peg": True}),
        ({"model.offsets": "static"}, {"model.peg": True, "model.offset_sharing": [2, 4, 4, 8]}),
        ({}, {"model.mlp_ratios": 4}),
        ({"model.mlp_ratios": 7}, {"model.mlp_ratios": [7, 7.0, 7, 7]}),
    ],
)
def test_one_model_has_one_id_however_it_is_written(settings, same):
    assert run_id(resolve("scenes", settings)) == run_id(resolve("scenes", {**settings, **same}))


CONTROLS = [
    {"model.offsets": "static", "model.samples": 3},
    {"model.offsets": "shift", "model.shift_width": 2},
    {"model.offsets": "random", "model.random_spread": 2},
    {"model.offsets": "frozen"},
    {"model.peg": "predictor"},
    {"model.mlp_ratios": [1, 2, 3, 4]},
]


def test_every_control_is_a_run_of_its_own_and_a_network():
    import timm

    configs = [resolve("scenes", settings) for settings in CONTROLS]
    assert len({run_id(config) for config in [*configs, resolve("scenes")]}) == len(CONTROLS) + 1
    networks = []
    for config in configs:
        assert from_dict(config.as_dict()) == config
        name, arguments = backbone(config.model)
        networks.append(timm.create_model(name, num_classes=4, **arguments))
    offsets = [network.stages[0].blocks[0].offsets for network in networks]
    assert [type(layer).__name__ for layer in offsets] == [
        "StaticOffsets", "ShiftedOffsets", "RandomOffsets", "OffsetPredictor", "OffsetPredictor", "OffsetPredictor",
    ]  # fmt: skip
    assert (offsets[0].samples, offsets[1].values.max(), offsets[2].values.abs().max() <= 2) == (3, 2, True)
    assert not offsets[3].proj.weight.requires_grad and not networks[4].stages[0].peg_feeds_blocks
    assert [stage.blocks[0].mlp.fc1.out_features for stage in networks[5].stages] == [16, 64, 192, 384]


def test_a_run_counts_in_the_unit_that_was_set_last():
    train = resolve("scenes", {"train.steps": 40, "train.eval_every_steps": 10, "train.warmup_steps": 4}).train
    assert (train.epochs, train.eval_every, train.warmup_epochs) == (None, None, None)
    assert (train.total_steps(7), train.steps_between_evaluations(7), train.schedule_on) == (40, 10, "step")
    train = resolve("scenes", {"train.steps": 40}, {"train.epochs": 2}).train
    assert (train.epochs, train.steps, train.total_steps(7), train.steps_between_evaluations(7)) == (2, None, 14, 7)
    train = resolve("imagenet", {"train.steps": 40}).train
    assert (train.schedule_on, train.schedule_lag) == ("step", 1), "one step late, as the recipe is one epoch late"


def test_a_backbone_of_timm_has_no_switch_of_atm():
    model = resolve("imagenet", {"model": "timm/resnet10t"}, {"model.offsets": None}).model
    assert {name: value for name, value in vars(model).items() if value is not None} == {"name": "timm/resnet10t"}
    config = resolve("scenes", {"model": "timm/resnet10t"})
    assert config.model.drop_path == 0.0, "the recipe's"
    assert from_dict(config.as_dict()) == config


@pytest.mark.parametrize("settings", [{}, {"model.peg": True}, {"model": "xt", "model.drop_path": 0.1}])
def test_a_mixer_without_offsets_is_a_network(settings):
    import timm

    model = resolve("scenes", {"model.mixer": "identity", **settings}).model
    assert (model.offsets, model.samples, model.offset_sharing, model.fusion) == (None,) * 4
    name, arguments = backbone(model)
    network = timm.create_model(name, num_classes=4, **arguments)
    assert any("peg" in name for name, _ in network.named_parameters()) == bool(settings.get("model.peg"))


def test_every_model_of_timm_is_known_without_importing_it():
    import timm

    ours = set(timm.list_models("atmnet_*"))
    assert timm_names() == set(timm.list_models()) - ours
    code = "import sys; from experiments.config import resolve; resolve('scenes', {'model': 'timm/resnet10t'}); print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_mixers_of_installed_packages_are_valid(monkeypatch):
    monkeypatch.setattr("experiments.config.plugin_names", lambda group: ("pool",) if group == "atm.mixers" else ())
    assert resolve("scenes", {"model.mixer": "pool"}).model.mixer == "pool"


def test_one_image_per_device_is_valid_where_nothing_is_mixed():
    config = resolve("scenes", {"devices": 8, "machine.batch_per_device": 1})
    assert (config.machine.devices, config.machine.batch_per_device) == (8, 1)


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


def test_fine_tuning_needs_weights_to_start_from():
    with pytest.raises(ConfigError, match="init="):
        resolve("imagenet_384")


TEXTS = [key for key, field in FIELDS.items() if "str" in str(field.type) and not field.metadata["choices"]]


@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x85", "\t"])
def test_no_setting_takes_a_control_character(key, character):
    text = f"a{character}#SBATCH --wrap=id"
    value = [text] if "list" in str(FIELDS[key].type) else text
    with pytest.raises(ConfigError, match="control character") as refusal:
        merge({key: value})
    assert character not in str(refusal.value)


TEXTS = sorted(key for key, f in FIELDS.items() if "str" in str(f.type) and key != "experiment")


@pytest.mark.parametrize("break_", ["\n", "\r", "\t", "\0", "\x1b", "\x85", "\u2028"])
@pytest.mark.parametrize("key", TEXTS)
def test_no_text_of_a_setting_has_a_line_break_or_control_character(key, break_):
    assert {"slurm.account", "slurm.qos", "slurm.constraint", "slurm.partition", "slurm.options"} <= set(TEXTS)
    text = f"a{break_}b"
    value = [text] if "list" in str(FIELDS[key].type) else text
    with pytest.raises(ConfigError) as refused:
        resolve("scenes", {key: value})
    assert len(str(refused.value).splitlines()) == 1
    section, _, name = key.rpartition(".")
    if section in ("machine", "slurm"):
        with pytest.raises(ConfigError, match=r"control character|unknown value"):
            resolve("scenes", site={section: {name: value}})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.optimizer=adamww", r"unknown train\.optimizer 'adamww'; did you mean 'adamw'"),
        (
            "task=classification",
            "task=classification: data set scenes has labels for token_labelling, segmentation, detection alone",
        ),
        ("model.offset_interval=true", "model.offset_interval=true: a number is needed"),
        ("train.lr=false", "train.lr=false: a number is needed"),
        ("data.reader=folder", "data.reader=folder: not a valid value"),
        ("data.reader=foo/bar", "data.reader=foo/bar: not a valid value"),
    ],
)
def test_what_a_run_would_fail_of_is_refused_before_it_begins(word, message):
    with pytest.raises(ConfigError, match=message):
        resolve("scenes", parse_overrides([word]))


@pytest.mark.parametrize("name", ["sgd", "lamb", "AdamW", "nesterov", "lookahead_adam"])
def test_optimizers_of_timm_are_known_without_importing_it(name):
    assert resolve("scenes", {"train.optimizer": name}).train.optimizer == name


def test_every_optimizer_of_timm_is_known():
    from timm.optim import list_optimizers

    for name in list_optimizers():
        backbones.check_optimizer(name)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_a_site_file_without_entries_is_as_none(tmp_path, text):
    (tmp_path / "site.yaml").write_text(text)
    assert read_site(tmp_path / "site.yaml") == {}


@pytest.mark.parametrize("value", ["[a]", "{a: b}", "7"])
def test_the_runs_dir_of_a_site_file_is_a_path(tmp_path, value):
    (tmp_path / "site.yaml").write_text(f"runs_dir: {value}\n")
    with pytest.raises(ConfigError, match=r"site\.yaml: runs_dir: expected a path"):
        read_site(tmp_path / "site.yaml")
