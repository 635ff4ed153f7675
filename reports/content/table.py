"""The numbers of an ablation: ours, the papers', and the verdict on the difference, one row per arm and task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from errors import unknown
from reports.content.images import ImageComparisons, repeat_spread
from reports.specification import (
    SIDES,
    Arm,
    Metric,
    Papers,
    Published,
    Specification,
    SpecificationError,
    check_arms,
    sweep_arms,
)
from results import exclusion, fingerprints, papers
from results.collect import Collected, Plan
from results.statistics.estimates import (
    LEVEL,
    Difference,
    Interval,
    Spread,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled_sd,
    t_quantile,
)
from results.statistics.images import NewImages
from results.statistics.verdicts import Comparison, Judgement, Verdict, judge
from run_format import DONE, NOT_RUN

if TYPE_CHECKING:
    import pandas as pd

Finals = Mapping[str, Mapping[int, float]]  # arm → seed → final value


@dataclass(frozen=True)
class PrintedReference:
    """A published number beside an arm, with the papers' difference and ours to the same arm.

    place: the row of the specification that names it; against: the arm that stands for its baseline;
    new_images: our difference over seeds and images;
    same_model: the arm is the very model that was printed; same_protocol: so is the arm it is compared with, and both
    were run under the papers' protocol, so that sizes can be compared.
    """

    place: Published
    number: papers.Number
    difference: float | None
    baseline: papers.Number | None
    against: str
    ours: Difference | None
    new_images: NewImages | None
    same_model: bool
    same_protocol: bool
    judgement: Judgement

    @property
    def compared(self) -> bool:
        """Whether the papers say anything that a difference of ours can be compared with."""
        return self.difference is not None or self.place.side is not None

    @property
    def by_size(self) -> bool:
        """Whether the papers' number is compared, and not only its sign."""
        return self.same_protocol and self.difference is not None

    @property
    def own_interval(self) -> tuple[float, float] | None:
        """Where the papers' true difference lies if their single runs scatter as ours do; None where sizes compare."""
        spread = self.ours.single if self.ours else None
        if self.difference is None or self.same_protocol or spread is None:
            return None
        half = t_quantile(spread.freedom, LEVEL) * spread.sd + self.rounding
        return self.difference - half, self.difference + half

    def comparison(self, pair: tuple[str, ...]) -> Comparison:
        """pair: names of the task and of both arms."""
        return Comparison(
            self.ours,
            self.difference,
            self.same_protocol,
            self.rounding,
            papers.margin(self.number.metric),
            SIDES[self.place.side] if self.place.side else None,
            self.new_images.p if self.new_images else None,
            pair,
        )

    @property
    def rounding(self) -> float:
        """How far the papers' exact difference may lie from the printed one: both its numbers are rounded."""
        return 0.5 * sum(10.0**-number.decimals for number in (self.number, self.baseline) if number is not None)


@dataclass(frozen=True)
class ArmRow:
    """One arm in one task. values (seed → value) and interval are of finished runs; ``state`` is that of all others.

    against: the arm that ``difference`` and, over seeds and images, ``new_images`` are to; mcnemar: p of that test for
    a single pair of runs; judgement: of the difference being 0; control, control_images, control_judgement: the same of
    the difference to the table's control.
    """

    arm: str
    label: str
    model: str
    planned: int
    state: str
    params_m: float | None
    flops_g: float | None
    values: Mapping[int, float]
    interval: Interval | None
    against: str
    difference: Difference | None
    new_images: NewImages | None
    mcnemar: float | None
    control: Difference | None
    control_images: NewImages | None
    references: tuple[PrintedReference, ...]
    is_baseline: bool
    other_model: bool
    judgement: Judgement
    control_judgement: Judgement

    @property
    def mean(self) -> float | None:
        return self.interval.mean if self.interval else None

    @property
    def sd(self) -> float | None:
        return self.interval.sd if self.interval else None

    @property
    def compared(self) -> tuple[PrintedReference, ...]:
        """The references that have a verdict, if the arm has runs of this task."""
        return tuple(reference for reference in self.references if reference.compared)

    @property
    def printed(self) -> list[papers.Number]:
        """The printed numbers that this row shows or is compared with."""
        return [n for r in self.references for n in (r.number, r.baseline) if n is not None]


