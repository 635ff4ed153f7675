"""The parts of a specification from keys and values, every key, name and type checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from errors import unknown
from reports.specification import (
    FIGURES,
    SIDES,
    Arm,
    Contrast,
    Control,
    DistanceFigure,
    Evidence,
    Figure,
    Findings,
    FurtherMetric,
    Metric,
    Papers,
    PrintedPair,
    ProbeColumn,
    Profile,
    ProfilePart,
    ProfileRow,
    Published,
    Specification,
    SpecificationError,
    StatedClaim,
    TaskReport,
)

Made = TypeVar("Made")


def sweep_report(content: dict[str, Any]) -> Specification:
    """The report of one sweep. content: the keys and values of its file, and its name. Raises SpecificationError."""
    where = f"report {content['name']}"
    arms = {key: _arm(value, f"{where}, arm {key}") for key, value in _section(content, "arms", where)}
    figures = [make_figure(value, where) for value in entries(content, "figures", where)]
    tasks = {
        key: make(
            TaskReport,
            _mapping(value, f"{where}, task {key}") | _task_parts(value, f"{where}, task {key}"),
            f"{where}, task {key}",
        )
        for key, value in _section(content, "tasks", where)
    }
    contrasts = tuple(_contrast(value, f"{where}, contrasts") for value in entries(content, "contrasts", where))
    named = [(f"arm {key}", place.task) for key, arm in arms.items() for place in arm.published]
    for part, task in (*named, *(("contrasts", each.task) for each in contrasts)):
        if task is not None and task not in tasks:
            raise SpecificationError(f"{where}, {part}: {unknown('task', task, tasks)}")
    control = make(Control, content["control"], f"{where}, control") if content.get("control") else None
    parts = {
        **_task_parts(content, where), "control": control, "arms": arms, "figures": figures, "tasks": tasks,
        "contrasts": contrasts,
    }  # fmt: skip
    return make(Specification, {**content, **parts}, where)


def profile(content: dict[str, Any]) -> Profile:
    """A profile. content: the keys and values of its file, and its name. Raises SpecificationError."""
    where = f"report {content['name']}"
    probes = {
        key: make(ProbeColumn, value, f"{where}, probe {key}") for key, value in _section(content, "probes", where)
    }
    parts = []
    for value in (_mapping(each, f"{where}, parts") for each in entries(content, "parts", where)):
        rows = {
            arm: make(ProfileRow, row, f"{where}, arm {arm}") for arm, row in _section(value, "rows", f"{where}, parts")
        }
        part = make(ProfilePart, {**value, "rows": rows}, f"{where}, parts")
        for probe in part.sweeps:
            if probe not in probes:
                raise SpecificationError(f"{where}, {part.label}: {unknown('probe', probe, probes)}")
        parts.append(part)
    distances = [make(DistanceFigure, value, f"{where}, distances") for value in entries(content, "distances", where)]
    return make(Profile, {**content, "probes": probes, "parts": parts, "distances": distances}, where)


def findings(content: dict[str, Any]) -> Findings:
    """A report of claims. content: the keys and values of its file, and its name. Raises SpecificationError."""
    where = f"report {content['name']}"
    claims = [_claim(each, f"{where}, claims") for each in entries(content, "claims", where)]
    return make(Findings, {**content, "claims": claims}, where)


def check_arms(spec: Specification, planned: list[str]) -> None:
    """Refuses arms of the specification that the sweep does not have. Arms that only the sweep has get a row."""
    named = set(spec.arms)
    named.update(p.against for arm in spec.arms.values() for p in arm.published if p.against)
    named.update(arm.against for arm in spec.arms.values() if arm.against)
    named.update([spec.control.arm] if spec.control else [])
    named.update(arm for contrast in spec.contrasts for arm in contrast.arms)
    named.update(spec.together)
    for arm in (*sorted(named), *(arm for figure in spec.figures for arm in (*figure.arms, *figure.required))):
        if arm not in planned:
            raise SpecificationError(f"report {spec.name}: {unknown('arm', arm, planned)}")


def make_figure(content: Mapping[str, Any], where: str, kinds: tuple[str, ...] = FIGURES) -> Figure:
    """A figure of one of some kinds. Raises SpecificationError."""
    figure = make(Figure, content, where)
    if figure.kind not in kinds:
        raise SpecificationError(f"{where}: {unknown('figure', figure.kind, kinds)}")
    return figure


def entries(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """The list under a key of a specification; empty where it has none. Raises SpecificationError."""
    values = content.get(key)
    if not isinstance(values, list | None):
        raise SpecificationError(f"{where}, {key}: expected a list, not {values!r}")
    return values or []


def make(cls: type[Made], content: Any, where: str) -> Made:
    """A dataclass from a mapping, lists as tuples; unknown and missing keys and values of other types are named."""
    content = _mapping(content, where)
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise SpecificationError(f"{where}: {unknown('key', key, known)}")
    required = [k for k, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [key for key in required if content.get(key) is None]
    if missing:
        raise SpecificationError(f"{where}: {', '.join(missing)} missing")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    hints = get_type_hints(cls)
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise SpecificationError(f"{where}: {key}: not a valid value: {content[key]!r} ({known[key].type})")
    return cls(**values)


def _task_parts(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    protocols = {
        key: make(Metric, value, f"{where}, protocol {key}") for key, value in _section(content, "protocols", where)
    }
    papers = make(Papers, content["papers"], f"{where}, papers") if content.get("papers") else None
    columns = tuple(make(FurtherMetric, value, f"{where}, columns") for value in entries(content, "columns", where))
    return {"protocols": protocols, "papers": papers, "columns": columns}


def _arm(content: Any, where: str) -> Arm:
    content = _mapping(content, where)
    published = [make(Published, place, where) for place in entries(content, "published", where)]
    for place in published:
        _check_place(place, f"{where}, {place.source} {place.table} {place.row}")
    return make(Arm, {**content, "published": published}, where)


def _check_place(place: Published, where: str) -> None:
    if place.side is not None and place.side not in SIDES:
        raise SpecificationError(f"{where}: {unknown('side', place.side, SIDES)}")
    if place.side is not None and not place.baseline:
        raise SpecificationError(f"{where}: side {place.side} needs the row that it is {place.side}, as baseline")
    if place.baseline and place.because:
        raise SpecificationError(f"{where}: has a verdict, as it names a baseline, and a reason for none (because)")


def _claim(content: Any, where: str) -> StatedClaim:
    content = _mapping(content, where)
    where = f"{where}, {content.get('claim')}"
    return make(
        StatedClaim, {**content, "evidence": [_evidence(e, where) for e in entries(content, "evidence", where)]}, where
    )


def _evidence(content: Any, where: str) -> Evidence:
    content = _mapping(content, where)
    printed = make(PrintedPair, content["printed"], f"{where}, printed") if content.get("printed") else None
    made = make(Evidence, {**content, "printed": printed}, where)
    for side in (*([made.expected] if made.sweep else []), *([printed.side] if printed and printed.side else [])):
        if side not in SIDES:
            raise SpecificationError(f"{where}: {unknown('side', side, SIDES)}")
    return made


def _contrast(content: Any, where: str) -> Contrast:
    made = make(Contrast, content, where)
    if not made.plus or len(made.plus) != len(made.minus) or len(set(made.arms)) < len(made.arms):
        raise SpecificationError(f"{where}: plus and minus need equally many arms, each of them once")
    return made


def _section(content: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    section = content.get(key)
    return [] if section is None else list(_mapping(section, f"{where}, {key}").items())


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise SpecificationError(f"{where}: expected keys and values, not {content!r}")
    return dict(content)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of a field of a specification's dataclasses."""
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(each, arguments[0]) for each in value)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(each, arguments[1]) for each in value.values())
    if arguments:  # X | None
        return any(_fits(value, each) for each in arguments)
    if kind is Any:
        return True
    if kind is float:
        return type(value) in (int, float)
    return isinstance(value, kind)
