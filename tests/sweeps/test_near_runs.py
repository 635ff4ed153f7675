"""A launch names runs that it would not use as they differ from planned ones in one setting."""

from __future__ import annotations

import json
import shlex
import time

import pytest

import run as command_line
from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from sweeps import near_runs
from sweeps.plan import load
from yaml_files import write_yaml

PLANNED = load("ablation_offsets", "smoke", {}, [0, 1], ["zero", "axial"])
HERE = ["sweep=ablation_offsets", "protocol=smoke", "arms=[zero,axial]", "seeds=[0,1]"]


@pytest.fixture
def begun(tmp_path):
    """Writes folders of runs that were begun, of a sweep with other settings."""

    def write(sweep="ablation_offsets", seeds=(0, 1), arms=("zero", "axial"), protocol="smoke", **more):
        plan = load(sweep, protocol, {key.replace("__", "."): value for key, value in more.items()}, list(seeds), arms)
        for run in plan.distinct().values():
            folder = RunFolder(tmp_path / run.id)
            folder.freeze(run.config)
            folder.set_state("interrupted")
        return plan

    return write


def sentences(runs_dir, plan=PLANNED):
    return list(near_runs.sentences(plan, runs_dir, plan.distinct()))


def test_a_setting_that_was_forgotten_is_named_with_both_values_and_the_command_that_uses_its_runs(
    begun, tmp_path, capsys
):
    other = begun(train__epochs=4)
    words = [*HERE, f"runs_dir={tmp_path}", "--dry-run"]
    assert command_line.main(words) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "one setting" in line]
    assert "4 runs differ" in line and "train.epochs=4, not 3;" in line and "runs_dir=PATH" in line
    use = shlex.split(line.partition("to use them: ")[2].partition(";")[0])
    command_line.main([*use[use.index("sweep=ablation_offsets") :], "--dry-run", "--json"])
    assert {run["run"] for run in json.loads(capsys.readouterr().out)["runs"]} == other.distinct().keys()


def test_a_word_of_the_command_line_is_replaced(begun, tmp_path, capsys):
    begun(train__epochs=4)
    assert command_line.main([*HERE, "train.epochs=5", f"runs_dir={tmp_path}", "--dry-run"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "one setting" in line]
    assert "train.epochs=4, not 5; " in line and "train.epochs=5" not in line


def test_a_launch_says_so_before_it_starts_anything(begun, tmp_path, monkeypatch, capsys):
    begun(train__epochs=4)

    def refuse(*arguments):
        raise ConfigError("stopped here")

    monkeypatch.setattr("sweeps.local.run_code.choose", refuse)
    assert command_line.main([*HERE, f"runs_dir={tmp_path}"]) == 2
    assert "train.epochs=4, not 3;" in capsys.readouterr().out


def test_the_batch_scripts_come_with_it_as_a_comment(begun, tmp_path, slurm, capsys):
    begun(train__epochs=4)
    assert command_line.main([*HERE, f"runs_dir={tmp_path}", "--slurm", "--dry-run", "data.root=null"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "one setting" in line]
    assert line.startswith("# 4 runs differ") and "train.epochs=4 --slurm;" in line


def test_several_values_of_a_setting_are_one_line_with_the_most_frequent_first(begun, tmp_path):
    begun(train__lr=0.0017, seeds=[0])
    begun(train__lr=0.002)
    begun(train__clip_grad=1.0, seeds=[0], arms=["zero"])
    lines = sorted(sentences(tmp_path))
    assert len(lines) == 2
    assert lines[0].startswith("1 run differs") and "train.clip_grad=1.0, not null" in lines[0]
    assert lines[1].startswith("6 runs differ") and "train.lr=0.002 or 0.0017, not 0.003" in lines[1]


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": (5, 6)},
        {"arms": ("zero", "token", "joint", "axial_s1")},
        {"sweep": "ablation_peg", "arms": None},
        {"sweep": "ablation_v1", "arms": None},
        {"train__epochs": 4, "train__lr": 0.001},
        {"data__workers": 3, "machine__threads": 1, "slurm__mem_gb": 3},
    ],
)
def test_seeds_arms_of_any_sweep_two_settings_and_those_that_decide_no_number_are_no_news(begun, tmp_path, more):
    begun(**more)
    plan = load("ablation_offsets", "smoke", {}, [0, 1], ["zero", "axial", "axial_x3"])
    for run in plan.distinct().values():  # those that are the same runs have begun, which would hide all others
        if (tmp_path / run.id).exists():
            (tmp_path / run.id / "state.json").unlink()
    assert sentences(tmp_path, plan) == []


def test_nothing_is_said_of_a_sweep_that_has_begun_nor_of_folders_where_nothing_has(begun, tmp_path):
    begun(train__epochs=4)
    assert len(sentences(tmp_path)) == 1
    begun(seeds=[0], arms=["zero"])
    assert sentences(tmp_path) == [] == sentences(tmp_path / "absent")


def test_a_folder_that_was_only_planned_or_cannot_be_read_is_no_run(begun, tmp_path):
    for number, run in enumerate(begun(train__epochs=4).distinct()):
        if number % 2:
            (tmp_path / run / "state.json").unlink()
        else:
            (tmp_path / run / "config.yaml").write_bytes(b"task: nonsense\n\xff\xfe")
    assert sentences(tmp_path) == []


def test_a_run_frozen_before_a_setting_existed_has_its_neutral_value(begun, tmp_path):
    for run in begun(train__epochs=4).distinct():
        path = tmp_path / run / "config.yaml"
        text = path.read_text()
        assert "  shift_width: null\n" in text
        path.write_text(text.replace("  shift_width: null\n", ""))
    assert sentences(tmp_path)[0].startswith("4 runs differ")


def test_lists_are_compared_and_written_as_the_command_line_takes_them(begun, tmp_path):
    begun(data__image_size=[128, 128])
    (line,) = sentences(tmp_path)
    assert "data.image_size=[128,128], not [160,160]" in line


def test_measured_results_of_the_same_sweep_with_a_setting_that_this_plan_was_not_given(labels, tmp_path):
    for label, epochs in (("m4", 4), ("m5", 5), ("own", None)):
        content = load("ablation_offsets", "smoke", {"train.epochs": epochs} if epochs else {}, [0]).as_dict()
        (labels / label).mkdir(parents=True)
        (labels / label / "about.yaml").write_text(write_yaml({"title": label, "plan": content}))
    (line,) = sentences(tmp_path)
    assert (
        line.startswith("results/measured/m4 and 1 more: ") and "train.epochs=4, not 3;" in line and "--fresh" in line
    )
    assert sentences(tmp_path, load("ablation_offsets", "smoke", {"train.epochs": 7}, [0])) == []  # it was given
    assert sentences(tmp_path, load("ablation_peg", "smoke", {}, [0])) == []


def test_two_thousand_run_folders_take_a_fraction_of_a_second(begun, tmp_path):
    text = (tmp_path / next(iter(begun(train__epochs=4).distinct())) / "config.yaml").read_text()
    for number in range(2000):
        folder = tmp_path / f"scenes-nano-s{number}-{number:08x}"
        folder.mkdir()
        changed = text.replace("lr: 0.003", f"lr: {1 + number // 10}e-05").replace("seed: 0", f"seed: {number}")
        (folder / "config.yaml").write_text(changed)
    started = time.process_time()
    lines = sentences(tmp_path)
    assert time.process_time() - started < 1.0, "0.15 s where nothing else runs"
    assert len(lines) == 1 and lines[0].startswith("4 runs differ")
