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
    tested = [contrast for contrast in spec.contrasts if contrast.tested]
    assert len(tested) == 13 and all(len(contrast.arms) == 2 for contrast in tested)
    assert [(words[contrast.plus[0]], words[contrast.minus[0]]) for contrast in tested] == planned


def test_the_interaction_is_stated_beside_them_and_not_tested():
    spec = specification.of_sweep("campaign_tiny")
    (beside,) = [contrast for contrast in spec.contrasts if not contrast.tested]
    assert (set(beside.plus), set(beside.minus)) == ({"axial", "zero"}, {"zero_peg", "axial_nopeg"})
    assert "(axial − zero, PEG) − (axial, no PEG − zero)" in PLAN
    assert spec.protocols["tiny"].margin == 0.5 and "±0.5 points" in PLAN
