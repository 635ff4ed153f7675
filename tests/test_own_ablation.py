"""docs/own_ablation.md: it names every key of a sweep and of a report, and its example works as it is printed."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import yaml

import run as command_line
from experiments.config import ROOT
from reports.specification import (
    Arm,
    Contrast,
    Control,
    Figure,
    FurtherMetric,
    Papers,
    Published,
    Specification,
    TaskReport,
)
from reports.specification_parts import check_arms, sweep_report
from sweeps.plan import load
from sweeps.sweep_file import ARM_PARTS, PARTS

PAGE = (ROOT / "docs" / "own_ablation.md").read_text()
KINDS = (Specification, TaskReport, FurtherMetric, Arm, Control, Contrast, Figure, Papers, Published)
KEYS = {*PARTS, *ARM_PARTS, *(f.name for kind in KINDS for f in fields(kind)), "metric"} - {"name"}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_the_page_names_every_key(key):
    tables = "\n".join(line for line in PAGE.splitlines() if line.startswith("| "))
    assert f"`{key}`" in tables


def test_the_page_names_no_key_that_there_is_not():
    first = re.findall(r"^\| (`[^|]*`) \|", PAGE, re.M)
    named = {key for cell in first for key in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 20 and named <= KEYS


def test_the_example_is_planned_and_has_a_report(tmp_path, monkeypatch, capsys):
    sweep, page = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "fusion.yaml").write_text(sweep)
    (folder / "fusion_page.yaml").write_text(page)
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = load(str(folder / "fusion.yaml"), "smoke")
    assert len(plan.distinct()) == 12
    check_arms(sweep_report(yaml.safe_load(page) | {"name": "fusion_page"}), list(plan.labels))
    words = ["protocol=smoke", f"runs_dir={tmp_path / 'runs'}"]
    assert command_line.main(["report=~/mine/fusion_page.yaml", *words]) == 1
    assert "no run of fusion has begun" in capsys.readouterr().err
    assert command_line.main(["sweep=~/mine/fusion.yaml", *words, "--dry-run"]) == 0
