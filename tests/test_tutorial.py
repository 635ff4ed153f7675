"""docs/tutorial.md works as it is printed, from the mixer's file to the profile's plan; only the runs are shorter here."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from experiments.config import ROOT
from run import main

PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
COMMANDS = [
    shlex.split(re.split(r"\s{2,}", line)[0])
    for line in re.findall(r"^    python run\.py (.*)$", PAGE, re.M)
]  # fmt: skip
SHORT = ("train.steps=2", "data.train_images=8", "data.eval_images=4", "train.batch_size=4", "train.warmup_steps=0")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``~/mine`` of the page, with its two files."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for suffix, language in (("py", "python"), ("yaml", "yaml")):
        (content,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
        (folder / f"means.{suffix}").write_text(content)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


def test_the_page_has_a_command_for_each_step():
    assert [words[0].partition("=")[0] for words in COMMANDS] == [
        "sweep", "sweep", "status", "report", "plan", "sweep", "report",
    ]  # fmt: skip


@pytest.mark.slow
def test_its_commands_one_after_the_other(mine, capsys):
    runs_dir = f"runs_dir={mine.parent / 'runs'}"
    planned, trained, status, report, seeds, profile, page = COMMANDS
    assert main([*planned, runs_dir, *SHORT, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {run["arm"] for run in plan["runs"]} == {"identity", "means", "axial"} and len(plan["runs"]) == 6
    assert f"{len(plan['runs'])} runs" == "6 runs" and "the six runs" in PAGE
    assert main([*trained, runs_dir, *SHORT, "--jobs", "1"]) == 0
    assert main([*status, runs_dir, *SHORT, "--json"]) == 0
    assert {run["state"] for run in json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]} == {"done"}
    assert main([*report, runs_dir, *SHORT, "--json"]) == 0
    assert "row and column means" in capsys.readouterr().out
    assert list((mine.parent / "runs" / "reports").glob("means-smoke*/report.html"))
    assert main([*seeds, runs_dir, *SHORT]) == 0
    assert "seeds" in capsys.readouterr().out
    assert main([*profile, runs_dir, "--json"]) == 0
    assert "Means" in json.dumps(json.loads(capsys.readouterr().out)["runs"])
    assert main([*page, runs_dir, "--json"]) == 0
