"""Finds and reads the specifications of reports: ``specs/*.yaml``, the user's own files, and the default of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml_files
from errors import ConfigError, unknown
from reports.specification import (
    COLLECTION,
    COMPLEXITY,
    FINDINGS,
    OFFSETS,
    PROFILE,
    PUBLISHED,
    PUBLISHED_FIGURES,
    SWEEP,
    Collection,
    Column,
    Evidence,
    Figure,
    Findings,
    LearnedOffsets,
    Profile,
    PublishedTable,
    Report,
    Specification,
    SpecificationError,
)
from reports.specification_parts import entries, findings, make, make_figure, profile, sweep_report

SPECS = Path(__file__).resolve().parent / "specs"
SWEEPS = SPECS.parents[1] / "sweeps"  # a sweep without a specification has a report too
DEFAULT_FIGURES = ("accuracy_flops", "forest", "learning_curves")  # of a sweep without a specification
NAMES = ("label", "title", "row", "against", "baseline", "arm", "sweep", "task", "because", "model")  # text as written


def names(kind: str | None = None) -> list[str]:
    """Reports, of one kind or all, in alphabetical order."""
    return [name for name in names_in_folder() if kind in (None, _kind(name))]


def load(name: str) -> Report:
    """The specification ``specs/<name>.yaml``, of the kind that it names."""
    return KINDS[_kind(name)](name)


def find(name: str, *, planned: bool) -> Report:
    """The specification of a report; of a sweep without one, the default, which shows what the sweep's plan says.

    planned: whether the sweep is going to be planned, which refuses a name that does not exist; otherwise its file in
    ``sweeps/`` must exist. Raises SpecificationError for an unknown name.
    """
    if own := yaml_files.own_file("report", name, {*names_in_folder(), *_sweeps()}):
        return _own(own)
    has_file = name in (*names_in_folder(), COMPLEXITY)
    return load(name) if has_file or not (planned or name in _sweeps()) else default(name)


def unknown_report(name: str) -> SpecificationError | None:
    """What to say of a name that belongs neither to a specification nor to a sweep of the checkout."""
    return None if name in known() else SpecificationError(unknown("report", name, known()))


def is_unknown(name: str) -> bool:
    """Whether a name is none of the suite's reports and sweeps and no path of one."""
    return not name.endswith(".yaml") and name not in (*known(), COMPLEXITY)


def known() -> list[str]:
    """Everything that has a report: specifications, and sweeps without one."""
    return sorted({*names_in_folder(), *_sweeps()})


def default(sweep: str) -> Specification:
    """The report of a sweep without a specification. Arms' labels and the tasks' metrics are those of its plan."""
    figures, name = tuple(Figure(kind) for kind in DEFAULT_FIGURES), yaml_files.called(sweep)
    return Specification(name, name, "", sweep, protocols={}, arms={}, figures=figures)


def of_sweep(name: str) -> Specification:
    """The report of a sweep. Raises SpecificationError for a report of another kind."""
    if _kind(name) != SWEEP:
        raise SpecificationError(f"report {name} is not about one sweep; those that are: {', '.join(names(SWEEP))}")
    return _sweep(name)


def sweep_arms(name: str) -> list[str]:
    """Arms of a sweep file as it is now; none where results are of a sweep that has no file here.

    Raises SpecificationError for a file that is not valid YAML.
    """
    path = SWEEPS / f"{name}.yaml" if yaml_files.called(name) == name else Path(name)
    return [str(arm) for arm in _keys_and_values(path).get("arms") or {}] if path.is_file() else []


def arm_labels(sweep: str) -> dict[str, str]:
    """Arm → what tables call it, of a sweep file in ``sweeps/``; nothing where there is no such file."""
    path = SWEEPS / f"{sweep}.yaml"
    arms = (_keys_and_values(path).get("arms") or {}) if path.is_file() else {}
    return {str(name): str(arm.get("label", name)) for name, arm in arms.items()}


def names_in_folder() -> list[str]:
    """Reports that have a file in ``specs/``, in alphabetical order."""
    return sorted(path.stem for path in SPECS.glob("*.yaml") if path.stem != COMPLEXITY)


def read_yaml(name: str, valid: list[str]) -> dict[str, Any]:
    """The keys and values of a file in ``specs/``. valid: the names that a message lists. Raises SpecificationError."""
    path = SPECS / f"{name}.yaml"
    if path not in SPECS.glob("*.yaml"):  # a name, never a path to somewhere else
        raise SpecificationError(unknown("report", name, valid))
    return _keys_and_values(path)


