"""When things happen in a run: learning rates, rows and evaluations, in epochs and in steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

from errors import ConfigError
from experiments.config import resolve
from experiments.schema import Train
from experiments.training.optimization import build_optimizer, decay_groups
from experiments.training.schedules import Schedule, Timetable

BASE = Train(optimizer="sgd", lr=1.0, min_lr=0.0, warmup_lr=0.0, warmup_epochs=0.0, schedule_on="step")


def rates(train: Train, steps: list[int], steps_per_epoch: int = 10, scale: float = 1.0) -> list[float]:
    model = nn.Linear(2, 2)
    groups = [group | {"lr_scale": scale} for group in decay_groups(model, 0.0)]
    schedule = Schedule(build_optimizer(model, train, groups), train, steps_per_epoch)
    found = []
    for step in steps:
        schedule.set(step)
        found.append(max(group["lr"] for group in schedule.optimizer.param_groups))
    return found


def test_polynomial_decay_is_one_minus_progress_to_the_power():
    train = replace(BASE, epochs=None, steps=100, schedule="polynomial", power=0.9, min_lr=0.1)
    assert rates(train, [0, 50, 99]) == pytest.approx([0.1 + 0.9 * (1 - t / 100) ** 0.9 for t in (0, 50, 99)])


def test_multistep_decay_counts_in_the_unit_of_the_recipe():
    in_steps = replace(BASE, epochs=None, steps=100, schedule="multistep", milestones=[50, 80], decay_factor=0.1)
    assert rates(in_steps, [49, 50, 79, 80]) == pytest.approx([1.0, 0.1, 0.1, 0.01])
    in_epochs = replace(BASE, epochs=12, schedule="multistep", milestones=[8, 11])
    assert rates(in_epochs, [79, 80, 109, 110]) == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "multistep"])
def test_warm_up_is_linear_whether_it_counts_steps_or_epochs(schedule):
    common = replace(BASE, schedule=schedule, milestones=[9], warmup_epochs=2.0)
    lengths = [{"epochs": 10}, {"epochs": None, "steps": 100}]
    for length in lengths:
        assert rates(replace(common, **length), [0, 5, 10]) == pytest.approx([0.0, 0.25, 0.5])
        in_steps = replace(common, **length, warmup_epochs=None, warmup_steps=20)
        assert rates(in_steps, [0, 5, 10]) == pytest.approx([0.0, 0.25, 0.5])


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "multistep"])
@pytest.mark.parametrize("lag", [1, 3])
def test_a_lag_counts_in_the_unit_in_which_the_rate_moves(schedule, lag):
    by_epoch = replace(BASE, schedule=schedule, milestones=[8], warmup_epochs=2.0, epochs=20, schedule_on="epoch")
    by_step = replace(by_epoch, schedule_on="step")
    in_steps = replace(by_step, epochs=None, steps=200, milestones=[80])
    for train, unit in ((by_epoch, 10), (by_step, 1), (in_steps, 1)):
        prompt = rates(train, list(range(200)))
        late = rates(replace(train, schedule_lag=lag), list(range(200)))
        assert late == [prompt[max(0, step - lag * unit)] for step in range(200)]
        assert len(set(prompt)) > 3


def test_a_groups_scale_multiplies_its_rate():
    train = replace(BASE, epochs=None, steps=100, schedule="polynomial")
    assert rates(train, [0, 50], scale=0.1) == pytest.approx([0.1, 0.05])


def test_a_warm_up_ratio_multiplies_the_schedules_own_rate():
    train = replace(
        BASE, epochs=None, steps=100, schedule="polynomial", warmup_epochs=None, warmup_steps=20, warmup_ratio=1e-6
    )
    expected = []
    for step in range(100):
        rate = 1 - step / 100
        expected.append(rate * (1 - (1 - step / 20) * (1 - 1e-6)) if step < 20 else rate)
    assert rates(train, list(range(100))) == pytest.approx(expected)
    assert rates(train, [19, 3]) == pytest.approx([expected[19], expected[3]]), "a function of the step alone"


def test_rows_in_epochs_and_in_steps():
    epochs = Timetable.of(replace(BASE, epochs=3, eval_every=2), 10)
    assert (epochs.steps, epochs.rows, epochs.row_steps) == (30, 3, 10)
    assert [epochs.is_judged(row) for row in range(3)] == [False, True, True]
    assert epochs.describe(1) == "epoch 2/3"
    steps = Timetable.of(replace(BASE, epochs=None, steps=25, eval_every_steps=10), 7)
    assert [steps.end_of_row(row) for row in range(steps.rows)] == [10, 20, 25], "the last row is a short one"
    assert all(steps.is_judged(row) for row in range(3))
    assert steps.describe(2) == "step 25/25"
    once = Timetable.of(replace(BASE, epochs=None, steps=25, eval_every=None, eval_every_steps=25), 7)
    assert once.rows == 1


def mmcv_rates(lr: float, steps: int, warmup: int, ratio: float, decayed: Callable[[float, int], float]) -> list[float]:
    """The rate of every step as mmcv's hook with ``warmup="linear"`` has it: first the schedule, then the warm-up."""
    found = []
    for step in range(steps):
        regular = decayed(lr, step)
        if step < warmup:
            k = (1 - step / warmup) * (1 - ratio)
            regular = regular * (1 - k)
        found.append(regular)
    return found


