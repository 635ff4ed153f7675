"""Runs that are killed, damaged and starved of disk at random moments, again and again, end as if nothing had happened.

The moments come from CHAOS_SEED (0 unless the environment says otherwise), which every failure prints.
``pytest -m chaos`` does it 200 times over.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import write_images
from tests.experiments.chaos import assert_disturbed_run_equals_undisturbed
from tests.experiments.processes import EVERYTHING_RANDOM


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A run in which everything random happens, a step of which takes some 50 ms and which saves all the time."""
    images = write_images(tmp_path_factory.mktemp("images") / "images", train=40)
    return {**EVERYTHING_RANDOM, "data.root": str(images), "train.eval_every": 3, "machine.checkpoint_minutes": 0.003}


@pytest.fixture
def disk(tmp_path):
    """A folder that can be filled up: a small file system where mounting is allowed, else an ordinary folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    mounted = bool(shutil.which("mount")) and not subprocess.run(mount, capture_output=True).returncode
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "interruptions", "epochs"),
    [
        pytest.param(1, 12, 16, marks=pytest.mark.timeout(900)),
        pytest.param(2, 4, 6, marks=pytest.mark.timeout(900)),
        pytest.param(1, 200, 110, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),
        pytest.param(2, 40, 30, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),
    ],
)
def test_a_run_disturbed_at_random_moments_ends_like_an_undisturbed_one(
    tmp_path, settings, disk, devices, interruptions, epochs
):
    root, fillable = disk
    settings = {**settings, "train.epochs": epochs, "machine.devices": devices}
    assert_disturbed_run_equals_undisturbed(
        tmp_path / "reference", root, settings, "tiny_imagenet", 15 * epochs, interruptions, fillable
    )
