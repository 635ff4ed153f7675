"""The command ``report=``: collects results, writes the page, prints the table. Plans come from the caller."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import ConfigError, DataError, unknown
from pasted_command import same_settings
from reports import specification, specification_files
from reports.content import compose, one_run, two_runs
from reports.content.compose import Results
from reports.content.page import Page
from reports.content.reproduction import RunPrices
from reports.formats import files, terminal
from reports.formats.comparison import differences
from reports.specification import FINDINGS, PROFILE, SWEEP, Collection, Findings, Profile, PublishedTable, Specification
from reports.specification_files import names, of_sweep
from results import archive
from results.collect import Collected, Plan, collect
from results.fill import beside, filled
from results.fingerprints import IsPresent
from results.run_folders.recorded_run import OneRun
from run_format import NOT_RUN
from yaml_files import called

PAGES = Path(__file__).resolve().parent / "pages"  # the committed ones
COLLECTED = "paper"  # the report that contains all others
COMMITTED = "all"  # measured=all: every committed result and no run folder
OWN_MIXER = "mixer"  # an arm more for each sweep of a profile
OF_MANY_SWEEPS, ELSEWHERE = ("measured", "runs_dir", "seed", "seeds"), ("data.root", "machine.", "slurm.")
States = Mapping[str, tuple[str, str]]  # run id → (state, cause), as the scheduler or the launcher sees them
Labels = Mapping[str, Sequence[str]]  # measured results → their runs that count
Hours = tuple[Mapping[str, float], str]  # device-hours by run id, as far as they are known; their unit and hardware
Planned = Callable[
    [str, dict[str, Any]], tuple[Plan, Path, Callable[[], States], Callable[[], Labels], Callable[[], Hours]]
]

RunNamed = Callable[[str, dict[str, Any], str, Sequence[str]], tuple[Path, OneRun]]


def report(
    name: str,
    given: dict[str, Any],
    options: argparse.Namespace,
    planned: Planned,
    is_present: IsPresent | None = None,
    run_named: RunNamed | None = None,
) -> int:
    """Table and figures from run folders, or from committed results; ``--check`` compares the committed pages.

    Runs that were measured before fill gaps of the run folders, and count in place of a repeat; with ``--fresh`` the
    run folders count alone, and the page says how they compare with what was measured before.

    planned: a sweep's name and the words of the command line → its plan, the folder of its runs, their states, those
    that were collected into measured results earlier, and what they cost.
    is_present: whether a recorded code fingerprint is that of the present code; without it, pages do not say so.
    run_named: a run's id, or a part of it, the words of the command line, and for the message what else could be
    named → the folder of the run and what it records.
    A sweep that no specification describes has a report, too, and so has a run. A sweep of which no run has begun has
    none: the message says how to start it, and the exit code is 1.
    """
    if run_named and not (options.check or "measured" in given) and specification_files.is_unknown(name):
        return _run(name, given, options, run_named)
    spec = specification_files.find(name, planned=not options.check and "measured" not in given)
    if options.check:
        if given:
            raise ConfigError(f"--check compares the committed pages; {next(iter(given))} cannot change them")
        return _check(spec, options, is_present)
    label = given.pop("measured", None)
    if label is not None and given:
        raise ConfigError(f"measured={label} names results; {next(iter(given))} cannot change them")
    if options.fresh and (label is not None or not isinstance(spec, Specification)):
        raise ConfigError("--fresh shows the run folders of one sweep alone, without what was measured before")
    if isinstance(spec, Specification):
        return _sweep(spec, str(label) if label is not None else None, given, options, planned, is_present)
    if label not in (None, COMMITTED):
        raise ConfigError(f"report={name} shows several sweeps: measured={COMMITTED} takes every committed result")
    of_many = (*OF_MANY_SWEEPS, *((OWN_MIXER,) if isinstance(spec, Profile) else ()))
    for key in given:
        if key not in of_many and not key.startswith(ELSEWHERE):
            valid = ", ".join(of_many)
            raise ConfigError(f"report={name} shows several sweeps, as they are planned: it takes {valid}, no {key}=")
    results, out = _committed(is_present), PAGES / name
    skipped: list[str] = []
    if label is None:
        of_runs, skipped, runs_dir = _all_sweeps(spec, given, planned, is_present)
        taken = {each.name for each in of_runs}
        committed = [replace(each, alias=f"{each.name}-committed") if each.name in taken else each for each in results]
        results, out = [*of_runs, *committed], runs_dir / "reports" / name
    page = compose.page(spec, results, mixed=options.mixed)
    written = files.write(page, out)
    if options.json:
        print(terminal.page_json(page))
        return 0
    for line in (*skipped, *page.left_out):
        print(f"run.py: {line}", file=sys.stderr)
    _show(page, written, tables=not isinstance(spec, Collection))
    return 0


def _run(
    name: str,
    given: dict[str, Any],
    options: argparse.Namespace,
    run_named: RunNamed,
) -> int:
    """The page of one run, beside those of sweeps."""
    folder, run = run_named(name, given, "report or run", specification_files.known())
    if options.json:
        print(json.dumps(one_run.document(run)))
        return 0
    page = one_run.page(run)
    _show(page, files.write(page, folder.parent / "reports" / folder.name), tables=True)
    return 0


def _sweep(
    spec: Specification,
    label: str | None,
    given: dict[str, Any],
    options: argparse.Namespace,
    planned: Planned,
    is_present: IsPresent | None,
) -> int:
    """The report of one sweep, printed as well."""
    if label is not None:
        results, out = _labelled(label, is_present, spec), PAGES / label
    else:
        try:
            plan, runs_dir, states, measured, _ = planned(spec.sweep, given)
        except ConfigError as error:  # the sweeps alone would be named as what there is
            missing = specification_files.unknown_report(spec.name) if spec.sweep == spec.name else None
            raise missing or error from None
        others = beside if options.fresh else filled
        collected = others(collect(plan, runs_dir, states()), plan, measured())
        if not _has_begun(collected):
            start = same_settings("sweep", spec.sweep, options.words[1:])
            print(
                f"run.py: no run of {called(spec.sweep)} has begun in {runs_dir}; to start them: {start}",
                file=sys.stderr,
            )
            return 1
        results = Results(spec, collected, plan, runs_dir, is_present=is_present)
        out = runs_dir / "reports" / results.name
    page = compose.page(spec, [results], mixed=options.mixed)
    written = files.write(page, out)
    if options.json:
        first, *after = page.sections
        further = {each.name.removeprefix(f"{results.name}-"): each.records for each in after if not each.runs_in}
        if any(each.runs_in for each in after):  # the tables of its tasks, whose rows are the document's own
            further["all_tasks"] = first.records
        print(terminal.to_json(results.ablation(options.mixed), further))
    else:
        _show(page, written, tables=True)
    return 0


def _show(page: Page, written: Sequence[Path], *, tables: bool) -> None:
    if tables:
        for section in page.sections:
            terminal.print_section(section)
    print(f"{len(written)} files, among them {written[0]} and {written[1]}")


def _labelled(label: str, is_present: IsPresent | None, spec: Specification | None = None) -> Results:
    """Committed results; without ``spec``, with the report of their sweep."""
    folder = archive.folder(label)
    collected = archive.read(folder)
    plan = archive.plan_of(collected)
    if spec is None:
        specs = {each.sweep: each for each in map(of_sweep, names(SWEEP))}
        spec = specs.get(plan["sweep"]) or specification_files.default(plan["sweep"])
    if plan["sweep"] != called(spec.sweep):
        raise ConfigError(f"measured={label} is of sweep {plan['sweep']}; report={spec.name} is about {spec.sweep}")
    return Results(spec, collected, plan, folder, label, is_present=is_present)


def _committed(is_present: IsPresent | None) -> list[Results]:
    return [_labelled(label, is_present) for label in archive.labels()]


def _all_sweeps(
    shown: specification.Report, given: dict[str, Any], planned: Planned, is_present: IsPresent | None
) -> tuple[list[Results], list[str], Path]:
    """The sweeps of a page of several, under the papers' protocol, and under any other that was begun; sentences on
    those not planned."""
    results, runs_dir = [], Path()
    skipped: dict[tuple[str, str], list[str]] = {}
    for name, protocols in _shown(shown).items():
        spec = of_sweep(name)
        words = given
        if isinstance(shown, Profile) and not any(
            part.own and spec.sweep in part.sweeps.values() for part in shown.parts
        ):
            words = {key: value for key, value in given.items() if key != OWN_MIXER}
        of_papers = [spec.papers.protocol] if spec.papers else []
        for protocol in protocols:
            try:
                plan, runs_dir, states, measured, hours = planned(spec.sweep, {**words, "protocol": protocol})
            except DataError as error:
                skipped.setdefault((protocol, str(error)), []).append(name)
                continue
            collected = collect(plan, runs_dir, states())
            begun = _has_begun(collected)
            if protocol in of_papers or begun:  # one that has not begun has its committed results for itself
                collected = filled(collected, plan, measured()) if begun else collected
                prices = RunPrices(*hours()) if protocol in of_papers else None
                results.append(Results(spec, collected, plan, runs_dir, is_present=is_present, prices=prices))
    lines = [f"protocol {protocol} of {', '.join(of)} is left out: {why}" for (protocol, why), of in skipped.items()]
    return results, lines, runs_dir


def _shown(spec: specification.Report) -> dict[str, list[str]]:
    """The reports of sweeps that a page of several takes its numbers from, and their protocols."""
    sweeps = {name: of_sweep(name) for name in names(SWEEP)}
    if isinstance(spec, Findings):
        return {name: spec.protocols(each.sweep) for name, each in sweeps.items() if each.sweep in spec.sweeps}
    if isinstance(spec, Profile):
        return {name: [spec.protocol] for name, each in sweeps.items() if each.sweep in spec.sweeps}
    if isinstance(spec, PublishedTable):
        return {name: [each.papers.protocol] for name, each in sweeps.items() if each.papers}
    return {name: list(each.protocols) for name, each in sweeps.items()}


def _has_begun(collected: Collected) -> bool:
    return bool((collected.runs["state"] != NOT_RUN).any())


def _check(spec: specification.Report, options: argparse.Namespace, is_present: IsPresent | None) -> int:
    """Makes the committed pages of a report again and lists differences; of a collection, its reports' pages too."""
    results, name = _committed(is_present), spec.name
    compared: dict[str, list[str]] = {}
    for folder, each in _pages(spec, results).items():
        page = compose.page(each.spec, [each]) if each else compose.page(folder, results)
        compared[folder] = list(differences(PAGES / folder, files.contents(page, PAGES / folder)))
    part = f"{COLLECTED}/{name}"
    if not compared and (PAGES / part).is_dir():  # its table and figures are kept with the page of all reports only
        made = files.contents(compose.page(spec, results), PAGES / part)
        of_section = {file: content for file, content in made.items() if file not in files.OF_PAGE}
        compared[part] = list(differences(PAGES / part, of_section))
    if not compared:
        raise ConfigError(f"report {name} has no committed page; report={COLLECTED} --check compares all there are")
    different = {folder: lines for folder, lines in compared.items() if lines}
    if options.json:
        print(json.dumps({"checked": list(compared), "different": different}))
        return 1 if different else 0
    for folder, lines in compared.items():
        print(f"{folder}: {f'{len(lines)} files differ' if lines else 'as committed'}")
        for line in lines:
            print(f"run.py: reports/pages/{folder}/{line}", file=sys.stderr)
    return 1 if different else 0


