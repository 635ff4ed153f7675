"""The commands that look at sweeps and their runs or stop them, and the plan that a command line describes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pasted_command
from errors import ConfigError
from experiments.commands import run_named, runs_folder
from experiments.config import RECIPES, ROOT, parse_overrides, read_site
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted
from results.run_folders.recorded_run import OneRun, read_one
from run_format import DEAD_ENDS, DONE, EXCLUDED, MEASURED, UNKNOWN
from sweeps import disk, launches, measured, show
from sweeps import logs as run_logs
from sweeps.collection import CollectionPlan, load_collection
from sweeps.collection_file import is_collection
from sweeps.collection_state import CollectionState
from sweeps.measured import MeasuredRuns
from sweeps.plan import SWEEPS, Plan, headline, load, sweep_names
from sweeps.price import Price, estimate, hours_by_run, known
from sweeps.rates import ON_SLURM
from sweeps.slurm import submissions
from sweeps.slurm.cluster import Cluster
from sweeps.status import RunStatus, describe, state_of

HERE_SECONDS, SLURM_SECONDS = 5.0, 15.0  # between two looks; others use a cluster's controller, too


def price(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The device-hours of a sweep; set-ups of unknown speed are timed, here or by Slurm jobs."""
    plan, runs_dir = planned(name, given, options.words[1:])

    def say(line: str) -> None:
        if not options.json:
            print(line, file=sys.stderr, flush=True)

    try:
        if options.slurm:
            from sweeps.slurm.probes import estimate_on_slurm

            cost = estimate_on_slurm(plan, runs_dir, Cluster(), options.max_parallel, options.fresh, say)
        else:
            cost = estimate(plan, runs_dir, fresh=options.fresh, say=say)
        if collected := measured.find(plan, runs_dir).left_alone():
            cost = known(plan, runs_dir, ON_SLURM if options.slurm else None, collected) or cost
    except Interrupted as interruption:
        return interruption.exit_code
    print(json.dumps(cost.as_dict()) if options.json else "\n".join(cost.table()))
    return 0


