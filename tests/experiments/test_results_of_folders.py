"""A run folder has a result, or says why it has none: the same rule for a launch as for a report."""

from __future__ import annotations

import json

import pytest

import run as command_line
from experiments.config import resolve
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from results.collect import collect
from run_format import UNREADABLE
from sweeps.plan import load
from sweeps.status import state_of
from tests.ended import end
from tests.results.synthetic import edit_json, make_run
from tests.sweeps.test_sweeps import TINY, WORDS

CHANGES = {
    "of another seed": (lambda folder: edit_json(folder / "summary.json", seed=7), "its seed is 7, planned was 0"),
    "of another run": (lambda folder: edit_json(folder / "summary.json", run="x"), "its run is 'x', planned was"),
    "no metrics": (lambda folder: edit_json(folder / "summary.json", metrics={}), "holds no metrics"),
    "a part of it": (lambda folder: (folder / "summary.json").write_text(f'{{"run": "{folder.name}"}}'), "lacks seed"),
    "no provenance": (lambda folder: (folder / "provenance.json").unlink(), "provenance.json is missing"),
    "no config": (lambda folder: (folder / "config.yaml").unlink(), "config.yaml is missing"),
    "another config": (
        lambda folder: edit_json(folder / "summary.json", sha256={"config.yaml": "0" * 64}),
        "config.yaml is not the file that the run ended with",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_reports_do_not_count_is_not_done(tmp_path, change, capsys):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero"])
    as_dict = plan.as_dict()
    folder = make_run(tmp_path, as_dict, as_dict["runs"][0], 80.0, 100, 0.1)
    assert state_of(RunFolder(folder))[0] == "done"
    act, why = CHANGES[change]
    act(folder)
    state, detail, _ = state_of(RunFolder(folder))
    (row,) = collect(as_dict, tmp_path).runs.to_dict("records")
    assert state == row["state"] == UNREADABLE
    assert why in detail and why in row["cause"]
    words = ["sweep=ablation_offsets", "protocol=smoke", "seeds=[0]", "arms=[zero]", *WORDS, f"runs_dir={tmp_path}"]
    assert command_line.main(words) == 1
    assert f"{folder.name} was not started: {folder}: " in capsys.readouterr().err


def test_a_summary_by_hand_is_no_result_of_experiment(tmp_path, capsys):
    words = ["experiment=scenes", *WORDS, f"runs_dir={tmp_path}"]
    config = resolve("scenes", TINY)
    folder = RunFolder(tmp_path / run_id(config))
    folder.freeze(config)
    end(folder)
    for content in ({"run": folder.id}, {"run": folder.id, "metrics": {"eval/token_accuracy": 12.0}}):
        (folder.path / "summary.json").write_text(json.dumps(content))
        assert command_line.main(words) == 2
        captured = capsys.readouterr()
        assert "12.0" not in captured.out and "summary.json lacks" in captured.err