def _pages(spec: specification.Report, results: Sequence[Results]) -> dict[str, Results | None]:
    """Folders of the committed pages that belong to a report, and the results of those that show one sweep.

    To the report of both papers belong the pages of all committed results, of profiles and of findings.
    """
    reports = spec.reports if isinstance(spec, Collection) else (spec.name,)
    everything = spec.name == COLLECTED
    pages: dict[str, Results | None] = {
        str(each.label): each for each in results if everything or each.spec.name in reports
    }
    for folder in sorted(path.name for path in PAGES.iterdir()):
        if folder in (spec.name, *reports) or (everything and folder in (*names(PROFILE), *names(FINDINGS))):
            pages[folder] = None
        elif isinstance(spec, Collection) and folder not in {each.label for each in results}:
            known = [*names(), *archive.labels()]
            raise ConfigError(f"reports/pages/{folder}: {unknown('report or committed results', folder, known)}")
    return pages


def diff(name: str, given: dict[str, Any], options: argparse.Namespace, run_named: RunNamed) -> int:
    """In what two runs differ. name: their ids, or parts of them, with a comma between."""
    words = name.split(",")
    if len(words) != 2 or not all(words):
        raise ConfigError(f"diff={name}: name two runs, diff=RUN,RUN")
    first, second = (run_named(word, given, "run", ())[1] for word in words)
    if options.json:
        print(json.dumps(two_runs.document(first, second)))
    else:
        terminal.print_section(two_runs.section(first, second))
    return 0