@pytest.mark.parametrize("scale", [1.0, 0.1, 10.0])
@pytest.mark.parametrize("power", [1.0, 0.9])
def test_a_warm_up_by_a_ratio_is_mmcvs_on_a_polynomial(power, scale):
    length = {"epochs": None, "steps": 4000, "warmup_epochs": None, "warmup_steps": 1500}
    train = replace(BASE, **length, warmup_ratio=1e-6, lr=6e-5, schedule="polynomial", power=power)
    expected = mmcv_rates(6e-5 * scale, 4000, 1500, 1e-6, lambda lr, step: lr * (1 - step / 4000) ** power)
    assert rates(train, list(range(4000)), scale=scale) == pytest.approx(expected, rel=1e-9, abs=0)
    assert expected[0] == pytest.approx(6e-11 * scale) and max(expected) < 6e-5 * scale


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_a_warm_up_by_a_ratio_is_mmcvs_on_several_steps(scale):
    def decayed(lr: float, step: int) -> float:
        return lr * 0.1 ** sum(step // 200 >= epoch for epoch in (8, 11))

    length = {"epochs": 12, "warmup_epochs": None, "warmup_steps": 500}
    train = replace(BASE, **length, warmup_ratio=0.001, lr=1e-4, schedule="multistep", milestones=[8, 11])
    expected = mmcv_rates(1e-4 * scale, 2400, 500, 0.001, decayed)
    assert rates(train, list(range(2400)), 200, scale) == pytest.approx(expected, rel=1e-9, abs=0)


def test_a_lag_moves_a_warm_up_by_a_ratio_as_well():
    length = {"epochs": None, "steps": 100, "warmup_epochs": None, "warmup_steps": 20}
    train = replace(BASE, **length, warmup_ratio=0.01, schedule="polynomial")
    prompt = rates(train, list(range(100)))
    assert rates(replace(train, schedule_lag=3), list(range(100))) == [prompt[max(0, step - 3)] for step in range(100)]


WARM = {"train.warmup_ratio": 1e-3, "train.schedule_on": "step"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (WARM | {"train.schedule_on": "epoch", "train.warmup_epochs": 1}, "set train.schedule_on=step"),
        (WARM | {"train.warmup_epochs": 0}, "there is no warm-up"),
        (WARM | {"train.warmup_epochs": None, "train.warmup_steps": 0}, "there is no warm-up"),
        (WARM | {"train.warmup_epochs": 1, "train.warmup_lr": 1e-6}, "train.warmup_lr is for a warm-up without it"),
        (WARM | {"train.warmup_ratio": 1.5}, "train.warmup_ratio=1.5: must be in [0, 1]"),
    ],
)
def test_a_warm_up_by_a_ratio_that_cannot_be_is_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as refused:
        resolve("scenes", settings)
    assert message in str(refused.value) and "train.warmup_ratio" in str(refused.value)
    assert "\n" not in str(refused.value)
