"""Builds the tables of an ablation from collected results, its plan and its specification, and judges them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from errors import unknown
from reports.content.images import ImageComparisons, repeat_spread
from reports.content.table import Ablation, ArmRow, ContrastRow, Delta, PrintedReference, TaskTable, status, variant
from reports.specification import (
    Arm,
    Contrast,
    FurtherMetric,
    Metric,
    Papers,
    Published,
    Specification,
    SpecificationError,
)
from reports.specification_files import sweep_arms
from reports.specification_parts import check_arms
from results import fingerprints, papers
from results.collect import Collected, Plan
from results.statistics.estimates import TOLERANCE, Difference, contrast, mean_interval
from results.statistics.images import NewImages
from results.statistics.verdicts import Comparison, Judgement, Verdict, holm, judge
from run_format import DONE

if TYPE_CHECKING:
    import pandas as pd

Finals = Mapping[str, Mapping[int, float]]  # arm → seed → final value


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
    family = Ablation(tuple(tables), runs, ()).tested
    judgements = iter(judge([each for table in family for row in table.rows for each in _comparisons(table, row)]))
    tables = [_judged_table(table, judgements) for table in tables]
    shown = [each for table in tables for each in (table, *table.further)]
    warnings = [*collected.warnings, *chain.from_iterable(table.warnings for table in shown)]
    unplanned = [
        task
        for task, of_task in spec.tasks.items()
        if task not in [entry["name"] for entry in tasks]
        and (not of_task.protocols or plan["protocol"] in of_task.protocols)
    ]
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


@dataclass(frozen=True)
class _TaskBuilder:
    """Builds the table of one task. models: of every arm, also of those that are not planned; column: the further
    metric that it is by, in place of the main one."""

    spec: Specification
    plan: Plan
    task: Mapping[str, Any]
    downstream: bool
    arms: Mapping[str, Arm]
    models: Mapping[str, str]
    collected: Collected
    column: FurtherMetric | None = None

    @cached_property
    def metric(self) -> Metric:
        return self.column or self.spec.metric(self.plan["protocol"], self.task, downstream=self.downstream)

    @cached_property
    def printed(self) -> Papers | None:
        """The papers' metric beside ours."""
        papers = self.spec.of_task(str(self.task["name"]), downstream=self.downstream).papers
        if self.column is None or papers is None:
            return papers
        return replace(papers, metric=self.column.published) if self.column.published else None

    @cached_property
    def further(self) -> list[FurtherMetric]:
        """The further metrics of the task under the plan's protocol; a table by one of them has none of its own."""
        of_task = self.spec.of_task(str(self.task["name"]), downstream=self.downstream)
        columns = of_task.columns if self.column is None else ()
        return [column for column in columns if column.protocol in (None, self.plan["protocol"])]

    @cached_property
    def together(self) -> tuple[str, ...]:
        """The planned arms that differences in the table of all tasks are to, where there are several tasks."""
        if len(self.plan.get("tasks") or ()) < 2:
            return ()
        named = self.spec.together or (self.plan["baseline"], *([self.control] if self.control else []))
        return tuple(arm for arm in named if arm in self.arms)

    @cached_property
    def control(self) -> str | None:
        named = self.spec.control.arm if self.spec.control else None
        return named if named in self.arms and named != self.plan["baseline"] else None

    @cached_property
    def images(self) -> ImageComparisons:
        return ImageComparisons(self.collected, self.metric.metric)

    def table(self, mixed: bool) -> TaskTable:
        """The table, not judged yet."""
        protocol, name = self.plan["protocol"], str(self.task["name"])
        printed = self.printed
        mixture = fingerprints.check(self.collected.runs, mixed=mixed, own_data=self.spec.own_data)
        finals, missing = self.finals()
        rows = tuple(self.row(arm, printed, finals) for arm in self.arms)
        described = self.column is None and any(arm in self.spec.arms for arm in self.arms)
        if self.downstream and printed and described and not any(row.references for row in rows):
            raise SpecificationError(
                f"report {self.spec.name}, task {name}: "
                f"no arm's published row prints {printed.metric} of {printed.head}"
            )
        changed = dict(self.plan.get("changed") or {})
        return TaskTable(
            self.spec, name, self.downstream, protocol, self.metric, printed, self.plan["baseline"], self.control, rows,
            self.collected, tuple(missing), tuple(mixture), changed, repeat_spread(self.collected, self.metric.metric),
            self.contrasts(finals, rows), self.column is None or self.column.tested,
            tuple(replace(self, column=column).table(mixed) for column in self.further),
        )  # fmt: skip

    def finals(self) -> tuple[Finals, list[str]]:
        """Final values by arm and seed, and what is missing: runs made by older code may lack a further metric."""
        try:
            return _finals(self.collected, self.metric.metric)
        except SpecificationError as error:
            if self.column is None:
                raise
            return {}, [f"{self.metric.label}: {error}"]

    def row(self, arm: str, printed: Papers | None, finals: Finals) -> ArmRow:
        runs = self.collected.runs[self.collected.runs["arm"] == arm]
        values, baseline, model = finals.get(arm, {}), self.plan["baseline"], self.models[arm]
        against = self.arms[arm].against or baseline
        control = self.control if arm != self.control else None
        places = [place for place in self.arms[arm].published if printed and self.holds(place, printed)]
        return ArmRow(
            arm=arm,
            label=self.arms[arm].label,
            model=model,
            planned=len(runs),
            state=_states(runs, values),
            params_m=_first_known(runs, "params_m"),
            flops_g=_first_known(runs, "flops_g"),
            ms_per_image=_ms_per_image(runs),
            values=values,
            interval=mean_interval(values) if values else None,
            against=against,
            difference=self.difference([arm], [against], finals),
            new_images=self.images.interval(arm, against),
            mcnemar=self.images.mcnemar(arm, against),
            control=self.difference([arm], [control], finals) if control else None,
            control_images=self.images.interval(arm, control) if control else None,
            references=tuple(self.reference(arm, place, printed, finals) for place in places if printed),
            is_baseline=arm == baseline,
            other_model=bool(model) and variant(model) != variant(self.models[against]),
            judgement=Judgement(Verdict.NO_NUMBER),
            control_judgement=Judgement(Verdict.NO_NUMBER),
            together=tuple(
                Delta(
                    other,
                    self.difference([arm], [other], finals),
                    self.images.interval(arm, other),
                    Judgement(Verdict.NO_NUMBER),
                )
                for other in self.together
            ),
        )

    def difference(self, plus: Sequence[str], minus: Sequence[str], finals: Finals) -> Difference | None:
        """The arms of ``plus`` minus those of ``minus`` by seed; None for an arm and itself, and for different data."""
        runs = self.collected.runs
        finished = runs[runs["arm"].isin([*plus, *minus]) & (runs["state"] == DONE)]
        of_other_data = self.spec.own_data and finished["data_fingerprint"].nunique() > 1
        if of_other_data or set(plus) == set(minus):
            return None
        first, second = ([finals.get(arm, {}) for arm in arms] for arms in (plus, minus))
        return contrast(first, second)

    def contrasts(self, finals: Finals, rows: Sequence[ArmRow]) -> tuple[ContrastRow, ...]:
        """The specification's contrasts of this task whose arms are all planned, corrected among themselves."""
        task = self.task["name"] if self.downstream else None
        of_task = [] if self.column else [each for each in self.spec.contrasts if each.task == task]
        planned = [each for each in of_task if set(each.arms) <= set(self.arms)]
        differences = [self.difference(each.plus, each.minus, finals) for each in planned]
        p_values = holm([d.p_against(0.0, TOLERANCE) if d and c.tested else None for c, d in zip(planned, differences)])
        return tuple(
            ContrastRow(
                self.label(each), each, difference, self.images.contrast(each.plus, each.minus), p,
                _printed_pair([row for arm in each.arms for row in rows if row.arm == arm]),
            )
            for each, difference, p in zip(planned, differences, p_values)
        )  # fmt: skip

    def label(self, each: Contrast) -> str:
        plus, minus = ([self.arms[arm].label for arm in arms] for arms in (each.plus, each.minus))
        return each.label or " − ".join(f"({' + '.join(side)})" if len(side) > 1 else side[0] for side in (plus, minus))

    def holds(self, place: Published, printed: Papers) -> bool:
        """Whether a published row stands beside its arm in this task; the first task's rows must print its metric."""
        if place.task not in (None, self.task["name"]):
            return False
        if self.column is None and (place.task is not None or not self.downstream):
            return True
        return printed.metric in papers.metrics(place.source, place.table, place.row, printed.head, printed.training)

    def reference(self, arm: str, place: Published, printed: Papers, finals: Finals) -> PrintedReference:
        kind = (printed.metric, printed.head, printed.training)
        number = papers.number(place.source, place.table, place.row, *kind)
        against = place.against or self.plan["baseline"]
        base, difference = None, None
        if place.baseline and place.side is None:
            base = papers.number(place.source, place.table, place.baseline, *kind)
            if number.value is not None and base.value is not None:
                difference = round(number.value - base.value, max(number.decimals, base.decimals))
        is_model = (
            self.models[arm] == place.model if place.model else variant(self.models[arm]) == variant(number.model)
        )
        same_model = place.same_model and is_model
        same_base = variant(self.models[against]) == variant((base or number).model)
        same_protocol = is_papers(printed, self.plan) and same_model and same_base
        ours = self.difference([arm], [against], finals)
        return PrintedReference(
            place, number, difference, base, against, ours, self.images.interval(arm, against),
            same_model, same_protocol, Judgement(Verdict.NO_NUMBER),
        )  # fmt: skip


