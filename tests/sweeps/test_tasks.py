"""Sweeps with more than one task: each arm's own run, and the downstream runs that start from it."""

from __future__ import annotations

import json

import pytest

from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.tasks.registry import TASKS, TaskEntry
from run_format import CANCELLED, DONE, NOT_RUN
from sweeps import local, show
from sweeps.plan import load
from sweeps.status import describe
from tests.sweeps.test_sweeps import TINY

HEAD = "recipes: {paper: imagenet, smoke: scenes}\nseeds: [0, 1]\nbaseline: plain\n"
DOWNSTREAM = "downstream:\n  large: {smoke: scenes_256}\n"
ARMS = """arms:
  plain: {model.offsets: zero, train.lr: 1.0e-3}
  other: {start_from: plain, model.offsets: zero, downstream: {large: {train.lr: 2.0e-4}}}
  short: {tasks: [token_labelling]}
"""


@pytest.fixture
def write_sweep(tmp_path, monkeypatch):
    """Writes the only sweep there is, ``transfer``."""
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)

    def write(text: str = HEAD + DOWNSTREAM + ARMS) -> None:
        (tmp_path / "transfer.yaml").write_text(text)

    return write


def test_every_downstream_run_starts_from_the_own_run_of_its_arm_and_seed(write_sweep):
    write_sweep()
    plan = load("transfer", "smoke")
    assert [task.name for task in plan.tasks] == ["token_labelling", "large"]
    assert [(run.arm, run.task) for run in plan.runs if run.seed == 0] == [
        ("plain", "token_labelling"), ("other", "token_labelling"), ("short", "token_labelling"),
        ("plain", "large"), ("other", "large"),
    ]  # fmt: skip
    runs = {(run.arm, run.task, run.seed): run for run in plan.runs}
    assert len(runs) == len(plan.runs) == len(plan.distinct()) == 10
    for (arm, task, seed), run in runs.items():
        start = (arm, "token_labelling") if task == "large" else {"other": ("plain", "token_labelling")}.get(arm)
        assert run.parent == run.config.init == (runs[(*start, seed)].id if start else None)
        assert run.id == run_id(run.config)
        assert run.config.experiment == ("scenes_256" if task == "large" else "scenes")


def test_settings_of_the_model_reach_every_task_and_others_only_their_own(write_sweep):
    write_sweep()
    runs = {(run.arm, run.task): run.config for run in load("transfer", "smoke", seeds=[0]).runs}
    assert runs["plain", "large"].model == runs["plain", "token_labelling"].model
    rates = {cell: config.train.lr for cell, config in runs.items()}
    assert rates["plain", "token_labelling"] == 1e-3 and rates["plain", "large"] == 3e-4, "the recipe's own"
    assert rates["other", "large"] == 2e-4
    changed = load("transfer", "smoke", {"train.epochs": 2, "model.fusion": "mean"}, seeds=[0])
    assert {run.config.train.epochs for run in changed.runs} == {2}, "the command line reaches every run"
    assert {run.config.model.fusion for run in changed.runs} == {"mean"}


def test_a_data_root_of_the_command_line_belongs_to_the_data_set_of_the_sweeps_own_task(write_sweep, monkeypatch):
    write_sweep()
    words = {"data.root": "/images"}
    assert {run.config.data.root for run in load("transfer", "smoke", words).runs} == {"/images"}, "one data set"
    words["data.dataset"] = "other"
    roots = {run.task: run.config.data.root for run in load("transfer", "smoke", words, seeds=[0]).runs}
    assert roots == {"token_labelling": "/images", "large": None}


def test_the_plan_names_the_metric_of_every_task(write_sweep, monkeypatch):
    entry = TaskEntry("nowhere:Task", "token_accuracy", "Object-token accuracy", "%", 2, 25.0)
    monkeypatch.setitem(TASKS, "token_labelling", entry)
    write_sweep()
    plan = load("transfer", "smoke", {"train.ema_decay": 0.9})
    assert plan.as_dict()["tasks"][1] == {
        "name": "large",
        "experiment": "scenes_256",
        "metric": "eval_ema/token_accuracy",
        "label": "Object-token accuracy",
        "unit": "%",
        "decimals": 2,
        "chance": 25.0,
    }
    assert plan.as_dict()["tasks"][0]["name"] == "token_labelling"
    assert {run["task"] for run in plan.as_dict()["runs"]} == {"token_labelling", "large"}
    assert load("transfer", "smoke").tasks[0].metric == "eval/token_accuracy"
    json.dumps(plan.as_dict())


