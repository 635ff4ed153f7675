"""Runs a plan on this machine: several processes at a time, each run in its own, none able to end another."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from errors import RunFolderError
from experiments.data.registry import check_root
from experiments.folder.claim import Holder, holder_of
from experiments.folder.parent import refuse_unknown
from experiments.folder.run_folder import RunFolder
from pasted_command import same_settings
from run_format import DONE, EXCLUDED, FAILED, MEASURED, QUEUED, RUNNING, UNREADABLE
from sweeps import equal_arms, launches, measured, near_runs, repeat, run_code
from sweeps.collection import CollectionPlan
from sweeps.launcher import POLL_SECONDS, Outcome, stop_process, work_off
from sweeps.launches import Launch, LaunchedRun
from sweeps.measured import MeasuredRuns
from sweeps.plan import Plan, PlannedRun
from sweeps.price import sentence
from sweeps.slurm.submissions import known
from sweeps.status import state_of

STOP_SECONDS = 120.0  # for runs to save their state


def launch(
    plan: Plan,
    runs_dir: Path,
    jobs: int | None = None,
    retry_failed: bool = False,
    other_code: str | None = None,
    say: Callable[[str], None] = print,
    watch: Callable[[list[str]], None] = lambda running: None,
    at: str | None = None,
    new_code: bool = False,
    fresh: bool = False,
) -> Outcome:
    """Starts every run of the plan that is not finished, each after the run it starts from, and waits for them all.

    jobs: processes at a time; None = as many as the runs' ``machine.threads`` leave room for.
    other_code: how runs go on from checkpoints that other code wrote, as for ``experiments.training.loop.run``.
    watch: called with the ids of the running runs at every poll, for a progress display.
    at, new_code: which code, as ``sweeps.run_code.choose`` takes them. fresh: also runs that are measured already.
    Refusals (data root, run folder, another launcher) raise before anything is started.
    """
    return work_off(prepare(plan, runs_dir, jobs, retry_failed, other_code, say, at, new_code, fresh), say, watch)


def prepare(
    plan: Plan,
    runs_dir: Path,
    jobs: int | None = None,
    retry_failed: bool = False,
    other_code: str | None = None,
    say: Callable[[str], None] = print,
    at: str | None = None,
    new_code: bool = False,
    fresh: bool = False,
) -> Launch:
    """Chooses the runs of a launch, freezes their configs, records the launch and holds it."""
    with launches.planning(runs_dir):
        return _planned(plan, runs_dir, jobs, retry_failed, other_code, say, at, new_code, fresh)


def _planned(
    plan: Plan,
    runs_dir: Path,
    jobs: int | None,
    retry_failed: bool,
    other_code: str | None,
    say: Callable[[str], None],
    at: str | None,
    new_code: bool,
    fresh: bool,
) -> Launch:
    launch = Launch(launches.new_folder(runs_dir), plan.given, jobs or default_jobs(plan), other_code, [])
    _refuse_second_launcher(plan, runs_dir, launch.gpus, say)
    found = measured.find(plan, runs_dir, at=at, new_code=new_code, other_code=other_code, fresh=fresh)
    runs, again = _choose_runs(plan, runs_dir, retry_failed, found, launch, say)
    for run in runs:
        check_root(run.config)
        if not run.parent:
            refuse_unknown(run.config.init, runs_dir)
    launch.total, launch.words = len(plan.distinct()), list(plan.words)
    launch.of_tables = isinstance(plan, CollectionPlan)
    launch.compared = launch.of_tables or plan.baseline in plan.labels
    say(f"{len(runs)} of {launch.total} runs to do, {launch.jobs} at a time")
    if not runs:
        return launch
    say(f"to follow them: {same_settings('status', launch.sweep, launch.words, '--watch')}")
    code = run_code.choose(plan, runs, runs_dir, at, new_code, other_code)
    for run_id in again:
        repeat.set_aside(RunFolder(runs_dir / run_id))
    for run in runs:
        code.freeze(RunFolder(runs_dir / run.id), run.config)
    launch.runs = [LaunchedRun(r.id, r.arm, r.seed, r.task, r.parent, str(code.copies[r.id])) for r in runs]
    finished = [run for run in plan.distinct().values() if run.id in launch.done]
    for line in [
        *code.describe(),
        *code.about_done(runs_dir, finished),
        sentence(plan, runs_dir, collected=[*launch.measured, *launch.excluded]),
    ]:
        say(line)
    launch.write()
    launch.hold()
    for earlier in launches.recorded(runs_dir, plan.distinct()):
        held = [run.id for run in earlier.runs if RunFolder(runs_dir / run.id).holder()]
        if not earlier.launcher and earlier.folder != launch.folder and set(held) <= set(launch.adopted):
            earlier.forget()  # its launcher was killed, and this launch takes its place
    return launch


def default_jobs(plan: Plan) -> int:
    machines = [run.config.machine for run in plan.runs]
    if not all(machine.threads for machine in machines):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // max((m.threads or 1) * m.devices for m in machines))


def _choose_runs(
    plan: Plan, runs_dir: Path, retry_failed: bool, found: MeasuredRuns, launch: Launch, say: Callable[[str], None]
) -> tuple[list[PlannedRun], list[str]]:
    """Runs to be started or adopted, and those of them that ended before and are repeated.

    ``launch`` notes the others by their state.
    """
    submitted, complaint = known(runs_dir, plan.distinct())
    if complaint:
        say(f"{complaint}; runs that were submitted to it may be in its queue")
    orphans = _orphans(plan, runs_dir)
    states, chosen, again = {}, [], []
    for run in plan.distinct().values():
        folder = RunFolder(runs_dir / run.id)
        own = state_of(folder, submitted.get(run.id))
        state, detail, _ = found.state(run.id, own, submitted.get(run.id))
        states[run.id] = state
        if state == DONE and not found.repeats(folder):
            launch.done.append(run.id)
        elif run.id in orphans:
            launch.adopted.append(run.id)
            chosen.append(run.id)
        elif state in (RUNNING, QUEUED):
            launch.running_elsewhere[run.id] = detail
        elif state == UNREADABLE:
            launch.unreadable[run.id] = detail
        elif state == EXCLUDED and not retry_failed:
            launch.excluded.append(run.id)
        elif state == FAILED and not retry_failed:
            launch.skipped_failed.append(run.id)
        elif state != MEASURED:
            chosen.append(run.id)
            if own[0] in (DONE, EXCLUDED):
                again.append(run.id)
    parents = measured.with_parents(plan, chosen, states)
    launch.measured = [run_id for run_id, state in states.items() if state == MEASURED and run_id not in parents]
    for line in [
        *found.sentences({*chosen, *parents}, launch.done),
        *measured.about_parents(parents),
        *equal_arms.sentences(plan),
        *near_runs.sentences(plan, runs_dir, chosen),
    ]:
        say(line)
    return [run for run in plan.distinct().values() if run.id in chosen or run.id in parents], again


def _orphans(plan: Plan, runs_dir: Path) -> set[str]:
    """Runs of the plan that run on this machine and whose launcher was killed."""
    launched = {run.id for launch in launches.recorded(runs_dir, plan.distinct()) for run in launch.runs}
    launched -= {run.id for launch, _ in launches.alive(runs_dir, plan.distinct()) for run in launch.runs}
    holders = {run: RunFolder(runs_dir / run).holder() for run in launched & plan.distinct().keys()}
    return {run for run, holder in holders.items() if holder and holder.here and not holder.job}


def _refuse_second_launcher(plan: Plan, runs_dir: Path, gpus: str | None, say: Callable[[str], None]) -> None:
    """Raises RunFolderError while a launcher of the same runs lives here; launchers of other GPUs may work beside it,
    as may launchers of other machines."""
    for launch, launcher in launches.alive(runs_dir, plan.distinct()):
        notice = f"{launch.sweep} is being launched: {launches.describe(launch, launcher)}"
        if launcher.here and launch.gpus == gpus:
            raise RunFolderError(
                f"{notice}; follow it with `{same_settings('status', launch.sweep, launch.words, '--watch')}`, stop it "
                f"with `{same_settings('cancel', launch.sweep, launch.words)}`"
            )
        say(notice)


def stop(plan: Plan, runs_dir: Path, say: Callable[[str], None] = print) -> list[str]:
    """Stops the launchers of a plan's runs on this machine, and runs whose launcher was killed; waits until they have
    saved their state. Returns the ids of the runs that were stopped."""
    running = [run_id for run_id in plan.distinct() if RunFolder(runs_dir / run_id).holder()]
    orphans = _orphans(plan, runs_dir)
    ending: list[Callable[[], Holder | None]] = []
    launched: set[str] = set()
    for launch, launcher in launches.alive(runs_dir, plan.distinct()):
        if not launcher.here:
            say(f"{launch.sweep}: {launches.describe(launch, launcher)}; cancel it on that machine")
            continue
        with suppress(ProcessLookupError):
            os.kill(launcher.pid, signal.SIGTERM)
        say(f"stopping {launcher}, which starts the runs of {launch.sweep}")
        ending.append(partial(holder_of, launch.folder))
        launched |= {run.id for run in launch.runs}
    for run_id in orphans:
        stop_process(RunFolder(runs_dir / run_id))
        ending.append(RunFolder(runs_dir / run_id).holder)
    deadline = time.monotonic() + STOP_SECONDS
    while any(holder() for holder in ending):
        if time.monotonic() > deadline:
            follow = same_settings("status", plan.given, plan.words, "--watch")
            say(f"still saving after {STOP_SECONDS:.0f} s; `{follow}` follows them")
            break
        time.sleep(POLL_SECONDS)
    return [run_id for run_id in running if run_id in launched | orphans]
