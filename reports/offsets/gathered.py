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
from reports.offsets.measured import ABOUT, OF_TRAINED, Measured, MeasuredError, read
from reports.offsets.page import NOT_MEASURED
from reports.specification import LearnedOffsets
from run_format import EXCLUDED, EXCLUSION, PROVENANCE

OF_ANOTHER = "measured of another run"
FIGURES = {"offset_histograms": histograms, "sampled_positions": overlays}


def sections(
    spec: LearnedOffsets, sweeps: Mapping[str, tuple[Mapping[str, Any], Path]], *, mixed: bool, figures: bool
) -> Iterator[Section]:
    """Per sweep a section of the offsets, and one of interventions, where any run was measured, or a single section
    that says how to measure.

    sweeps: section's name → the sweep's plan and the folder of its runs.
    """
    empty, left_out = True, []
    for name, (planned, runs_dir) in sweeps.items():
        plan = page.of_own_task(planned)
        for kind, (file, make) in KINDS.items():
            found = {entry["run"]: _measured(runs_dir / entry["run"], file) for entry in plan["runs"]}
            if not any(isinstance(path, Path) for path in found.values()):
                left_out += [f"{run}: {why}" for run, why in found.items() if why != NOT_MEASURED]
                continue
            empty = False
            try:
                section = make(plan, found, mixed, figures)
            except SuiteError as error:
                section = Section("", "", cautions=(f"{error}.",))
            names = f"{spec.name}-{name}{kind and f'-{kind}'}", f"{spec.title}: {name}{kind and f', {kind}'}"
            yield replace(section, name=names[0], title=names[1], question=spec.question)
    if empty:
        commands = ", ".join(f"`python run.py offsets={sweep}`" for sweep in spec.sweeps)
        about = f"Nothing has been measured yet; {commands} measures finished runs."
        yield Section(spec.name, spec.title, spec.question, about, cautions=tuple(dict.fromkeys(left_out)))


def _offsets(plan: Mapping[str, Any], files: Mapping[str, Path | str], mixed: bool, figures: bool) -> Section:
    """files: ``about.json`` of each measured run."""
    folders = {run: file.parent if isinstance(file, Path) else file for run, file in files.items()}
    _, section = page.of_sweep(plan, folders, mixed=mixed)
    shown = tuple(_drawings(plan, folders)) if figures else ()
    return replace(section, drawings=(*section.drawings, *shown) if figures else ())


def _interventions(plan: Mapping[str, Any], files: Mapping[str, Path | str], mixed: bool, figures: bool) -> Section:
    return interventions.of_sweep(plan, files, mixed=mixed)


KINDS = {"": (ABOUT, _offsets), "interventions": (interventions.FILE, _interventions)}


def _measured(run: Path, name: str) -> Path | str:
    """A run's file of this name, which describes a measurement, or in words why there is none."""
    if because := _content(run / EXCLUSION).get("because"):
        return f"{EXCLUDED}: {because}"
    file = run / "offsets" / name
    if not file.is_file():
        return NOT_MEASURED
    try:
        about = read(file.parent).about if name == ABOUT else interventions.read(file)
    except MeasuredError as error:
        return str(error)
    if about["name"] != run.name:
        return f"{OF_ANOTHER}, {about['name']}"
    if any(about["trained"][kind] != value for kind, value in _trained(run).items()):
        return f"{OF_ANOTHER}: this run was trained with other code or data; --fresh measures again"
    return file


def _trained(run: Path) -> dict[str, str]:
    """Fingerprints of the run as it is now. They reveal another training; hashing its weights would take too long."""
    provenance = _content(run / PROVENANCE)
    return {kind: provenance[kind] for kind in OF_TRAINED if provenance.get(kind)}


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
