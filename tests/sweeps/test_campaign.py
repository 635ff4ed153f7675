"""A campaign keeps to the plan of analysis that was committed before its first run."""

from __future__ import annotations

import copy
import hashlib
import json
import re

import pytest
import yaml

from experiments.config import ROOT
from reports import specification_files
from results.statistics.estimates import minimal_detectable_difference
from results.statistics.planning import corrected_level
from results.statistics.verdicts import chance_of_agreement

CAMPAIGNS = ("campaign_tiny", "campaign_mixers", "campaign_camvid", "campaign_bccd")
PLANS = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in CAMPAIGNS}
SWEEPS = {name: yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8")) for name in CAMPAIGNS}
# what a plan calls an arm, where that is not its label
TINY_WORDS = {
    "zero": "zero", "zero_peg": "zero, PEG", "shift": "shift", "random": "random", "axial_x3": "three samples, S = 1",
    "axial_wide": "axial, S = 1, wide MLPs",
}  # fmt: skip


def settings_hash(sweep) -> str:
    """Of everything in a sweep file but the learning rates of its arms, which are chosen by tuning."""
    without = copy.deepcopy(sweep)
    for arm in without["arms"].values():
        arm.pop("train.lr", None)
    return hashlib.sha256(json.dumps(without, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_sweep_file_is_the_planned_one(name):
    assert re.search(r"^ +settings: (\w+)$", PLANS[name], re.M)[1] == settings_hash(SWEEPS[name])


def test_rates_and_nothing_else_may_be_filled_in():
    sweep = SWEEPS["campaign_tiny"]
    changed = copy.deepcopy(sweep)
    for arm in changed["arms"].values():
        arm["train.lr"] = 0.003
    assert settings_hash(changed) == settings_hash(sweep)
    changed["arms"]["random"]["model.random_spread"] = 3.0
    assert settings_hash(changed) != settings_hash(sweep)


def words_of(name) -> dict[str, str]:
    labels = {arm: body["label"] for arm, body in SWEEPS[name]["arms"].items()}
    if name != "campaign_tiny":
        return labels
    return {arm: label.removesuffix(", PEG") for arm, label in labels.items()} | TINY_WORDS


@pytest.mark.parametrize(
    ("name", "number"), [("campaign_tiny", 13), ("campaign_mixers", 8), ("campaign_camvid", 5), ("campaign_bccd", 5)]
)
def test_the_report_makes_the_planned_comparisons(name, number):
    words, spec = words_of(name), specification_files.of_sweep(name)
    planned = re.findall(r"^\| \d+ \| (.+?) − (.+?) \|", PLANS[name], re.M)
    tested = [contrast for contrast in spec.contrasts if contrast.tested]
    assert len(tested) == number and all(len(contrast.arms) == 2 for contrast in tested)
    assert [(words[contrast.plus[0]], words[contrast.minus[0]]) for contrast in tested] == planned


def test_the_power_that_the_campaign_of_mixers_states_is_that_of_its_test():
    """Deviation → smallest difference, alone and at the strictest level of Holm's correction, and chance of equivalence."""
    rows = re.findall(r"^\| (0\.\d) \| ([\d.]+) \| ([\d.]+) \| (\d+) % \|$", PLANS["campaign_mixers"], re.M)
    assert len(rows) == 3
    for row in rows:
        sd, alone, corrected, equivalent = map(float, row)
        assert alone == round(minimal_detectable_difference(sd, 3), 2)
        assert corrected == round(minimal_detectable_difference(sd, 3, corrected_level(8)), 2)
        assert equivalent == round(100 * chance_of_agreement(sd, 0.0, 3, 0.5))


@pytest.mark.parametrize(
    ("name", "in_words", "margin"),
    [
        ("campaign_tiny", "(axial − zero, PEG) − (axial, no PEG − zero)", 0.5),
        ("campaign_camvid", "(axial, PEG − zero, PEG) − (axial, no PEG − zero, no PEG)", 1.0),
        ("campaign_bccd", "(axial, PEG − zero, PEG) − (axial, no PEG − zero, no PEG)", 1.0),
    ],
)
def test_the_interaction_is_stated_beside_them_and_not_tested(name, in_words, margin):
    spec = specification_files.of_sweep(name)
    (beside,) = [contrast for contrast in spec.contrasts if not contrast.tested]
    assert (set(beside.plus), set(beside.minus)) == ({"axial", "zero"}, {"zero_peg", "axial_nopeg"})
    assert in_words in PLANS[name]
    assert spec.protocols["tiny"].margin == margin and f"±{margin} points" in PLANS[name]
