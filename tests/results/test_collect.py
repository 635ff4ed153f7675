"""Collecting gives what run folders record; a torn, foreign or unfinished run is named and never counted."""

from __future__ import annotations

import hashlib
import json
import shutil

import pandas as pd
import pytest

from results.collect import METRIC_COLUMNS, CollectError, collect
from tests.results.synthetic import (
    TASK,
    edit_json,
    make_plan,
    make_run,
    make_runs,
    planned,
    run_id,
    without_tasks,
    write_json,
)

ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}


@pytest.fixture
def plan():
    return make_plan(ARMS)


@pytest.fixture
def runs_dir(tmp_path, plan):
    make_runs(tmp_path, plan, ARMS, examples=False)
    return tmp_path


def state(collected, arm, seed):
    runs = collected.runs
    return runs[(runs["arm"] == arm) & (runs["seed"] == seed)].iloc[0]


def test_a_complete_sweep(plan, runs_dir):
    collected = collect(plan, runs_dir)
    assert collected.warnings == []
    assert list(collected.runs["state"]) == ["done"] * 6
    first = collected.runs.iloc[0]
    assert (first["model"], first["params_m"], first["flops_g"]) == ("nano", 1.23457, 0.148)
    assert (first["step"], first["epochs"], first["torch"], first["dirty"]) == (1200, 20, "2.8.0", "no")
    summary = json.loads((runs_dir / run_id("axial", 2) / "summary.json").read_text())
    final = collected.finals("eval/token_accuracy").set_index(["arm", "seed"])["value"]
    assert len(final) == 6
    assert final["axial", 2] == pytest.approx(summary["metrics"]["eval/token_accuracy"], rel=1e-5)


def test_the_whole_log_is_there_and_only_the_summary_is_final(plan, runs_dir):
    values = {"eval/token_accuracy": 12.5}
    edit_json(runs_dir / run_id("zero", 0) / "summary.json", metrics=values)
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    *lines, last = log.read_text().splitlines()
    ends = {
        "the summary's values end its last row": [json.dumps({**json.loads(last), **values})],
        "they do not": [json.dumps({**json.loads(last), **values, "train/lr": 0.5, "eval/loss": 0.25})],
        "a row comes behind": [json.dumps({**json.loads(last), **values}), '{"step": 1300, "train/loss": 0.5}'],
    }
    for case, end in ends.items():
        log.write_text("\n".join([*lines, *end]) + "\n")
        metrics = collect(plan, runs_dir).metrics
        of_run = metrics[(metrics["run"] == run_id("zero", 0)) & (metrics["metric"] == "eval/token_accuracy")]
        assert len(of_run) == 20 and list(of_run[of_run["final"]]["value"]) == [12.5], case
    log.write_text("\n".join([*lines, last.replace("eval/token_accuracy", "train/spare")]) + "\n")
    assert set(metrics["metric"]) == {"train/loss", "train/lr", "eval/token_accuracy"}
    assert set(metrics["protocol"]) == {"smoke"} and set(metrics["task"]) == {"token_labelling"}


def test_a_run_comes_with_its_config_and_the_line_of_its_last_row(plan, runs_dir):
    for name in ("summary.json", "state.json", "metrics.jsonl"):
        (runs_dir / run_id("axial", 0) / name).unlink()
    shutil.rmtree(runs_dir / run_id("axial", 1))
    log = runs_dir / run_id("axial", 2) / "metrics.jsonl"
    log.write_text(log.read_text() + 'torn? no: foreign\n{"step": 1300}\n{"step": 13')
    config = runs_dir / run_id("zero", 0) / "config.yaml"
    config.write_text("# by hand: [not, YAML\n" + config.read_text())
    collected = collect(plan, runs_dir)
    assert state(collected, "zero", 0)["config"] == config.read_text() and state(collected, "zero", 0)["log_line"] == 20
    assert (
        state(collected, "axial", 0)["config"] and state(collected, "axial", 0)["log_line"] is pd.NA
    )  # only submitted so far
    assert state(collected, "axial", 1)["config"] == "" and state(collected, "axial", 1)["log_line"] is pd.NA
    assert state(collected, "axial", 2)["log_line"] == 22
    assert (str(collected.runs["log_line"].dtype), str(collected.runs["seed"].dtype)) == ("Int64", "Int64")


