"""The cluster does what tests of a launcher rely on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm


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


def test_a_job_runs_on_each_node(cluster: Cluster, tmp_path: Path) -> None:
    for node in cluster.nodes:
        submit(
            cluster,
            tmp_path,
            f"srun sh -c 'echo $CUDA_VISIBLE_DEVICES > {node}.part' && mv {node}.part {node}",
            f"--nodelist={node}",
            "--gpus-per-node=2",
        )
    for node in cluster.nodes:
        wait_until((tmp_path / node).exists)
        assert (tmp_path / node).read_text() == "0,1\n"
