"""status= and report= of a single run, and what is said of a run that there is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from run import main
from run_format import RUNNING
from tests.conftest import SMALL


def said(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    words = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    done = subprocess.run(
        [sys.executable, "run.py", "experiment=scenes", *words, f"runs_dir={runs}"], cwd=ROOT, check=True
    )
    assert done.returncode == 0
    return runs


def test_status_of_a_run_says_its_state_metrics_and_where_more_is(runs, capsys):
    (run,) = (folder.id for folder in RunFolder.all_in(runs))
    code, out, _ = said(capsys, f"status={run[:-4]}", f"runs_dir={runs}")
    assert code == 0
    assert out.startswith(f"{run}  done") and "eval/token_accuracy" in out
    assert f"its files: {runs / run}" in out and f"run.py report={run} runs_dir={runs}" in out
    described = json.loads(said(capsys, f"status={run}", f"runs_dir={runs}", "--json")[1])
    assert (described["run"], described["state"]) == (run, "done")
    assert described["metrics"]["eval/token_accuracy"] == described["summary"]["metrics"]["eval/token_accuracy"]


def test_report_of_a_run_has_its_curves_settings_data_and_files(runs, capsys):
    (run,) = (folder.id for folder in RunFolder.all_in(runs))
    code, out, _ = said(capsys, f"report={run}", f"runs_dir={runs}")
    assert code == 0 and "train/loss" in out
    page = runs / "reports" / run
    text = (page / "report.html").read_text()
    recorded = RunFolder(runs / run).read_json("provenance.json")
    for part in (run, "image_size", recorded["data_fingerprint"], recorded["code_fingerprint"], "data:image/png"):
        assert part in text, part
    assert (page / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (page / "curves.csv").read_text().splitlines()[0] == "step,train/loss,eval/token_accuracy,eval/loss"
    assert "![Learning curves](curves.png)" in (page / "report.md").read_text()


def test_a_run_that_has_only_begun_has_a_page(tmp_path, capsys):
    folder = RunFolder(tmp_path / "scenes-nano-s0-01234567")
    folder.path.mkdir()
    folder.freeze(Config(experiment="scenes"))
    folder.set_state(RUNNING, step=3, steps=10)
    assert said(capsys, "report=scenes-nano", f"runs_dir={tmp_path}")[0] == 0
    code, out, _ = said(capsys, "status=scenes-nano", f"runs_dir={tmp_path}")
    assert code == 0 and "30 %" in out


@pytest.mark.parametrize("command", ["logs", "status", "report"])
def test_an_unknown_run_names_the_nearest_and_not_all(command, tmp_path, capsys):
    for number in range(20):
        folder = RunFolder(tmp_path / f"scenes-nano-s{number}-0123456{number % 10}")
        folder.path.mkdir()
        folder.freeze(Config(experiment="scenes"))
    code, _, err = said(capsys, f"{command}=scenes-nano-s3-1123", f"runs_dir={tmp_path}")
    assert code == 2 and "scenes-nano-s3-01234563" in err and err.count("scenes-nano-s") <= 4, err


def test_settings_of_a_sweep_do_not_go_with_a_run(runs, capsys):
    code, _, err = said(capsys, "status=scenes-nano", "protocol=smoke", f"runs_dir={runs}")
    assert code == 2 and "of which runs_dir=PATH alone is asked" in err