def test_a_schedulers_state_counts_unless_the_folder_records_how_the_run_ended(plan, runs_dir):
    _, failed, refused, running, waiting, torn = (entry["run"] for entry in plan["runs"])
    for run in (failed, refused, running):
        (runs_dir / run / "summary.json").unlink()
    edit_json(runs_dir / failed / "state.json", state="failed", cause="non-finite loss at step 7")
    edit_json(runs_dir / refused / "state.json", state="refused", cause="other code")
    edit_json(runs_dir / running / "state.json", state="running", step=480)
    shutil.rmtree(runs_dir / waiting)
    (runs_dir / torn / "summary.json").write_text("{")
    states = dict.fromkeys((entry["run"] for entry in plan["runs"]), ("cancelled", "by somebody (job 12)"))
    collected = collect(
        plan, runs_dir, {**states, waiting: ("queued", "Priority"), "scenes-nano-s9-00000000": ("lost", "")}
    )
    assert list(collected.runs["state"]) == ["done", "failed", "refused", "cancelled", "queued", "unreadable"]
    causes = list(collected.runs["cause"])
    assert causes[:3] == ["", "non-finite loss at step 7", "other code"]
    assert causes[3:5] == ["by somebody (job 12)", "Priority"] and "cannot be read" in causes[5]
    assert collected.runs["progress"][3] == 0.4
    assert list(collect(plan, runs_dir).runs["state"])[3:5] == ["running", "not run"], (
        "the scheduler's states are not cached"
    )


def test_a_child_of_a_run_that_the_scheduler_lost_is_cancelled(plan, tmp_path):
    parent, child = plan["runs"][0]["run"], plan["runs"][1]["run"]
    chained = [{**entry, "parent": parent if entry["run"] == child else None} for entry in plan["runs"]]
    collected = collect({**plan, "runs": chained}, tmp_path, {parent: ("cancelled", "by somebody")})
    assert list(collected.runs["state"])[:3] == ["cancelled", "cancelled", "not run"]
    assert collected.runs["cause"][1] == "the run it starts from failed"


STRANGE = {
    "numbers that are words": {"params_m": "many", "wall_s": True, "epochs": "all", "images_per_s": 1e400},
    "words that are numbers": {"task": 7, "device": 1.5, "finished": [1], "model": {"name": 3}},
    "lists that are none": {"notes": 5, "curves": "none"},
    "half a character": {"notes": ["\ud83d\ude00"], "device": "\u2028"},
    "curves that are none": {"curves": {"reach": [1, 2]}},
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_summary_that_was_edited_by_hand_does_not_stop_the_others(plan, runs_dir, kind):
    edit_json(runs_dir / run_id("zero", 0) / "summary.json", **STRANGE[kind])
    edit_json(runs_dir / run_id("zero", 1) / "provenance.json", packages=["torch"], dirty="perhaps", commit=7)
    collected = collect(plan, runs_dir)
    assert len(collected.finals("eval/token_accuracy")) == 6
    assert all("curves" in warning for warning in collected.warnings)


def test_texts_of_the_metrics_are_categories_and_numbers_have_their_types(plan, runs_dir):
    metrics = collect(plan, runs_dir).metrics
    assert list(metrics.columns) == list(METRIC_COLUMNS)
    for column in ("run", "arm", "task", "protocol", "metric"):
        assert list(metrics[column].cat.categories) == sorted(set(metrics[column]))
    kinds = {column: str(metrics[column].dtype) for column in ("seed", "step", "epoch", "value", "final")}
    assert kinds == {"seed": "int32", "step": "int32", "epoch": "Int32", "value": "float64", "final": "bool"}
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 5000000000, "train/loss": 0.25}\n')
    metrics = collect(plan, runs_dir).metrics
    assert metrics["step"].max() == 5_000_000_000 and metrics["epoch"].isna().sum() == 1


def test_curves_are_tidy(plan, runs_dir):
    curves = collect(plan, runs_dir).curves
    assert len(curves) == 6 * 2 * 16
    assert set(curves["curve"]) == {"reach"} and set(curves["direction"]) == {"horizontal", "vertical"}


def test_a_point_of_a_curve_cannot_claim_to_be_of_another_run(plan, runs_dir):
    expected = collect(plan, runs_dir).curves
    for seed in (0, 1, 2):
        path = runs_dir / run_id("zero", seed) / "summary.json"
        curves = json.loads(path.read_text())["curves"]
        foreign = {"run": run_id("axial", 0), "arm": "axial", "seed": 7, "curve": "evil"}
        edit_json(path, curves={name: [{**point, **foreign} for point in curve] for name, curve in curves.items()})
    pd.testing.assert_frame_equal(collect(plan, runs_dir).curves, expected)


