"""Runs that start from other runs of their sweep: planned, started in order, and waited for."""

from __future__ import annotations

import shutil
import time

import pytest
from safetensors.numpy import load_file

import run as command_line
from errors import ConfigError
from experiments.config import ROOT, resolve
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from results.collect import collect
from run_format import CANCELLED, DONE, FAILED, NOT_RUN
from sweeps import launcher, local
from sweeps.plan import Plan, load
from sweeps.status import describe
from tests.sweeps.test_sweeps import TINY, WORDS


@pytest.fixture
def write_sweep(tmp_path, monkeypatch):
    """Writes arms, one of them ``small``, into the only sweep there is: ``grown``."""
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path / "sweeps")
    (tmp_path / "sweeps").mkdir()

    def write(arms: str) -> None:
        head = "recipes: {paper: imagenet, smoke: scenes}\nseeds: [0, 1]\nbaseline: small\n"
        (tmp_path / "sweeps" / "grown.yaml").write_text(f"{head}arms: {{{arms}}}\n")

    return write


def test_an_arm_starts_from_the_run_of_another_with_its_seed(write_sweep):
    write_sweep("late: {start_from: grown}, grown: {start_from: small, train.lr: 1.0e-3}, small: ")
    plan = load("grown", "smoke", TINY)
    assert list(plan.labels) == ["late", "grown", "small"], "tables keep the order of the file"
    assert [run.arm for run in plan.runs] == ["small", "grown", "late"] * 2, "parents come first"
    by_cell = {(run.arm, run.seed): run for run in plan.runs}
    for (arm, seed), run in by_cell.items():
        parent = {"late": "grown", "grown": "small", "small": None}[arm]
        assert run.parent == run.config.init == (by_cell[parent, seed].id if parent else None)
        assert run.id == run_id(run.config)
    changed = {run.arm: run.id for run in load("grown", "smoke", TINY | {"train.epochs": 2}, [0]).runs}
    assert len({run.id for run in plan.runs} | set(changed.values())) == 9, "another parent makes another child"


def test_an_arm_may_have_seeds_of_its_own(write_sweep):
    write_sweep("small: {seeds: [0, 1, 5]}, big: {train.lr: 1.0e-3}")
    cells = [(run.arm, run.seed) for run in load("grown", "smoke", TINY).runs]
    assert cells == [("small", 0), ("big", 0), ("small", 1), ("big", 1), ("small", 5)]
    chosen = load("grown", "smoke", TINY, [7])
    assert [(run.arm, run.seed) for run in chosen.runs] == [("small", 7), ("big", 7)]


def test_runs_of_a_plan_are_what_resolving_each_of_them_gives(write_sweep):
    write_sweep("384: {start_from: small, recipes: {paper: imagenet_384}}, small: {model: l}")
    for run in load("grown").runs:
        recipe = "imagenet_384" if run.parent else "imagenet"
        assert run.config == resolve(recipe, {"model": "l", "seed": run.seed, "init": run.parent})


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("small: , big: {start_from: smal}", "arm 'big': start_from: unknown arm 'smal'; did you mean 'small'?"),
        ("small: , big: {start_form: small}", "unknown key 'start_form'; did you mean 'start_from'?"),
        ("small: {start_from: big}, big: {start_from: small}", "in a circle: 'small' from 'big' from 'small'"),
        ("small: {start_from: small}", "in a circle: 'small' from 'small'"),
        ("small: , big: {start_from: small, init: x}", "either init or start_from"),
        ("small: , big: {recipes: {smok: scenes}}", "unknown protocol 'smok'; did you mean 'smoke'?"),
        ("small: , big: {recipes: scenes}", "recipes: give a recipe per protocol"),
        ("small: , big: {recipes: {smoke: scense}}", "unknown experiment 'scense'; did you mean 'scenes'"),
        ("small: , big: {recipes: {smoke: imagenet}}", "recipe imagenet is of protocol paper, not smoke"),
        (
            "small: {seeds: [0, 1]}, big: {start_from: small, seeds: [1, 2]}",
            "'big' has seed 2, but 'small', its parent",
        ),
        ("small: , big: {seeds: [3, 3]}", "arm 'big': seeds=[3, 3]: give every seed once"),
        ("small: , big: {seeds: 3}", "arm 'big': seeds=3: give a list of whole numbers"),
        ("small: , big: {start_from: small, model: t}", "has model.name=t, but 'small', whose weights it starts from"),
    ],
)
def test_a_sweep_file_with_contradictions_is_refused_in_one_line(write_sweep, arms, message):
    write_sweep(arms)
    with pytest.raises(ConfigError) as refused:
        load("grown", "smoke")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_arm_of_another_protocol_is_planned_only_where_it_is_named(write_sweep):
    write_sweep("small: , big: {recipes: {paper: imagenet}}")
    plan = load("grown", "smoke", TINY)
    assert list(plan.labels) == ["small"] and plan.left_out == [], "nobody left it out"
    with pytest.raises(ConfigError, match="arm 'big' has no recipe for protocol smoke, only for paper"):
        load("grown", "smoke", TINY, arms=["small", "big"])


