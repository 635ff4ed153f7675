"""Checks the folder of the run folders and its disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import atomic_file
from ask_program import ask
from doctor.finding import OK, PROBLEM, WARNING, CheckInputs, Finding, gigabytes
from errors import SuiteError

SCARCE = ((PROBLEM, 10**9, 1_000), (WARNING, 10**10, 10_000))  # verdict for fewer free bytes or inodes
SLOW_SYNC_SECONDS = 1.0


def run_folder(inputs: CheckInputs) -> Iterator[Finding]:
    runs_dir = inputs.runs_dir()
    folder = next(path for path in (runs_dir, *runs_dir.parents) if os.path.lexists(path))
    try:
        seconds = _probe(folder)
    except (OSError, SuiteError) as error:
        users = f"of user {folder.stat().st_uid}, you are user {os.geteuid()}"
        advice = "set runs_dir in site.yaml, or runs_dir=PATH, to a folder of yours"
        yield Finding("run folder", PROBLEM, f"cannot write in {folder} ({users}): {error}", advice)
    else:
        message = (
            f"{runs_dir}{'' if folder == runs_dir else ', to be made'}; 4 kB are on disk after {1000 * seconds:.0f} ms"
        )
        advice = "take a local or less busy disk as runs_dir: every epoch waits for it several times"
        yield Finding("run folder", OK if seconds < SLOW_SYNC_SECONDS else WARNING, message, advice)
    yield _disk(folder)


def _probe(folder: Path) -> float:
    """Seconds until a small file is on the disk of ``folder``. Raises an error where a run could not write."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as name:
        file = Path(name) / "probe"
        started = time.monotonic()
        atomic_file.write(file, bytes(4096))
        seconds = time.monotonic() - started
        try:
            file.open("x").close()
        except FileExistsError:
            return seconds
        raise SuiteError("its file system lets two processes create the same file")


def _disk(folder: Path) -> Finding:
    disk = os.statvfs(folder)
    free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail
    _, kind = ask("stat", "--file-system", "--format=%T", str(folder))
    message = f"{kind}, {gigabytes(free)} of {gigabytes(disk.f_blocks * disk.f_frsize)} free"
    message += f", {inodes:,} inodes" if disk.f_files else ""  # some file systems create inodes on demand
    for verdict, least_bytes, least_inodes in SCARCE:
        if free < least_bytes or (disk.f_files and inodes < least_inodes):
            return Finding(
                "disk", verdict, message, "free space, or set runs_dir to another disk: a full disk stops runs"
            )
    in_memory = kind in ("tmpfs", "ramfs")
    return Finding(
        "disk", WARNING if in_memory else OK, message, "set runs_dir to a disk: a reboot empties this file system"
    )
