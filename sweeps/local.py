"""Runs a plan on this machine: some processes at a time, each run on its own, none able to take another down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from experiments.config import ROOT, Config
from experiments.data.layout import check_root
from experiments.launch import command, environment
from experiments.run_folder import RunFolder
from sweeps.plan import Plan, PlannedRun
from sweeps.price import sentence
from sweeps.status import DONE, FAILED, REFUSED, RUNNING, state_of

POLL_SECONDS = 0.2


@dataclass
class Outcome:
    """Run ids by what happened to them in this launch."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped_failed: list[str] = field(default_factory=list)  # failed earlier and not asked to be tried again
    running_elsewhere: dict[str, str] = field(default_factory=dict)  # with what is known of them
    interrupted: int | None = None

    @property
    def exit_code(self) -> int:
        if self.interrupted is not None:
            return 130 if self.interrupted == signal.SIGINT else 143
        return 1 if self.failed or self.skipped_failed else 0


def launch(
    plan: Plan,
    runs_dir: Path,
    jobs: int | None = None,
    retry_failed: bool = False,
    force: bool = False,
    say: Callable[[str], None] = print,
    watch: Callable[[list[str]], None] = lambda running: None,
) -> Outcome:
    """Starts every run of the plan that is not finished and waits for them all.

    jobs: processes at a time; None = as many as the runs' ``machine.threads`` leave room for.
    force: go on with checkpoints that other code wrote.
    watch: called with the ids of the running runs at every poll, for a progress display.
    Refusals (data root, run folder) raise before anything is started.
    """
    outcome = Outcome()
    waiting = []
    for run in plan.distinct().values():
        folder = RunFolder(runs_dir / run.id)
        state, detail, _ = state_of(folder)
        if state == DONE:
            outcome.done.append(run.id)
        elif state == RUNNING:
            outcome.running_elsewhere[run.id] = detail
        elif state == FAILED and not retry_failed:
            outcome.skipped_failed.append(run.id)
        else:
            waiting.append(run)
    for run in waiting:
        check_root(run.config)
        RunFolder(runs_dir / run.id).freeze(run.config)
    jobs = jobs or default_jobs(plan)
    say(f"{len(waiting)} of {len(plan.distinct())} runs to do, {jobs} at a time")
    if waiting:
        say(sentence(plan, runs_dir))
    _work_off(waiting, runs_dir, jobs, force, outcome, say, watch)
    return outcome


def default_jobs(plan: Plan) -> int:
    machine = plan.runs[0].config.machine
    return max(1, len(os.sched_getaffinity(0)) // (machine.threads * machine.devices)) if machine.threads else 1


def _work_off(
    waiting: list[PlannedRun],
    runs_dir: Path,
    jobs: int,
    force: bool,
    outcome: Outcome,
    say: Callable[[str], None],
    watch: Callable[[list[str]], None],
) -> None:
    running: dict[str, tuple[PlannedRun, subprocess.Popen[bytes], float]] = {}
    queue = list(waiting)
    total = len(queue)

    def stop(number: int, frame: FrameType | None) -> None:
        outcome.interrupted = number
        for _, process, _ in running.values():
            process.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while running or (queue and outcome.interrupted is None):
            while queue and len(running) < jobs and outcome.interrupted is None:
                run = queue.pop(0)
                running[run.id] = (run, start(RunFolder(runs_dir / run.id), run.config, force), time.monotonic())
            time.sleep(POLL_SECONDS)
            watch(list(running))
            for run, process, started in list(running.values()):
                if process.poll() is None:
                    continue
                del running[run.id]
                seconds = time.monotonic() - started
                left = f"{len(queue) + len(running)} of {total} left"
                state, detail, _ = state_of(RunFolder(runs_dir / run.id))
                if state == DONE:
                    outcome.done.append(run.id)
                    say(f"done    {run.arm:<12} seed {run.seed}  {detail}  {seconds:.0f} s  ({left})")
                elif state == RUNNING:  # another launcher was quicker
                    outcome.running_elsewhere[run.id] = detail
                elif outcome.interrupted is None:
                    said = state in (FAILED, REFUSED) or (process.returncode > 0 and detail)
                    cause = detail if said else _death(process.returncode, RunFolder(runs_dir / run.id))
                    outcome.failed[run.id] = cause
                    say(f"failed  {run.arm:<12} seed {run.seed}  {cause}  ({left})")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def start(folder: RunFolder, config: Config, force: bool) -> subprocess.Popen[bytes]:
    """A process of its own for a frozen run, in a session of its own: Ctrl-C reaches it through the launcher only."""
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            command(folder, force),
            cwd=ROOT,
            env=environment(config),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _death(code: int, folder: RunFolder) -> str:
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended without a word: {how} (log: {folder.log})"
