"""Disk space of the run folders: what they take, and what can be removed once runs are finished."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import UnreadableError
from experiments.folder.run_folder import RunFolder
from run_format import CHECKPOINTS, DONE, WEIGHTS
from sweeps import launches, repeat, snapshot
from sweeps.plan import Plan
from sweeps.run_code import copies_in_use
from sweeps.status import state_of
from untrusted_files import listed

RECENT_SECONDS = 3600.0  # a launch may just have taken the copy, and not have noted it in a run yet


@dataclass(frozen=True)
class RunUsage:
    run: str
    state: str
    checkpoint_bytes: int
    other_bytes: int

    @property
    def total(self) -> int:
        return self.checkpoint_bytes + self.other_bytes


@dataclass(frozen=True)
class DiskUsage:
    runs_dir: Path
    runs: list[RunUsage]  # the largest first
    code_bytes: int  # of the copies of the code
    set_aside: int  # folders of earlier measurements
    set_aside_bytes: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "runs_dir": str(self.runs_dir),
            "runs": [asdict(run) for run in self.runs],
            "code_bytes": self.code_bytes,
            "set_aside": self.set_aside,
            "set_aside_bytes": self.set_aside_bytes,
        }

    def lines(self) -> list[str]:
        width = max((len(run.run) for run in self.runs), default=3)
        lines = [f"{'run':<{width}}  {'state':<11}  {'checkpoints':>11}  {'other files':>11}"]
        for run in self.runs:
            sizes = f"{_size(run.checkpoint_bytes):>11}  {_size(run.other_bytes):>11}"
            lines.append(f"{run.run:<{width}}  {run.state:<11}  {sizes}")
        checkpoints = sum(run.checkpoint_bytes for run in self.runs)
        finished = sum(run.checkpoint_bytes for run in self.runs if run.state == DONE)
        total = sum(run.total for run in self.runs)
        lines.append(
            f"{len(self.runs)} runs in {self.runs_dir} take {_size(total)}, {_size(checkpoints)} of it checkpoints, "
            f"{_size(finished)} of finished runs (prune=SWEEP removes those); copies of the code take "
            f"{_size(self.code_bytes)}"
        )
        if self.set_aside:
            lines.append(
                f"{self.set_aside} folder{'s' * (self.set_aside > 1)} of earlier measurements in "
                f"{self.runs_dir / repeat.SET_ASIDE}: {_size(self.set_aside_bytes)} "
                "(prune=SWEEP removes those whose run is done again and whose values are on record)"
            )
        return lines


def usage(runs_dir: Path) -> DiskUsage:
    """Sizes and states of all run folders, as the folders show them: Slurm is not asked."""
    runs = [_usage(folder) for folder in RunFolder.all_in(runs_dir)]
    runs.sort(key=lambda run: (-run.total, run.run))
    aside = repeat.folders(runs_dir)
    return DiskUsage(runs_dir, runs, _bytes(runs_dir / snapshot.COPIES), len(aside), sum(map(_bytes, aside)))


@dataclass(frozen=True)
class Removal:
    """What ``prune`` removes: checkpoints of finished runs, folders that were set aside, copies of the code, records of
    ended launches."""

    checkpoints: dict[str, list[Path]]  # files by run id
    folders: list[Path]
    bytes: int
    problem: str = ""  # why copies of the code are kept that may be unused

    def act(self) -> None:
        for paths in self.checkpoints.values():
            for path in paths:
                with suppress(FileNotFoundError):
                    path.unlink()
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def as_dict(self, done: bool) -> dict[str, Any]:
        return {
            "removed": done,
            "checkpoints": {run: list(map(str, paths)) for run, paths in self.checkpoints.items()},
            "folders": list(map(str, self.folders)),
            "bytes": self.bytes,
            "problem": self.problem,
        }

    def lines(self, done: bool) -> list[str]:
        verb = "removed" if done else "would remove"
        lines = [f"{verb} {len(paths)} checkpoint files of {run}" for run, paths in self.checkpoints.items()]
        lines += [f"{verb} {folder}" for folder in self.folders]
        lines += [f"copies of the code are kept: {self.problem}"] if self.problem else []
        return [*lines, f"{verb} {_size(self.bytes)}" + ("" if done else "; --yes removes it")]


def removable(plan: Plan, runs_dir: Path) -> Removal:
    """Checkpoints of the plan's finished runs and folders of earlier measurements of them that are needed no more, and
    below ``runs_dir`` all copies of the code and records of launches that nothing refers to.

    A finished run keeps everything else: a run that starts from it needs its final weights, reports need the rest. A
    copy of the code is kept while a run folder names it, because later seeds of a sweep start from it.
    """
    checkpoints = {}
    for run_id in plan.distinct():
        folder = RunFolder(runs_dir / run_id)
        # without its final weights, the checkpoints are all that is left of a model
        paths = [path for path in listed(folder.checkpoints) if path.is_file()]
        if paths and folder.finished() and not folder.holder() and (folder.path / WEIGHTS).is_file():
            checkpoints[run_id] = paths
    folders, problem = [*repeat.superseded(runs_dir, plan.distinct()), *_ended_launches(runs_dir)], ""
    try:
        folders = [*_unused_copies(runs_dir), *folders]
    except UnreadableError as error:
        problem = str(error)
    size = sum(_bytes(path) for path in [*(p for paths in checkpoints.values() for p in paths), *folders])
    return Removal(checkpoints, folders, size, problem)


def _unused_copies(runs_dir: Path) -> list[Path]:
    used = copies_in_use(RunFolder.all_in(runs_dir))
    copies = [path for path in listed(runs_dir / snapshot.COPIES) if path.is_dir() and path.name not in used]
    return sorted(path for path in copies if time.time() - path.stat().st_mtime > RECENT_SECONDS)


def _ended_launches(runs_dir: Path) -> list[Path]:
    """Their logs, and records of killed launchers none of whose runs is running any more."""
    running = {
        launch.folder
        for launch in launches.recorded(runs_dir)
        if launch.launcher or any(RunFolder(runs_dir / run.id).holder() for run in launch.runs)
    }
    folders = (path for path in listed(runs_dir / launches.LAUNCHES, "[!.]*") if path not in running)
    return sorted(path for path in folders if time.time() - path.stat().st_mtime > RECENT_SECONDS)


def _usage(folder: RunFolder) -> RunUsage:
    checkpoints = _bytes(folder.path / CHECKPOINTS)
    return RunUsage(folder.id, state_of(folder)[0], checkpoints, _bytes(folder.path) - checkpoints)


def _bytes(path: Path) -> int:
    """Of a file, or of all files below a folder; what is gone meanwhile or cannot be looked at counts nothing."""
    below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)  # noqa: PTH118
    total = 0
    for file in below if os.path.isdir(path) else [path]:  # noqa: PTH112
        with suppress(OSError):
            total += os.lstat(file).st_size
    return total


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.2g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
