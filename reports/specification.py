"""What a report shows: ``specs/*.yaml`` read into frozen dataclasses, every key and name checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml_files
from errors import ConfigError, SuiteError, unknown

SPECS = Path(__file__).resolve().parent / "specs"
SWEEPS = SPECS.parents[1] / "sweeps"  # a sweep without a specification has a report too
FIGURES = ("accuracy_flops", "forest", "reach", "examples", "learning_curves")  # of a sweep
PUBLISHED_FIGURES = ("circles",)  # of a published table
DEFAULT_FIGURES = ("accuracy_flops", "forest", "learning_curves")  # of a sweep without a specification
COMPLEXITY = "complexity"  # specs/complexity.yaml lists models to count; content.complexity reads it
SWEEP, PUBLISHED, OFFSETS, COLLECTION = "sweep", "published", "offsets", "collection"  # kinds of reports
NAMES = ("label", "title", "row", "against", "baseline", "arm", "sweep", "task", "because", "model")  # text as written
SIDES = {"above": 1, "below": -1}
Made = TypeVar("Made")


class SpecificationError(SuiteError):
    """A report specification that does not exist, or that names something unknown."""


@dataclass(frozen=True)
class Metric:
    """The metric that a task reports under one protocol: its name in summaries, label, unit, decimals, chance level.

    margin: the largest true difference that counts as none where contrasts are judged; None: none does.
    """

    metric: str
    label: str
    unit: str = "%"
    decimals: int = 2
    chance: float | None = None
    margin: float | None = None


@dataclass(frozen=True)
class Papers:
    """Which protocol and metric of the papers stand beside ours.

    head: the network's head that the papers print the metric for; training: their words for how it was trained, where
    they print it for several schedules (``COCO, 1x``).
    """

    protocol: str
    label: str
    metric: str
    head: str = "classification"
    training: str | None = None


@dataclass(frozen=True)
class Published:
    """A row of the papers' tables; ``baseline`` is the row of the same table that their difference is to.

    against: the arm of ours that stands for that baseline, where it is not the sweep's own; same_model: whether the arm
    is the row's very model, so that sizes can be compared, or a model that shows the same effect.
    side: ``above`` or ``below`` the baseline, where that is all the papers say; reading: how the papers have to be
    read for this row to be the arm's, where they can be read otherwise; because: why the row has no verdict.
    flops_table, flops_row: where the FLOPs of its model are printed, if its own row prints only an increase.
    task: the one task whose number the row prints; without it, the row counts for every task whose metric it prints.
    """

    source: str
    table: str
    row: str
    baseline: str | None = None
    against: str | None = None
    same_model: bool = True
    side: str | None = None
    reading: str = ""
    because: str = ""
    flops_table: str | None = None
    flops_row: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Arm:
    """against: the arm that its difference is to, where that is not the sweep's baseline."""

    label: str
    published: tuple[Published, ...] = ()
    against: str | None = None


@dataclass(frozen=True)
class Control:
    """A second arm that all others are compared with; because: what a difference to it tells, a clause."""

    arm: str
    because: str


@dataclass(frozen=True)
class Column:
    """One more metric of a sweep, or one of a published table; head and protocol where that prints it for several."""

    label: str
    metric: str
    head: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Contrast:
    """The arms of ``plus`` minus those of ``minus``, by seed: a difference that the report is to state and test.

    label: what it is, where that is more than ``first − second``. Two arms on either side are an interaction.
    tested: whether it is one of the family of tests; otherwise its interval alone is stated.
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...]
    label: str = ""
    tested: bool = True

    @property
    def arms(self) -> tuple[str, ...]:
        return (*self.plus, *self.minus)


@dataclass(frozen=True)
class Figure:
    """One figure: its kind, its words and its arms.

    circles: areas proportional to the parameters in place of markers; papers: with the papers' own points.
    Of a published table: metric and protocol: what is drawn against FLOPs at which image size; highlight: families of
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
class TaskReport:
    """How one task of a sweep is reported: its metric per protocol, and the papers' numbers beside it."""

    protocols: dict[str, Metric] = field(default_factory=dict)
    papers: Papers | None = None