def test_remains_of_a_run_without_a_state_are_named(plan, tmp_path):
    file, link, checkpoints, later, elsewhere, _ = (entry["run"] for entry in plan["runs"])
    (tmp_path / file).write_text("not a folder")
    (tmp_path / link).symlink_to("/nonexistent")
    for run in (checkpoints, later):
        (tmp_path / run / "checkpoints").mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("seed: 0\n")
    make_run(tmp_path / "elsewhere", plan, plan["runs"][4], 70, 60, 0.1, examples=False)
    (tmp_path / elsewhere).symlink_to(tmp_path / "elsewhere" / elsewhere)
    states = ["not run"] * 4 + ["done", "not run"]
    for _ in range(2):  # with a checkpoint and without, whatever the cache holds
        collected = collect(plan, tmp_path)
        assert list(collected.runs["state"]) == states
        of_checkpoints = [
            f"{checkpoints}: has checkpoints, but no state.json, metrics.jsonl or summary.json; not counted"
        ]
        assert sorted(collected.warnings) == sorted([
            f"{file}: a file where the run's folder should be; not counted",
            f"{link}: a link that leads to no folder where the run's folder should be; not counted",
            *(of_checkpoints if (tmp_path / checkpoints / "checkpoints" / "step-1.pt").exists() else ()),
        ])  # fmt: skip
        (tmp_path / checkpoints / "checkpoints" / "step-1.pt").touch()
    collected = collect(plan, tmp_path, {checkpoints: ("queued", "Priority")})
    assert of_checkpoints[0] in collected.warnings and collected.runs["state"][2] == "queued"


def test_states_before_and_beside_results(plan, runs_dir):
    shutil.rmtree(runs_dir / run_id("zero", 0))
    running, failed, stopped = (runs_dir / run_id("axial", seed) for seed in (0, 1, 2))
    for folder in (running, failed, stopped):
        (folder / "summary.json").unlink()
    edit_json(running / "state.json", state="running", step=480)
    edit_json(failed / "state.json", state="failed", cause="non-finite loss\nat step 7")
    edit_json(stopped / "state.json", state="interrupted", step=200)
    collected = collect(plan, runs_dir)
    assert state(collected, "zero", 0)["state"] == "not run"
    assert (state(collected, "axial", 0)["state"], state(collected, "axial", 0)["progress"]) == ("running", 0.4)
    assert state(collected, "axial", 1)["cause"] == "non-finite loss at step 7"
    assert state(collected, "axial", 2)["state"] == "interrupted"
    assert collected.warnings == []
    assert set(collected.finals("eval/token_accuracy")["arm"]) == {"zero"}
    assert collected.curves["arm"].unique().tolist() == ["zero"]
    logged = collected.metrics[collected.metrics["run"] == run_id("axial", 0)]
    assert len(logged) and not logged["final"].any()