@dataclass(frozen=True)
class TaskTable:
    """All arms of a sweep in one task. task: its name in the plan, empty in plans of one unnamed task."""

    spec: Specification
    task: str
    downstream: bool
    protocol: str
    metric: Metric
    papers: Papers | None
    baseline: str
    rows: tuple[ArmRow, ...]
    collected: Collected  # of this task alone
    warnings: tuple[str, ...]
    mixed: tuple[str, ...]
    changed: Mapping[str, Any]  # settings of the protocol that these runs changed
    repeats: Spread | None  # of one run measured again, on another day or processor

    @property
    def runs(self) -> pd.DataFrame:
        return self.collected.runs

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sentences about measurements that a person left out."""
        metric = self.metric
        return tuple(
            exclusion.sentences(
                self.collected, metric.metric, metric.label, metric.unit, metric.decimals, self.label_of
            )
        )

    @property
    def label_of(self) -> dict[str, str]:
        labels = {name: arm.label for name, arm in self.spec.arms.items()}
        return labels | {row.arm: row.label for row in self.rows}

    @property
    def control(self) -> str | None:
        """The specification's control, where it is planned and not the baseline."""
        named = self.spec.control.arm if self.spec.control else None
        return named if any(row.arm == named and not row.is_baseline for row in self.rows) else None

    @property
    def is_papers_protocol(self) -> bool:
        return self.papers is not None and self.protocol == self.papers.protocol and not self.changed


@dataclass(frozen=True)
class Ablation:
    """A sweep under one protocol: a table per task, the sweep's own task first."""

    tables: tuple[TaskTable, ...]
    runs: pd.DataFrame
    warnings: tuple[str, ...]

    @property
    def first(self) -> TaskTable:
        return self.tables[0]

    @property
    def spec(self) -> Specification:
        return self.first.spec

    @property
    def several(self) -> bool:
        """Whether there are several tasks, so that each number has to say of which it is."""
        return len(self.tables) > 1

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(table.left_out for table in self.tables))

    @property
    def mixed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(chain.from_iterable(table.mixed for table in self.tables)))


def build(spec: Specification, collected: Collected, plan: Plan, *, mixed: bool = False) -> Ablation:
    """Builds the tables of all planned tasks; their verdicts are corrected together.

    Raises SuiteError for unknown arms, protocols, metrics or published rows, and for runs of different code or data
    unless ``mixed``.
    """
    planned = {arm["name"]: arm for arm in plan["arms"]}
    # arms that the sweep got after it was collected are as arms that were left out
    left_out = [*(plan.get("left_out") or []), *(arm for arm in sweep_arms(spec.sweep) if arm not in planned)]
    check_arms(spec, [*planned, *left_out])
    names = [*(name for name in spec.arms if name in planned), *(name for name in planned if name not in spec.arms)]
    models = {name: _model(collected.runs, name, str(planned[name].get("model") or "")) for name in names}
    models |= dict.fromkeys(left_out, "")
    arms = {name: spec.arms.get(name) or Arm(str(planned[name].get("label") or name)) for name in names}
    tasks = plan.get("tasks") or [{"name": ""}]
    order = {name: position for position, name in enumerate(names)}
    runs = collected.runs.sort_values("arm", key=lambda arms: arms.map(order), kind="stable").reset_index(drop=True)
    collected = replace(collected, runs=runs)
    tables = []
    for number, task in enumerate(tasks):
        of_this = of_task(collected, task["name"]) if len(tasks) > 1 else collected
        tables.append(_TaskBuilder(spec, plan, task, number > 0, arms, models, of_this).table(mixed))
    judgements = iter(judge([each for table in tables for row in table.rows for each in _comparisons(table, row)]))
    tables = [replace(table, rows=tuple(_judged(row, judgements) for row in table.rows)) for table in tables]
    warnings = [*collected.warnings, *chain.from_iterable(table.warnings for table in tables)]
    unplanned = [task for task in spec.tasks if task not in [entry["name"] for entry in tasks]]
    warnings += [f"task {task} is not planned under protocol {plan['protocol']}; not shown" for task in unplanned]
    return Ablation(tuple(tables), runs, tuple(warnings))


def of_task(collected: Collected, task: str) -> Collected:
    """What was collected of one task's runs."""
    runs = collected.runs[collected.runs["task"] == task].reset_index(drop=True)
    metrics, curves = collected.metrics, collected.curves
    metrics = metrics[metrics["task"] == task].reset_index(drop=True)
    curves = curves[curves["run"].isin(runs["run"])].reset_index(drop=True)
    return replace(collected, runs=runs, metrics=metrics, curves=curves)


