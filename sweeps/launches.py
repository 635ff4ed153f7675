"""Launches of sweeps on this machine, on disk: a folder below ``runs_dir/launches`` for each.

The launcher holds a claim on the folder, so that other commands see whether it is alive, and where.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import atomic_file
from errors import RunFolderError, UnreadableError, WriteError
from experiments.folder.claim import Claim, Holder, holder_of, take
from untrusted_files import LIST, MAPPING, NUMBER, TEXT, keys_and_values, listed

LAUNCHES = "launches"  # below the folder of the runs
FILE = "launch.json"
LOCK = ".lock"
LOG = "log.txt"  # output of a launcher in the background
GPUS = "CUDA_VISIBLE_DEVICES"
KINDS = dict.fromkeys(("sweep", "other_code", "gpus"), TEXT) | {"jobs": NUMBER, "total": NUMBER, "runs": LIST}
KINDS |= dict.fromkeys(("words", "done", "skipped_failed", "measured", "excluded", "adopted"), LIST)
KINDS |= dict.fromkeys(("running_elsewhere", "unreadable"), MAPPING)


@dataclass(frozen=True)
class LaunchedRun:
    id: str
    arm: str
    seed: int
    task: str
    parent: str | None
    code: str  # folder of the copy of the code


@dataclass
class Launch:
    folder: Path
    sweep: str
    jobs: int  # processes at a time
    other_code: str | None
    runs: list[LaunchedRun]  # to be started, parents first
    total: int = 0  # runs of the plan
    compared: bool = True  # whether the baseline is among the arms, as reports need it
    of_tables: bool = False  # of a collection, whose results are shown table by table
    words: list[str] = field(default_factory=list)  # the settings of the command line that planned them
    gpus: str | None = field(default_factory=lambda: os.environ.get(GPUS))
    done: list[str] = field(default_factory=list)  # run ids by their state when the launch was planned
    skipped_failed: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)  # collected earlier
    excluded: list[str] = field(default_factory=list)
    running_elsewhere: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)  # with the file that cannot be read
    adopted: list[str] = field(default_factory=list)  # of ``runs``: still running, their launcher is dead
    claim: Claim | None = field(default=None, repr=False, compare=False)  # of this process, which is not recorded

    @property
    def runs_dir(self) -> Path:
        return self.folder.parent.parent

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def launcher(self) -> Holder | None:
        """The live process that works on the launch."""
        return holder_of(self.folder)

    def write(self) -> None:
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "claim")}
        content["runs"] = [asdict(run) for run in self.runs]
        atomic_file.write(self.folder / FILE, json.dumps(content) + "\n")

    def hold(self) -> None:
        """Marks this process as the launcher."""
        self.claim = self.claim or take(self.folder)

    def let_go(self) -> None:
        if self.claim:
            self.claim.release()
            self.claim = None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the launch. The record is removed at the end, unless the launcher is killed."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()
            self.forget()

    def forget(self) -> None:
        """Removes the record, and the folder unless it holds a log."""
        if self.log.exists():
            (self.folder / FILE).unlink(missing_ok=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def planning(runs_dir: Path) -> Iterator[None]:
    """One launch is planned at a time: of two that look at the same moment, neither would see the other."""
    with ExitStack() as stack:
        try:
            stack.enter_context(atomic_file.locked(runs_dir / LAUNCHES / LOCK))
        except WriteError as error:
            raise RunFolderError(str(error)) from None
        yield


def new_folder(runs_dir: Path) -> Path:
    """Where a launch is to be recorded; names sort by time."""
    return runs_dir / LAUNCHES / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def read(folder: Path) -> Launch:
    """Raises UnreadableError."""
    try:
        content = keys_and_values(folder / FILE, KINDS)
        runs = [LaunchedRun(**run) for run in content.pop("runs")]
        if not all(isinstance(run.id, str) and isinstance(run.code, str) for run in runs):
            raise TypeError("its runs have no names")
        return Launch(folder, runs=runs, **content)
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise UnreadableError(f"{folder / FILE}: no record of a launch ({error})") from None


def recorded(runs_dir: Path, runs: Collection[str] | None = None) -> list[Launch]:
    """Launches of at least one of ``runs``, or all launches, the newest first; unreadable records are left out."""
    launches = []
    for folder in reversed(listed(runs_dir / LAUNCHES, "[!.]*")):
        try:
            launch = read(folder)
        except UnreadableError:
            continue
        if runs is None or any(run.id in runs for run in launch.runs):
            launches.append(launch)
    return launches


def alive(runs_dir: Path, runs: Collection[str]) -> list[tuple[Launch, Holder]]:
    """Launches of at least one of ``runs`` whose launcher lives, with the launcher."""
    return [(launch, holder) for launch in recorded(runs_dir, runs) if (holder := launch.launcher)]


def describe(launch: Launch, launcher: Holder) -> str:
    log = f", log: {launch.log}" if launch.log.exists() else ""
    return f"{launcher} starts its runs, {launch.jobs} at a time{log}"
