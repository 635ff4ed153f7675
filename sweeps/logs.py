"""What a run has said: the end of its log, and of what its newest Slurm job said beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from experiments.folder.run_folder import RunFolder
from sweeps.slurm.submissions import known

LINES = 40
POLL_SECONDS = 1.0


def files(folder: RunFolder) -> list[Path]:
    """Where a run speaks: its log, those of its further devices, and of its newest job."""
    submitted, _ = known(folder.path.parent, [folder.id])
    jobs = [submitted[folder.id].log] if folder.id in submitted else []
    found = [folder.log, *sorted(folder.path.glob("log.rank-*.txt")), *jobs]
    return [path for path in found if path.is_file()]


def tail(path: Path, count: int = LINES) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-count:]


def follow(folder: RunFolder) -> Iterator[str]:
    """Lines that are added to the log from now on, until no process has the run."""
    with folder.log.open(errors="replace") as file:
        file.seek(0, 2)
        while True:
            held = folder.holder()  # looked at first: what is said before the end is still read
            while line := file.readline():
                yield line.rstrip("\n")
            if not held:
                return
            time.sleep(POLL_SECONDS)