BROKEN = {
    "half a character": (lambda f: edit_json(f / "summary.json", task="\ud800"), "summary.json cannot be read"),
    "a step in words": (lambda f: edit_json(f / "summary.json", step="last"), "its step is 'last', not a number"),
    "torn summary": (lambda f: (f / "summary.json").write_text('{"run": "sce'), "summary.json cannot be read"),
    "empty summary": (lambda f: (f / "summary.json").write_text(""), "summary.json cannot be read"),
    "a list": (lambda f: (f / "summary.json").write_text("[]"), "summary.json cannot be read"),
    "no metrics": (lambda f: edit_json(f / "summary.json", metrics={}), "holds no metrics"),
    "not a number": (lambda f: edit_json(f / "summary.json", metrics={"eval/top1": float("nan")}), "eval/top1 is nan"),
    "lacks step": (lambda f: edit_json(f / "summary.json", step=None), "lacks step"),
    "other run": (lambda f: edit_json(f / "summary.json", run="scenes-nano-s0-00000000"), "of another run: its run"),
    "other seed": (lambda f: edit_json(f / "summary.json", seed=7), "of another run: its seed is 7"),
    "other protocol": (lambda f: edit_json(f / "summary.json", protocol="tiny"), "its protocol is 'tiny'"),
    "no provenance": (lambda f: (f / "provenance.json").unlink(), "provenance.json is missing"),
    "torn provenance": (
        lambda f: (f / "provenance.json").write_text("{"),
        "provenance.json is missing or cannot be read",
    ),
    "no config": (lambda f: (f / "config.yaml").unlink(), "config.yaml is missing"),
    "another config": (
        lambda f: edit_json(f / "summary.json", sha256={"config.yaml": hashlib.sha256(b"seed: 1\n").hexdigest()}),
        "config.yaml is not the file that the run ended with",
    ),
    "done without summary": (lambda f: (f / "summary.json").unlink(), "no summary.json"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_folder_is_named_and_not_counted(plan, runs_dir, damage):
    harm, cause = BROKEN[damage]
    harm(runs_dir / run_id("zero", 1))
    collected = collect(plan, runs_dir)
    expected = "failed" if damage == "not a number" else "unreadable"  # as `status=` says
    assert state(collected, "zero", 1)["state"] == expected and cause in state(collected, "zero", 1)["cause"]
    assert any(run_id("zero", 1) in warning and cause in warning for warning in collected.warnings)
    assert len(collected.finals("eval/token_accuracy")) == 5
    assert run_id("zero", 1) not in set(collected.curves["run"])


def test_a_log_without_metrics_does_not_hide_the_result(plan, runs_dir):
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    log.write_text('{"step": 600, "epoch": 10}\n{"step": 1200, "epoch": 20}\n')
    collected = collect(plan, runs_dir)
    assert len(collected.finals("eval/token_accuracy")) == 6 and collected.warnings == []
    assert len(collected.metrics[collected.metrics["run"] == run_id("zero", 0)]) == 1


def test_an_unfinished_run_whose_log_holds_no_number_hides_no_other(plan, runs_dir):
    folder = runs_dir / run_id("zero", 0)
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text('{"step": 0}\n')
    collected = collect(plan, runs_dir)
    assert len(collected.finals("eval/token_accuracy")) == 5
    assert run_id("zero", 0) not in set(collected.metrics["run"])


def test_finals_of_nothing(plan, tmp_path):
    assert collect(plan, tmp_path).finals("eval/token_accuracy").empty


def test_a_finished_run_counts_whatever_its_state_file_holds(plan, runs_dir):
    edit_json(runs_dir / run_id("zero", 0) / "state.json", state="running", step=10)
    collected = collect(plan, runs_dir)
    assert state(collected, "zero", 0)["state"] == "done"
    assert collected.warnings == [], "the engine writes the summary a moment before the state turns to done"
    edit_json(runs_dir / run_id("zero", 0) / "state.json", state="failed", cause="disk full")
    collected = collect(plan, runs_dir)
    assert (state(collected, "zero", 0)["state"], state(collected, "zero", 0)["cause"]) == ("done", "")
    assert collected.warnings == [f"{run_id('zero', 0)}: state.json says failed, but summary.json is whole; counted"]


def test_a_summary_that_the_log_contradicts_is_not_counted(plan, runs_dir):
    run = run_id("zero", 0)
    summary, log = runs_dir / run / "summary.json", runs_dir / run / "metrics.jsonl"
    value = json.loads(summary.read_text())["metrics"]["eval/token_accuracy"]
    edit_json(summary, metrics={"eval/token_accuracy": value * (1 + 1e-9)})
    assert collect(plan, runs_dir).warnings == [], "not beyond the digits that are reported"
    edit_json(summary, metrics={"eval/token_accuracy": 99.0})
    cause = f"summary.json: eval/token_accuracy is 99.0, but metrics.jsonl says {value:.6g} at step 1200"
    for content in (log.read_text(), "a foreign line\n" + log.read_text()):  # which is read line by line
        log.write_text(content)
        collected = collect(plan, runs_dir)
        assert (state(collected, "zero", 0)["state"], state(collected, "zero", 0)["cause"]) == ("unreadable", cause)
        assert f"{run}: {cause}; not counted" in collected.warnings
        assert run not in set(collected.finals("eval/token_accuracy")["run"])
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:-1]))
    assert state(collect(plan, runs_dir), "zero", 0)["state"] == "done", "a log without the value cannot contradict it"


def test_a_run_that_was_judged_again_after_an_interruption_counts_and_says_so(plan, runs_dir):
    run = run_id("zero", 0)
    edit_json(runs_dir / run / "summary.json", metrics={"eval/token_accuracy": 71.5}, images_per_s=0.0)
    collected = collect(plan, runs_dir)
    (warning,) = collected.warnings
    assert warning.startswith(f"{run}: summary.json: eval/token_accuracy is 71.5, but metrics.jsonl says ")
    assert warning.endswith("at step 1200; it was judged again after it was interrupted, and counts")
    assert 71.5 in set(collected.finals("eval/token_accuracy")["value"])


