"""The command plan=: seeds, images and price from pilots in run folders or in committed results."""

from __future__ import annotations

import json

import pytest

from experiments.config import ROOT
from results import archive
from results.statistics import planning
from results.statistics.estimates import Spread
from run import main
from sweeps.plan import load
from sweeps.rates import PRICES, Rates, hardware_here, setup_of
from tests.results.synthetic import make_run
from tests.sweeps.test_price import RATE

PEG = "measured=ablation_peg-tiny-50-classes"
FINALS = {"zero": 60.0, "axial": 90.0, "token": 80.0}


@pytest.fixture(autouse=True)
def committed(monkeypatch, labels):
    """The committed results, which other tests of sweeps do not see."""
    monkeypatch.setattr(archive, "MEASURED", ROOT / "results" / "measured")


def document(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    assert main(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def pilots(folder, arms=FINALS, seeds=(0, 1, 2)):
    plan = load("ablation_offsets", "smoke", seeds=list(seeds), arms=list(arms), compared=False)
    for run in plan.runs:
        make_run(folder, plan.as_dict(), {"run": run.id, "seed": run.seed}, FINALS[run.arm], 50.0, 0.1)
    return plan, ("plan=ablation_offsets", "protocol=smoke", f"runs_dir={folder}", "resolve=0.5", "--mixed")


def test_committed_results_are_pilots(capsys):
    collected = archive.read(archive.folder(PEG.partition("=")[2]))
    finals = collected.finals("eval/top1")
    by_arm = [dict(zip(rows["seed"], rows["value"])) for _, rows in finals.groupby("arm")]
    spread = planning.paired_spread(by_arm)
    found = document(capsys, "plan=ablation_peg", PEG, "resolve=0.5", "comparisons=3")
    assert (found["sd"], found["degrees_of_freedom"]) == (pytest.approx(spread.sd), 6)
    assert found["sd_upper"] == pytest.approx(planning.upper_bound(Spread(spread.sd, 6), 0.8))
    assert found["seeds"] == planning.seeds_needed(0.5, found["sd_upper"], 1 - 0.05 / 3) > found["seeds_by_sd"]
    assert found["metric"] == "eval/top1" and found["hours_two_arms"] == pytest.approx(
        2 * found["seeds"] * found["hours_per_run"]
    )


def test_some_arms_and_another_metric_are_chosen_by_name(capsys):
    words = ("plan=search", "measured=search-smoke", "resolve=2", "arms=[axial,joint]")
    deep = document(capsys, *words, "metric=eval/token_accuracy_deep")
    assert deep["pilots"]["runs"] == 6 and deep["degrees_of_freedom"] == 2
    assert deep["sd"] > document(capsys, *words)["sd"]
    assert deep["images"] == 128 and (deep["seeds_new_images"] is None) == (deep["more_images"] is not None)


def test_run_folders_are_pilots_and_a_measured_price_is_theirs(tmp_path, capsys):
    plan, words = pilots(tmp_path)
    found = document(capsys, *words)
    assert found["pilots"]["seeds"] == [0, 1, 2] and found["pilots"]["runs"] == 9
    assert found["hardware"] == "as the pilots took" and found["hours_per_run"] == pytest.approx(182.25 / 3600)
    for run in plan.runs:
        Rates(tmp_path / PRICES).add(setup_of(run.config, hardware_here(run.config)), RATE)
    assert "CPU" in document(capsys, *words)["hardware"]
    assert main(list(words)) == 0
    text = capsys.readouterr().out
    assert "with 80 % confidence at most" in text and "new images: not known" in text and "price: " in text


def test_too_few_pilots_are_refused_in_one_line(tmp_path, capsys):
    words = ("plan=reach", "protocol=smoke", f"runs_dir={tmp_path}", "resolve=0.5")
    assert "no pilot run has finished" in (line := refused(capsys, *words)) and "measured=reach-smoke" in line
    _, words = pilots(tmp_path / "one", seeds=(0,))
    assert "a deviation needs two arms with two seeds in common" in refused(capsys, *words)
    _, words = pilots(tmp_path / "arm", {"axial": 90.0})
    assert "are 3 runs of arms axial and seeds 0, 1, 2" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plan=ablation_peg", PEG), "which difference, in points of the metric, is to be resolved"),
        (("plan=ablation_peg", PEG, "resolve=-1"), "resolve=-1: give a number above 0"),
        (("plan=ablation_peg", PEG, "resolve=1", "power=80"), "power=80: give a number between 0.05 and 1"),
        (("plan=ablation_peg", PEG, "resolve=1", "comparisons=0"), "comparisons=0"),
        (("plan=ablation_peg", PEG, "resolve=1", "arms=[zero,zero_pge]"), "did you mean 'zero_peg'"),
        (("plan=ablation_peg", PEG, "resolve=1", "arms=zero"), "name at least two"),
        (("plan=ablation_peg", PEG, "resolve=1", "metric=eval/top2"), "did you mean 'eval/top1'"),
        (("plan=ablation_peg", PEG, "resolve=1", "train.lr=1"), "names results; train.lr cannot change them"),
        (("plan=reach", PEG, "resolve=1"), "is of sweep ablation_peg, and plan=reach of reach"),
        (("plan=paper", "resolve=1"), "plans seeds of one sweep, and paper shows several"),
        (("plan=serch", "resolve=1"), "did you mean 'search'"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(capsys, words, says):
    assert says in refused(capsys, *words)


def test_the_documentation_has_the_command():
    assert "plan=campaign_tiny resolve=0.5" in (ROOT / "docs" / "sweeps.md").read_text()
