"""The logs of a run: its own, those of its further devices, and that of its newest Slurm job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from experiments.folder.run_folder import RunFolder
from sweeps.slurm.submissions import known
from untrusted_files import last_lines, listed

LINES = 40
POLL_SECONDS = 1.0


def files(folder: RunFolder) -> list[Path]:
    """The log files of a run that exist."""
    submitted, _ = known(folder.path.parent, [folder.id])
    jobs = [submitted[folder.id].log] if folder.id in submitted else []
    paths = [folder.log, *listed(folder.path, "log.rank-*.txt"), *jobs]
    return [path for path in paths if path.is_file()]


def tail(path: Path, count: int = LINES) -> list[str]:
    return last_lines(path, count)


def follow(folder: RunFolder) -> Iterator[str]:
    """Lines that are added to the log from now on, until no process holds the run."""
    with folder.log.open(errors="replace") as file:
        file.seek(0, 2)
        while True:
            held = folder.holder()  # asked first, so that the lines before the end are still read
            while line := file.readline():
                yield line.rstrip("\n")
            if not held:
                return
            time.sleep(POLL_SECONDS)
