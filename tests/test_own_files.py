"""Recipes, sweeps and report specifications of the user's own, given by their paths."""

from __future__ import annotations

import json

import pytest

import run as command_line
from sweeps.plan import load
from tests.results.synthetic import make_runs

RECIPE = """
task: token_labelling
protocol: smoke
data: {dataset: scenes, num_classes: 4, image_size: [64, 64], train_images: 16, eval_images: 2}
model: {name: nano}
train: {epochs: 1, warmup_epochs: 0, batch_size: 8}
"""
SWEEP = """
recipes: {smoke: mine.yaml}
seeds: [0]
baseline: still
arms:
  still: {model.offsets: zero, model.peg: false}
  moving: {label: it moves, model.offsets: axial}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a recipe, a sweep of it and a report; the current directory is beside it."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "comparison.yaml").write_text(SWEEP)
    (folder / "page.yaml").write_text("title: My page\nquestion: Does it move?\nsweep: comparison.yaml\n")
    monkeypatch.chdir(tmp_path)
    return folder


def said(capsys, *words):
    code = command_line.main([*words, "runs_dir=runs"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_recipe_of_ones_own_has_runs_of_its_name(own, capsys):
    code, out, _ = said(capsys, "experiment=own/mine.yaml", "--dry-run", "--json", "model.offsets=token")
    described = json.loads(out)
    assert code == 0 and described["run"].startswith("mine-nano-s0-")
    assert described["config"]["experiment"] == "mine" and described["config"]["model"]["offsets"] == "token"


@pytest.mark.slow
def test_a_sweep_of_ones_own_is_planned_trained_and_reported(own, capsys, tmp_path):
    sweep = ("own/comparison.yaml", "protocol=smoke", "machine.threads=1")
    code, out, err = said(capsys, f"sweep={sweep[0]}", *sweep[1:])
    assert code == 0, err
    assert "run.py report=own/comparison.yaml" in out
    code, out, _ = said(capsys, f"status={sweep[0]}", *sweep[1:], "--json")
    status = json.loads(out)
    assert status["sweep"] == "comparison" and {row["state"] for row in status["runs"]} == {"done"}
    assert all(row["run"].startswith("mine-nano-s0-") for row in status["runs"])
    code, out, err = said(capsys, f"report={sweep[0]}", *sweep[1:])
    assert code == 0 and "it moves" in out, err
    assert (tmp_path / "runs" / "reports" / "comparison-smoke" / "report.html").is_file()
    code, out, err = said(capsys, "report=own/page.yaml", *sweep[1:])
    assert code == 0 and "My page" in out, err
    assert not list(own.glob("*/")), "nothing is written beside one's own files"


def test_ones_own_sweep_may_use_recipes_of_the_suite(own):
    (own / "other.yaml").write_text(SWEEP.replace("mine.yaml", "scenes"))
    assert {run.config.experiment for run in load(str(own / "other.yaml"), "smoke").runs} == {"scenes"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sweep=own/absent.yaml", "sweep=own/absent.yaml: no such file"),
        ("sweep=reach.yaml", "sweep=reach.yaml: no such file; did you mean sweep=reach?"),
        ("experiment=own", "unknown experiment 'own'"),
        ("experiment=../mine", "unknown experiment '../mine'"),
        ("sweep=own/mine.yaml", "mine.yaml: unknown key 'task'"),
        ("report=own/mine.yaml", "report mine: unknown key 'task'"),
        ("sweep=own/two words.yaml", "runs are called by the file's name: letters, digits, '_' and '-' only"),
        ("sweep=own/search.yaml", "the suite has its own sweep=search: give the file another name"),
        ("experiment=own/scenes.yaml", "the suite has its own experiment=scenes"),
        ("report=~nobody-here/x.yaml", "no user is called ~nobody-here"),
    ],
)
def test_what_is_no_file_of_that_kind_is_one_line(own, capsys, word, message):
    for name in ("two words", "search", "scenes"):
        (own / f"{name}.yaml").write_text(SWEEP)
    code, _, err = said(capsys, word)
    assert code == 2 and err.startswith("run.py: ") and err.count("\n") == 1, err
    assert message in err, err


def test_measured_results_of_ones_own_sweep_are_shown_by_their_label(own, capsys, tmp_path, monkeypatch):
    from results import archive

    monkeypatch.setattr(archive, "MEASURED", tmp_path / "measured")
    plan = load("own/comparison.yaml", "smoke").as_dict()
    make_runs(tmp_path / "runs", plan, {"still": (50.0, 100, 0.1), "moving": (60.0, 100, 0.1)})
    assert said(capsys, "collect=own/comparison.yaml", "protocol=smoke", "into=mine")[0] == 0
    monkeypatch.setattr("reports.commands.PAGES", tmp_path / "pages")
    assert command_line.main(["report=own/comparison.yaml", "measured=mine"]) == 0
    assert (tmp_path / "pages" / "mine" / "report.md").read_text().startswith("# comparison")
