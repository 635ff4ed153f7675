"""What a report shows: ``specs/*.yaml`` read into frozen dataclasses, every key and name checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from errors import SuiteError, unknown

SPECS = Path(__file__).resolve().parent / "specs"
FIGURES = ("accuracy_flops", "forest", "reach", "examples", "learning_curves")  # of a sweep
PUBLISHED_FIGURES = ("circles",)  # of a published table
COMPLEXITY = "complexity"  # the one specification that is no sweep's; reports.complexity reads it
SWEEP, PUBLISHED, OFFSETS, COLLECTION = "sweep", "published", "offsets", "collection"  # kinds of reports
Made = TypeVar("Made")


class SpecificationError(SuiteError):
    """A report specification that is not there, or that names something unknown."""


@dataclass(frozen=True)
class Metric:
    """What a protocol is judged by: the metric's name in summaries, its words, unit, decimals and chance level."""

    metric: str
    label: str
    unit: str = "%"
    decimals: int = 2
    chance: float | None = None


@dataclass(frozen=True)
class Papers:
    """Which protocol and metric of the papers stand beside ours."""

    protocol: str
    label: str
    metric: str


@dataclass(frozen=True)
class Published:
    """A place in the papers' tables; ``baseline`` is the row of the same table that their difference is to.

    against: the arm that plays that baseline here, where it is not the sweep's own; same_model: whether the arm is the
    row's very model, so that sizes can be compared, or only shows the same thing.
    flops_table, flops_row: where the FLOPs of its model are printed, where its own row does not say more than by how
    much it increases them.
    """

    source: str
    table: str
    row: str
    baseline: str | None = None
    against: str | None = None
    same_model: bool = True
    flops_table: str | None = None
    flops_row: str | None = None


@dataclass(frozen=True)
class Arm:
    label: str
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Figure:
    """One figure: its kind and the words and arms it takes.

    circles: areas proportional to the parameters in place of markers; papers: with the papers' own points.
    Of a published table: metric and protocol: what stands against FLOPs of which image size; highlight: families of
    models that stand out; bottom: where the axis begins.
    """

    kind: str
    title: str = ""
    axis: str = ""
    arms: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    circles: bool = False
    papers: bool = False
    metric: str = ""
    protocol: str = ""
    highlight: tuple[str, ...] = ()
    bottom: float | None = None


@dataclass(frozen=True)
class Specification:
    """A report of one sweep: its arms against its baseline."""

    name: str
    title: str
    question: str
    sweep: str
    protocols: dict[str, Metric]
    papers: Papers
    arms: dict[str, Arm]
    figures: tuple[Figure, ...] = field(default=())

    def metric(self, protocol: str) -> Metric:
        if protocol not in self.protocols:
            raise SpecificationError(f"report {self.name}: {unknown('protocol', protocol, self.protocols)}")
        return self.protocols[protocol]


