from __future__ import annotations

import os
from pathlib import Path

import pytest

from results import archive
from sweeps.plan import Plan, load
from tests.sweeps.fake_slurm import FakeSlurm

SEVEN = ["zero", "zero_mean", "token", "joint", "axial", "axial_x3", "axial_s1"]  # arms of ablation_offsets
SMALL = {"machine.threads": 1, "slurm.gpus_per_node": 0}


@pytest.fixture
def plan() -> Plan:
    return load("ablation_offsets", "smoke", SMALL, [0], SEVEN)


@pytest.fixture(autouse=True)
def labels(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where measured results are: none at first, since runs of committed ones would not be launched."""
    folder = tmp_path_factory.mktemp("results") / "measured"
    monkeypatch.setattr(archive, "MEASURED", folder)
    return folder


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A stand-in for Slurm on the PATH, with partitions of two days and of half an hour."""
    fake = FakeSlurm(tmp_path_factory.mktemp("slurm") / "fake")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return fake
