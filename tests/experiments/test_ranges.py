"""Every number of the schema has a range; what lies outside is refused when a run is planned."""

from __future__ import annotations

import math
import typing

import pytest

import run as command_line
from errors import ConfigError
from experiments.completion import complete, get
from experiments.config import merge, recipe_names, resolve
from experiments.schema import FIELDS, SECTIONS, Basics
from experiments.setting import Range

BASE = {"experiment": "scenes", "model.name": "nano"}
HINTS = {
    f"{section}.{name}" if section else name: hint
    for section, cls in {"": Basics, **SECTIONS}.items()
    for name, hint in typing.get_type_hints(cls).items()
}


def types_of(key):
    """The types that a setting may have, those in lists included."""
    found, waiting = set(), [HINTS[key]]
    while waiting:
        hint = waiting.pop()
        waiting += typing.get_args(hint)
        found.add(hint)
    return found


NUMBERS = [key for key in FIELDS if types_of(key) & {int, float}]
WHOLE = [key for key in NUMBERS if int in types_of(key)]


def refusal(key, value):
    """The message with which a value is refused when a run is planned; None where it is not."""
    config = merge(BASE)
    section, _, name = key.rpartition(".")
    target = getattr(config, section) if section else config
    setattr(target, name, [value, value] if isinstance(get(merge(), key), list) else value)
    try:
        complete(config, [key])
    except ConfigError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def test_every_number_has_a_range():
    assert len(NUMBERS) > 50
    assert [key for key in NUMBERS if FIELDS[key].metadata["within"] is None] == []
    assert {key for key in FIELDS if FIELDS[key].metadata["within"]} == set(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_below_at_and_above_each_bound(key):
    within = FIELDS[key].metadata["within"]
    step = 1 if key in WHOLE else 1e-9
    for bound, sign, end in ((within.low, -1, within.text[0]), (within.high, 1, within.text[-1])):
        if math.isinf(bound):
            assert f"{key}=" in (refusal(key, math.inf) or "") and "must be" in refusal(key, math.inf)
            continue
        number = int(bound) if key in WHOLE else bound
        outside = refusal(key, number + sign * step)
        assert outside is not None and outside.startswith(f"{key}=") and f"must be {within}" in outside
        at = refusal(key, number)
        assert (f"must be {within}" in (at or "")) == (end in "()"), (
            at
        )  # rules between settings may refuse it all the same
    assert "must be" in refusal(key, math.nan)


@pytest.mark.parametrize(
    "word",
    ["train.clip_grad=-1", "train.clip_grad=0", "train.ema_decay=2", "model.drop_path=1.5", "train.weight_decay=-1000",
     "augment.hflip=50", "augment.scale=[1,0.08]", "augment.scale=[0.08]", "augment.crop_pct=0", "data.train_images=0",
     "seed=18446744073709551616", "train.lr=.nan", "train.lr=.inf", "data.eval_images=-3", "augment.smoothing=2",
     "augment.mixup=-1", "augment.auto_augment=garbage", "augment.auto_augment=rand-x9", "machine.device=gpu",
     "data.image_size=[0,64]", "data.image_size=[64]", "model.samples=2", "model.random_spread=0"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["experiment=scenes", "sweep=reach"])
def test_a_value_out_of_range_is_refused_in_one_line_when_it_is_planned(word, command, tmp_path, capsys):
    words = [command, word, "--dry-run", f"runs_dir={tmp_path}", *(["protocol=smoke"] if "sweep" in command else [])]
    if word.startswith("seed=") and "sweep" in command:
        words[1] = word.replace("seed=", "seeds=[") + "]"
    assert command_line.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and word.partition("=")[0].removeprefix("model.") in said, said


@pytest.mark.parametrize(
    "policy",
    ["rand-m9-mstd0.5-inc1", "rand-m15-n2-mmax10-p0.5", "rand", "augmix-m3-w3-d1", "v0", "original-mstd0.5", "3a"],
)
def test_policies_that_timm_reads_are_valid(policy):
    from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform

    read = {"rand": rand_augment_transform, "augmix": augment_and_mix_transform}
    read.get(policy.partition("-")[0], auto_augment_transform)(policy, {})
    assert resolve("scenes", {"augment.auto_augment": policy}).augment.auto_augment == policy


def test_recipes_are_within_their_ranges():
    for name in recipe_names():
        resolve(name, {"init": "RUN"})


def test_an_interval_says_what_it_holds():
    assert str(Range.read("[1, inf)")) == "at least 1" and str(Range.read("(0, inf)")) == "above 0"
    assert str(Range.read("(0, 1]")) == "in (0, 1]"
    assert 0 not in Range.read("(0, 1]") and 1 in Range.read("(0, 1]") and math.nan not in Range.read("[0, inf)")
    assert str(Range.read("[0, 1)")) == "in [0, 1)"
