"""Weights that ``evaluate=`` judged, in the papers' tables: the authors' own, and runs in several views."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reports import specification_files
from reports.content import compose
from reports.content.text import text
from results.evaluations import read_evaluations
from results.statistics.estimates import LEVEL, t_quantile
from tests.reports import made_up
from tests.reports.test_published import ours

TOP1, MS = "Top-1 (%)", "mIoU, multi-scale (%)"


def write(runs_dir: Path, name: str, **changes: object) -> None:
    folder = runs_dir / "evaluations" / name
    folder.mkdir(parents=True)
    summary = {
        "of": "xt", "protocol": "paper", "task": "classification", "model": "xt", "images": 50000,
        "finished": "2026-01-01T00:00:00+00:00", "metrics": {"eval_ema/top1": 79.66}, "changed": [],
        "intervals": {"eval_ema/top1": [79.31, 80.01]}, "weights": {"released": True},
        "key": {"data.dataset": "imagenet", "data.eval_split": "validation", "data.image_size": [224, 224]},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | changes))


@pytest.fixture
def runs_dir(tmp_path) -> Path:
    return Path(shutil.copytree(made_up.FOLDER, tmp_path / "runs"))


def table(runs_dir: Path, name: str):
    return compose.page(name, made_up.results(runs_dir), figures=False).sections[0]


def released_rows(section) -> dict[str, list[str]]:
    """The row of the paper → the cells of its row of released weights."""
    return {
        text(group[0][0].value): [text(cell.value) for cell in row]
        for group in section.grid.groups
        for row in group
        if text(row[0].value) == "released weights"
    }


def test_released_weights_have_a_row_with_images_and_size(runs_dir):
    assert released_rows(table(runs_dir, "aaai_table1")) == {}
    write(runs_dir, "xt-00000000")
    section = table(runs_dir, "aaai_table1")
    rows = released_rows(section)
    assert list(rows) == ["ATMNet-xT"]
    cell = rows["ATMNet-xT"][section.grid.header.index(TOP1)]
    for part in ("79.66 ± 0.35", "n = 50000 images, 224 × 224 px", "−0.04"):
        assert part in cell
    assert any("released weights" in line and "xt-00000000" in line for line in section.legend)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"released": False}},
        {"protocol": "tiny"},
        {"model": "nano"},
        {"key": {"data.dataset": "tiny_imagenet", "data.eval_split": "val", "data.image_size": [224, 224]}},
        {"key": {"data.dataset": "imagenet", "data.eval_split": "validation", "data.image_size": [256, 256]}},
        {"metrics": {"eval_ema/loss": 1.0}},
        {"key": {}},
        {"weights": []},
    ],
    ids=str,
)
def test_other_evaluations_have_none(runs_dir, changes):
    write(runs_dir, "xt-00000000", **changes)
    assert released_rows(table(runs_dir, "aaai_table1")) == {}


def test_a_row_at_another_size_has_the_evaluation_at_that_size(runs_dir):
    key = {"data.dataset": "imagenet", "data.eval_split": "validation"}
    write(runs_dir, "l-00000001", model="l", key=key | {"data.image_size": [384, 384]})
    write(runs_dir, "l-00000002", model="l", key=key | {"data.image_size": [224, 224]}, images=100)
    rows = released_rows(table(runs_dir, "aaai_table1"))
    assert list(rows) == ["ATMNet-L", "ATMNet-L†"]
    assert "n = 100 images" in "".join(rows["ATMNet-L"]) and "384 × 384" in "".join(rows["ATMNet-L†"])


def test_of_several_evaluations_most_images_count_and_then_the_latest(runs_dir):
    write(runs_dir, "xt-1", images=100, metrics={"eval_ema/top1": 50.0}, finished="2026-03-01T00:00:00+00:00")
    write(runs_dir, "xt-2", metrics={"eval_ema/top1": 60.0})
    write(runs_dir, "xt-3", metrics={"eval_ema/top1": 70.0}, finished="2026-02-01T00:00:00+00:00")
    assert "70.00" in "".join(released_rows(table(runs_dir, "aaai_table1"))["ATMNet-xT"])


def test_runs_judged_in_several_views_stand_beneath_the_second_column(tmp_path, monkeypatch):
    monkeypatch.setitem(made_up.TASKS, "upernet", made_up.TASKS["segmentation"])
    plan = made_up.plan_of_tasks("variants", ["t"], tasks=["classification", "upernet"])
    collected = made_up.collected_by_hand(plan, {("classification", "t"): 82.0, ("upernet", "t"): 46.0})
    results = [compose.Results(specification_files.of_sweep("variants"), collected, plan, tmp_path / "runs")]

    def beneath(label: str) -> str:
        section = compose.page("aaai_table3", results, figures=False).sections[0]
        return text(ours(section, "ATMNet-T", label).value)

    assert beneath("mIoU (%)").startswith("46.00 ± ") and beneath(MS) == "not run"
    for seed in range(2):
        views = {"changed": ["segment.test_flip", "segment.test_scales"], "intervals": {}, "task": "segmentation"}
        run = f"upernet-t-s{seed}-0000000{seed}"
        write(tmp_path / "runs", run, of=run, metrics={"eval/miou_ms": 47.0 + seed}, **views)
    write(tmp_path / "runs", "other", of="upernet-t-s2-00000002", metrics={"eval/miou_ms": 99.0},
          **{**views, "changed": ["data.root", "segment.resize", "segment.test_flip"]})  # fmt: skip
    half = t_quantile(1, LEVEL) * 0.5  # the standard error of 47 and 48
    assert beneath(MS).startswith(f"47.50 ± {half:.2f} (2 of 3)"), "of other sizes they are not"
    assert beneath("mIoU (%)").startswith("46.00 ± ")


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    assert read_evaluations(tmp_path) == ([], [])
    write(tmp_path, "good")
    (tmp_path / "evaluations" / "begun").mkdir()
    for name, content in (("torn", "{"), ("list", "[]"), ("empty", "{}")):
        (tmp_path / "evaluations" / name).mkdir()
        (tmp_path / "evaluations" / name / "summary.json").write_text(content)
    (tmp_path / "evaluations" / "file").write_text("")
    judged, unreadable = read_evaluations(tmp_path)
    assert [each.folder.name for each in judged] == ["good"]
    assert len(unreadable) == 3
    for name, line in zip(
        ("empty", "list", "torn"), sorted(unreadable, key=lambda line: line.partition("evaluations")[2])
    ):
        assert str(tmp_path / "evaluations" / name / "summary.json") in line
    plan = made_up.plan_of_tasks("variants", ["t"], tasks=["classification"])
    collected = made_up.collected_by_hand(plan, {("classification", "t"): 82.0})
    spec = specification_files.of_sweep("variants")
    results = [compose.Results(spec, collected, plan, tmp_path)]
    assert set(compose.page("aaai_table1", results, figures=False).left_out) == set(unreadable)
    assert not compose.page("variants", results, figures=False).left_out, "no evaluation stands on it"