def is_papers(protocol: Papers | None, plan: Plan) -> bool:
    """Whether a plan is of the papers' own protocol, nothing of it changed."""
    return protocol is not None and plan["protocol"] == protocol.protocol and not plan.get("changed")


def detectable(table: TaskTable, n: int) -> float | None:
    """The smallest difference that ``n`` seeds resolve, in points, with one deviation for all arms of the table."""
    sd = deviation(table)
    return None if sd is None else minimal_detectable_difference(sd, n)


def deviation(table: TaskTable) -> float | None:
    """Of the paired differences, in points, estimated from all arms together."""
    return pooled_sd(row.difference for row in table.rows if row.difference is not None)


def status(run: Mapping[Any, Any]) -> str:
    """``running 40 %``, ``failed: cause``, ``not run`` … of one row of the runs table."""
    if run["cause"]:
        return f"{run['state']}: {run['cause']}"
    if run["state"] not in (DONE, NOT_RUN) and run["progress"] == run["progress"]:
        return f"{run['state']} {int(100 * run['progress'])} %"
    return str(run["state"])


def variant(model: str) -> str:
    """``T``, ``ATMNet-T``, ``T*`` and ``atmnet_t`` are one variant; networks of others keep their whole name."""
    name = model.lower().rstrip("*")
    for own in ("atmnet", "activemlp"):
        if name.startswith((f"{own}_", f"{own}-")):
            return name[len(own) + 1 :]
    return name


@dataclass(frozen=True)
class _TaskBuilder:
    """Builds the table of one task. models: of every arm, also of those that are not planned."""

    spec: Specification
    plan: Plan
    task: Mapping[str, Any]
    downstream: bool
    arms: Mapping[str, Arm]
    models: Mapping[str, str]
    collected: Collected

    @cached_property
    def metric(self) -> Metric:
        return self.spec.metric(self.plan["protocol"], self.task, downstream=self.downstream)

    @cached_property
    def images(self) -> ImageComparisons:
        return ImageComparisons(self.collected, self.metric.metric)

    def table(self, mixed: bool) -> TaskTable:
        """The table, not judged yet."""
        protocol, name = self.plan["protocol"], str(self.task["name"])
        printed = self.spec.of_task(name, downstream=self.downstream).papers
        mixture = fingerprints.check(self.collected.runs, mixed=mixed)
        finals, missing = _finals(self.collected, self.metric.metric)
        rows = tuple(self.row(arm, printed, finals) for arm in self.arms)
        if self.downstream and printed and not any(row.references for row in rows):
            raise SpecificationError(
                f"report {self.spec.name}, task {name}: "
                f"no arm's published row prints {printed.metric} of {printed.head}"
            )
        changed = dict(self.plan.get("changed") or {})
        return TaskTable(
            self.spec, name, self.downstream, protocol, self.metric, printed, self.plan["baseline"], rows,
            self.collected, tuple(missing), tuple(mixture), changed, repeat_spread(self.collected, self.metric.metric),
        )  # fmt: skip

    def row(self, arm: str, printed: Papers | None, finals: Finals) -> ArmRow:
        runs = self.collected.runs[self.collected.runs["arm"] == arm]
        values, baseline, model = finals.get(arm, {}), self.plan["baseline"], self.models[arm]
        against = self.arms[arm].against or baseline
        control = self.spec.control.arm if self.spec.control else None
        if control not in self.arms or control in (arm, baseline):
            control = None
        places = [place for place in self.arms[arm].published if printed and self.holds(place, printed)]
        return ArmRow(
            arm=arm,
            label=self.arms[arm].label,
            model=model,
            planned=len(runs),
            state=_states(runs, values),
            params_m=_first_known(runs, "params_m"),
            flops_g=_first_known(runs, "flops_g"),
            values=values,
            interval=mean_interval(values) if values else None,
            against=against,
            difference=None if arm == against else paired_difference(values, finals.get(against, {})),
            new_images=self.images.interval(arm, against),
            mcnemar=self.images.mcnemar(arm, against),
            control=paired_difference(values, finals.get(control, {})) if control else None,
            control_images=self.images.interval(arm, control) if control else None,
            references=tuple(self.reference(arm, place, printed, finals) for place in places if printed),
            is_baseline=arm == baseline,
            other_model=bool(model) and variant(model) != variant(self.models[against]),
            judgement=Judgement(Verdict.NO_NUMBER),
            control_judgement=Judgement(Verdict.NO_NUMBER),
        )

    def holds(self, place: Published, printed: Papers) -> bool:
        """Whether a published row stands beside its arm in this task; the first task's rows must print its metric."""
        if place.task is not None or not self.downstream:
            return place.task in (None, self.task["name"])
        return printed.metric in papers.metrics(place.source, place.table, place.row, printed.head)

    def reference(self, arm: str, place: Published, printed: Papers, finals: Finals) -> PrintedReference:
        kind = (printed.metric, printed.head, printed.training)
        number = papers.number(place.source, place.table, place.row, *kind)
        against = place.against or self.plan["baseline"]
        base, difference = None, None
        if place.baseline and place.side is None:
            base = papers.number(place.source, place.table, place.baseline, *kind)
            if number.value is not None and base.value is not None:
                difference = round(number.value - base.value, max(number.decimals, base.decimals))
        same_model = place.same_model and variant(self.models[arm]) == variant(number.model)
        same_base = variant(self.models[against]) == variant((base or number).model)
        same_protocol = is_papers(printed, self.plan) and same_model and same_base
        ours = None if arm == against else paired_difference(finals.get(arm, {}), finals.get(against, {}))
        return PrintedReference(
            place, number, difference, base, against, ours, self.images.interval(arm, against),
            same_model, same_protocol, Judgement(Verdict.NO_NUMBER),
        )  # fmt: skip


