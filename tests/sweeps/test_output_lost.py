"""Work goes on when nobody can read its messages, and ends in order when its terminal is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from experiments.folder.run_folder import RunFolder
from run_format import DONE, INTERRUPTED
from sweeps.status import state_of
from tests.sweeps.test_sweeps import ROOT, WORDS, tiny_words


def command(tmp_path, *more):
    words = ["sweep=ablation_offsets", "protocol=smoke", "seeds=[0]", "arms=[zero]", f"runs_dir={tmp_path}"]
    return [sys.executable, "run.py", *tiny_words(*words, *more)]


def closed_pipe():
    """A pipe whose reader ends before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed_terminal():
    master, slave = pty.openpty()
    os.close(master)
    return slave


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


def the_run(tmp_path):
    (config,) = tmp_path.glob("*/config.yaml")
    return RunFolder(config.parent)


@pytest.mark.slow
@pytest.mark.parametrize("sink", [closed_pipe, closed_terminal, full_disk])
def test_a_sweep_whose_messages_cannot_be_written_trains_to_its_end(tmp_path, sink):
    written = sink()
    done = subprocess.run(command(tmp_path), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=written, stderr=written)
    os.close(written)
    assert done.returncode == 0
    assert state_of(the_run(tmp_path))[0] == DONE


@pytest.mark.slow
def test_a_run_in_the_foreground_goes_on_as_well(tmp_path):
    words = ["experiment=scenes", f"runs_dir={tmp_path}", *WORDS]
    written = closed_terminal()
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, stdout=written, stderr=written)
    os.close(written)
    assert done.returncode == 0
    assert state_of(the_run(tmp_path))[0] == DONE


def begun(process, tmp_path):
    """Waits until the only run of a sweep has made a checkpoint."""
    for _ in range(3000):
        if any(tmp_path.glob("*/checkpoints/step-*.json")):
            return
        assert process.poll() is None
        time.sleep(0.02)
    raise AssertionError("the run made no checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["", "under nohup"])
def test_a_closed_terminal_stops_a_sweep_in_order_unless_it_is_to_outlive_it(tmp_path, ignored):
    length = "train.epochs=6" if ignored else "train.epochs=400"
    process = subprocess.Popen(
        command(tmp_path, length),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None,
    )
    begun(process, tmp_path)
    process.send_signal(signal.SIGHUP)
    _, complaint = process.communicate(timeout=120)
    folder = the_run(tmp_path)
    assert folder.holder() is None
    if ignored:
        assert process.returncode == 0 and state_of(folder)[0] == DONE
    else:
        assert process.returncode == 143 and state_of(folder)[0] == INTERRUPTED
        assert "stopped by SIGHUP" in complaint


@pytest.mark.slow
@pytest.mark.parametrize("words", [["report=aaai_table1"], ["complexity=xt"]], ids=str)
def test_a_terminal_without_these_characters_gets_them_escaped(tmp_path, words):
    words = [*words, f"runs_dir={tmp_path}"] if "report=aaai_table1" in words else words
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"\\" in done.stdout


def test_what_only_shows_something_ends_when_nobody_reads_on():
    written = closed_pipe()
    shown = subprocess.run([sys.executable, "run.py", "list"], cwd=ROOT, stdout=written, stderr=subprocess.PIPE)
    os.close(written)
    assert shown.returncode == 0 and shown.stderr == b""
