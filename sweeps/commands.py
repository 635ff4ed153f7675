"""The commands about sweeps: what run.py has parsed is done and printed here."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from errors import ConfigError
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted
from run_format import DEAD_ENDS, DONE, UNKNOWN
from sweeps import logs as said
from sweeps import show
from sweeps.plan import Plan
from sweeps.price import Price, estimate, known, sentence
from sweeps.rates import ON_SLURM
from sweeps.slurm import submissions
from sweeps.slurm.cluster import Cluster, SlurmError
from sweeps.status import RunStatus, describe, state_of

HERE_SECONDS, SLURM_SECONDS = 5.0, 15.0  # between two looks; a cluster's controller serves others, too


def sweep(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Every missing run of a sweep, on this machine or on Slurm."""
    if options.slurm and options.jobs:
        raise ConfigError("--jobs limits runs on this machine; with --slurm it is --max-parallel")
    if options.max_parallel and not options.slurm:
        raise ConfigError("--max-parallel limits Slurm jobs; on this machine it is --jobs")
    if options.dry_run:
        return _scripts(plan, runs_dir, options) if options.slurm else _preview(plan, runs_dir, options)
    return _submit(plan, runs_dir, options) if options.slurm else _run_here(plan, runs_dir, options)


def price(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """What a sweep costs in device-hours; set-ups of unknown speed are timed, here or by Slurm jobs."""

    def say(line: str) -> None:
        if not options.json:
            print(line, file=sys.stderr, flush=True)

    try:
        if options.slurm:
            from sweeps.slurm.probes import estimate_on_slurm

            found = estimate_on_slurm(plan, runs_dir, Cluster(), options.max_parallel, options.fresh, say)
        else:
            found = estimate(plan, runs_dir, fresh=options.fresh, say=say)
    except Interrupted as interruption:
        return interruption.exit_code
    print(json.dumps(found.as_dict()) if options.json else "\n".join(found.table()))
    return 0


def status(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """What has become of each run, from the run folders and from Slurm."""
    if options.watch and not options.json:
        _watch(plan, runs_dir)
        return 0
    rows, complaint = _look(plan, runs_dir)
    if complaint:
        print(f"run.py: {complaint}; this is what the run folders say", file=sys.stderr)
    if options.json:
        print(_document(plan, runs_dir, rows))
        return 0
    print(*show.lines(rows), show.summary(plan, rows, runs_dir), sep="\n")
    if cost := _price(plan, runs_dir):
        print(cost.line())
    return 0


def states(plan: Plan, runs_dir: Path) -> dict[str, tuple[str, str]]:
    """(state, cause) of every planned run, for reports, whose cells say what they wait for."""
    rows, _ = _look(plan, runs_dir)
    return {row.run: (row.state, row.detail if row.state in (*DEAD_ENDS, UNKNOWN) else "") for row in rows}


def cancel(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Takes a sweep's jobs back from Slurm."""
    from sweeps.slurm.cancel import cancel as take_back

    jobs = take_back(plan, runs_dir, Cluster())
    if options.json:
        print(json.dumps({"cancelled": jobs}))
        return 0
    for run, job in jobs.items():
        print(f"cancelled job {job}: {run}")
    print(f"{len(jobs)} jobs cancelled; what was running saves its state, and the next launch goes on")
    return 0


def logs(name: str, runs_dir: Path, options: argparse.Namespace) -> int:
    """The end of what a run has said."""
    folder = said.run_named(runs_dir, name)
    tails = {str(path): said.tail(path) for path in said.files(folder)}
    if options.json:
        print(json.dumps({"run": folder.id, "logs": tails}))
        return 0
    for path, lines in reversed(tails.items()):  # the run's own log last, which --watch goes on with
        print(f"==> {path} <==", *lines, sep="\n", flush=True)
    if not tails:
        print(f"{folder.id} has not said anything yet")
    if options.watch and folder.log.is_file():
        for line in said.follow(folder):
            print(line, flush=True)
    return 0


def _run_here(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    from sweeps.local import launch

    with _live(runs_dir) as (say, watch):
        outcome = launch(plan, runs_dir, options.jobs, options.retry_failed, options.force, say, watch)
    for run, cause in outcome.failed.items():
        print(f"run.py: {run} failed: {cause}", file=sys.stderr)
    for run, detail in outcome.running_elsewhere.items():
        print(f"run.py: {run} is being run elsewhere: {detail}", file=sys.stderr)
    for run, why in (outcome.cancelled | outcome.waiting).items():
        print(f"run.py: {run} {why}; the next launch starts it once that is done", file=sys.stderr)
    _mention_skipped(outcome.skipped_failed)
    done = f"{len(outcome.done)} of {len(plan.distinct())} runs done"
    print(f"{done}; `report={plan.sweep}` with the same words makes the table")
    return outcome.exit_code


def _submit(plan: Plan, runs_dir: Path, options: argparse.Namespace) -> int:
    """Submits what is missing and is through, unless it is to watch."""
    from sweeps.slurm.launch import launch

    cluster = Cluster()
    print(sentence(plan, runs_dir, ON_SLURM))
    outcome = launch(plan, runs_dir, cluster, options.max_parallel, options.retry_failed, options.force)
    for run, why in outcome.waiting.items():
        print(f"run.py: {run} {why}", file=sys.stderr)
    _mention_skipped(outcome.skipped_failed)
    if outcome.problem:
        print(f"run.py: not all could be submitted: {outcome.problem}; the same command goes on", file=sys.stderr)
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
    """The batch scripts that would be submitted, where there is no Slurm as well."""
    from sweeps.slurm.launch import scripts

    cluster = None
    try:
        cluster = Cluster()
    except SlurmError as error:
        print(f"run.py: {error}; shown as for a cluster of the usual limits", file=sys.stderr)
    made = scripts(plan, runs_dir, cluster, options.max_parallel, options.retry_failed)
    if options.json:
        print(json.dumps([{"name": batch.name, "runs": list(batch.runs), "script": text} for batch, text in made]))
        return 0
    for batch, text in made:
        print(f"# {batch.name}: {', '.join(batch.runs)}\n{text}")
    runs = sum(len(batch.runs) for batch, _ in made)
    print(
        f"# {runs} runs in {len(made)} calls of sbatch; nothing was submitted\n# {sentence(plan, runs_dir, ON_SLURM)}"
    )
    return 0


def _look(plan: Plan, runs_dir: Path) -> tuple[list[RunStatus], str | None]:
    """The state of every planned run, and what Slurm complains of where it does not answer."""
    submitted, complaint = submissions.known(runs_dir, plan.distinct())
    return describe(plan, runs_dir, submitted), complaint


def _watch(plan: Plan, runs_dir: Path) -> Sequence[RunStatus]:
    submitted, _ = submissions.known(runs_dir, plan.distinct())
    return show.watch(plan, runs_dir, lambda: _look(plan, runs_dir), SLURM_SECONDS if submitted else HERE_SECONDS)


def _price(plan: Plan, runs_dir: Path) -> Price | None:
    """As Slurm's nodes, or this machine, were timed; None where neither was."""
    return known(plan, runs_dir, ON_SLURM) or known(plan, runs_dir)


def _document(plan: Plan, runs_dir: Path, rows: list[RunStatus], **more: Any) -> str:
    return json.dumps({**plan.as_dict(), "runs_dir": str(runs_dir), "runs": [row.as_dict() for row in rows], **more})


def _mention_skipped(failed: list[str]) -> None:
    if failed:
        print(f"run.py: {len(failed)} runs failed earlier; --retry-failed tries them again", file=sys.stderr)


@contextmanager
def _live(runs_dir: Path) -> Iterator[tuple[Callable[[str], None], Callable[[list[str]], None]]]:
    """How a launch speaks: lines, and on a terminal below them what each running run is doing."""
    if not sys.stdout.isatty():
        yield lambda line: print(line, flush=True), lambda running: None
        return
    from rich.console import Console

    console = Console()
    with console.status("starting") as display:

        def watch(running: list[str]) -> None:
            display.update("\n".join(f"{run}: {state_of(RunFolder(runs_dir / run))[1]}" for run in running))

        yield lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True), watch
