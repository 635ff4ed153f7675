"""Small real data: JPEGs in class folders, runs that take a second, and a disk of 40 MB. Tests that should be slow."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from tests.experiments import forks

SLOW_SECONDS = 3.0  # of processor time
STARTED = pytest.StashKey[float]()
PROCESSOR_SECONDS = "processor seconds"


def processor_seconds() -> float:
    """Of this process and of those that it has started and waited for."""
    return sum(os.times()[:4]) + forks.processor_seconds()


def pytest_configure(config: pytest.Config) -> None:
    """Takes away what developers have set for runs of their own: their site file and variables such as ATM_RUNS_DIR."""
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    for name in [name for name in os.environ if name.startswith("ATM_")]:
        environment.delenv(name)
    empty = TemporaryDirectory(prefix="atm-tests-", ignore_cleanup_errors=True)  # a browser writes its own into it
    config.add_cleanup(empty.cleanup)
    environment.setenv("XDG_CONFIG_HOME", empty.name)


IN_SHARED_FIXTURES: list[float] = []  # seconds of each


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    if fixturedef.scope == "function":
        return (yield)
    before = processor_seconds()
    try:
        return (yield)
    finally:
        IN_SHARED_FIXTURES.append(processor_seconds() - before)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    IN_SHARED_FIXTURES.clear()
    item.stash[STARTED] = processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "teardown":
        own = processor_seconds() - item.stash[STARTED] - sum(IN_SHARED_FIXTURES)
        report.user_properties.append((PROCESSOR_SECONDS, own))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the tests that took longer than a test may that is not marked as slow."""
    for report in terminalreporter.getreports(""):
        seconds = dict(report.user_properties).get(PROCESSOR_SECONDS, 0.0)
        if seconds > SLOW_SECONDS and "slow" not in report.keywords and "slurm" not in report.keywords:
            terminalreporter.write_line(f"not marked slow: {seconds:.1f} s of processor time: {report.nodeid}")


def write_images(root: Path, classes: int = 3, train: int = 8, val: int = 4, size: int = 40) -> Path:
    """``root/{train,val}/<class>/<n>.jpg``: noise around a colour per class."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 60, (size, size + 8, 3)) + np.array([60 * label, 120, 180 - 60 * label])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images")


# scenes at a size at which a step takes some ten milliseconds
SMALL = {
    "data.image_size": [64, 64],
    "data.train_images": 32,
    "data.eval_images": 4,
    "train.batch_size": 8,
    "train.epochs": 3,
    "train.warmup_epochs": 0,
    "machine.threads": 1,
}


@pytest.fixture
def small_scenes() -> dict[str, object]:
    return dict(SMALL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
