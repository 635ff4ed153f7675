"""What ends a run from outside, and what the launcher makes of it."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import pytest
from torch.utils.data import DataLoader, Dataset

from errors import RunFolderError
from experiments.folder.run_folder import RunFolder
from experiments.training import devices
from experiments.training.outcome import LoaderKilled, noted
from run_format import DONE, INTERRUPTED, STATE
from sweeps import launcher, launches, local
from sweeps.plan import load
from sweeps.status import state_of
from tests.sweeps.test_sweeps import TINY


@pytest.mark.slow
def test_a_folder_that_is_removed_while_its_run_waits_fails_that_run_alone(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial", "token"])
    first, second, third = (RunFolder(tmp_path / run.id) for run in plan.runs)
    looks = []

    def remove(running):
        if not looks:
            shutil.rmtree(second.path)
        looks.append(running)

    said = []
    outcome = local.launch(plan, tmp_path, jobs=1, say=said.append, watch=remove)
    assert outcome.done == [first.id, third.id] and outcome.exit_code == 1
    assert outcome.failed.keys() == {second.id}
    cause = outcome.failed[second.id]
    assert cause.startswith(f"its folder {second.path} was removed during this launch")
    assert any(cause in line for line in said)


class Killed(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_loader_process_that_is_killed_interrupts_the_run(tmp_path):
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    with (
        pytest.raises(LoaderKilled, match="a process that reads images was killed"),
        noted(folder, devices.Group(), []),
    ):
        list(DataLoader(Killed(), num_workers=1))
    assert folder.read_json(STATE)["state"] == INTERRUPTED


def test_a_full_disk_is_named_where_a_run_could_not_say_so(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    assert "the disk is full" not in launcher._death(1, folder)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([4096, 4096, 100, 0, 0, 0, 0, 0, 0, 255]))
    assert "exit code 1, the disk is full" in launcher._death(1, folder)


@pytest.mark.slow
def test_a_run_that_cannot_be_read_is_not_started_and_the_others_are(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial"])
    bad, good = (RunFolder(tmp_path / run.id) for run in plan.runs)
    bad.path.mkdir()
    os.mkfifo(bad.path / "summary.json")
    outcome = local.launch(plan, tmp_path)
    assert outcome.unreadable == {bad.id: f"{bad.path}/summary.json: not a regular file"} and outcome.exit_code == 1
    assert state_of(good)[0] == DONE


def test_of_launches_of_one_sweep_at_one_moment_one_begins(tmp_path):
    plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial"])
    begun, refused = [], []

    def launch():
        try:
            begun.append(local.prepare(plan, tmp_path, say=lambda line: None))
        except RunFolderError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1 and len(refused) == 3
    assert all("ablation_offsets is being launched: process" in why for why in refused)
    begun[0].let_go()
    with local.prepare(plan, tmp_path).claimed():
        assert [launch.folder for launch in launches.recorded(tmp_path)] != []
    assert launches.recorded(tmp_path) == []
