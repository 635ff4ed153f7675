"""The launcher of a recorded launch: starts its runs, several at a time, each in its own process, and waits for them.

In the background it is ``python -m sweeps.launcher FOLDER``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import atomic_file
import output
from errors import SuiteError, UnreadableError
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import handle, restore
from experiments.launch import command, environment
from pasted_command import same_settings
from results.run_folders.summary_file import notes
from run_format import CONFIG, DEAD_ENDS, DONE, FAILED, REFUSED, RUNNING, UNREADABLE
from sweeps import launches, show
from sweeps.launches import Launch, LaunchedRun
from sweeps.status import state_of
from untrusted_files import exists

POLL_SECONDS = 0.2
Say = Callable[[str], None]
Watch = Callable[[list[str]], None]


@dataclass
class Outcome:
    """Run ids by what happened to them in a launch."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped_failed: list[str] = field(default_factory=list)  # failed earlier and not to be tried again
    measured: list[str] = field(default_factory=list)  # collected earlier
    excluded: list[str] = field(default_factory=list)  # left out by a person, and not to be tried again
    running_elsewhere: dict[str, str] = field(default_factory=dict)  # with the detail of their state
    unreadable: dict[str, str] = field(default_factory=dict)  # not started, with the file that cannot be read
    cancelled: dict[str, str] = field(default_factory=dict)  # not started: the run they start from failed
    waiting: dict[str, str] = field(default_factory=dict)  # not started: the run they start from is running elsewhere
    interrupted: int | None = None

    @property
    def exit_code(self) -> int:
        if self.interrupted is not None:
            return 130 if self.interrupted == signal.SIGINT else 143
        return 1 if self.failed or self.skipped_failed or self.unreadable or self.cancelled else 0


def work_off(launch: Launch, say: Say = print, watch: Watch = lambda running: None) -> Outcome:
    """Executes the runs of a launch and returns their ends. SIGINT, SIGTERM and SIGHUP let every run save its state."""
    if not launch.runs:
        return Launcher(launch, say, watch).outcome
    with launch.claimed():
        return Launcher(launch, say, watch).work()


