"""What Slurm answers is read whole or refused, and nothing is submitted or cancelled on what is not understood."""

from __future__ import annotations

import signal
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.slurm.cancel import cancel
from sweeps.slurm.cluster import Cluster, SlurmError, _accounted, _partition, _queued, _tasks, minutes
from sweeps.slurm.launch import launch
from tests.sweeps.test_slurm import states


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "1-", "-", "x-01:00:00", "01:zz:00"])
def test_odd_times_are_no_times(text):
    with pytest.raises(ValueError):
        minutes(text)


NOT_UNDERSTOOD = [
    (_queued, "slurm_load_jobs error: something\n"),
    (_queued, "100|PENDING\n"),
    (_queued, "7|RUNNING|None|1:00|a\n100_1|PENDING\n"),
    (_queued, "100_[0-1%2]|PENDING\n"),
    (_queued, "100||None|1:00|a\n"),
    (_queued, "100_[0-1,x]|PENDING|None|1:00|a\n"),
    (_queued, "100_[0,2-3,45...]|PENDING|None|1:00|a\n"),
    (_queued, "100_[0-4:0]|PENDING|None|1:00|a\n"),
    (_queued, "100_|PENDING|None|1:00|a\n"),
    (_queued, "7|RUNNING|None|1:00|a\n 100_1|PENDING|None|1:00|a\n"),
    (_accounted, "45|COMPLETED\n"),
    (_accounted, "45||0:0|name\n"),
    (_accounted, "JobID|State\n"),
    (_partition, "Default=YES MaxTime=1:00:00"),
    (_partition, "PartitionName=a MaxTime=soon"),
    (_partition, "anything"),
]


@pytest.mark.parametrize(("read", "answer"), NOT_UNDERSTOOD)
def test_an_answer_that_is_not_understood_is_an_error_in_one_line(read, answer):
    with pytest.raises(SlurmError, match="not understood, so nothing is done on it") as refused:
        read(answer)
    assert "\n" not in str(refused.value)


@given(st.text("0123456789_[]-,%|PENDIG:a\n ", max_size=60))
def test_any_answer_is_read_or_refused(answer):
    for read in (_queued, _accounted, _partition):
        with suppress(SlurmError):
            read(answer)


def test_tasks_that_wait_in_one_row_of_squeue_are_jobs_each():
    assert list(_queued("100_[0-2%2]|PENDING|Priority|1:00|a\n")) == ["100_0", "100_1", "100_2"]


def test_times_of_slurm_in_minutes():
    assert [minutes(text) for text in ("UNLIMITED", "2-00:30:00", "00:30:00", "10:00")] == [None, 2910, 30, 10]


def test_tasks_that_sacct_names_in_one_row():
    assert _tasks("45", "sacct") == ["45"] and _tasks("45_3", "sacct") == ["45_3"]
    assert _tasks("45_[3-5,9%2]", "sacct") == ["45_3", "45_4", "45_5", "45_9"]
    assert _tasks("45_[0-6:3]", "sacct") == ["45_0", "45_3", "45_6"]
    assert _tasks("45_[0,2-3,45...]", "sacct") == ["45_0", "45_2", "45_3"], "tasks that were cut off are left to squeue"


def test_a_number_that_slurm_gave_to_another_job_is_not_ours(plan, slurm, tmp_path):
    first = launch(plan, tmp_path, Cluster())
    content = slurm.read()
    for job in content["jobs"].values():
        job |= {"name": "somebody-elses", "state": "RUNNING"}
    slurm.write(content)
    assert cancel(plan, tmp_path, Cluster()) == {} and slurm.calls("scancel") == []
    assert launch(plan, tmp_path, Cluster()).submitted.keys() == first.submitted.keys()


def test_nothing_is_submitted_or_cancelled_on_an_answer_that_is_not_understood(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    slurm.set(garbled="100_3|PEND")
    for act in (launch, cancel):
        with pytest.raises(SlurmError, match="squeue is not understood"):
            act(plan, tmp_path, Cluster())
    assert len(slurm.scripts) == 1 and slurm.calls("scancel") == []
    shown, complaint = states(plan, tmp_path)
    assert "not understood" in complaint and shown.keys() == {run.arm for run in plan.runs}


def test_an_sbatch_that_hangs_is_ended_and_its_job_is_found_again(plan, slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.slurm.batches.SUBMIT_SECONDS", 3.0)
    slurm.set(hang=60)
    handler = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    with pytest.raises(SlurmError, match="has not answered for 3 s and was ended; the job may exist: squeue --name="):
        launch(plan, tmp_path, Cluster())
    assert time.monotonic() - began < 40
    assert signal.getsignal(signal.SIGALRM) == handler
    slurm.set(hang=0)
    assert list(slurm.jobs) == [f"100_{task}" for task in range(7)], "it did exist"
    launch(plan, tmp_path, Cluster())
    states_of = [state for number, state in slurm.jobs.items() if number.startswith("100_")]
    assert states_of == ["CANCELLED"] * 7, "it had nothing to call"
    assert [state for number, state in slurm.jobs.items() if number.startswith("101_")] == ["PENDING"] * 7