def _own(path: Path) -> Report:
    """The report of the user's own sweep file, or what their own specification file says."""
    content = _keys_and_values(path)
    if "recipes" in content:
        return default(str(path))
    if content.get("kind") == COLLECTION and "tables" in content:  # of sweeps
        raise SpecificationError(f"report={path} is a collection of sweeps: each of them has a report, report=SWEEP")
    if content.get("kind", SWEEP) != SWEEP:
        raise SpecificationError(f"report={path}: one's own specifications are about one sweep, of no other kind")
    if str(content.get("sweep")).endswith(".yaml"):
        content["sweep"] = str(path.parent / content["sweep"])
    return sweep_report(content | {"name": path.stem})


def _kind(name: str) -> str:
    if name == COMPLEXITY:
        raise SpecificationError(f"{COMPLEXITY} is a command of its own: python run.py {COMPLEXITY}")
    if error := unknown_report(name):
        raise error
    kind = str(read_yaml(name, names_in_folder()).get("kind", SWEEP))
    if kind not in KINDS:
        raise SpecificationError(f"report {name}: {unknown('kind', kind, KINDS)}")
    return kind


def _published(name: str) -> PublishedTable:
    content, where = _content(name), f"report {name}"
    columns = [make(Column, column, f"{where}, columns") for column in entries(content, "columns", where)]
    figures = [make_figure(value, where, PUBLISHED_FIGURES) for value in entries(content, "figures", where)]
    return make(PublishedTable, {**content, "columns": columns, "figures": figures}, where)


def _collection(name: str) -> Collection:
    made = make(Collection, _content(name), f"report {name}")
    for report in made.reports:
        if report not in names_in_folder():
            raise SpecificationError(f"report {name}: {unknown('report', report, names_in_folder())}")
    return made


def _offsets(name: str) -> LearnedOffsets:
    return make(LearnedOffsets, _content(name), f"report {name}")


def _profile(name: str) -> Profile:
    made = profile(_content(name))
    for sweep in made.sweeps:
        if sweep not in _sweeps():
            raise SpecificationError(f"report {name}: {unknown('sweep', sweep, _sweeps())}")
    for part in made.parts:
        arms = {arm for sweep in part.sweeps.values() for arm in sweep_arms(sweep)}
        for arm in part.rows:
            if arm not in arms:
                raise SpecificationError(f"report {name}, {part.label}: {unknown('arm', arm, arms)}")
    return made


def _findings(name: str) -> Findings:
    made = findings(_content(name))
    for claim in made.claims:
        for each in claim.evidence:
            if each.sweep:
                _check_evidence(each, of_sweep(each.sweep), f"report {name}, {claim.claim}")
    return made


def _check_evidence(evidence: Evidence, report: Specification, where: str) -> None:
    """Refuses a contrast that the report of its sweep does not test."""
    if evidence.protocol not in report.protocols:
        raise SpecificationError(f"{where}: {unknown('protocol', evidence.protocol, report.protocols)}")
    tested = [contrast for contrast in report.contrasts if contrast.tested]
    if not any(map(evidence.is_contrast, tested)):
        sides = [(each.plus, each.minus) for each in tested]
        own, *others = (" − ".join(map(" + ".join, each)) for each in ((evidence.plus, evidence.minus), *sides))
        tests = f"those that it tests: {'; '.join(others)}" if others else "it tests none"
        raise SpecificationError(f"{where}: report {report.name} tests no contrast {own}; {tests}")


def _sweep(name: str) -> Specification:
    return sweep_report(_content(name))


def _content(name: str) -> dict[str, Any]:
    """A specification's keys but for its kind, with its name."""
    content = read_yaml(name, names_in_folder())
    return {key: value for key, value in content.items() if key != "kind"} | {"name": name}


def _sweeps() -> list[str]:
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def _keys_and_values(path: Path) -> dict[str, Any]:
    try:
        return yaml_files.read_yaml(path, NAMES)
    except ConfigError as error:
        raise SpecificationError(str(error)) from None


KINDS: dict[str, Callable[[str], Report]] = {
    SWEEP: _sweep, PUBLISHED: _published, OFFSETS: _offsets, COLLECTION: _collection, PROFILE: _profile,
    FINDINGS: _findings,
}  # fmt: skip
