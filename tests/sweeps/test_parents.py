"""Runs that start from other runs of their sweep: planned, started in order, and waited for."""

from __future__ import annotations

import pytest

from errors import ConfigError
from experiments.config import resolve
from experiments.identity import run_id
from sweeps.plan import load
from tests.sweeps.test_sweeps import TINY


@pytest.fixture
def write_sweep(tmp_path, monkeypatch):
    """Writes arms, one of them ``small``, into the only sweep there is: ``grown``."""
    monkeypatch.setattr("sweeps.plan.SWEEPS", tmp_path / "sweeps")
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


def test_runs_of_a_plan_are_what_resolving_each_of_them_gives(write_sweep):
    write_sweep("384: {start_from: small, recipes: {paper: imagenet_384}}, small: {model: l}")
    for run in load("grown").runs:
        recipe = "imagenet_384" if run.parent else "imagenet"
        assert run.config == resolve(recipe, {"model": "l", "seed": run.seed, "init": run.parent})


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ("small: , big: {start_from: smal}", "arm 'big': start_from: unknown arm 'smal'; did you mean 'small'?"),
        ("small: , big: {start_form: small}", "unknown key 'start_form'; did you mean 'start_from'?"),
        ("small: {start_from: big}, big: {start_from: small}", "in a circle: 'small' from 'big' from 'small'"),
        ("small: {start_from: small}", "in a circle: 'small' from 'small'"),
        ("small: , big: {start_from: small, init: x}", "either init or start_from"),
        ("small: , big: {recipes: {smok: scenes}}", "unknown protocol 'smok'; did you mean 'smoke'?"),
        ("small: , big: {recipes: scenes}", "recipes: give a recipe per protocol"),
        ("small: , big: {recipes: {smoke: scense}}", "unknown experiment 'scense'; did you mean 'scenes'?"),
        ("small: , big: {recipes: {smoke: imagenet}}", "recipe imagenet is of protocol paper, not smoke"),
        ("small: , big: {recipes: {paper: imagenet}}", "no recipe for protocol smoke, only for paper"),
        ("small: , big: {start_from: small, model: t}", "has model.name=t, but 'small', whose weights it starts from"),
    ],
)
def test_a_sweep_file_that_cannot_be_is_refused_in_one_line(write_sweep, arms, says):
    write_sweep(arms)
    with pytest.raises(ConfigError) as refused:
        load("grown", "smoke")
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_arms_without_what_they_start_from_are_refused(write_sweep):
    write_sweep("small: , other: , 384: {start_from: other}")
    with pytest.raises(ConfigError, match="'384' starts from 'other', so 'other' must be among them"):
        load("grown", "smoke", arms=["small", 384])
    assert load("grown", "smoke", arms=["small"]).left_out == ["other", "384"]
