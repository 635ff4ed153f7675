"""How far a launch says that it is, and where it says to look."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run_format import RUNNING
from sweeps import show
from sweeps.launches import Launch, LaunchedRun
from sweeps.progress import LaunchProgress
from tests.conftest import SMALL

IDS = [f"scenes-nano-s{seed}-0000000{seed}" for seed in range(4)]


@pytest.fixture
def launch(tmp_path):
    runs = [LaunchedRun(run, "zero", seed, "scenes", None, "") for seed, run in enumerate(IDS)]
    return Launch(tmp_path / "launches" / "one", "reach", 1, None, runs)


def at(tmp_path, run, step):
    (tmp_path / run).mkdir(exist_ok=True)
    RunFolder(tmp_path / run).set_state(RUNNING, step=step, steps=10)


def progress(launch, seconds=0.0):
    said, clock = [], [0.0]
    return LaunchProgress(launch, said.append, seconds, lambda: clock[0]), said, clock


def test_time_left_follows_from_the_steps_that_were_trained_since_the_start(launch, tmp_path):
    watch, said, clock = progress(launch)
    at(tmp_path, IDS[0], 5)  # an earlier launch trained them
    watch([IDS[0]])
    assert said[-1][0] == "reach: 0 of 4 runs ended, 1 running, 0 s so far"
    clock[0] = 60.0
    at(tmp_path, IDS[1], 5)
    watch([IDS[1]])  # the other half of one run ended, and half of another is to come
    clock[0] = 120.0
    at(tmp_path, IDS[1], 10)
    watch([IDS[1]])
    # one and a half runs... of which the second was begun with half of its steps
    assert said[-1][0].startswith("reach: 1 of 4 runs ended, 1 running, 2 min so far, about 4 min left")
    assert said[-1][1].startswith(f"{IDS[1]}: ")


def test_a_file_gets_a_line_soon_and_then_once_a_minute(launch, tmp_path):
    watch, said, clock = progress(launch, 60.0)
    at(tmp_path, IDS[0], 1)
    for second in range(0, 201, 5):
        clock[0] = float(second)
        watch([IDS[0]])
    assert len(said) == 4  # at 20, 80, 140 and 200 s


@pytest.mark.slow
def test_a_sweep_says_at_once_where_to_look_and_what_to_do_next(tmp_path):
    settings = [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in SMALL.items()
    ]
    words = ["protocol=smoke", "seed=0", "arms=zero", *settings, f"runs_dir={tmp_path / 'my runs'}"]
    done = subprocess.run(
        [sys.executable, "run.py", "sweep=ablation_offsets", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 of 1 runs to do, ")
    assert lines[1].startswith("to follow them: ") and shlex.split(lines[1])[-1] == "--watch"
    for line in (lines[1], lines[-1]):  # each command can be pasted
        again = subprocess.run(
            line.partition(": ")[2], shell=True, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert again.returncode == 0, again.stderr
    assert "1 done" in subprocess.run(
        lines[1].partition(": ")[2], shell=True, cwd=ROOT, capture_output=True, text=True, env=os.environ
    ).stdout  # fmt: skip


def test_output_that_is_no_terminal_has_lines_of_progress(launch, tmp_path, capsys):
    with show.live() as (_, begin):
        watch = begin(launch)
    assert watch.seconds == show.LOG_SECONDS
    at(tmp_path, IDS[0], 1)
    watch([IDS[0]])
    watch._next = 0.0
    watch([IDS[0]])
    assert capsys.readouterr().out.startswith("reach: 0 of 4 runs ended, 1 running")
