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

from experiments.config import ROOT
from experiments.data.registry import check_root
from experiments.folder.run_folder import RunFolder
from experiments.launch import command, environment
from experiments.schema import Config
from run_format import DEAD_ENDS, DONE, FAILED, QUEUED, REFUSED, RUNNING
from sweeps.plan import Plan, PlannedRun
from sweeps.price import sentence
from sweeps.slurm.submissions import known
from sweeps.status import state_of

POLL_SECONDS = 0.2


@dataclass
class Outcome:
    """Run ids by what happened to them in this launch."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped_failed: list[str] = field(default_factory=list)  # failed earlier and not asked to be tried again
    running_elsewhere: dict[str, str] = field(default_factory=dict)  # with what is known of them
    cancelled: dict[str, str] = field(default_factory=dict)  # not started: what they start from failed
    waiting: dict[str, str] = field(default_factory=dict)  # not started: what they start from is run elsewhere
    interrupted: int | None = None

    @property
    def exit_code(self) -> int:
        if self.interrupted is not None:
            return 130 if self.interrupted == signal.SIGINT else 143
        return 1 if self.failed or self.skipped_failed or self.cancelled else 0


def launch(
    plan: Plan,
    runs_dir: Path,
    jobs: int | None = None,
    retry_failed: bool = False,
    force: bool = False,
    say: Callable[[str], None] = print,
    watch: Callable[[list[str]], None] = lambda running: None,
) -> Outcome:
    """Starts every run of the plan that is not finished, each after the run it starts from, and waits for them all.

    jobs: processes at a time; None = as many as the runs' ``machine.threads`` leave room for.
    force: go on with checkpoints that other code wrote.
    watch: called with the ids of the running runs at every poll, for a progress display.
    Refusals (data root, run folder) raise before anything is started.
    """
    outcome = Outcome()
    waiting = []
    submitted, complaint = known(runs_dir, plan.distinct())
    if complaint:
        say(f"{complaint}; runs that were submitted to it may be in its queue")
    for run in plan.distinct().values():
        state, detail, _ = state_of(RunFolder(runs_dir / run.id), submitted.get(run.id))
        if state == DONE:
            outcome.done.append(run.id)
        elif state in (RUNNING, QUEUED):
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
    machines = [run.config.machine for run in plan.runs]
    if not all(machine.threads for machine in machines):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // max((m.threads or 1) * m.devices for m in machines))


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
        while outcome.interrupted is None or running:
            while len(running) < jobs and outcome.interrupted is None and (run := _ready(queue, outcome, runs_dir)):
                queue.remove(run)
                running[run.id] = (run, start(RunFolder(runs_dir / run.id), run.config, force), time.monotonic())
            if not running:
                break
            time.sleep(POLL_SECONDS)
            watch(list(running))
            for run, process, started in list(running.values()):
                if process.poll() is None:
                    continue
                del running[run.id]
                took = f"{time.monotonic() - started:.0f} s  ({len(queue) + len(running)} of {total} left)"
                _note_end(run, process.returncode, took, runs_dir, outcome, say)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if outcome.interrupted is None:
        for run in queue:
            _note_wait(run, runs_dir, outcome, say)


def _ready(queue: list[PlannedRun], outcome: Outcome, runs_dir: Path) -> PlannedRun | None:
    """The first run of the queue that has what it starts from."""
    for run in queue:
        if run.parent is None or run.parent in outcome.done:
            return run
        if run.parent in outcome.running_elsewhere and RunFolder(runs_dir / run.parent).finished():
            return run
    return None


def _note_end(
    run: PlannedRun, code: int, took: str, runs_dir: Path, outcome: Outcome, say: Callable[[str], None]
) -> None:
    folder = RunFolder(runs_dir / run.id)
    state, detail, _ = state_of(folder)
    if state == DONE:
        outcome.done.append(run.id)
        say(f"done    {run.arm:<12} seed {run.seed}  {detail}  {took}")
    elif state == RUNNING:  # another launcher was quicker
        outcome.running_elsewhere[run.id] = detail
    elif outcome.interrupted is None:
        said = state in (FAILED, REFUSED) or (code > 0 and detail)
        outcome.failed[run.id] = detail if said else _death(code, folder)
        say(f"failed  {run.arm:<12} seed {run.seed}  {outcome.failed[run.id]}  {took}")


def _note_wait(run: PlannedRun, runs_dir: Path, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Why a run that is left was not started. Parents are noted before their children."""
    assert run.parent is not None
    going = run.parent in outcome.running_elsewhere and state_of(RunFolder(runs_dir / run.parent))[0] not in DEAD_ENDS
    if run.parent in outcome.cancelled or run.parent in outcome.waiting:
        why = f"waits for {run.parent}, which waits itself"
    else:
        why = f"waits for {run.parent}, which {'is being run elsewhere' if going else 'failed'}"
    (outcome.waiting if going or run.parent in outcome.waiting else outcome.cancelled)[run.id] = why
    say(f"waits   {run.arm:<12} seed {run.seed}  {why}")


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