@dataclass(frozen=True)
class Specification:
    """A report of one sweep: its arms against its baseline and, in a column of its own, against its control.

    protocols and papers are those of the sweep's own task; ``tasks`` has those of its downstream tasks, by name.
    columns: further metrics of the own task, shown as means; contrasts: a table of differences in it.
    own_data: arms change the data, so that only those of the same data are compared.
    """

    name: str
    title: str
    question: str
    sweep: str
    protocols: dict[str, Metric]
    arms: dict[str, Arm]
    papers: Papers | None = None
    figures: tuple[Figure, ...] = ()
    tasks: dict[str, TaskReport] = field(default_factory=dict)
    control: Control | None = None
    columns: tuple[Column, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    own_data: bool = False

    def metric(self, protocol: str, task: Mapping[str, Any], *, downstream: bool = False) -> Metric:
        """The metric of one of a plan's tasks; the plan's own where this specification names none.

        Raises SpecificationError where neither does.
        """
        protocols = self.of_task(str(task["name"]), downstream=downstream).protocols
        if protocol in protocols:
            return protocols[protocol]
        if task.get("metric"):
            return Metric(**{key: task[key] for key in Metric.__dataclass_fields__ if key in task})
        raise SpecificationError(f"report {self.name}: {unknown('protocol', protocol, protocols)}")

    def of_task(self, task: str, *, downstream: bool) -> TaskReport:
        own = TaskReport() if downstream else TaskReport(self.protocols, self.papers)
        return self.tasks.get(task, own)


@dataclass(frozen=True)
class PublishedTable:
    """A report of one of the papers' tables: every number in it, and ours beneath those that can be reproduced.

    models: those of the rows that this suite reproduces; a table without columns shows its figures alone.
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
    """A report of the measured offsets that the runs of some sweeps learned."""

    name: str
    title: str
    question: str
    sweeps: tuple[str, ...]


@dataclass(frozen=True)
class Collection:
    """Reports on one page, in order.

    differences: title of the forest plot of all their differences; statements: title of the list of what the papers
    state and contradict without naming a number.
    """

    name: str
    title: str
    lead: str
    reports: tuple[str, ...]
    differences: str = ""
    statements: str = ""


Report = Specification | PublishedTable | LearnedOffsets | Collection


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
    known = sorted({*names_in_folder(), *_sweeps()})
    return None if name in known else SpecificationError(unknown("report", name, known))


def default(sweep: str) -> Specification:
    """The report of a sweep without a specification. Arms' labels and the tasks' metrics are those of its plan."""
    figures, name = tuple(Figure(kind) for kind in DEFAULT_FIGURES), yaml_files.called(sweep)
    return Specification(name, name, "", sweep, protocols={}, arms={}, figures=figures)


def _own(path: Path) -> Report:
    """The report of the user's own sweep file, or what their own specification file says."""
    content = _keys_and_values(path)
    if "recipes" in content:
        return default(str(path))
    if content.get("kind", SWEEP) != SWEEP:
        raise SpecificationError(f"report={path}: one's own specifications are about one sweep, of no other kind")
    if str(content.get("sweep")).endswith(".yaml"):
        content["sweep"] = str(path.parent / content["sweep"])
    return _of_sweep(content | {"name": path.stem})


def of_sweep(name: str) -> Specification:
    """The report of a sweep. Raises SpecificationError for a report of another kind."""
    if _kind(name) != SWEEP:
        raise SpecificationError(f"report {name} is not about one sweep; those that are: {', '.join(names(SWEEP))}")
    return _sweep(name)


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
    figures = [_figure(value, where, PUBLISHED_FIGURES) for value in entries(content, "figures", where)]
    return make(PublishedTable, {**content, "columns": columns, "figures": figures}, where)


def _collection(name: str) -> Collection:
    made = make(Collection, _content(name), f"report {name}")
    for report in made.reports:
        if report not in names_in_folder():
            raise SpecificationError(f"report {name}: {unknown('report', report, names_in_folder())}")
    return made


def _offsets(name: str) -> LearnedOffsets:
    return make(LearnedOffsets, _content(name), f"report {name}")


def _sweep(name: str) -> Specification:
    return _of_sweep(_content(name))


def _of_sweep(content: dict[str, Any]) -> Specification:
    where = f"report {content['name']}"
    arms = {key: _arm(value, f"{where}, arm {key}") for key, value in _section(content, "arms", where)}
    figures = [_figure(value, where) for value in entries(content, "figures", where)]
    tasks = {
        key: make(
            TaskReport,
            _mapping(value, f"{where}, task {key}") | _task_parts(value, f"{where}, task {key}"),
            f"{where}, task {key}",
        )
        for key, value in _section(content, "tasks", where)
    }
    for key, arm in arms.items():
        for place in arm.published:
            if place.task is not None and place.task not in tasks:
                raise SpecificationError(f"{where}, arm {key}: {unknown('task', place.task, tasks)}")
    control = make(Control, content["control"], f"{where}, control") if content.get("control") else None
    columns = tuple(make(Column, value, f"{where}, columns") for value in entries(content, "columns", where))
    contrasts = tuple(_contrast(value, f"{where}, contrasts") for value in entries(content, "contrasts", where))
    parts = {
        **_task_parts(content, where), "control": control, "arms": arms, "figures": figures, "tasks": tasks,
        "columns": columns, "contrasts": contrasts,
    }  # fmt: skip
    return make(Specification, {**content, **parts}, where)


def _task_parts(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    protocols = {
        key: make(Metric, value, f"{where}, protocol {key}") for key, value in _section(content, "protocols", where)
    }
    papers = make(Papers, content["papers"], f"{where}, papers") if content.get("papers") else None
    return {"protocols": protocols, "papers": papers}


def _content(name: str) -> dict[str, Any]:
    """A specification's keys but for its kind, with its name."""
    content = read_yaml(name, names_in_folder())
    return {key: value for key, value in content.items() if key != "kind"} | {"name": name}


def names_in_folder() -> list[str]:
    return sorted(path.stem for path in SPECS.glob("*.yaml") if path.stem != COMPLEXITY)


def _sweeps() -> list[str]:
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def sweep_arms(name: str) -> list[str]:
    """Arms of a sweep file as it is now; none where results are of a sweep that has no file here.

    Raises SpecificationError for a file that is not valid YAML.
    """
    path = SWEEPS / f"{name}.yaml" if yaml_files.called(name) == name else Path(name)
    return [str(arm) for arm in _keys_and_values(path).get("arms") or {}] if path.is_file() else []


def check_arms(spec: Specification, planned: list[str]) -> None:
    """Refuses arms of the specification that the sweep does not have. Arms that only the sweep has get a row."""
    named = set(spec.arms)
    named.update(p.against for arm in spec.arms.values() for p in arm.published if p.against)
    named.update(arm.against for arm in spec.arms.values() if arm.against)
    named.update([spec.control.arm] if spec.control else [])
    named.update(arm for contrast in spec.contrasts for arm in contrast.arms)
    for arm in (*sorted(named), *(arm for figure in spec.figures for arm in (*figure.arms, *figure.required))):
        if arm not in planned:
            raise SpecificationError(f"report {spec.name}: {unknown('arm', arm, planned)}")


def read_yaml(name: str, valid: list[str]) -> dict[str, Any]:
    path = SPECS / f"{name}.yaml"
    if path not in SPECS.glob("*.yaml"):  # a name, never a path to somewhere else
        raise SpecificationError(unknown("report", name, valid))
    return _keys_and_values(path)


def _keys_and_values(path: Path) -> dict[str, Any]:
    try:
        return yaml_files.read_yaml(path, NAMES)
    except ConfigError as error:
        raise SpecificationError(str(error)) from None


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise SpecificationError(f"{where}: expected keys and values, not {content!r}")
    return dict(content)


def _section(content: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    section = content.get(key)
    return [] if section is None else list(_mapping(section, f"{where}, {key}").items())


def entries(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    """The list under a key of a specification; empty where it has none. Raises SpecificationError."""
    values = content.get(key)
    if not isinstance(values, list | None):
        raise SpecificationError(f"{where}, {key}: expected a list, not {values!r}")
    return values or []


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


def _contrast(content: Any, where: str) -> Contrast:
    made = make(Contrast, content, where)
    if not made.plus or len(made.plus) != len(made.minus) or len(set(made.arms)) < len(made.arms):
        raise SpecificationError(f"{where}: plus and minus need equally many arms, each of them once")
    return made


def _figure(content: Mapping[str, Any], where: str, kinds: tuple[str, ...] = FIGURES) -> Figure:
    figure = make(Figure, content, where)
    if figure.kind not in kinds:
        raise SpecificationError(f"{where}: {unknown('figure', figure.kind, kinds)}")
    return figure


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


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of a field of the dataclasses above."""
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


KINDS: dict[str, Callable[[str], Report]] = {
    SWEEP: _sweep, PUBLISHED: _published, OFFSETS: _offsets, COLLECTION: _collection,
}  # fmt: skip