def test_arms_without_their_parents_are_refused(write_sweep):
    write_sweep("small: , other: , 384: {start_from: other}")
    with pytest.raises(ConfigError, match="'384' starts from 'other', so 'other' must be among them"):
        load("grown", "smoke", arms=["small", 384])
    assert load("grown", "smoke", arms=["small"]).left_out == ["other", "384"]


def test_an_arm_without_a_recipe_for_the_protocol_is_left_out_and_refused_by_name(write_sweep):
    write_sweep("small: , big: {recipes: {paper: imagenet}}")
    plan = load("grown", "smoke")
    assert list(plan.labels) == ["small"] and plan.left_out == []
    with pytest.raises(ConfigError, match="no recipe for protocol smoke, only for paper"):
        load("grown", "smoke", arms=["small", "big"])


def states(plan: Plan, runs_dir) -> dict[str, tuple[str, str]]:
    return {row.arm: (row.state, row.detail) for row in describe(plan, runs_dir)}


@pytest.mark.slow
def test_a_child_starts_from_the_final_weights_of_its_parent_and_of_no_other_run(write_sweep, tmp_path, capsys):
    write_sweep("still: {start_from: small, train.lr: 0, train.min_lr: 0}, small: ")
    plan = load("grown", "smoke", TINY, [0, 1])
    outcome = local.launch(plan, tmp_path, jobs=2)
    assert (outcome.exit_code, len(outcome.done)) == (0, 4)
    folders = {(run.arm, run.seed): tmp_path / run.id for run in plan.runs}
    weights = {cell: load_file(folder / "weights.safetensors") for cell, folder in folders.items()}
    for seed in (0, 1):
        parent, child = weights["small", seed], weights["still", seed]
        assert all((parent[name] == child[name]).all() for name in parent)
    assert any((weights["small", 0][name] != weights["small", 1][name]).any() for name in weights["small", 0])

    shutil.copy(folders["small", 1] / "weights.safetensors", folders["small", 0] / "weights.safetensors")
    words = ["sweep=grown", "protocol=smoke", f"runs_dir={tmp_path}", *WORDS]
    for chosen in (["seeds=[0]"], ["seeds=[0]", "--dry-run"]):
        assert command_line.main([*words, *chosen]) == 2
        parent, child = folders["small", 0].name, folders["still", 0].name
        assert f"init={parent}: weights.safetensors has changed since {child} started" in capsys.readouterr().err
    assert command_line.main([*words, "seeds=[1]"]) == 0
    shutil.rmtree(folders["still", 0])
    outcome = local.launch(load("grown", "smoke", TINY, [0]), tmp_path)
    (why,) = outcome.failed.values()
    assert "its weights.safetensors is not the file that the run wrote (its SHA-256 differs)" in why


