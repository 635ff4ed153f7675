"""A test marked ``slurm`` gets a cluster of this session's own, and leaves no job behind on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, why_not

FOLDERS = Path("/tmp")  # not the temporary folder of this user: paths of sockets must be short
PREFIX = "test-slurm-"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster; SLURM_CONF is set, so that submitit and Slurm's commands talk to it."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, and CI=true says that these tests must run", pytrace=False)
        pytest.skip(f"{reason}: as root, `make test-slurm` gets it")
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=FOLDERS))
    before = os.environ.get("SLURM_CONF")
    with (folder / "owner.new").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        (folder / "owner.new").rename(folder / "owner")  # locked before another session can see it
        with Cluster(folder) as running:
            os.environ.update(running.environment)
            try:
                yield running
            finally:
                del os.environ["SLURM_CONF"]
                if before is not None:
                    os.environ["SLURM_CONF"] = before
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def no_job_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("slurm") is None:
        assert "cluster" not in request.fixturenames, "a test that needs the cluster is to be marked `slurm`"
        yield
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    yield
    cluster.clear()


def remove_abandoned() -> None:
    """Clusters of sessions that were killed: nobody holds the lock on them any more."""
    for path in FOLDERS.glob(f"{PREFIX}*/owner"):
        with suppress(OSError), path.open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Cluster(path.parent).stop()
            shutil.rmtree(path.parent)