def status(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The state of each run, from the run folders and from Slurm, and the launchers that work on them.

    Of a collection, table by table. name: of a sweep, or a run's id or a part of it.
    """
    if not is_sweep(name):
        return _status_of_run(name, given, options)
    devices = devices_of(name, given)
    plan, runs_dir = planned(name, given, options.words[1:], compared=False)
    if options.watch and not options.json:
        watch(plan, runs_dir)
        return 0
    found = measured.find(plan, runs_dir)
    rows, complaint = look(plan, runs_dir, found)
    if complaint:
        print(f"run.py: {complaint}; these are the states in the run folders", file=sys.stderr)
    working = launches.alive(runs_dir, plan.distinct())
    to_do = [row.run for row in rows if row.state not in (DONE, MEASURED, EXCLUDED)]
    collection = CollectionState.of(plan, runs_dir, rows) if isinstance(plan, CollectionPlan) else None
    if options.json:
        described = [{**vars(holder), "log": str(launch.log), "jobs": launch.jobs} for launch, holder in working]
        if collection:
            print(collection.document(devices, launchers=described, runs_dir=str(runs_dir)))
        else:
            print(as_document(plan, runs_dir, rows, launchers=described))
        return 0
    lines = [*collection.status_lines(), *collection.time_lines(devices)] if collection else show.lines(rows)
    print(*lines, show.summary(plan, rows, runs_dir), *found.sentences(to_do), sep="\n")
    for launch, holder in working:
        print(launches.describe(launch, holder))
    if cost := _price(plan, runs_dir, found.left_alone()):
        print(cost.line())
    return 0


def is_sweep(name: str) -> bool:
    """Whether a NAME is a sweep's, or the path of one, and none of a run."""
    return name.endswith(".yaml") or name in sweep_names()


def _status_of_run(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """One run: its state, its latest metrics, and where more about it is."""
    from reports.content import one_run

    folder, run = run_for_reports(name, given, "sweep or run", sweep_names())
    submitted, complaint = submissions.known(folder.parent, [folder.name])
    state, detail, share = state_of(RunFolder(folder), submitted.get(folder.name))
    if options.json:
        described = one_run.document(run)
        print(json.dumps({**described, "state": state, "detail": detail, "share": share}))
        return 0
    if complaint:
        print(f"run.py: {complaint}; this is the state in the run folder", file=sys.stderr)
    print(f"{folder.name}  {state}{f' {100 * share:.0f} %' if 0 < share < 1 else ''}  {detail}".rstrip())
    for metric, value, best, step in one_run.latest(run.recorded.log) if run.recorded.log else []:
        print(f"  {metric:<32} {value:<10.4g} best {best:.4g} at step {step:,}")
    where = [f"runs_dir={folder.parent}"] if options.words[1:] else []
    print(f"its files: {folder}")
    print(f"its log: {pasted_command.command(f'logs={folder.name}', *where)}")
    print(f"its page, with learning curves and settings: {pasted_command.command(f'report={folder.name}', *where)}")
    return 0


def run_for_reports(name: str, given: dict[str, Any], kind: str, others: Sequence[str]) -> tuple[Path, OneRun]:
    """The folder of a run, by its id or a part of it, and what it records.

    kind, others: what else could have been named, for the message. Raises ConfigError, RunFolderError.
    """
    given = dict(given)
    runs_dir = runs_folder(given, read_site())
    folder = run_named(runs_dir, name, others, kind)
    if given:
        raise ConfigError(f"{name} is a run, of which runs_dir=PATH alone is asked, no {next(iter(given))!r}")
    return folder.path, read_one(folder.path)


def states(plan: Plan, runs_dir: Path) -> dict[str, tuple[str, str]]:
    """(state, cause) of every planned run, for the cells of reports that have no result yet."""
    rows, _ = look(plan, runs_dir, MeasuredRuns())
    return {row.run: (row.state, row.detail if row.state in (*DEAD_ENDS, UNKNOWN) else "") for row in rows}


def cancel(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Stops a sweep's runs: its launchers on this machine, and its Slurm jobs."""
    plan, runs_dir = planned(name, given, options.words[1:], compared=False)
    from sweeps.local import stop
    from sweeps.slurm.cancel import cancel as cancel_jobs

    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if not options.json:
            print(line, flush=True)

    stopped = stop(plan, runs_dir, say)
    submitted = submissions.exist(runs_dir, plan.distinct())
    jobs = cancel_jobs(plan, runs_dir, Cluster()) if submitted else {}
    if options.json:
        print(json.dumps({"cancelled": jobs, "stopped": stopped}))
        return 0
    for run, job in jobs.items():
        print(f"cancelled job {job}: {run}")
    for run in stopped:
        print(f"stopped {run}")
    outcome = "running ones save their state first, and the next launch resumes them"
    if not jobs and not stopped:
        outcome = f"no run of {plan.sweep} had begun" if said else f"nothing of {plan.sweep} was running or queued"
    print(f"{len(jobs)} jobs cancelled, {len(stopped)} runs stopped; {outcome}")
    return 0


def logs(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """The end of a run's logs."""
    runs_dir = runs_folder(given, read_site())
    if given:
        raise ConfigError(f"logs=RUN takes runs_dir=PATH and nothing else, no {next(iter(given))!r}")
    folder = run_named(runs_dir, name)
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


def prune(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Removes checkpoints of a sweep's finished runs and copies of the code that no run uses; only with --yes."""
    plan, runs_dir = planned(name, given, options.words[1:])
    removal = disk.removable(plan, runs_dir)
    if options.yes:
        removal.act()
    print(json.dumps(removal.as_dict(options.yes)) if options.json else "\n".join(removal.lines(options.yes)))
    return 0


def show_list(name: str, given: dict[str, Any], options: argparse.Namespace) -> int:
    """Experiments, sweeps and reports, with the first line of their files; with ``runs``, the run folders."""
    from reports.specification import COMPLEXITY

    if options.words[1:2] == ["runs"]:
        return _list_runs(options)
    if options.words[1:]:
        raise ConfigError(f"list takes no {options.words[1]!r}, only `list runs`")
    folders = {"experiment": RECIPES, "sweep": SWEEPS, "report": ROOT / "reports" / "specs"}
    lines = {
        kind: {path.stem: headline(path) for path in sorted(folder.glob("*.yaml"))} for kind, folder in folders.items()
    }
    if options.json:
        print(json.dumps(lines))
        return 0
    for kind, entries in lines.items():
        for entry, line in entries.items():
            print(f"{entry if entry == COMPLEXITY else f'{kind}={entry}':<30} {line}")
    return 0


def _list_runs(options: argparse.Namespace) -> int:
    given = parse_overrides(options.words[2:])
    runs_dir = runs_folder(given, read_site())
    if given:
        raise ConfigError(f"list runs takes runs_dir=PATH and nothing else, no {next(iter(given))!r}")
    usage = disk.usage(runs_dir)
    print(json.dumps(usage.as_dict()) if options.json else "\n".join(usage.lines()))
    return 0


def planned(name: str, given: dict[str, Any], words: Sequence[str] = (), *, compared: bool = True) -> tuple[Plan, Path]:
    """The plan that a sweep's name and the settings of a command line describe, and the folder of its run folders.

    words: those settings as they were written, for messages that name another command about the same runs.
    compared: whether its arms are compared, so that the baseline must be among them.
    """
    plan, runs_dir = _planned(name, given, compared=compared)
    return replace(plan, words=tuple(word for word in words if not word.startswith("gpus="))), runs_dir


def _planned(name: str, given: dict[str, Any], *, compared: bool) -> tuple[Plan, Path]:
    site = read_site()
    runs_dir = runs_folder(given, site)
    seeds = given.pop("seeds", None)
    if "seed" in given:
        seeds = one if isinstance(one := given.pop("seed"), list) else [one]
    arms, tasks = _names(given, "arms", "zero,axial"), _names(given, "tasks", "classification")
    tables, protocol = _names(given, "tables", "table1,table8"), given.pop("protocol", "paper")
    mixer = given.pop("mixer", None)
    if mixer is not None and not isinstance(mixer, str):
        raise ConfigError(f"mixer={mixer}: give a mixer of your own, e.g. mixer=roll.py:Roll")
    if "gpus" in given:
        raise ConfigError("gpus= asks how long a collection takes, of status= and of sweep= with --dry-run")
    if is_collection(name):
        if arms or tasks:
            raise ConfigError(f"{name} is a collection, whose parts are tables: choose some with tables=[…]")
        return load_collection(name, protocol, given, seeds, tables, site, mixer), runs_dir
    if tables:
        raise ConfigError(f"tables= chooses parts of a collection, and {name} is one sweep: it takes arms= and tasks=")
    return load(name, protocol, given, seeds, arms, site, tasks, compared=compared, mixer=mixer), runs_dir


def devices_of(name: str, given: dict[str, Any]) -> int | None:
    """The devices that the time of a collection is estimated for, by ``gpus=``, which is taken out of ``given``."""
    if "gpus" not in given:
        return None
    devices = given.pop("gpus")
    if not is_collection(name):
        raise ConfigError(
            f"gpus= asks how long a collection takes, and {name} is one sweep: price={name} has its hours"
        )
    if type(devices) is not int or devices < 1:
        raise ConfigError(f"gpus={devices}: give a number of devices, e.g. gpus=8")
    return devices


def _names(given: dict[str, Any], key: str, example: str) -> list[str] | None:
    names = given.pop(key, None)
    names = [names] if isinstance(names, str) else names
    if names is not None and not isinstance(names, list):
        raise ConfigError(f"{key}={names}: give a list of names, e.g. {key}=[{example}]")
    return names


class PlannedSweep(NamedTuple):
    """A plan as reports take it.

    states: (state, cause) of every run; measured: measured results and the runs in them that count; hours: device-hours
    of the runs whose set-ups have been timed, and their unit with the hardware.
    """

    plan: dict[str, Any]
    runs_dir: Path
    states: Callable[[], dict[str, tuple[str, str]]]
    measured: Callable[[], dict[str, list[str]]]
    hours: Callable[[], tuple[dict[str, float], str]]


def planned_for_reports(name: str, given: dict[str, Any]) -> PlannedSweep:
    """``planned`` in plain values, and functions that look at its runs."""
    plan, runs_dir = planned(name, dict(given))
    found = partial(measured.find, plan, runs_dir)

    def hours() -> tuple[dict[str, float], str]:
        price = hours_by_run(plan, runs_dir)
        return price.hours, f"{price.unit} on {' or '.join(price.hardware)}"

    return PlannedSweep(plan.as_dict(), runs_dir, lambda: states(plan, runs_dir), lambda: found().labels(), hours)


def look(plan: Plan, runs_dir: Path, found: MeasuredRuns) -> tuple[list[RunStatus], str | None]:
    """The state of every planned run, and a complaint where Slurm does not answer. found: runs measured already."""
    submitted, complaint = submissions.known(runs_dir, plan.distinct())
    return describe(plan, runs_dir, submitted, found), complaint


def watch(plan: Plan, runs_dir: Path) -> Sequence[RunStatus]:
    submitted, _ = submissions.known(runs_dir, plan.distinct())
    seconds = SLURM_SECONDS if submitted else HERE_SECONDS
    found = measured.find(plan, runs_dir)
    return show.watch(
        plan,
        runs_dir,
        lambda: look(plan, runs_dir, found),
        seconds,
        lambda: bool(launches.alive(runs_dir, plan.distinct())),
    )


def _price(plan: Plan, runs_dir: Path, collected: Collection[str]) -> Price | None:
    """As timed on Slurm's nodes, else on this machine; None where neither was timed."""
    return known(plan, runs_dir, ON_SLURM, collected) or known(plan, runs_dir, collected=collected)


def as_document(plan: Plan, runs_dir: Path, rows: list[RunStatus], **more: Any) -> str:
    return json.dumps({**plan.as_dict(), "runs_dir": str(runs_dir), "runs": [row.as_dict() for row in rows], **more})