def test_a_torn_last_line_is_ignored_and_garbage_elsewhere_is_named(plan, runs_dir):
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 1260, "eval/token_acc')
    assert collect(plan, runs_dir).warnings == []
    lines = log.read_text().splitlines()
    lines[2], lines[4] = "\x00\x00garbage", '"a string"'
    log.write_text("\n".join(lines))
    collected = collect(plan, runs_dir)
    where = f"{run_id('zero', 0)}/metrics.jsonl"
    assert [w.split(": ")[0] for w in collected.warnings] == [f"{where}:3", f"{where}:5"]
    assert (
        len(
            collected.metrics[
                (collected.metrics["run"] == run_id("zero", 0)) & (collected.metrics["metric"] == "train/loss")
            ]
        )
        == 18
    )
    log.write_text(log.read_text() + "\n")  # a complete bad line at the end is not torn
    assert any(f"{where}:21" in warning for warning in collect(plan, runs_dir).warnings)


def test_foreign_folders(plan, runs_dir):
    shutil.copytree(runs_dir / run_id("zero", 0), runs_dir / "zero-copy")
    shutil.copytree(runs_dir / run_id("zero", 0), runs_dir / "other-nano-s0-0123abcd")  # another sweep's run
    (runs_dir / "notes").mkdir()
    (runs_dir / "README").write_text("not a folder")
    collected = collect(plan, runs_dir)
    assert collected.warnings == ["zero-copy: looks like a run folder, but its name is not a run id; skipped"]
    assert len(collected.runs) == 6


def test_arms_may_share_a_run(plan, runs_dir):
    plan["arms"].append({"name": "again", "label": "again", "model": "nano", "config": {}})
    plan["runs"].append(planned(run_id("axial", 0), "again", 0))
    final = collect(plan, runs_dir).finals("eval/token_accuracy").set_index(["arm", "seed"])["value"]
    assert final["again", 0] == final["axial", 0] and len(final) == 7


def test_nothing_has_run_yet(plan, tmp_path):
    collected = collect(plan, tmp_path / "nowhere")
    assert list(collected.runs["state"]) == ["not run"] * 6
    assert collected.metrics.empty and collected.curves.empty and collected.warnings == []


def test_plans_that_contradict_themselves(plan, tmp_path):
    with pytest.raises(CollectError, match="unknown arm 'axail'; did you mean 'axial'"):
        collect({**plan, "baseline": "axail"}, tmp_path)
    with pytest.raises(CollectError, match="arm zero has seed 0 more than once"):
        collect({**plan, "runs": [*plan["runs"], plan["runs"][0]]}, tmp_path)


def test_optional_fields_may_be_missing(plan, tmp_path):
    folder = make_run(tmp_path, plan, plan["runs"][0], 70, 60, 0.1, examples=False)
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("curves", "notes", "device", "finished", "params_m", "images_per_s"):
        del summary[key]
    write_json(folder / "summary.json", summary)
    (folder / "metrics.jsonl").unlink()
    collected = collect(plan, tmp_path)
    assert state(collected, "zero", 0)["state"] == "done" and collected.curves.empty
    assert collected.warnings == [f"{run_id('zero', 0)}: no rows in metrics.jsonl; its learning curve is missing"]


def test_a_folder_that_a_launcher_made_for_later_is_not_run_and_a_child_of_a_failed_run_is_cancelled(plan, tmp_path):
    zero, axial = run_id("zero", 0), run_id("axial", 0)
    chained = [{**entry, "parent": zero if entry["run"] == axial else None} for entry in plan["runs"]]
    (tmp_path / axial).mkdir()
    (tmp_path / axial / "config.yaml").write_text("seed: 0\n")
    collected = collect({**plan, "runs": chained}, tmp_path)
    assert state(collected, "axial", 0)["state"] == "not run" and collected.warnings == []
    (tmp_path / zero).mkdir()
    (tmp_path / zero / "state.json").write_text('{"state": "failed", "cause": "non-finite loss at step 3"}')
    collected = collect({**plan, "runs": chained}, tmp_path)
    assert state(collected, "axial", 0)["state"] == "cancelled"
    assert state(collected, "axial", 0)["cause"] == "the run it starts from failed"


SEGMENTATION = {"name": "segmentation", "experiment": "scenes_masks", "metric": "eval/miou"}


