"""The command ``sweep=``: launches the missing runs of a sweep, on this machine or on Slurm."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from errors import ConfigError, UnreadableError
from experiments.commands import other_code
from experiments.folder.parent import refuse_unknown
from experiments.folder.run_folder import RunFolder
from experiments.origin import PresentData, refuse_other_origin
from pasted_command import same_settings
from run_format import DONE, EXCLUDED, MEASURED
from sweeps import equal_arms, launches, near_runs, show
from sweeps.collection import CollectionPlan
from sweeps.collection_state import CollectionState
from sweeps.commands import as_document, devices_of, look, planned, watch
from sweeps.launcher import mention_skipped, report_outcome, start_in_background, work_off
from sweeps.measured import MeasuredRuns, find
from sweeps.plan import Plan
from sweeps.price import known, sentence
from sweeps.rates import ON_SLURM
from sweeps.slurm.cluster import Cluster, SlurmError

NICENESS = 10
START_SECONDS = 30.0  # for a launcher in the background to start


def sweep(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Every missing run of a sweep, on this machine or on Slurm."""
    if options.slurm and options.jobs:
        raise ConfigError("--jobs limits runs on this machine; with --slurm, use --max-parallel")
    if options.slurm and (options.background or options.nice):
        raise ConfigError("--background and --nice are for runs on this machine; Slurm's jobs need neither")
    if options.max_parallel and not options.slurm:
        raise ConfigError("--max-parallel limits Slurm jobs; on this machine, use --jobs")
    devices = devices_of(name, given)
    if devices and (options.slurm or not options.dry_run):
        raise ConfigError("gpus= estimates a time, with --dry-run and without --slurm; --jobs limits runs at a time")
    plan, runs_dir = planned(name, given, options.words[1:], compared=not (options.retry_failed or options.fresh))
    if not options.fresh:
        present = PresentData()
        for run in plan.distinct().values():
            with suppress(UnreadableError):  # such a run is named, and not started
                refuse_other_origin(RunFolder(runs_dir / run.id), run.config, present)
    if options.dry_run:
        return _scripts(plan, runs_dir, options) if options.slurm else _preview(plan, runs_dir, options, devices)
    return _submit(plan, runs_dir, options) if options.slurm else _run_here(plan, runs_dir, options)