def _comparisons(table: TaskTable, row: ArmRow) -> list[Comparison]:
    """The tests that a row adds to its page's family: its difference, also of an arm that the papers do not have, that
    to the control, those in the table of all tasks, and each of the papers' differences."""

    def against_zero(ours: Difference | None, images: NewImages | None, against: str) -> Comparison:
        return Comparison(ours, None, False, p_new_images=images.p if images else None, pair=pair(against))

    def pair(against: str) -> tuple[str, ...]:
        return (table.task, table.metric.metric, *sorted((row.arm, against)))  # either way round it is one test

    return [
        against_zero(row.difference, row.new_images, row.against),
        against_zero(row.control, row.control_images, table.control or row.arm),
        *(against_zero(each.difference, each.new_images, each.against) for each in row.together),
        *(each.comparison(pair(each.against)) for each in row.compared if row.planned),
    ]


def _judged_table(table: TaskTable, judgements: Iterator[Judgement]) -> TaskTable:
    """The table and those of its further metrics, judged where they are of the family, in the order of its tests."""
    rows = tuple(_judged(row, judgements) for row in table.rows) if table.tested else table.rows
    return replace(table, rows=rows, further=tuple(_judged_table(each, judgements) for each in table.further))


def _judged(row: ArmRow, judgements: Iterator[Judgement]) -> ArmRow:
    """The row with the judgements of its ``_comparisons``, which are taken from ``judgements``."""
    own, control = next(judgements), next(judgements)
    together = tuple(replace(each, judgement=next(judgements)) for each in row.together)
    references = (
        replace(reference, judgement=next(judgements)) if reference.compared and row.planned else reference
        for reference in row.references
    )
    return replace(row, judgement=own, control_judgement=control, together=together, references=tuple(references))


def _printed_pair(rows: Sequence[ArmRow]) -> tuple[papers.Number, papers.Number] | None:
    """The numbers of two arms in the first of the papers' tables that prints both; None for an interaction."""
    if len(rows) != 2:
        return None
    plus, minus = ([reference.number for reference in row.references] for row in rows)
    pairs = ((a, b) for a in plus for b in minus if (a.source, a.table) == (b.source, b.table))
    return next(pairs, None)


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


def _ms_per_image(runs: pd.DataFrame) -> float | None:
    rates = runs.loc[runs["state"] == DONE, "images_per_s"]
    rates = rates[rates > 0]
    return float((1000 / rates).mean()) if len(rates) else None


def _model(runs: pd.DataFrame, arm: str, planned: str) -> str:
    known = [str(model) for model in runs[runs["arm"] == arm]["model"] if model]
    return planned or (known[0] if known else "")
