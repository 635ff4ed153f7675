"""Measured results that are committed give the report that their run folders gave."""

from __future__ import annotations

import pandas as pd
import pytest

from results import archive
from results.collect import CollectError, collect
from tests.results.synthetic import edit_json, make_plan, make_runs, run_id

ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}


@pytest.fixture
def collected(tmp_path):
    plan = make_plan(ARMS)
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    (tmp_path / "runs" / run_id("zero", 2) / "summary.json").unlink()
    edit_json(tmp_path / "runs" / run_id("zero", 2) / "state.json", state="failed", cause='a "bad", cause')
    plan["arms"].append({"name": "again", "label": "again", "model": "nano", "config": {}})
    plan["runs"].append({"run": run_id("axial", 0), "arm": "again", "seed": 0})
    plan["runs"].append({"run": "scenes-nano-s5-00000000", "arm": "again", "seed": 5})
    return plan, collect(plan, tmp_path / "runs")


def test_round_trip(collected, tmp_path):
    plan, found = collected
    files = archive.write(found, tmp_path / "m", plan, title="Scenes", date="2031-05-04", note="made up")
    assert sorted(path.name for path in files) == ["about.yaml", "curves.csv", "metrics.csv", "runs.csv"]
    back = archive.read(tmp_path / "m")
    ours = list(archive.OF_FOLDERS)  # not committed: they lead to files that are not
    pd.testing.assert_frame_equal(back.runs.drop(columns=ours), found.runs.drop(columns=ours))
    assert set(back.runs["config"]) == {""} and back.runs["log_line"].isna().all()
    pd.testing.assert_frame_equal(back.curves, found.curves, check_dtype=False)
    kept = found.metrics[found.metrics["metric"] != "train/lr"].reset_index(drop=True)
    kept["metric"] = kept["metric"].cat.remove_unused_categories()
    key = ["arm", "seed", "metric", "step"]
    pd.testing.assert_frame_equal(
        back.metrics.sort_values(key, ignore_index=True)[list(kept.columns)],
        kept.sort_values(key, ignore_index=True),
        check_dtype=False,
    )
    assert archive.plan_of(back) == plan
    assert back.warnings == found.warnings
    assert back.about["title"] == "Scenes" and back.about["date"] == "2031-05-04" and back.about["hardware"] == "cpu"


def test_writing_what_was_read_gives_the_same_bytes(collected, tmp_path):
    plan, found = collected
    first = archive.write(found, tmp_path / "a", plan, title="t", date="d")
    again = archive.write(archive.read(tmp_path / "a"), tmp_path / "b", plan, title="t", date="d")
    for one, two in zip(first, again):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_long_logs_are_kept_short(collected, tmp_path):
    plan, found = collected
    row = {**found.metrics.iloc[0].to_dict(), "metric": "train/loss", "final": False}
    long = pd.DataFrame([{**row, "step": 100_000 + step} for step in range(5000)])
    found.metrics = pd.concat([found.metrics, long], ignore_index=True)
    archive.write(found, tmp_path / "m", plan, title="t", date="d")
    back = archive.read(tmp_path / "m").metrics
    loss = back[(back["metric"] == "train/loss") & (back["run"] == row["run"])]
    assert 100 < len(loss) <= archive.LOSS_POINTS
    assert (
        len(back[back["metric"] == "eval/token_accuracy"]) == 20 * 7
    )  # the judged metric is kept whole: seven arms and seeds that started


def test_the_line_of_a_committed_number(collected, tmp_path):
    plan, found = collected
    archive.write(found, tmp_path / "m", plan, title="t", date="d")
    lines = (tmp_path / "m" / "metrics.csv").read_text().splitlines()
    for run, value in found.finals("eval/token_accuracy")[["run", "value"]].itertuples(index=False):
        line = archive.line_of(tmp_path / "m", run, "eval/token_accuracy")
        assert lines[line - 1] == f"{run},1200,20,eval/token_accuracy,{value},True"
    assert archive.line_of(tmp_path / "m", run_id("zero", 2), "eval/token_accuracy") is None, "it has not finished"
    assert archive.line_of(tmp_path / "m", run_id("zero", 0), "train/loss") is None, "it is logged, not reported"
    assert archive.line_of(tmp_path / "nowhere", run_id("zero", 0), "eval/token_accuracy") is None
    run = run_id("zero", 0)
    before = archive.line_of(tmp_path / "m", run, "eval/token_accuracy")
    (tmp_path / "m" / "metrics.csv").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    assert archive.line_of(tmp_path / "m", run, "eval/token_accuracy") == before - 1, "the file changed"


def test_every_committed_number_is_found_at_its_line():
    for label in archive.labels():
        collected, lines = (
            archive.read(archive.folder(label)),
            (archive.folder(label) / "metrics.csv").read_text().splitlines(),
        )
        finals = collected.metrics[collected.metrics["final"]]
        for run, metric in set(zip(finals["run"], finals["metric"])):
            line = lines[archive.line_of(archive.folder(label), run, metric) - 1]
            assert line.startswith(f"{run},") and f",{metric}," in line and line.endswith(",True")


def test_files_that_are_missing_or_torn_are_one_line(collected, tmp_path):
    plan, found = collected
    with pytest.raises(CollectError, match="unknown measured results 'nowhere'"):
        archive.read(tmp_path / "nowhere")
    archive.write(found, tmp_path / "m", plan, title="t", date="d")
    (tmp_path / "m" / "metrics.csv").write_text("")
    with pytest.raises(CollectError, match="measured results m"):
        archive.read(tmp_path / "m")