def _run_here(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    from sweeps.local import prepare

    if options.nice:
        os.nice(NICENESS)  # runs inherit it
    choice = (options.jobs, options.retry_failed, other_code(options))
    if options.background:
        launch = prepare(plan, runs_dir, *choice, at=options.at, new_code=options.new_code, fresh=options.fresh)
        return _start_in_background(launch) if launch.runs else 0
    with show.live() as (say, progress):
        launch = prepare(plan, runs_dir, *choice, say, options.at, options.new_code, options.fresh)
        outcome = work_off(launch, say, progress(launch))
    report_outcome(outcome, launch)
    return outcome.exit_code


def _start_in_background(launch: launches.Launch) -> int:
    from sweeps import snapshot

    with launches.planning(launch.runs_dir):
        launch.let_go()
        process = start_in_background(launch, snapshot.take(launch.runs_dir))
        deadline = time.monotonic() + START_SECONDS
        while not launch.launcher and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    if process.returncode:
        print(f"run.py: the launcher in the background ended at once; log: {launch.log}", file=sys.stderr)
        return process.returncode
    print(f"process {process.pid} works on {launch.sweep} in the background; log: {launch.log}")
    print(f"to stop it: {same_settings('cancel', launch.sweep, launch.words)}")
    return 0


def _submit(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Submits missing runs and exits, or watches them if asked to."""
    from sweeps.slurm.launch import launch

    cluster = Cluster()
    found = _measured(plan, runs_dir, options)
    print(sentence(plan, runs_dir, ON_SLURM, found.left_alone()))
    choice = (options.max_parallel, options.retry_failed, other_code(options))
    code = {"at": options.at, "new_code": options.new_code}
    outcome = launch(plan, runs_dir, cluster, *choice, **code, fresh=options.fresh)
    for run, why in outcome.waiting.items():
        print(f"run.py: {run} {why}", file=sys.stderr)
    mention_skipped(outcome.skipped_failed, outcome.excluded, outcome.unreadable)
    if outcome.problem:
        print(
            f"run.py: not all could be submitted: {outcome.problem}; the same command submits the rest", file=sys.stderr
        )
    before = f" and {len(outcome.measured)} measured before" if outcome.measured else ""
    print(
        f"{len(outcome.submitted)} runs submitted, {len(outcome.left_alone)} queued or running before, "
        f"{len(outcome.done)} of {len(plan.distinct())} done{before}; "
        f"to follow them: {same_settings('status', plan.given, plan.words, '--watch')}"
    )
    if options.watch:
        return 0 if all(row.state in (DONE, MEASURED) for row in watch(plan, runs_dir)) else 1
    return outcome.exit_code


def _preview(plan: Plan, runs_dir: Path, options: argparse.Namespace, devices: int | None) -> int:
    """devices: of a collection, those that the time it takes is estimated for."""
    found = _measured(plan, runs_dir, options)
    rows, _ = look(plan, runs_dir, found)
    to_do = [row.run for row in rows if row.state not in (DONE, MEASURED, EXCLUDED)]
    runs = plan.distinct()
    for run in to_do:
        if not runs[run].parent:
            refuse_unknown(runs[run].config.init, runs_dir)
    if isinstance(plan, CollectionPlan):
        collection = CollectionState.of(plan, runs_dir, rows)
        if options.json:
            print(collection.document(devices, runs_dir=str(runs_dir)))
            return 0
        print(*collection.run_lines(), *collection.table_lines(), show.summary(plan, rows, runs_dir), sep="\n")
        print(*found.sentences(to_do), *_about(plan, runs_dir, to_do), sep="\n")
        print(*collection.time_lines(devices), sep="\n")
        return 0
    if options.json:
        cost = known(plan, runs_dir, collected=found.left_alone())
        print(as_document(plan, runs_dir, rows, price=cost.as_dict() if cost else None))
        return 0
    print(*show.lines(rows), show.summary(plan, rows, runs_dir), *found.sentences(to_do), sep="\n")
    print(*_about(plan, runs_dir, to_do), sentence(plan, runs_dir, collected=found.left_alone()), sep="\n")
    return 0


def _about(plan: Plan, runs_dir: Path, to_do: Collection[str], options: Iterable[str] = ()) -> Iterator[str]:
    """What should be known of a plan before its runs are started."""
    yield from equal_arms.sentences(plan)
    yield from near_runs.sentences(plan, runs_dir, to_do, options)


def _measured(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> MeasuredRuns:
    """The runs of the plan that are measured already, by the code that the options choose."""
    choice = {"at": options.at, "new_code": options.new_code, "fresh": options.fresh}
    return find(plan, runs_dir, other_code=other_code(options), **choice)


def _scripts(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """The batch scripts that would be submitted, also on a machine without Slurm."""
    from sweeps.slurm.launch import scripts

    cluster: Cluster | None = None
    try:
        cluster = Cluster()
        cluster.limits()  # the programs can be here, and no cluster behind them
    except SlurmError as error:
        cluster = None
        print(f"run.py: {error}; shown as for a cluster of the usual limits", file=sys.stderr)
    found = _measured(plan, runs_dir, options)
    batches = scripts(plan, runs_dir, cluster, options.max_parallel, options.retry_failed, found)
    if options.json:
        print(json.dumps([{"name": batch.name, "runs": list(batch.runs), "script": text} for batch, text in batches]))
        return 0
    for batch, text in batches:
        print(f"# {batch.name}: {', '.join(batch.runs)}\n{text}")
    to_do = [run for batch, _ in batches for run in batch.runs]
    for line in _about(plan, runs_dir, to_do, ["--slurm"]):
        print(f"# {line}")
    runs = len(to_do)
    print(f"# {runs} runs in {len(batches)} calls of sbatch; nothing was submitted")
    print(f"# {sentence(plan, runs_dir, ON_SLURM, found.left_alone())}")
    return 0