@dataclass(frozen=True)
class Column:
    """One metric of a published table; head and protocol where it is printed for several."""

    label: str
    metric: str
    head: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A report of one of the papers' tables: every number in it, and ours beneath those that can be repeated.

    models: of the rows that this suite is to repeat; a table without columns shows its figures alone.
    """

    name: str
    title: str
    question: str
    source: str
    table: str
    columns: tuple[Column, ...] = ()
    models: tuple[str, ...] = ("xT", "T", "S", "B", "L")
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class LearnedOffsets:
    """A report of what has been measured of the offsets that the runs of some sweeps learned."""

    name: str
    title: str
    question: str
    sweeps: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """Reports on one page, in order. differences: what the forest plot of all their differences is called."""

    name: str
    title: str
    lead: str
    reports: tuple[str, ...]
    differences: str = ""


Report = Specification | PublishedTable | LearnedOffsets | Collection


def names(kind: str | None = None) -> list[str]:
    """Reports, of one kind or all, in alphabetical order."""
    return [name for name in names_in_folder() if kind in (None, _kind(name))]


def load(name: str) -> Report:
    """The specification ``specs/<name>.yaml``, of whatever kind it says it is."""
    return KINDS[_kind(name)](name)


def of_sweep(name: str) -> Specification:
    """The report of a sweep. Raises SpecificationError for one of another kind."""
    if _kind(name) != SWEEP:
        raise SpecificationError(f"report {name} is not about one sweep; those that are: {', '.join(names(SWEEP))}")
    return _sweep(name)


def _kind(name: str) -> str:
    if name == COMPLEXITY:
        raise SpecificationError(f"{COMPLEXITY} is a command of its own: python run.py {COMPLEXITY}")
    kind = str(read_yaml(name, names_in_folder()).get("kind", SWEEP))
    if kind not in KINDS:
        raise SpecificationError(f"report {name}: {unknown('kind', kind, KINDS)}")
    return kind


def _published(name: str) -> PublishedTable:
    content, where = _content(name), f"report {name}"
    columns = tuple(_make(Column, column, f"{where}, columns") for column in content.get("columns") or [])
    figures = tuple(_figure(value, where, PUBLISHED_FIGURES) for value in content.get("figures") or [])
    content |= {"columns": columns, "figures": figures}
    if "models" in content:
        content["models"] = tuple(content["models"])
    return _make(PublishedTable, content, where)


def _collection(name: str) -> Collection:
    content = _content(name)
    for report in content.get("reports") or []:
        if report not in names_in_folder():
            raise SpecificationError(f"report {name}: {unknown('report', report, names_in_folder())}")
    return _make(Collection, {**content, "reports": tuple(content.get("reports") or ())}, f"report {name}")


def _offsets(name: str) -> LearnedOffsets:
    content = _content(name)
    return _make(LearnedOffsets, {**content, "sweeps": tuple(content.get("sweeps") or ())}, f"report {name}")


def _sweep(name: str) -> Specification:
    content = _content(name)
    where = f"report {name}"
    protocols = {key: _make(Metric, value, f"{where}, protocol {key}") for key, value in _section(content, "protocols")}
    arms = {key: _arm(value, f"{where}, arm {key}") for key, value in _section(content, "arms")}
    figures = tuple(_figure(value, where) for value in content.get("figures") or [])
    papers = _make(Papers, content.get("papers"), f"{where}, papers")
    made = {"protocols": protocols, "arms": arms, "papers": papers, "figures": figures}
    return _make(Specification, {**content, **made}, where)


def _content(name: str) -> dict[str, Any]:
    """A specification's keys but for its kind, with its name."""
    content = read_yaml(name, names_in_folder())
    return {key: value for key, value in content.items() if key != "kind"} | {"name": name}


def names_in_folder() -> list[str]:
    return sorted(path.stem for path in SPECS.glob("*.yaml") if path.stem != COMPLEXITY)


def check_arms(spec: Specification, planned: list[str]) -> None:
    """Refuses arms of the specification that the sweep does not have. The reverse is no error: they get a row."""
    named = set(spec.arms)
    named.update(p.against for arm in spec.arms.values() for p in arm.published if p.against)
    for arm in (*sorted(named), *(arm for figure in spec.figures for arm in (*figure.arms, *figure.required))):
        if arm not in planned:
            raise SpecificationError(f"report {spec.name}: {unknown('arm', arm, planned)}")


def read_yaml(name: str, valid: list[str]) -> dict[str, Any]:
    path = SPECS / f"{name}.yaml"
    if not path.is_file():
        raise SpecificationError(unknown("report", name, valid))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SpecificationError(f"{path.name}:{mark.line + 1 if mark else 0}: not valid YAML") from None
    if not isinstance(content, dict):
        raise SpecificationError(f"{path.name}: expected keys and values")
    return content


def _section(content: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    return list((content.get(key) or {}).items())


def _arm(content: Mapping[str, Any], where: str) -> Arm:
    published = tuple(_make(Published, place, where) for place in content.get("published") or [])
    return _make(Arm, {**content, "published": published}, where)


def _figure(content: Mapping[str, Any], where: str, kinds: tuple[str, ...] = FIGURES) -> Figure:
    figure = _make(Figure, {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}, where)
    if figure.kind not in kinds:
        raise SpecificationError(f"{where}: {unknown('figure', figure.kind, kinds)}")
    return figure


def _make(cls: type[Made], content: Any, where: str) -> Made:
    """A dataclass from a mapping; unknown and missing keys are named."""
    if not isinstance(content, Mapping):
        raise SpecificationError(f"{where}: expected keys and values")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in content:
        if key not in known:
            raise SpecificationError(f"{where}: {unknown('key', key, known)}")
    required = [k for k, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [key for key in required if content.get(key) is None]
    if missing:
        raise SpecificationError(f"{where}: {', '.join(missing)} missing")
    return cls(**content)


KINDS: dict[str, Callable[[str], Report]] = {
    SWEEP: _sweep,
    PUBLISHED: _published,
    OFFSETS: _offsets,
    COLLECTION: _collection,
}
