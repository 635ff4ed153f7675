"""The measured offsets of the runs of sweeps, as sections of a larger page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import SuiteError
from reports.content.page import Section
from reports.offsets import histograms, interventions, overlays, page
from reports.offsets.measured import ABOUT, Measured, read
from reports.offsets.page import NOT_MEASURED
from reports.specification import LearnedOffsets
from results.collect import Collected
from results.run_folders.interventions import reasons
from results.run_folders.measurement_file import MeasuredError, of_another
from run_format import EXCLUDED, EXCLUSION, PROVENANCE

FIGURES = {"offset_histograms": histograms, "sampled_positions": overlays}


def sections(
    spec: LearnedOffsets,
    sweeps: Mapping[str, tuple[Mapping[str, Any], Path]],
    collected: Mapping[str, Collected],
    *,
    mixed: bool,
    figures: bool,
) -> Iterator[Section]:
    """Per sweep a section of the offsets, and one of interventions, where any run was measured, or a single section
    that says how to measure.

    sweeps: section's name → the sweep's plan and the folder of its runs. collected: the results of those sweeps whose
    interventions are shown.
    """
    empty, left_out = True, []
    for name, (planned, runs_dir) in sweeps.items():
        plan = page.of_own_task(planned)
        found = {entry["run"]: _measured(runs_dir / entry["run"]) for entry in plan["runs"]}
        shown = []
        if any(isinstance(folder, Path) for folder in found.values()):
            try:
                shown.append(("", _offsets(plan, found, mixed, figures)))
            except SuiteError as error:
                shown.append(("", Section("", "", cautions=(f"{error}.",))))
        else:
            left_out += [f"{run}: {why}" for run, why in found.items() if why != NOT_MEASURED]
        if name in collected:
            section = interventions.of_results(name, collected[name], planned, mixed=mixed)
            shown += [("interventions", section)] if section else []
            left_out += [] if section else [f"{run}: {why}" for run, why in reasons(collected[name].warnings).items()]
        for kind, section in shown:
            empty = False
            names = f"{spec.name}-{name}{kind and f'-{kind}'}", f"{spec.title}: {name}{kind and f', {kind}'}"
            yield replace(section, name=names[0], title=names[1], question=spec.question)
    if empty:
        commands = ", ".join(f"`python run.py offsets={sweep}`" for sweep in spec.sweeps)
        about = f"Nothing has been measured yet; {commands} measures finished runs."
        yield Section(spec.name, spec.title, spec.question, about, cautions=tuple(dict.fromkeys(left_out)))


def _offsets(plan: Mapping[str, Any], folders: Mapping[str, Path | str], mixed: bool, figures: bool) -> Section:
    """folders: of each measured run."""
    _, section = page.of_sweep(plan, folders, mixed=mixed)
    shown = tuple(_drawings(plan, folders)) if figures else ()
    return replace(section, drawings=(*section.drawings, *shown) if figures else ())


def _measured(run: Path) -> Path | str:
    """The folder with the measured offsets of a run, or in words why there is none."""
    if because := _content(run / EXCLUSION).get("because"):
        return f"{EXCLUDED}: {because}"
    folder = run / "offsets"
    if not (folder / ABOUT).is_file():
        return NOT_MEASURED
    try:
        about = read(folder).about
    except MeasuredError as error:
        return str(error)
    # fingerprints reveal another training in most cases; hashing its weights would take too long
    return of_another(about, run.name, _content(run / PROVENANCE)) or folder


def _content(path: Path) -> dict[str, Any]:
    """A JSON file of a run folder; empty where it is absent or unreadable."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    return {}


def _drawings(plan: Mapping[str, Any], folders: Mapping[str, Path | str]) -> Iterator[Any]:
    """The pictures of the first measured run of each arm."""
    first: dict[str, Measured] = {}
    for entry in plan["runs"]:
        folder = folders[entry["run"]]
        if isinstance(folder, Path):
            first.setdefault(entry["arm"], read(folder))
    labels = {arm["name"]: arm["label"] for arm in plan["arms"]}
    for arm, measured in first.items():
        for name, module in FIGURES.items():
            drawn = page.drawn(f"{arm}_{name}", module.draw, measured)
            yield replace(drawn, title=f"{drawn.title}: {labels[arm]}")