class Launcher:
    """The processes of a launch, and the runs that wait for one."""

    def __init__(self, launch: Launch, say: Say, watch: Watch):
        self.launch, self.say, self.watch = launch, say, watch
        self.outcome = Outcome(
            list(launch.done), {}, list(launch.skipped_failed), list(launch.measured), list(launch.excluded),
            dict(launch.running_elsewhere), dict(launch.unreadable),
        )  # fmt: skip
        self.queue = [run for run in launch.runs if run.id not in launch.adopted]
        self.adopted = [run for run in launch.runs if run.id in launch.adopted]
        self.processes: dict[str, tuple[LaunchedRun, subprocess.Popen[bytes], float]] = {}

    def work(self) -> Outcome:
        previous = handle(self._stop, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            while self.outcome.interrupted is None or self.processes:
                self._start_ready()
                if not self.processes and not self.adopted:
                    break
                time.sleep(POLL_SECONDS)
                self.watch([run.id for run in self.adopted] + list(self.processes))
                self._note_ends()
        finally:
            restore(previous)
        if self.outcome.interrupted is None:
            for run in self.queue:
                self._note_wait(run)
        return self.outcome

    def _folder(self, run_id: str) -> RunFolder:
        return RunFolder(self.launch.runs_dir / run_id)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.outcome.interrupted = number
        for _, process, _ in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for run in self.adopted:
            stop_process(self._folder(run.id))

    def _start_ready(self) -> None:
        while len(self.processes) + len(self.adopted) < self.launch.jobs and self.outcome.interrupted is None:
            run = next(filter(self._is_ready, self.queue), None)
            if run is None:
                return
            self.queue.remove(run)
            try:
                process = start(self._folder(run.id), Path(run.code), self.launch.other_code)
            except (OSError, SuiteError) as error:
                if lost := _lost(self._folder(run.id)):
                    self._fail(run, lost, "")
                    continue
                why = atomic_file.reason(error) if isinstance(error, OSError) else error
                self._fail(run, f"cannot be started: {why} (in {self._folder(run.id).path})", "")
                continue
            self.processes[run.id] = (run, process, time.monotonic())
            if self.outcome.interrupted is not None:  # the signal came while the process was being started
                process.send_signal(signal.SIGTERM)

    def _is_ready(self, run: LaunchedRun) -> bool:
        """Whether the run that it starts from is done."""
        if run.parent is None or run.parent in self.outcome.done:
            return True
        return run.parent in self.outcome.running_elsewhere and bool(self._folder(run.parent).finished())

    def _note_ends(self) -> None:
        for run, process, started in list(self.processes.values()):
            if process.poll() is not None:
                del self.processes[run.id]
                self._note_end(run, process.returncode, f"{time.monotonic() - started:.0f} s")
        for run in list(self.adopted):
            if not self._folder(run.id).holder():
                self.adopted.remove(run)
                if self.outcome.interrupted is None and state_of(self._folder(run.id))[0] not in (DONE, *DEAD_ENDS):
                    self.queue.insert(0, run)  # interrupted, so it is started again
                else:
                    self._note_end(run, 0, "begun by an earlier launch")

    def _note_end(self, run: LaunchedRun, code: int, took: str) -> None:
        folder, outcome = self._folder(run.id), self.outcome
        took += f"  ({len(self.queue) + len(self.processes) + len(self.adopted)} of {len(self.launch.runs)} left)"
        state, detail, _ = state_of(folder)
        if state == DONE:
            outcome.done.append(run.id)
            self.say(f"done    {self._cell(run)}  {detail}  {took}")
            for note in notes(folder.finished()):
                self.say(f"note    {self._cell(run)}  {note}")
        elif state == RUNNING:  # another launcher was quicker
            outcome.running_elsewhere[run.id] = detail
        elif outcome.interrupted is None:
            if lost := _lost(folder):
                self._fail(run, lost, took)
                return
            explained = state in (FAILED, REFUSED, UNREADABLE) or (code > 0 and detail)
            self._fail(run, detail if explained else _death(code, folder), took)

    def _fail(self, run: LaunchedRun, cause: str, took: str) -> None:
        self.outcome.failed[run.id] = cause
        self.say(f"failed  {self._cell(run)}  {cause}  {took}")

    def _note_wait(self, run: LaunchedRun) -> None:
        """Notes why a run that is left was not started. Parents are noted before their children."""
        assert run.parent is not None
        outcome = self.outcome
        elsewhere = run.parent in outcome.running_elsewhere
        alive = elsewhere and state_of(self._folder(run.parent))[0] not in DEAD_ENDS
        if run.parent in outcome.cancelled or run.parent in outcome.waiting:
            cause = f"waits for {run.parent}, which waits itself"
        else:
            end = "is excluded" if run.parent in outcome.excluded else "failed"
            end = "cannot be read" if run.parent in outcome.unreadable else end
            cause = f"waits for {run.parent}, which {'is being run elsewhere' if alive else end}"
        (outcome.waiting if alive or run.parent in outcome.waiting else outcome.cancelled)[run.id] = cause
        self.say(f"waits   {self._cell(run)}  {cause}")

    def _cell(self, run: LaunchedRun) -> str:
        task = f"{run.task:<16} " if len({other.task for other in self.launch.runs}) > 1 else ""
        arm = max([12, *(len(other.arm) for other in self.launch.runs)])  # characters
        return f"{run.arm:<{arm}} {task}seed {run.seed}"


def start(folder: RunFolder, code: Path, other_code: str | None = None) -> subprocess.Popen[bytes]:
    """Starts the frozen run of a folder from a copy of the code.

    The process has a session of its own, so that Ctrl-C reaches it through the launcher only, and a killed launcher
    does not end it.
    """
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            command(folder, other_code),
            cwd=code,
            env=environment(folder.config()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stop_process(folder: RunFolder) -> bool:
    """Asks the process that holds a run on this machine to save its state and end."""
    holder = folder.holder()
    if not (holder and holder.here and holder.pid):
        return False
    with suppress(OSError):
        os.kill(holder.pid, signal.SIGTERM)
    return True


def report_outcome(outcome: Outcome, launch: Launch) -> None:
    """Prints the outcome: problems on standard error, the number of finished runs on standard output."""
    if outcome.interrupted is not None:
        print(f"run.py: {launch.sweep} was stopped by {signal.Signals(outcome.interrupted).name}", file=sys.stderr)
    for run, cause in outcome.failed.items():
        print(f"run.py: {run} failed: {cause}", file=sys.stderr)
    for run, detail in outcome.running_elsewhere.items():
        print(f"run.py: {run} is being run elsewhere: {detail}", file=sys.stderr)
    for run, cause in (outcome.cancelled | outcome.waiting).items():
        print(f"run.py: {run} {cause}; the next launch starts it once that is done", file=sys.stderr)
    mention_skipped(outcome.skipped_failed, outcome.excluded, outcome.unreadable)
    before = f" and {len(outcome.measured)} measured before" if outcome.measured else ""
    done = f"{len(outcome.done)} of {launch.total} runs done{before}"
    words = launch.words if launch.compared else [word for word in launch.words if not word.startswith("arms=")]
    further = f"for the table: {same_settings('report', launch.sweep, words)}"
    if launch.of_tables:
        follow = same_settings("status", launch.sweep, launch.words)
        further = f"for its tables: {follow} (`collect=` keeps their results)"
    print(f"{done}; {further}", flush=True)


def mention_skipped(failed: list[str], excluded: list[str], unreadable: Mapping[str, str]) -> None:
    for run, cause in unreadable.items():
        print(f"run.py: {run} was not started: {cause}", file=sys.stderr)
    if excluded:
        print(f"run.py: {len(excluded)} runs are excluded; --retry-failed measures them again", file=sys.stderr)
    if failed:
        print(f"run.py: {len(failed)} runs failed earlier; --retry-failed tries them again", file=sys.stderr)


def _lost(folder: RunFolder) -> str:
    """Says that the folder of a run of this launch, or its config, is gone; empty where it is there."""
    try:
        if exists(folder.path / CONFIG):
            return ""
        what = f"{folder.path} lost its {CONFIG}" if exists(folder.path) else f"its folder {folder.path} was removed"
    except UnreadableError:  # its state says so
        return ""
    return f"{what} during this launch, and with it what it had trained; the next launch begins it afresh"


def _death(code: int, folder: RunFolder) -> str:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    with suppress(OSError):
        if not os.statvfs(folder.path.parent).f_bavail:
            how += ", the disk is full"
    return f"its process ended without a message: {how} (log: {folder.log})"


def start_in_background(launch: Launch, code: Path) -> subprocess.Popen[bytes]:
    """Starts a launcher that outlives this process and its terminal. code: the copy that the launcher itself runs."""
    with launch.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.launcher", str(launch.folder)],
            cwd=code,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def main(words: list[str]) -> int:
    output.tolerate_loss()
    try:
        launch = launches.read(Path(words[0]))
        outcome = work_off(launch, show.print_line, show.logged_progress(launch))
    except SuiteError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return error.exit_code
    report_outcome(outcome, launch)
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