def test_some_tasks_can_be_chosen_and_the_own_one_is_always_planned(write_sweep):
    write_sweep()
    assert {run.task for run in load("transfer", "smoke", tasks=["token_labelling"]).runs} == {"token_labelling"}
    chosen = load("transfer", "smoke", tasks=["large"])
    assert {run.id for run in chosen.runs} == {run.id for run in load("transfer", "smoke").runs}
    with pytest.raises(ConfigError, match="unknown task of sweep transfer 'larg'; did you mean 'large'"):
        load("transfer", "smoke", tasks=["larg"])


def test_a_task_without_a_recipe_for_the_protocol_is_planned_only_where_it_is_named(write_sweep):
    write_sweep(f"{HEAD}downstream: {{large: {{paper: imagenet}}}}\narms: {{plain: }}\n")
    assert {run.task for run in load("transfer", "smoke").runs} == {"token_labelling"}
    with pytest.raises(ConfigError, match="task 'large' has no recipe for protocol smoke, only for paper"):
        load("transfer", "smoke", tasks=["large"])


@pytest.mark.parametrize(
    ("downstream", "arms", "message"),
    [
        ("large: {smok: scenes_256}", "plain: ", "downstream: large: unknown protocol 'smok'"),
        ("large: scenes_256", "plain: ", "downstream: large: give a recipe per protocol"),
        ("large: {smoke: scenes_25}", "plain: ", "unknown experiment 'scenes_25'"),
        ("token_labelling: {smoke: scenes_256}", "plain: ", "is the sweep's own task"),
        ("large: {smoke: scenes_256}", "plain: {tasks: [larg]}", "tasks: unknown task 'larg'; did you mean 'large'"),
        ("large: {smoke: scenes_256}", "plain: {downstream: {larg: {}}}", "unknown task 'larg'"),
        ("large: {smoke: scenes_256}", "plain: {downstream: {large: {train.l: 1}}}", "unknown key 'train.l'"),
        ("large: {smoke: scenes_256}", "plain: {downstream: {large: {init: x}}}", "init cannot be set"),
        (
            "large: {smoke: scenes_256}",
            "plain: {downstream: {large: {model.fusion: mean}}}",
            "task 'large' of arm 'plain' has model.fusion=mean, but the arm's token_labelling run, whose weights",
        ),
    ],
)
def test_a_file_whose_tasks_contradict_it_is_refused_in_one_line(write_sweep, downstream, arms, message):
    write_sweep(f"{HEAD}downstream: {{{downstream}}}\narms: {{{arms}}}\n")
    with pytest.raises(ConfigError) as refused:
        load("transfer", "smoke")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_states_say_which_task_a_run_is_of(write_sweep, tmp_path):
    write_sweep()
    plan = load("transfer", "smoke", TINY, [0], ["plain", "short"])
    parent = RunFolder(tmp_path / plan.runs[0].id)
    parent.freeze(plan.runs[0].config)
    rows = {(row.arm, row.task): row for row in describe(plan, tmp_path)}
    assert rows["plain", "large"].state == NOT_RUN and parent.id in rows["plain", "large"].detail
    assert all(row.task in line for row, line in zip(rows.values(), show.lines(list(rows.values()))))
    parent.set_state("failed", cause="a cause")
    rows = {(row.arm, row.task): row for row in describe(plan, tmp_path)}
    assert rows["plain", "large"].state == CANCELLED
    own = load("transfer", "smoke", TINY, [0], ["plain"], tasks=["token_labelling"])
    assert "token_labelling" not in "".join(show.lines(describe(own, tmp_path))), "one task needs no name"


@pytest.mark.slow
def test_a_downstream_run_is_started_once_its_parent_is_done(write_sweep, tmp_path):
    write_sweep()
    plan = load("transfer", "smoke", TINY, [0], ["plain"])
    lines = []
    outcome = local.launch(plan, tmp_path / "runs", jobs=2, say=lines.append)
    assert outcome.done == [run.id for run in plan.runs] and outcome.exit_code == 0
    assert [line.split()[:3] for line in lines if line.startswith("done")] == [
        ["done", "plain", "token_labelling"],
        ["done", "plain", "large"],
    ]
    assert {row.state for row in describe(plan, tmp_path / "runs")} == {DONE}
