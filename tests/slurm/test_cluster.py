"""The cluster does what tests of a launcher rely on, and the output says when these tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import submitit

from tests.slurm.cluster import HOSTS, Cluster, ClusterError, processes

slurm = pytest.mark.slurm


def submit(cluster: Cluster, folder: Path, script: str, *options: str) -> str:
    """The id of a job of these lines of shell; it runs in ``folder``."""
    path = folder / "job.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    return cluster.run("sbatch", "--parsable", f"--chdir={folder}", "--output=%x-%j.out", *options, path)


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def folder() -> Iterator[Path]:
    """For a cluster of the test's own: a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@slurm
def test_a_job_runs_on_each_node_and_sees_its_devices(cluster: Cluster, tmp_path: Path) -> None:
    for node in cluster.nodes:
        script = f"srun sh -c 'echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES >> {node}'"
        submit(cluster, tmp_path, script, f"--nodelist={node}", "--gpus-per-node=2")
    wait_until(lambda: all(lines(tmp_path / node) for node in cluster.nodes))
    for node in cluster.nodes:
        assert lines(tmp_path / node) == [f"{node} 0,1"]


@slurm
def test_a_job_spans_nodes_that_resolve(cluster: Cluster, tmp_path: Path) -> None:
    submit(
        cluster,
        tmp_path,
        "srun sh -c 'getent hosts $SLURMD_NODENAME | head -n1 >> met'",
        "--nodes=2",
        "--ntasks-per-node=1",
    )
    wait_until(lambda: len(lines(tmp_path / "met")) == 2)
    assert all(line.startswith("127.0.0.1") for line in lines(tmp_path / "met"))


@slurm
def test_an_array_runs_each_task_once(cluster: Cluster, tmp_path: Path) -> None:
    submit(cluster, tmp_path, "echo $SLURM_ARRAY_TASK_ID >> tasks", "--array=0-3")
    wait_until(lambda: len(lines(tmp_path / "tasks")) == 4)
    assert sorted(lines(tmp_path / "tasks")) == ["0", "1", "2", "3"]


@slurm
def test_an_array_longer_than_the_limit_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    submit(cluster, tmp_path, "sleep 60", f"--array={cluster.max_array_size - 1}")
    with pytest.raises(ClusterError, match="Invalid job array"):
        submit(cluster, tmp_path, "sleep 60", f"--array={cluster.max_array_size}")


@slurm
def test_a_time_beyond_the_short_partition_s_is_not_run(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "sleep 60", "--partition=short", "--time=6")
    wait_until(lambda: cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%r") == "PartitionTimeLimit")


@slurm
def test_a_preempted_job_is_warned_requeued_and_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    patient = """
        echo "start ${SLURM_RESTART_COUNT:-0}" >> low
        trap 'echo warned >> low; exec scontrol requeue $SLURM_JOB_ID' USR2
        while true; do sleep 0.1; done"""
    node = f"--nodelist={cluster.nodes[0]}"
    submit(cluster, tmp_path, patient, node, "--exclusive", "--signal=B:USR2@60", "--time=10")
    wait_until(lambda: lines(tmp_path / "low") == ["start 0"])
    submit(cluster, tmp_path, "echo ran >> high", node, "--exclusive", "--partition=high")
    wait_until(lambda: lines(tmp_path / "high") == ["ran"])
    assert lines(tmp_path / "low") == ["start 0", "warned"]
    wait_until(lambda: lines(tmp_path / "low") == ["start 0", "warned", "start 1"])


@slurm
def test_accounting_knows_how_a_job_ended(cluster: Cluster, tmp_path: Path) -> None:
    ends = {submit(cluster, tmp_path, "true"): "COMPLETED", submit(cluster, tmp_path, "false"): "FAILED"}
    sacct = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(ends)}", "--format=JobID,State"]
    wait_until(lambda: dict(line.split("|") for line in cluster.run(*sacct).splitlines()) == ends)


@slurm
def test_a_job_outlives_its_controller(cluster: Cluster, tmp_path: Path) -> None:
    job = submit(cluster, tmp_path, "echo start >> log; while [ ! -e go ]; do sleep 0.1; done; echo end >> log")
    wait_until(lambda: lines(tmp_path / "log") == ["start"])
    cluster.kill_controller()
    with pytest.raises((ClusterError, subprocess.TimeoutExpired)):
        cluster.run("squeue", timeout=2)
    cluster.start_controller()
    assert cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%T") == "RUNNING"
    (tmp_path / "go").touch()
    wait_until(lambda: lines(tmp_path / "log") == ["start", "end"])
    wait_until(lambda: not cluster.run("squeue", "--noheader", "--states=RUNNING"))


@slurm
def test_submitit_brings_back_what_a_function_returned(cluster: Cluster, tmp_path: Path) -> None:
    executor = submitit.SlurmExecutor(tmp_path)
    executor.update_parameters(partition="high", time=5)
    assert executor.submit(divmod, 7, 2).result() == (3, 1)


@slurm
def test_a_second_cluster_beside_the_first_leaves_nothing_behind(cluster: Cluster, folder: Path) -> None:
    before = HOSTS.read_text()
    with Cluster(folder, nodes=1, max_array_size=11) as other:
        job = submit(other, folder, "trap '' TERM; touch started; while true; do sleep 1; done")
        wait_until((folder / "started").exists)
        assert job not in cluster.run("squeue", "--noheader", "--format=%A").split()
        with pytest.raises(ClusterError, match="Invalid job array"):
            submit(other, folder, "true", "--array=11")
        other.start()  # changes nothing
        assert job in other.run("squeue", "--noheader", "--format=%A")
        other.kill_controller(saved=False)  # nobody is left who could cancel the job
    assert [pid for pid, environment in processes() if str(folder).encode() in b"".join(environment)] == []
    assert HOSTS.read_text() == before


ELSEWHERE = """
import sys, pytest
from tests.slurm import cluster
cluster.NEEDED += ("command-of-nobody",)
sys.exit(pytest.main(["-p", "no:cacheprovider", "-k", "array", "tests/slurm/test_cluster.py"]))
"""


@pytest.mark.parametrize(("ci", "code", "message"), [("false", 0, "2 skipped, "), ("true", 1, "2 errors")])
def test_where_no_slurm_can_be_had_the_tests_say_so(ci: str, code: int, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=os.environ | {"CI": ci}, text=True, capture_output=True
    )
    assert done.returncode == code
    assert done.stdout.count(message) == 1
    assert "command-of-nobody not installed" in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(skipped) == (2 if ci == "false" else 0) and all("make test-slurm" in line for line in skipped)
