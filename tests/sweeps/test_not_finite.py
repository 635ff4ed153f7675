"""A run that ended in a metric that is no finite number has failed, whoever asks."""

from __future__ import annotations

import math

import pytest

from experiments.training import loop
from experiments.training.evaluation import Evaluator
from results.collect import collect
from run_format import DONE, FAILED
from sweeps import local
from sweeps.plan import load
from sweeps.status import state_of
from tests.results.synthetic import edit_json
from tests.sweeps.test_sweeps import TINY, RunFolder


@pytest.fixture
def plan():
    return load("ablation_offsets", "smoke", TINY, [0], arms=["zero"])


@pytest.mark.slow
def test_every_command_says_so_and_the_run_is_tried_again_when_asked_to(plan, tmp_path):
    folder = RunFolder(tmp_path / plan.runs[0].id)
    assert local.launch(plan, tmp_path).exit_code == 0
    edit_json(folder.path / "summary.json", metrics={"eval/token_accuracy": 25.0, "eval/loss": math.nan})
    state, detail, _ = state_of(folder)
    assert state == FAILED and detail == "summary.json: eval/loss is nan, not a finite number"
    assert folder.finished() == {}
    (row,) = collect(plan.as_dict(), tmp_path).runs.to_dict("records")
    assert (row["state"], row["cause"]) == (FAILED, detail)
    assert local.launch(plan, tmp_path).skipped_failed == [folder.id]
    assert local.launch(plan, tmp_path, retry_failed=True).done == [folder.id]
    assert state_of(folder)[0] == DONE


def test_a_run_whose_last_evaluation_is_not_finite_fails(plan, tmp_path, monkeypatch):
    evaluate = Evaluator.evaluate

    def broken(self, models):
        evaluation = evaluate(self, models)
        evaluation.metrics["eval/loss"] = math.nan
        return evaluation

    monkeypatch.setattr(Evaluator, "evaluate", broken)
    folder = RunFolder(tmp_path / plan.runs[0].id)
    folder.freeze(plan.runs[0].config)
    with pytest.raises(loop.RunFailed, match="eval/loss is nan after the last step"):
        loop.run(folder)
    assert state_of(folder)[0] == FAILED and not (folder.path / "summary.json").exists()