@pytest.mark.slow
def test_a_failed_parent_keeps_its_children_from_starting_until_it_is_done(write_sweep, tmp_path, capsys):
    write_sweep("late: {start_from: grown}, grown: {start_from: small}, small: , lone: {model.fusion: mean}")
    plan = load("grown", "smoke", TINY, [0])
    ids = {run.arm: run.id for run in plan.runs}
    parent = RunFolder(tmp_path / ids["small"])
    parent.freeze(plan.runs[0].config)
    assert states(plan, tmp_path)["late"] == (NOT_RUN, f"waits for {ids['grown']}")
    (parent.path / "metrics.jsonl").mkdir()  # a run that cannot write its log

    outcome = local.launch(plan, tmp_path, jobs=2)
    assert (outcome.done, list(outcome.failed), outcome.exit_code) == ([ids["lone"]], [ids["small"]], 1)
    assert outcome.cancelled == {
        ids["grown"]: f"waits for {ids['small']}, which failed",
        ids["late"]: f"waits for {ids['grown']}, which waits itself",
    }
    shown = states(plan, tmp_path)
    assert {arm: state for arm, (state, _) in shown.items()} == {
        "small": FAILED, "grown": CANCELLED, "late": CANCELLED, "lone": DONE
    }  # fmt: skip
    assert f"its parent {ids['small']} failed" in shown["grown"][1] and "the next launch" in shown["grown"][1]
    (parent.path / "metrics.jsonl").rmdir()
    collected = collect(plan.as_dict(), tmp_path)
    assert dict(zip(collected.runs["arm"], collected.runs["state"])) == {
        arm: state for arm, (state, _) in shown.items()
    }
    assert collected.warnings == []

    words = ["sweep=grown", "protocol=smoke", "seeds=[0]", *WORDS, f"runs_dir={tmp_path}"]
    capsys.readouterr()
    assert command_line.main(words) == 1
    printed = capsys.readouterr()
    assert f"{ids['grown']} waits for {ids['small']}, which failed; the next launch starts it" in printed.err
    assert f"waits   late         seed 0  waits for {ids['grown']}, which waits itself" in printed.out
    assert command_line.main([*words, "--retry-failed"]) == 0
    assert {state for state, _ in states(plan, tmp_path).values()} == {DONE}


def test_a_child_waits_for_a_parent_that_is_run_elsewhere(write_sweep, tmp_path):
    write_sweep("small: , grown: {start_from: small}")
    plan = load("grown", "smoke", TINY, [0])
    parent, child = (RunFolder(tmp_path / run.id) for run in plan.runs)
    parent.freeze(plan.runs[0].config)
    with parent.claim():
        outcome = local.launch(plan, tmp_path)
        assert outcome.waiting == {child.id: f"waits for {parent.id}, which is being run elsewhere"}
        assert (outcome.exit_code, outcome.cancelled, outcome.done) == (0, {}, [])
        assert states(plan, tmp_path)["grown"] == (NOT_RUN, f"waits for {parent.id}")
    assert not child.log.exists()


@pytest.mark.slow
def test_a_child_is_started_once_its_parent_is_done_elsewhere(write_sweep, tmp_path):
    write_sweep("small: , grown: {start_from: small}, lone: {model.fusion: mean}")
    plan = load("grown", "smoke", TINY, [0])
    runs = {run.arm: run for run in plan.runs}
    parent = RunFolder(tmp_path / runs["small"].id)
    parent.freeze(runs["small"].config)
    elsewhere = launcher.start(parent, ROOT)
    while not parent.holder():
        assert elsewhere.poll() is None
        time.sleep(0.05)
    outcome = local.launch(plan, tmp_path, jobs=1, watch=lambda running: elsewhere.wait() and None)
    assert list(outcome.running_elsewhere) == [parent.id]
    assert outcome.done == [runs["lone"].id, runs["grown"].id]
