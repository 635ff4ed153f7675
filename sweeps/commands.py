"""The commands about sweeps, called with what run.py has parsed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import ConfigError
from experiments.interrupts import Interrupted
from run_format import DEAD_ENDS, DONE, UNKNOWN
from sweeps import launches, show
from sweeps import logs as run_logs
from sweeps.launcher import mention_skipped, report_outcome, start_in_background, work_off
from sweeps.plan import Plan
from sweeps.price import Price, estimate, known, sentence
from sweeps.rates import ON_SLURM
from sweeps.slurm import submissions
from sweeps.slurm.cluster import Cluster, SlurmError
from sweeps.status import RunStatus, describe

HERE_SECONDS, SLURM_SECONDS = 5.0, 15.0  # between two looks; others use a cluster's controller, too
NICENESS = 10
START_SECONDS = 30.0  # for a launcher in the background to start


def sweep(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Every missing run of a sweep, on this machine or on Slurm."""
    if options.slurm and options.jobs:
        raise ConfigError("--jobs limits runs on this machine; with --slurm, use --max-parallel")
    if options.slurm and (options.background or options.nice):
        raise ConfigError("--background and --nice are for runs on this machine; Slurm's jobs need neither")
    if options.max_parallel and not options.slurm:
        raise ConfigError("--max-parallel limits Slurm jobs; on this machine, use --jobs")
    if options.dry_run:
        return _scripts(plan, runs_dir, options) if options.slurm else _preview(plan, runs_dir, options)
    return _submit(plan, runs_dir, options) if options.slurm else _run_here(plan, runs_dir, options)