def _comparisons(table: TaskTable, row: ArmRow) -> list[Comparison]:
    """The tests that a row adds to its page's family: its difference, also of an arm that the papers do not have, that
    to the control, and each of the papers' differences."""

    def against_zero(ours: Difference | None, images: NewImages | None, against: str) -> Comparison:
        return Comparison(ours, None, False, p_new_images=images.p if images else None, pair=pair(against))

    def pair(against: str) -> tuple[str, ...]:
        return (table.task, *sorted((row.arm, against)))  # either way round it is one test

    return [
        against_zero(row.difference, row.new_images, row.against),
        against_zero(row.control, row.control_images, table.control or row.arm),
        *(each.comparison(pair(each.against)) for each in row.compared if row.planned),
    ]


def _judged(row: ArmRow, judgements: Iterator[Judgement]) -> ArmRow:
    """The row with the judgements of its ``_comparisons``, which are taken from ``judgements``."""
    own, control = next(judgements), next(judgements)
    references = (
        replace(reference, judgement=next(judgements)) if reference.compared and row.planned else reference
        for reference in row.references
    )
    return replace(row, judgement=own, control_judgement=control, references=tuple(references))


def _finals(collected: Collected, metric: str) -> tuple[dict[str, dict[int, float]], list[str]]:
    """Final values, and sentences about finished runs that lack the metric."""
    finals = collected.finals(metric)
    done = collected.runs[collected.runs["state"] == DONE]
    without = done[~done["run"].isin(finals["run"])]["run"].unique()
    if len(done) and finals.empty:
        known = collected.metrics[collected.metrics["final"]]["metric"].unique()
        raise SpecificationError(f"no finished run has the reported metric: {unknown('metric', metric, known)}")
    values: dict[str, dict[int, float]] = {}
    for arm, seed, value in finals[["arm", "seed", "value"]].itertuples(index=False):
        values.setdefault(arm, {})[int(seed)] = float(value)
    return values, [f"{run}: finished without {metric}; not counted" for run in without]


def _states(runs: pd.DataFrame, values: Iterable[int]) -> str:
    """States of the runs that gave no value, equal ones counted."""
    texts = [status(run) for run in runs.to_dict("records") if run["seed"] not in values]
    counted = {text: texts.count(text) for text in texts}
    return "; ".join(text if count in (1, len(runs)) else f"{count} × {text}" for text, count in counted.items())


def _first_known(runs: pd.DataFrame, column: str) -> float | None:
    known = runs[column].dropna()
    return float(known.iloc[0]) if len(known) else None


def _model(runs: pd.DataFrame, arm: str, planned: str) -> str:
    known = [str(model) for model in runs[runs["arm"] == arm]["model"] if model]
    return planned or (known[0] if known else "")
