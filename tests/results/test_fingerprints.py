"""Runs of different code or data are not averaged unless that is asked for."""

from __future__ import annotations

import pytest

from errors import SuiteError
from results import fingerprints
from results.collect import collect
from tests.results.synthetic import CODE, edit_json, make_plan, make_run, make_runs, planned, run_id

ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}


@pytest.fixture
def folders(tmp_path):
    plan = make_plan(ARMS)
    make_runs(tmp_path, plan, ARMS, examples=False)
    return plan, tmp_path


def test_one_code_and_one_data(folders):
    assert fingerprints.check(collect(*folders).runs) == []


@pytest.mark.parametrize(("key", "kind"), [("code_fingerprint", "code"), ("data_fingerprint", "data")])
def test_different_ones_are_refused_and_named(folders, key, kind):
    plan, runs_dir = folders
    edit_json(runs_dir / run_id("axial", 1) / "provenance.json", **{key: "0dd0dd0dd0dd0dd0"})
    runs = collect(plan, runs_dir).runs
    with pytest.raises(fingerprints.MixedFingerprints, match=f"different {kind}.*{run_id('axial', 1)}") as refused:
        fingerprints.check(runs)
    assert isinstance(refused.value, SuiteError) and "\n" not in str(refused.value)
    (sentence,) = fingerprints.check(runs, mixed=True)
    assert f"Runs of different {kind}" in sentence and "0dd0dd0dd0dd0dd0" in sentence


def test_an_unknown_fingerprint_is_a_different_one(folders):
    plan, runs_dir = folders
    edit_json(runs_dir / run_id("zero", 0) / "provenance.json", code_fingerprint=None)
    with pytest.raises(fingerprints.MixedFingerprints, match="unknown: " + run_id("zero", 0)):
        fingerprints.check(collect(plan, runs_dir).runs)


def test_unfinished_runs_do_not_count(folders):
    plan, runs_dir = folders
    edit_json(runs_dir / run_id("zero", 0) / "provenance.json", code_fingerprint="0dd")
    (runs_dir / run_id("zero", 0) / "summary.json").unlink()
    assert fingerprints.check(collect(plan, runs_dir).runs) == []


def test_a_run_that_was_resumed_with_other_code_is_of_both(folders):
    plan, runs_dir = folders
    edit_json(runs_dir / run_id("zero", 0) / "provenance.json", code_fingerprint="c0de5eed00000001+c0de5eed00000002")
    with pytest.raises(fingerprints.MixedFingerprints, match=r"c0de5eed00000001[+]c0de5eed00000002: "):
        fingerprints.check(collect(plan, runs_dir).runs)


def test_tasks_are_of_different_code_and_data_and_are_checked_apart(folders):
    plan, runs_dir = folders
    children = [planned(f"masks-{entry['run']}", entry["arm"], entry["seed"], "masks") for entry in plan["runs"]]
    for entry in children:
        make_run(runs_dir, plan, entry, *ARMS[entry["arm"]], code="5e9", data="ade", examples=False)
    plan = {**plan, "tasks": [*plan["tasks"], {"name": "masks"}], "runs": [*plan["runs"], *children]}
    assert fingerprints.check(collect(plan, runs_dir).runs) == []
    edit_json(runs_dir / children[0]["run"] / "provenance.json", code_fingerprint="0dd")
    with pytest.raises(fingerprints.MixedFingerprints, match="Runs of masks with different code"):
        fingerprints.check(collect(plan, runs_dir).runs)


def test_runs_are_compared_with_the_present_code_by_recipe_arm_and_task(folders):
    plan, runs_dir = folders
    edit_json(runs_dir / run_id("axial", 1) / "provenance.json", code_fingerprint="0dd")
    edit_json(runs_dir / run_id("axial", 2) / "provenance.json", code_fingerprint=None)
    (runs_dir / run_id("zero", 2) / "summary.json").unlink()
    plan = {**plan, "changed": {"train.epochs": 1}}
    plan["arms"] = [{**arm, "config": {"mixer": arm["name"]}} for arm in plan["arms"]]
    asked = []

    def is_present(recorded, experiment, settings):
        asked.append((recorded, experiment, settings))
        return {CODE: True, "0dd": False}.get(recorded)

    runs = fingerprints.with_present_code(collect(plan, runs_dir), plan, is_present).runs
    of_arm = {arm: list(rows[fingerprints.PRESENT_CODE]) for arm, rows in runs.groupby("arm")}
    assert of_arm == {"zero": ["yes", "yes", ""], "axial": ["yes", "no", ""]}
    mixers = [("zero", CODE), ("axial", CODE), ("axial", "0dd"), ("axial", "")]
    assert sorted(asked, key=str) == sorted(
        [(code, "scenes", {"train.epochs": 1, "model.mixer": mixer}) for mixer, code in mixers], key=str
    )
    assert fingerprints.present_code(runs) == "mixed"
    assert fingerprints.present_code(runs[runs["arm"] == "zero"]) == "yes"  # a run that is not done says nothing
    assert fingerprints.present_code(runs[runs["seed"] == 2]) == "unknown"
    assert fingerprints.present_code(collect(plan, runs_dir).runs) is None
