"""Prices of sweeps: arithmetic on given rates, and a real probe."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from errors import RunFailed, SuiteError
from experiments.config import ROOT, resolve
from experiments.folder.run_folder import RunFolder
from sweeps import price, rates
from sweeps.plan import load
from sweeps.rates import PRICES
from tests.ended import end
from tests.sweeps.test_sweeps import TINY, WORDS

# 100 steps of 8 images at 10 images/s are 80 s per epoch; an evaluation takes 4 s
RATE = {
    "hardware": "CPU (test)",
    "train_images_per_s": 10.0,
    "eval_images_per_s": 32.0,
    "steps_per_epoch": 100,
    "eval_images": 128,
}


class Probe:
    """Stands in for the real probe: returns a given rate, and lists the configs it was called with."""

    def __init__(self, **rate):
        self.rate, self.asked = RATE | rate, []

    def __call__(self, config):
        self.asked.append(config)
        return self.rate


def smoke(arms=("zero", "axial"), seeds=(0,), **settings):
    return load("ablation_offsets", "smoke", settings, list(seeds), list(arms))


def finish(plan, runs_dir, arm, wall_s, devices=1):
    """Leaves the folder of a finished run of an arm."""
    run = next(run for run in plan.runs if run.arm == arm)
    folder = RunFolder(runs_dir / run.id)
    folder.freeze(run.config)
    end(folder, wall_s=wall_s, devices=devices)


@pytest.mark.parametrize(
    ("epochs", "eval_every", "seconds"),
    [(3, 1, 3 * 80 + 3 * 4), (3, 5, 3 * 80 + 4), (10, 3, 10 * 80 + 4 * 4), (9, 3, 9 * 80 + 3 * 4)],
)
def test_a_run_costs_its_epochs_and_evaluations_and_is_always_evaluated_at_the_end(
    tmp_path, epochs, eval_every, seconds
):
    plan = smoke(seeds=[0, 1], **{"train.epochs": epochs, "train.eval_every": eval_every})
    cost = price.estimate(plan, tmp_path, Probe())
    assert [(arm.arm, arm.runs) for arm in cost.arms] == [("zero", 2), ("axial", 2)]
    assert [arm.each for arm in cost.arms] == pytest.approx([seconds / 3600] * 2)
    assert (cost.runs, cost.left) == (4, 4)
    assert cost.hours == cost.left_hours == pytest.approx(4 * seconds / 3600)


def test_a_run_that_counts_steps_costs_its_steps_and_their_evaluations(tmp_path):
    by_steps = {"train.steps": 250, "train.eval_every_steps": 100}
    cost = price.estimate(smoke(**by_steps), tmp_path, Probe())
    assert [arm.each for arm in cost.arms] == pytest.approx([(250 * 0.8 + 3 * 4) / 3600] * 2)
    other = {"train.steps": 500, "train.eval_every_steps": 500, "train.schedule": "polynomial", "train.power": 2.0}
    known = price.known(smoke(**other), tmp_path)
    assert known.hours == pytest.approx(2 * (500 * 0.8 + 4) / 3600), "any schedule is as fast"


def test_the_price_of_every_task_is_shown_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)
    (tmp_path / "transfer.yaml").write_text(
        "recipes: {smoke: scenes}\nseeds: [0, 1]\nbaseline: a\narms: {a: {model.offsets: zero}, b: {tasks: []}}\n"
        "downstream: {large: {smoke: scenes_256}}\n"
    )
    cost = price.estimate(load("transfer", "smoke"), tmp_path, Probe())
    assert [(arm.arm, arm.task, arm.runs) for arm in cost.arms] == [
        ("a", "token_labelling", 2), ("a", "large", 2), ("b", "token_labelling", 2)
    ]  # fmt: skip
    assert [line.split("  ")[0] for line in cost.table()[1:3]] == ["a, token_labelling", "a, large"]


def test_devices_share_the_images_so_device_hours_follow_from_the_rate_of_one(tmp_path):
    cost = price.estimate(smoke(devices=2), tmp_path, Probe())
    assert cost.hours == pytest.approx(2 * 3 * 84 / 3600)
    assert cost.line() == "2 runs: 0.14 device-hours on 2 x CPU (test); 2 left: 0.14 h"
    assert " GPU-hours on 2 x NVIDIA H100" in price.estimate(
        smoke(devices=2), tmp_path, Probe(hardware="NVIDIA H100"), "another machine"
    ).line()  # fmt: skip


def test_used_hours_are_compared_with_the_estimate(tmp_path):
    plan = smoke(seeds=[0, 1])
    price.estimate(plan, tmp_path, Probe())
    finish(plan, tmp_path, "zero", wall_s=252)
    finish(plan, tmp_path, "axial", wall_s=252, devices=2)
    assert list(price.used(plan, tmp_path).values()) == pytest.approx([0.07, 0.14])
    other = RunFolder(tmp_path / plan.runs[2].id)
    other.freeze(plan.runs[2].config)
    other.set_state("interrupted", step=75, steps=300, cause="SIGTERM")

    cost = price.known(plan, tmp_path)
    assert [(arm.done, arm.used, arm.ratio) for arm in cost.arms] == [
        (1, pytest.approx(0.07), pytest.approx(1)),
        (1, pytest.approx(0.14), pytest.approx(2)),
    ]
    assert (cost.left, cost.ratio) == (2, pytest.approx(1.5))
    assert cost.left_hours == pytest.approx(1.75 * 0.07), "a started run is left in part"
    assert "2 left: 0.12 h; 2 done used 0.21 h, 1.50 x the estimate" in cost.line()


def test_each_set_up_is_measured_once(tmp_path):
    probe, lines = Probe(), []
    plan = smoke(seeds=[0, 1, 2])
    assert price.known(plan, tmp_path) is None
    first = price.estimate(plan, tmp_path, probe, say=lines.append)
    assert [config.model.offsets for config in probe.asked] == ["zero", "axial"]
    assert lines == [
        f"measuring {n} of 2: {arm}, nano at 160 x 160 px, batch 8" for n, arm in ((1, "zero"), (2, "axial"))
    ]

    assert price.estimate(plan, tmp_path, probe) == first == price.known(plan, tmp_path)
    assert len(probe.asked) == 2
    price.estimate(plan, tmp_path, probe, fresh=True)
    assert len(probe.asked) == 4


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({"seed": 7}, 0),
        ({"train.lr": 1e-2}, 0),
        ({"train.epochs": 9, "train.eval_every": 4}, 0),
        ({"machine.keep_checkpoints": 9}, 0),
        ({"model": "xt"}, 1),
        ({"model.samples": 3}, 1),
        ({"data.image_size": [64, 64]}, 1),
        ({"train.batch_size": 16}, 1),
        ({"train.precision": "bfloat16"}, 1),
        ({"train.ema_decay": 0.9}, 1),
        ({"devices": 2}, 1),
        ({"machine.batch_per_device": 4}, 1),
        ({"machine.channels_last": True}, 1),
        ({"machine.compile": True}, 1),
        ({"data.workers": 2}, 1),
    ],
)
def test_only_settings_that_decide_speed_make_another_set_up(settings, measured):
    base, changed = (resolve("scenes", given) for given in ({}, settings))
    differ = rates.setup_of(base, "here") != rates.setup_of(changed, "here")
    assert differ == bool(measured)


def test_settings_that_do_not_decide_speed_are_in_the_schema():
    from experiments.schema import FIELDS

    assert {section + name for section, names in rates.NOT_SPEED.items() for name in names} <= set(FIELDS)


def test_other_hardware_is_measured_on_its_own(tmp_path, monkeypatch):
    plan, here, there = smoke(), Probe(), Probe(train_images_per_s=20.0, hardware="NVIDIA H100")
    price.estimate(plan, tmp_path, here)
    assert price.known(plan, tmp_path, "slurm:gpu/h100") is None
    cost = price.estimate(plan, tmp_path, there, "slurm:gpu/h100")
    assert cost.hardware == ["NVIDIA H100"]
    assert cost.hours < price.known(plan, tmp_path).hours
    assert (len(here.asked), len(there.asked)) == (2, 2)
    monkeypatch.setattr(rates, "processor", lambda: "CPU (another, 64 cores)")
    assert price.known(plan, tmp_path) is None


def test_this_machines_gpus_name_its_hardware_unless_the_run_stays_on_the_cpu(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-aa, NVIDIA A100'\necho '1, GPU-bb, NVIDIA H100'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    names = {}
    rates._gpus.cache_clear()
    for visible in ("0", "1", "GPU-bb", "", "0,1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        names[visible] = rates.hardware_here(resolve("scenes")).partition("CPU")[0]
    rates._gpus.cache_clear()
    assert names == {
        "0": "NVIDIA A100, ",
        "1": "NVIDIA H100, ",
        "GPU-bb": "NVIDIA H100, ",
        "": "",
        "0,1": "NVIDIA A100, NVIDIA H100, ",
    }
    assert rates.hardware_here(resolve("scenes", {"machine.device": "cpu"})).startswith("CPU (")


@pytest.mark.parametrize("damage", ["{", "[]", '"a word"', "\0", "entries"])
def test_a_damaged_file_is_measured_again(tmp_path, damage):
    plan, probe = smoke(), Probe()
    price.estimate(plan, tmp_path, probe)
    kept = json.loads((tmp_path / PRICES).read_text())
    for entry in kept.values():
        entry["rate"]["train_images_per_s"] = "fast"
    (tmp_path / PRICES).write_text(json.dumps(kept) if damage == "entries" else damage)
    assert price.known(plan, tmp_path) is None
    price.estimate(plan, tmp_path, probe)
    assert len(probe.asked) == 4
    assert price.known(plan, tmp_path) is not None


def test_rates_measured_before_a_probe_failed_are_kept(tmp_path):
    def measure(config):
        if config.model.offsets == "axial":
            raise RunFailed("the probe failed: out of GPU memory")
        return RATE

    with pytest.raises(RunFailed, match="out of GPU memory"):
        price.estimate(smoke(), tmp_path, measure)
    probe = Probe()
    price.estimate(smoke(), tmp_path, probe)
    assert [config.model.offsets for config in probe.asked] == ["axial"]


def test_a_probe_without_a_rate_is_refused(tmp_path):
    with pytest.raises(RunFailed, match="must give hardware, train_images_per_s"):
        price.estimate(smoke(), tmp_path, Probe(train_images_per_s=0.0))
    assert not (tmp_path / PRICES).exists()


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_real_probe_prices_a_sweep_and_leaves_only_the_rate(tmp_path):
    runs, temporary = tmp_path / "runs", tmp_path / "tmp"
    temporary.mkdir()
    words = ["ablation_offsets", "protocol=smoke", "seeds=[0]", "arms=zero", *WORDS, "train.ema_decay=0.9"]
    words.append(f"runs_dir={runs}")
    unknown = run("run.py", f"sweep={words[0]}", *words[1:], "--dry-run")
    assert re.match(
        r"what it will cost: .*run\.py price=ablation_offsets protocol=smoke ", unknown.stdout.splitlines()[-1]
    )

    done = run("run.py", f"price={words[0]}", *words[1:], "--json", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert (document["runs"], document["left"]) == (1, 1)
    assert document["hours"] == document["arms"][0]["each"] > 0
    (entry,) = json.loads((runs / PRICES).read_text()).values()
    rate = entry["rate"]
    assert rate["train_images_per_s"] > 0 and rate["eval_images_per_s"] > 0
    assert (rate["steps_per_epoch"], rate["eval_images"]) == (2, 2)
    assert rate["steps_timed"] > 1
    assert [path.name for path in runs.iterdir()] == [PRICES]
    assert not list(temporary.glob("atm-*"))

    known = run("run.py", f"sweep={words[0]}", *words[1:], "--dry-run", "--json")
    assert json.loads(known.stdout)["price"] == document
    table = run("run.py", f"price={words[0]}", *words[1:])
    assert table.stderr == "", "known rates are not measured again"
    assert [line.split()[:2] for line in table.stdout.splitlines()] == [["arm", "runs"], ["zero", "1"], ["1", "runs:"]]
    assert run("run.py", f"sweep={words[0]}", *words[1:], "--dry-run").stdout.endswith(
        table.stdout.splitlines()[-1] + "\n"
    )


@pytest.mark.slow
def test_the_share_of_a_device_is_timed_without_the_others(tmp_path):
    config = resolve("scenes", {**TINY, "data.eval_images": 4, "devices": 2, "machine.batch_per_device": 2})
    rate = rates.probe_here(config)
    assert (rate["steps_per_epoch"], rate["eval_images"]) == (2, 4), "of the whole batch and set"


@pytest.mark.slow
def test_a_probe_that_is_refused_says_why_in_one_line(tmp_path):
    config = resolve("scenes", {**TINY, "data.image_size": [65, 64]})
    with pytest.raises(SuiteError, match=r"^scenes of 65x64 px: both sides must be multiples of 32") as refused:
        rates.probe_here(config)
    assert refused.value.exit_code == 2
    done = run("-m", "sweeps.probe", str(tmp_path / "none.yaml"), str(tmp_path / "out.json"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_a_missing_data_root_is_refused_before_anything_is_measured(tmp_path):
    done = run("run.py", "price=ablation_offsets", "data.root=/no/such/place", f"runs_dir={tmp_path}")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "no such file or folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_measurement_leaves_nothing(tmp_path, number, code):
    words = ["price=ablation_offsets", "protocol=smoke", "arms=zero", *WORDS, f"runs_dir={tmp_path / 'runs'}"]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "run.py", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(temporary.glob("atm-probe-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not list(temporary.glob("atm-*"))
    assert not (tmp_path / "runs").exists()


def test_pricing_never_imports_torch(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom sweeps import price\nfrom sweeps.plan import load\n"
        f"price.estimate(load('ablation_offsets', 'smoke'), Path({str(tmp_path)!r}), lambda config: {RATE!r})\n"
        "assert not {'torch', 'timm', 'atm'} & set(sys.modules)"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
