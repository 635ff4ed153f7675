"""The command ``report=``: gathers results, writes the page, prints the table. What needs other rooms, run.py gives."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import ConfigError, DataError, unknown
from reports import compose, render, terminal
from reports.check import differences
from reports.compose import Results
from reports.specification import SWEEP, Collection, PublishedTable, Specification, load, names, of_sweep
from results import archive
from results.collect import Plan, collect

PAGES = Path(__file__).resolve().parent / "pages"  # the committed ones
COLLECTED = "paper"  # the report that all others are on
COMMITTED = "all"  # measured=all: every committed result and no run folder
OF_MANY_SWEEPS, ELSEWHERE = ("measured", "runs_dir", "seed", "seeds"), ("data.root", "machine.", "slurm.")
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
    for key in given:
        if key not in OF_MANY_SWEEPS and not key.startswith(ELSEWHERE):
            those = ", ".join(OF_MANY_SWEEPS)
            raise ConfigError(f"report={name} is of several sweeps, as they are planned: it takes {those}, no {key}=")
    found, out = _committed(), PAGES / name
    skipped: list[str] = []
    if label is None:
        mine, skipped, runs_dir = _everything(given, planned, only_papers=isinstance(spec, PublishedTable))
        taken = {one.name for one in mine}
        renamed = [replace(one, alias=f"{one.name}-committed") if one.name in taken else one for one in found]
        found, out = [*mine, *renamed], runs_dir / "reports" / name
    page = compose.page(name, found, mixed=options.mixed)
    files = render.write(page, out)
    if options.json:
        print(terminal.page_json(page))
        return 0
    for line in skipped:
        print(f"run.py: {line}", file=sys.stderr)
    for line in page.lead[isinstance(spec, Collection) :]:
        print(f"run.py: {line.strip('*')}", file=sys.stderr)
    if not isinstance(spec, Collection):
        for section in page.sections:
            terminal.print_section(section)
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


def _everything(given: dict[str, Any], planned: Planned, *, only_papers: bool) -> tuple[list[Results], list[str], Path]:
    """Every sweep under the papers' protocol, and under any other that has been begun; what could not be planned."""
    found, runs_dir = [], Path()
    skipped: dict[tuple[str, str], list[str]] = {}
    for name in names(SWEEP):
        spec = of_sweep(name)
        for protocol in [spec.papers.protocol] if only_papers else spec.protocols:
            try:
                plan, runs_dir, states = planned(spec.sweep, {**given, "protocol": protocol})
            except DataError as error:
                skipped.setdefault((protocol, str(error)), []).append(name)
                continue
            collected = collect(plan, runs_dir, states())
            if protocol == spec.papers.protocol or (collected.runs["state"] != "not run").any():
                found.append(Results(spec, collected, plan, runs_dir))
    said = [f"protocol {protocol} of {', '.join(of)} is left out: {why}" for (protocol, why), of in skipped.items()]
    return found, said, runs_dir


def _check(name: str, options: argparse.Namespace) -> int:
    """Makes the committed pages of a report again and says where they differ; of a collection, its reports' too."""
    results = _committed()
    found: dict[str, list[str]] = {}
    for folder, one in _pages(name, results).items():
        page = compose.page(one.spec.name, [one]) if one else compose.page(folder, results)
        found[folder] = list(differences(PAGES / folder, render.files(page, PAGES / folder)))
    part = f"{COLLECTED}/{name}"
    if not found and (PAGES / part).is_dir():  # its table and figures are kept with the page of all reports only
        made = render.files(compose.page(name, results), PAGES / part)
        kept = {file: content for file, content in made.items() if file not in render.OF_PAGE}
        found[part] = list(differences(PAGES / part, kept))
    if not found:
        raise ConfigError(f"report {name} has no committed page; report={COLLECTED} --check compares all there are")
    wrong = {folder: lines for folder, lines in found.items() if lines}
    if options.json:
        print(json.dumps({"checked": list(found), "different": wrong}))
        return 1 if wrong else 0
    for folder, lines in found.items():
        print(f"{folder}: {f'{len(lines)} files differ' if lines else 'as committed'}")
        for line in lines:
            print(f"run.py: reports/pages/{folder}/{line}", file=sys.stderr)
    return 1 if wrong else 0


def _pages(name: str, results: Sequence[Results]) -> dict[str, Results | None]:
    """Folders of the committed pages that belong to a report, and the results of those that are of one sweep."""
    spec = load(name)
    reports = spec.reports if isinstance(spec, Collection) else (name,)
    pages: dict[str, Results | None] = {str(one.label): one for one in results if one.spec.name in reports}
    for folder in sorted(path.name for path in PAGES.iterdir()):
        if folder in (name, *reports):
            pages[folder] = None
        elif isinstance(spec, Collection) and folder not in {one.label for one in results}:
            known = [*names(), *archive.labels()]
            raise ConfigError(f"reports/pages/{folder}: {unknown('report or committed results', folder, known)}")
    return pages