@pytest.fixture
def two_tasks(plan):
    """The plan with a run of segmentation behind each of its runs, starting from it."""
    children = [
        planned(f"masks-nano-s{entry['seed']}-{entry['run'][-8:]}", entry["arm"], entry["seed"], "masks", entry["run"])
        for entry in plan["runs"]
    ]
    tasks = [*plan["tasks"], {**SEGMENTATION, "name": "masks"}]
    return {**plan, "tasks": tasks, "runs": [*plan["runs"], *children]}


def make_children(runs_dir, plan, metric="eval/miou"):
    for number, entry in enumerate(entry for entry in plan["runs"] if entry["task"] == "masks"):
        folder = make_run(runs_dir, plan, entry, 40 + number, 60, 0.3, metric=metric, examples=False)
        edit_json(folder / "summary.json", task="segmentation")


def test_an_arm_has_a_run_of_every_task_and_seed(two_tasks, runs_dir):
    make_children(runs_dir, two_tasks)
    collected = collect(two_tasks, runs_dir)
    assert [task["name"] for task in collected.tasks] == [TASK, "masks"] and collected.warnings == []
    assert not collected.runs.duplicated(["arm", "task", "seed"]).any()
    tables = {"runs": collected.runs, "metrics": collected.metrics, "curves": collected.curves}
    for name, table in tables.items():
        assert table[["run", "task"]].drop_duplicates()["task"].value_counts().to_dict() == {TASK: 6, "masks": 6}, name
    children = collected.runs[collected.runs["task"] == "masks"]
    assert list(children["parent"]) == [entry["run"] for entry in two_tasks["runs"][:6]]
    assert len(collected.finals("eval/miou")) == len(collected.finals("eval/miou", "masks")) == 6
    assert collected.finals("eval/miou", TASK).empty and set(collected.finals("eval/token_accuracy")["task"]) == {TASK}


def test_tasks_with_one_metric_are_kept_apart(two_tasks, runs_dir):
    make_children(runs_dir, two_tasks, metric="eval/token_accuracy")
    collected = collect(two_tasks, runs_dir)
    apart = [collected.finals("eval/token_accuracy", task) for task in (TASK, "masks")]
    assert [len(finals) for finals in apart] == [6, 6] and not set(apart[0]["run"]) & set(apart[1]["run"])
    assert len(collected.finals("eval/token_accuracy")) == 12


def test_a_plan_of_two_tasks_that_contradicts_itself(two_tasks, tmp_path):
    with pytest.raises(CollectError, match="arm zero has seed 0 of task masks more than once"):
        collect({**two_tasks, "runs": [*two_tasks["runs"], two_tasks["runs"][6]]}, tmp_path)
    with pytest.raises(CollectError, match="unknown task 'mask'; did you mean 'masks'"):
        collect({**two_tasks, "runs": [{**entry, "task": "mask"} for entry in two_tasks["runs"]]}, tmp_path)


def test_a_plan_from_before_sweeps_had_tasks_takes_the_one_that_its_runs_recorded(plan, runs_dir):
    (runs_dir / run_id("zero", 0) / "summary.json").unlink()
    edit_json(runs_dir / run_id("zero", 0) / "state.json", state="failed", cause="disk full")
    collected = collect(without_tasks(plan), runs_dir)
    assert [(task["name"], task["metric"]) for task in collected.tasks] == [(TASK, None)]
    assert set(collected.runs["task"]) == set(collected.metrics["task"]) == {TASK}


def test_a_run_that_counts_in_steps_has_no_epochs(plan, runs_dir):
    folder, going = runs_dir / run_id("axial", 0), runs_dir / run_id("axial", 1)
    for log in (folder / "metrics.jsonl", going / "metrics.jsonl"):
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        log.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "epoch"}) + "\n" for row in rows))
    edit_json(folder / "summary.json", epochs=None)
    (going / "summary.json").unlink()
    write_json(going / "state.json", {"state": "running", "step": 300, "steps": 1200})
    collected = collect(plan, runs_dir)
    assert collected.warnings == [] and state(collected, "axial", 0)["epochs"] is pd.NA
    assert (state(collected, "axial", 0)["state"], state(collected, "axial", 0)["step"]) == ("done", 1200)
    assert (state(collected, "axial", 1)["progress"], state(collected, "axial", 1)["step"]) == (0.25, 300)
    in_steps = collected.metrics[collected.metrics["run"].isin([folder.name, going.name])]
    assert len(in_steps) == 2 * 60 and in_steps["epoch"].isna().all() and in_steps["step"].max() == 1200
    assert len(collected.finals("eval/token_accuracy")) == 5
