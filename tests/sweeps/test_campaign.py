"""A campaign keeps to the plan of analysis that was committed before its first run."""

from __future__ import annotations

import copy
import hashlib
import json
import re

import yaml

from experiments.config import ROOT
from reports import specification

PLAN = (ROOT / "docs" / "campaign_tiny.md").read_text(encoding="utf-8")
SWEEP = yaml.safe_load((ROOT / "sweeps" / "campaign_tiny.yaml").read_text(encoding="utf-8"))


def settings_hash(sweep) -> str:
    """Of everything in a sweep file but the learning rates of its arms, which are chosen by tuning."""
    without = copy.deepcopy(sweep)
    for arm in without["arms"].values():
        arm.pop("train.lr", None)
    return hashlib.sha256(json.dumps(without, sort_keys=True).encode()).hexdigest()


def test_the_sweep_file_is_the_planned_one():
    assert re.search(r"^ +settings: (\w+)$", PLAN, re.M)[1] == settings_hash(SWEEP)


def test_rates_and_nothing_else_may_be_filled_in():
    changed = copy.deepcopy(SWEEP)
    for arm in changed["arms"].values():
        arm["train.lr"] = 0.003
    assert settings_hash(changed) == settings_hash(SWEEP)
    changed["arms"]["random"]["model.random_spread"] = 3.0
    assert settings_hash(changed) != settings_hash(SWEEP)


def test_the_report_makes_the_planned_comparisons():
    spec = specification.of_sweep("campaign_tiny")
    words = {arm: body["label"].removesuffix(", PEG") for arm, body in SWEEP["arms"].items()}
    words |= {"zero": "zero", "zero_peg": "zero, PEG", "shift": "shift", "random": "random"}
    words |= {"axial_x3": "three samples, S = 1", "axial_wide": "axial, S = 1, wide MLPs"}
    planned = re.findall(r"^\| \d+ \| (.+?) − (.+?) \|", PLAN, re.M)
    made = [(words[name], words[arm.against]) for name, arm in spec.arms.items() if arm.against]
    assert len(made) == 13
    assert sorted(made) == sorted(planned)
