"""The command ``report=``: gathers results, writes the page, prints the table. run.py gives it what needs other rooms."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, SuiteError, unknown
from reports import compose, render, terminal
from reports.check import differences
from reports.compose import Results
from reports.specification import SWEEP, Collection, Specification, load, names, of_sweep
from results import archive
from results.collect import Plan, collect

PAGES = Path(__file__).resolve().parent / "pages"  # the committed ones
COMMITTED = "all"  # measured=all: every committed result and no run folder
States = Mapping[str, tuple[str, str]]  # run id → (state, cause), as whoever started the runs sees them
Planned = Callable[[str, dict[str, Any]], tuple[Plan, Path, Callable[[], States]]]


def report(name: str, given: dict[str, Any], options: argparse.Namespace, planned: Planned) -> int:
    """Table and figures from run folders, or from committed results; ``--check`` compares the committed pages.

    planned: a sweep's name and the words of the command line → its plan, where its runs are, and their states.
    """
    spec = load(name)
    if options.check:
        if given:
            raise ConfigError(f"--check compares the committed pages; {next(iter(given))} cannot change them")
        return _check(name, options)
    label = given.pop("measured", None)
    if label is not None and given:
        raise ConfigError(f"measured={label} says what was run; {next(iter(given))} cannot change it")
    if isinstance(spec, Specification):
        return _sweep(spec, str(label) if label is not None else None, given, options, planned)
    if label not in (None, COMMITTED):
        raise ConfigError(f"report={name} is of several sweeps: measured={COMMITTED} takes every committed result")
    found, skipped, out = _committed(), [], PAGES / name
    if label is None:
        mine, skipped, runs_dir = _everything(given, planned)
        found, out = [*mine, *found], runs_dir / "reports" / name
    page = compose.page(name, found, mixed=options.mixed)
    files = render.write(page, out)
    if options.json:
        print(terminal.page_json(page))
        return 0
    for line in skipped:
        print(f"run.py: {line}", file=sys.stderr)
    if not isinstance(spec, Collection):
        terminal.print_section(page.sections[0])
    print(f"{len(files)} files, first of all {out / 'report.md'} and {out / 'report.html'}")
    return 0


def _sweep(
    spec: Specification, label: str | None, given: dict[str, Any], options: argparse.Namespace, planned: Planned
) -> int:
    """The report of one sweep, on the terminal as well."""
    if label is not None:
        found, out = _labelled(label, spec), PAGES / label
    else:
        plan, runs_dir, states = planned(spec.sweep, given)
        found = Results(spec, collect(plan, runs_dir, states()), plan, runs_dir)
        out = runs_dir / "reports" / found.name
    page = compose.page(spec.name, [found], mixed=options.mixed)
    files = render.write(page, out)
    table = found.table(options.mixed)
    if options.json:
        print(terminal.to_json(table))
    else:
        terminal.print_table(table)
        print(f"{len(files)} files, first of all {out / 'report.md'} and {out / 'report.html'}")
    return 0


def _labelled(label: str, spec: Specification) -> Results:
    folder = archive.folder(label)
    collected = archive.read(folder)
    plan = archive.plan_of(collected)
    if plan["sweep"] != spec.sweep:
        raise ConfigError(f"measured={label} is of sweep {plan['sweep']}; report={spec.name} is about {spec.sweep}")
    return Results(spec, collected, plan, folder, label)


def _committed() -> list[Results]:
    """Every committed result that a report is about."""
    specs = {spec.sweep: spec for spec in map(of_sweep, names(SWEEP))}
    found = []
    for label in archive.labels():
        sweep = archive.plan_of(archive.read(archive.folder(label)))["sweep"]
        if sweep in specs:
            found.append(_labelled(label, specs[sweep]))
    return found


def _everything(given: dict[str, Any], planned: Planned) -> tuple[list[Results], list[str], Path]:
    """Every sweep under the papers' protocol, and under any other that has been begun; what could not be planned."""
    found, skipped, runs_dir = [], [], Path()
    for name in names(SWEEP):
        spec = of_sweep(name)
        for protocol in spec.protocols:
            try:
                plan, runs_dir, states = planned(spec.sweep, {**given, "protocol": protocol})
            except SuiteError as error:
                skipped.append(f"{name}, protocol {protocol}, is left out: {error}")
                continue
            collected = collect(plan, runs_dir, states())
            if protocol == spec.papers.protocol or (collected.runs["state"] != "not run").any():
                found.append(Results(spec, collected, plan, runs_dir))
    return found, skipped, runs_dir


def _check(name: str, options: argparse.Namespace) -> int:
    """Regenerates the committed pages of a report and says where they differ; of a collection, of its reports too."""
    wanted = _pages(name)
    if not wanted:
        kept = sorted(path.name for path in PAGES.iterdir()) if PAGES.is_dir() else []
        raise ConfigError(f"report {name} has no committed page to check; there are {', '.join(kept) or 'none'}")
    found: dict[str, list[str]] = {}
    for folder, make in wanted.items():
        with tempfile.TemporaryDirectory() as work:
            # beside the committed pages, so that links from page to results have one length
            render.write(make(), PAGES / folder, Path(work))
            found[folder] = list(differences(PAGES / folder, Path(work)))
    wrong = {folder: lines for folder, lines in found.items() if lines}
    if options.json:
        print(json.dumps({"checked": list(found), "different": wrong}))
    else:
        for folder, lines in found.items():
            print(f"{folder}: {'as committed' if not lines else f'{len(lines)} files differ'}")
            for line in lines:
                print(f"  reports/pages/{folder}/{line}", file=sys.stderr)
    return 1 if wrong else 0
