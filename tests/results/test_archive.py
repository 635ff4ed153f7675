"""Committed results give the report that their run folders gave."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import yaml

from results import archive
from results.collect import CollectError, collect
from tests.results.synthetic import TASK, edit_json, make_plan, make_runs, planned, run_id, without_tasks

ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}


@pytest.fixture
def sweep(tmp_path):
    plan = make_plan(ARMS)
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    (tmp_path / "runs" / run_id("zero", 2) / "summary.json").unlink()
    edit_json(tmp_path / "runs" / run_id("zero", 2) / "state.json", state="failed", cause='a "bad", cause')
    plan["arms"].append({"name": "again", "label": "again", "model": "nano", "config": {}})
    plan["runs"].append(planned(run_id("axial", 0), "again", 0))
    plan["runs"].append(planned("scenes-nano-s5-00000000", "again", 5, parent=run_id("axial", 0)))
    return plan, collect(plan, tmp_path / "runs")


def test_round_trip(sweep, tmp_path):
    plan, collected = sweep
    files = archive.write(collected, tmp_path / "m", plan, title="Scenes", date="2031-05-04", note="made up")
    assert sorted(path.name for path in files) == ["about.yaml", "curves.csv", "metrics.csv", "runs.csv"]
    back = archive.read(tmp_path / "m")
    of_folders = list(archive.OF_FOLDERS)  # not committed, since the files they lead to are not
    pd.testing.assert_frame_equal(back.runs.drop(columns=of_folders), collected.runs.drop(columns=of_folders))
    assert set(back.runs["config"]) == {""} and back.runs["log_line"].isna().all()
    pd.testing.assert_frame_equal(back.curves, collected.curves, check_dtype=False)
    expected = collected.metrics[collected.metrics["metric"] != "train/lr"].reset_index(drop=True)
    expected["metric"] = expected["metric"].cat.remove_unused_categories()
    key = ["arm", "seed", "metric", "step"]
    pd.testing.assert_frame_equal(
        back.metrics.sort_values(key, ignore_index=True)[list(expected.columns)],
        expected.sort_values(key, ignore_index=True),
        check_dtype=False,
    )
    assert archive.plan_of(back) == plan and back.tasks == collected.tasks == plan["tasks"]
    assert back.warnings == collected.warnings
    assert back.about["title"] == "Scenes" and back.about["date"] == "2031-05-04" and back.about["hardware"] == "cpu"


def test_writing_what_was_read_gives_the_same_bytes(sweep, tmp_path):
    plan, collected = sweep
    first = archive.write(collected, tmp_path / "a", plan, title="t", date="d")
    again = archive.write(archive.read(tmp_path / "a"), tmp_path / "b", plan, title="t", date="d")
    for written, rewritten in zip(first, again):
        assert written.read_bytes() == rewritten.read_bytes(), written.name


def test_results_that_were_written_before_sweeps_had_several_tasks(sweep, tmp_path):
    plan, collected = sweep
    old = tmp_path / "m"
    archive.write(collected, old, without_tasks(plan), title="t", date="d")
    runs = pd.read_csv(old / "runs.csv", dtype=str, keep_default_na=False).drop(columns="parent")
    runs.loc[runs["state"] != "done", "task"] = ""  # the recorded task, which only a summary names
    runs.to_csv(old / "runs.csv", index=False)
    back = archive.read(old)
    assert [(task["name"], task["metric"]) for task in back.tasks] == [(TASK, None)]
    assert set(back.runs["task"]) == set(back.metrics["task"]) == set(back.curves["task"]) == {TASK}
    assert back.finals("eval/token_accuracy", TASK).equals(
        collected.finals("eval/token_accuracy").astype({"seed": "int64"})
    )
    assert {entry["task"] for entry in archive.plan_of(back)["runs"]} == {TASK}
    again = archive.read(archive.write(back, tmp_path / "n", archive.plan_of(back), title="t", date="d")[0].parent)
    pd.testing.assert_frame_equal(again.runs, back.runs)


DOWNSTREAM = {
    "detection-smoke": ["boxes"],
    "paper-smoke-ablation_peg": ["retinanet_1x", "semantic_fpn"],
    "paper-smoke-ablation_v1": ["mask_rcnn_1x_ms"],
    "paper-smoke-necks": ["masks", "boxes"],
    "paper-smoke-variants": [
        "semantic_fpn", "upernet", "retinanet_1x", "retinanet_3x", "mask_rcnn_1x", "mask_rcnn_3x", "cascade_1x",
        "cascade_3x",
    ],
}  # fmt: skip


@pytest.mark.parametrize("label", archive.labels())
def test_committed_results_name_their_task(label):
    collected = archive.read(archive.folder(label))
    own, *downstream = [task["name"] for task in collected.tasks]
    assert own in ("token_labelling", "classification", "segmentation")
    assert downstream == DOWNSTREAM.get(label, [])
    assert set(collected.runs["task"]) == set(collected.metrics["task"]) == {own, *downstream}


def test_long_logs_are_thinned(sweep, tmp_path):
    plan, collected = sweep
    row = {**collected.metrics.iloc[0].to_dict(), "metric": "train/loss", "final": False}
    long = pd.DataFrame([{**row, "step": 100_000 + step} for step in range(5000)])
    collected.metrics = pd.concat([collected.metrics, long], ignore_index=True)
    archive.write(collected, tmp_path / "m", plan, title="t", date="d")
    back = archive.read(tmp_path / "m").metrics
    loss = back[(back["metric"] == "train/loss") & (back["run"] == row["run"])]
    assert 100 < len(loss) <= archive.LOSS_POINTS
    assert (
        len(back[back["metric"] == "eval/token_accuracy"]) == 20 * 7
    )  # evaluations are not thinned: seven runs started


def test_the_line_of_a_committed_number(sweep, tmp_path):
    plan, collected = sweep
    archive.write(collected, tmp_path / "m", plan, title="t", date="d")
    lines = (tmp_path / "m" / "metrics.csv").read_text().splitlines()
    for run, value in collected.finals("eval/token_accuracy")[["run", "value"]].itertuples(index=False):
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
        folder = archive.folder(label)
        collected, lines = archive.read(folder), (folder / "metrics.csv").read_text().splitlines()
        finals = collected.metrics[collected.metrics["final"]]
        for run, metric in set(zip(finals["run"], finals["metric"])):
            line = lines[archive.line_of(folder, run, metric) - 1]
            assert line.startswith(f"{run},") and f",{metric}," in line and line.endswith(",True")


def test_files_that_are_missing_or_torn_are_one_line(sweep, tmp_path):
    plan, collected = sweep
    with pytest.raises(CollectError, match="unknown measured results 'nowhere'"):
        archive.read(tmp_path / "nowhere")
    archive.write(collected, tmp_path / "m", plan, title="t", date="d")
    for name in ("runs.csv", "metrics.csv", "curves.csv"):
        content = (tmp_path / "m" / name).read_text()
        (tmp_path / "m" / name).write_text("")
        with pytest.raises(CollectError, match=f"^measured results m: {name}: No columns to parse from file$"):
            archive.read(tmp_path / "m")
        (tmp_path / "m" / name).unlink()
        with pytest.raises(CollectError, match=f"^measured results m: {name}: No such file or directory$"):
            archive.read(tmp_path / "m")
        (tmp_path / "m" / name).write_text(content)


def edited(number: int, old: str, new: str):
    """An edit of the line with this number."""

    def edit(text: str) -> str:
        lines = text.splitlines(keepends=True)
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new, 1)
        return "".join(lines)

    return edit


def without(key: str):
    """An edit that removes a key of about.yaml or of its plan."""

    def edit(text: str) -> str:
        content = yaml.safe_load(text)
        (content if key in content else content["plan"]).pop(key)
        return yaml.safe_dump(content)

    return edit


RUN, OTHER = run_id("zero", 0), run_id("zero", 1)
EDITED = {  # file, an edit of its text, the message about it
    "a list": ("about.yaml", lambda text: "- a\n- b\n", "about.yaml: it is not a mapping"),
    "no YAML": ("about.yaml", lambda text: "a: [b\nc: }", "about.yaml:2: not valid YAML: "),
    "no plan": ("about.yaml", without("plan"), "about.yaml: it has no plan"),
    "no arms": ("about.yaml", without("arms"), "about.yaml: its plan has no arms"),
    "no protocol": ("about.yaml", without("protocol"), "about.yaml: its plan has no protocol"),
    "an arm is a text": (
        "about.yaml", lambda text: text.replace("- name: zero", "- zero\n  - name: zero"),
        "about.yaml: arm 1 of its plan is not a mapping",
    ),
    "warnings that are a text": (
        "about.yaml", lambda text: text.replace("warnings: []", "warnings: none"), "about.yaml: its warnings are not a list"
    ),
    "another baseline": (
        "about.yaml", lambda text: text.replace("baseline: zero", "baseline: zeroo"),
        "plan of sweep ablation_offsets: unknown arm 'zeroo'",
    ),
    "tasks that are a text": (
        "about.yaml", lambda text: text.replace("tasks:", "tasks: none\n  was:"), "about.yaml: the tasks of its plan are no"
    ),
    "a task without a name": (
        "about.yaml", lambda text: text.replace("- name: token_labelling", "- nome: token_labelling"),
        "about.yaml: task 1 of its plan has no name",
    ),
    "a run of another task": (
        "runs.csv", edited(3, f",{TASK},", ",labelling,"), "plan of sweep ablation_offsets: unknown task 'labelling'"
    ),
    "runs without a column": ("runs.csv", edited(1, "run,", "ran,"), "runs.csv:1: it has no column run"),
    "a seed in words": ("runs.csv", edited(2, f"zero,{TASK},0,", f"zero,{TASK},none,"), "runs.csv:2: its seed is 'none', not a whole"),
    "no seed": ("runs.csv", edited(3, f"zero,{TASK},1,", f"zero,{TASK},,"), "runs.csv:3: its seed is empty, not a whole number"),
    "half a seed": ("runs.csv", edited(3, f"zero,{TASK},1,", f"zero,{TASK},0.5,"), "runs.csv:3: its seed is '0.5', not a whole number"),
    "a size in words": ("runs.csv", edited(5, "1.23457", "big"), "runs.csv:5: its params_m is 'big', not a finite"),
    "no run": ("runs.csv", edited(2, RUN, ""), "runs.csv:2: its run is empty"),
    "a cell twice": ("runs.csv", edited(3, f"zero,{TASK},1,", f"zero,{TASK},0,"), "arm zero has seed 0 more than once"),
    "metrics without columns": (
        "metrics.csv", edited(1, "epoch,metric,value", "e,m,value"), "metrics.csv:1: it has no column epoch, metric"
    ),
    "no value": ("metrics.csv", edited(3, ",False", ",,False"), "metrics.csv: Error tokenizing data. C error: Expected"),
    "an empty final value": (
        "metrics.csv", lambda text: re.sub(rf"({RUN},1200,.*accuracy),[\d.]+,True", r"\1,,True", text),
        "metrics.csv:41: its value is empty, not a finite number",
    ),
    "an infinite value": (
        "metrics.csv", lambda text: re.sub(rf"({RUN},1200,.*accuracy),[\d.]+,True", r"\1,inf,True", text),
        "metrics.csv:41: its value is 'inf', not a finite number",
    ),
    "a blank line before words": (
        "metrics.csv", edited(4, "\n", "\n\n"), "metrics.csv:5: its step is empty, not a whole number"
    ),
    "a final value twice": (
        "metrics.csv", lambda text: text + next(line for line in text.splitlines() if "True" in line) + "\n",
        ": a final value of this run and metric stands above already",
    ),
    "final in other words": ("metrics.csv", edited(3, "False", "no"), "metrics.csv:3: its final is neither True nor"),
    "curves of nothing": ("curves.csv", edited(1, "run,curve", "run,carve"), "curves.csv:1: it has no column curve"),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITED)
def test_an_edit_that_makes_a_file_unreadable_is_named_with_file_and_line(tmp_path, case):
    plan = make_plan(ARMS)
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    archive.write(collect(plan, tmp_path / "runs"), tmp_path / "m", plan, title="t", date="d")
    name, edit, reason = EDITED[case]
    path = tmp_path / "m" / name
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before
    with pytest.raises(CollectError) as refused:
        archive.read(tmp_path / "m")
    message = str(refused.value)
    assert message.startswith("measured results m: ") and reason in message and "\n" not in message, message