def price(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """The device-hours of a sweep; set-ups of unknown speed are timed, here or by Slurm jobs."""

    def say(line: str) -> None:
        if not options.json:
            print(line, file=sys.stderr, flush=True)

    try:
        if options.slurm:
            from sweeps.slurm.probes import estimate_on_slurm

            cost = estimate_on_slurm(plan, runs_dir, Cluster(), options.max_parallel, options.fresh, say)
        else:
            cost = estimate(plan, runs_dir, fresh=options.fresh, say=say)
    except Interrupted as interruption:
        return interruption.exit_code
    print(json.dumps(cost.as_dict()) if options.json else "\n".join(cost.table()))
    return 0


def status(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """The state of each run, from the run folders and from Slurm, and the launchers that work on them."""
    if options.watch and not options.json:
        _watch(plan, runs_dir)
        return 0
    rows, complaint = _look(plan, runs_dir)
    if complaint:
        print(f"run.py: {complaint}; these are the states in the run folders", file=sys.stderr)
    working = launches.alive(runs_dir, plan.distinct())
    if options.json:
        described = [{**vars(holder), "log": str(launch.log), "jobs": launch.jobs} for launch, holder in working]
        print(_document(plan, runs_dir, rows, launchers=described))
        return 0
    print(*show.lines(rows), show.summary(plan, rows, runs_dir), sep="\n")
    for launch, holder in working:
        print(launches.describe(launch, holder))
    if cost := _price(plan, runs_dir):
        print(cost.line())
    return 0


def states(plan: Plan, runs_dir: Path) -> dict[str, tuple[str, str]]:
    """(state, cause) of every planned run, for the cells of reports that have no result yet."""
    rows, _ = _look(plan, runs_dir)
    return {row.run: (row.state, row.detail if row.state in (*DEAD_ENDS, UNKNOWN) else "") for row in rows}


def cancel(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Stops a sweep's runs: its launchers on this machine, and its Slurm jobs."""
    from sweeps.local import stop
    from sweeps.slurm.cancel import cancel as cancel_jobs

    stopped = stop(plan, runs_dir, (lambda line: None) if options.json else print)
    submitted = submissions.exist(runs_dir, plan.distinct())
    jobs = cancel_jobs(plan, runs_dir, Cluster()) if submitted else {}
    if options.json:
        print(json.dumps({"cancelled": jobs, "stopped": stopped}))
        return 0
    for run, job in jobs.items():
        print(f"cancelled job {job}: {run}")
    for run in stopped:
        print(f"stopped {run}")
    print(f"{len(jobs)} jobs cancelled, {len(stopped)} runs stopped; running ones save their state first, and the next "
          "launch resumes them")  # fmt: skip
    return 0


def logs(name: str, runs_dir: Path, options: argparse.Namespace) -> int:
    """The end of a run's logs."""
    folder = run_logs.run_named(runs_dir, name)
    tails = {str(path): run_logs.tail(path) for path in run_logs.files(folder)}
    if options.json:
        print(json.dumps({"run": folder.id, "logs": tails}))
        return 0
    for path, lines in reversed(tails.items()):  # the run's own log last, which --watch follows
        print(f"==> {path} <==", *lines, sep="\n", flush=True)
    if not tails:
        print(f"{folder.id} has no log yet")
    if options.watch and folder.log.is_file():
        for line in run_logs.follow(folder):
            print(line, flush=True)
    return 0


def _run_here(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    from sweeps.local import prepare

    if options.nice:
        os.nice(NICENESS)  # runs inherit it
    choice = (options.jobs, options.retry_failed, options.force)
    if options.background:
        launch = prepare(plan, runs_dir, *choice, at=options.at, new_code=options.new_code)
        return _start_in_background(launch) if launch.runs else 0
    with show.live(runs_dir) as (say, watch):
        launch = prepare(plan, runs_dir, *choice, say, options.at, options.new_code)
        outcome = work_off(launch, say, watch)
    report_outcome(outcome, launch)
    return outcome.exit_code


def _start_in_background(launch: launches.Launch) -> int:
    from sweeps import snapshot

    process = start_in_background(launch, snapshot.take(launch.runs_dir))
    deadline = time.monotonic() + START_SECONDS
    while not launch.launcher and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    print(f"process {process.pid} works on {launch.sweep} in the background; log: {launch.log}")
    print(f"`status={launch.sweep}` with the same words follows it, `cancel={launch.sweep}` stops it")
    return process.returncode or 0


def _submit(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Submits missing runs and exits, or watches them if asked to."""
    from sweeps.slurm.launch import launch

    cluster = Cluster()
    print(sentence(plan, runs_dir, ON_SLURM))
    choice = (options.max_parallel, options.retry_failed, options.force)
    outcome = launch(plan, runs_dir, cluster, *choice, at=options.at, new_code=options.new_code)
    for run, why in outcome.waiting.items():
        print(f"run.py: {run} {why}", file=sys.stderr)
    mention_skipped(outcome.skipped_failed)
    if outcome.problem:
        print(
            f"run.py: not all could be submitted: {outcome.problem}; the same command submits the rest", file=sys.stderr
        )
    print(
        f"{len(outcome.submitted)} runs submitted, {len(outcome.left_alone)} queued or running before, "
        f"{len(outcome.done)} of {len(plan.distinct())} done; `status={plan.sweep}` with the same words follows them"
    )
    if options.watch:
        return 0 if all(row.state == DONE for row in _watch(plan, runs_dir)) else 1
    return outcome.exit_code


def _preview(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    rows, _ = _look(plan, runs_dir)
    if options.json:
        cost = known(plan, runs_dir)
        print(_document(plan, runs_dir, rows, price=cost.as_dict() if cost else None))
        return 0
    print(*show.lines(rows), show.summary(plan, rows, runs_dir), sentence(plan, runs_dir), sep="\n")
    return 0


def _scripts(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """The batch scripts that would be submitted, also on a machine without Slurm."""
    from sweeps.slurm.launch import scripts

    cluster = None
    try:
        cluster = Cluster()
    except SlurmError as error:
        print(f"run.py: {error}; shown as for a cluster of the usual limits", file=sys.stderr)
    batches = scripts(plan, runs_dir, cluster, options.max_parallel, options.retry_failed)
    if options.json:
        print(json.dumps([{"name": batch.name, "runs": list(batch.runs), "script": text} for batch, text in batches]))
        return 0
    for batch, text in batches:
        print(f"# {batch.name}: {', '.join(batch.runs)}\n{text}")
    runs = sum(len(batch.runs) for batch, _ in batches)
    print(f"# {runs} runs in {len(batches)} calls of sbatch; nothing was submitted")
    print(f"# {sentence(plan, runs_dir, ON_SLURM)}")
    return 0


def _look(plan: Plan, runs_dir: Path) -> tuple[list[RunStatus], str | None]:
    """The state of every planned run, and a complaint where Slurm does not answer."""
    submitted, complaint = submissions.known(runs_dir, plan.distinct())
    return describe(plan, runs_dir, submitted), complaint


def _watch(plan: Plan, runs_dir: Path) -> Sequence[RunStatus]:
    submitted, _ = submissions.known(runs_dir, plan.distinct())
    seconds = SLURM_SECONDS if submitted else HERE_SECONDS
    return show.watch(
        plan, runs_dir, lambda: _look(plan, runs_dir), seconds, lambda: bool(launches.alive(runs_dir, plan.distinct()))
    )


def _price(plan: Plan, runs_dir: Path) -> Price | None:
    """As timed on Slurm's nodes, else on this machine; None where neither was timed."""
    return known(plan, runs_dir, ON_SLURM) or known(plan, runs_dir)


def _document(plan: Plan, runs_dir: Path, rows: list[RunStatus], **more: Any) -> str:
    return json.dumps({**plan.as_dict(), "runs_dir": str(runs_dir), "runs": [row.as_dict() for row in rows], **more})
