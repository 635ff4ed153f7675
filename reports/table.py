"""The table of an ablation: our numbers, the papers', and what the one says about the other, one row per arm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from errors import unknown
from reports.specification import Arm, Metric, Published, Specification, SpecificationError, check_arms
from results import fingerprints, papers
from results.collect import Collected, Plan, check_plan
from results.statistics import (
    Comparison,
    Difference,
    Interval,
    Judgement,
    Verdict,
    judge,
    mean_interval,
    minimal_detectable_difference,
    paired_difference,
    pooled_sd,
)
from run_format import DONE, NOT_RUN

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Reference:
    """A published number beside an arm, with the papers' difference and ours to the same arm.

    same_model: the arm is the very model that was printed; same_protocol: what it is compared with too, and all was run
    under the papers' protocol, so that sizes can be compared.
    """

    number: papers.Number
    difference: float | None
    baseline: papers.Number | None
    against: str
    ours: Difference | None
    same_model: bool
    same_protocol: bool

    @property
    def rounding(self) -> float:
        """How far the papers' exact difference may lie from the printed one: both its numbers are rounded."""
        return 0.5 * sum(10.0**-number.decimals for number in (self.number, self.baseline) if number is not None)


@dataclass(frozen=True)
class Row:
    """One arm. values (seed → value) and their interval are of finished runs only; ``state`` is the others'."""

    arm: str
    label: str
    model: str
    planned: int
    state: str
    params_m: float | None
    flops_g: float | None
    values: dict[int, float]
    interval: Interval | None
    difference: Difference | None
    references: tuple[Reference, ...]
    is_baseline: bool
    other_model: bool
    judgement: Judgement

    @property
    def mean(self) -> float | None:
        return self.interval.mean if self.interval else None

    @property
    def sd(self) -> float | None:
        return self.interval.sd if self.interval else None

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict

    @property
    def judged(self) -> Reference | None:
        """The reference that the verdict is about: the first with a difference."""
        return next((r for r in self.references if r.difference is not None), None)


@dataclass(frozen=True)
class Table:
    """A whole table with what its reader has to know about the runs behind it."""

    spec: Specification
    protocol: str
    metric: Metric
    baseline: str
    rows: tuple[Row, ...]
    runs: pd.DataFrame
    warnings: tuple[str, ...]
    mixed: tuple[str, ...]
    changed: Mapping[str, Any] = field(default_factory=dict)  # settings of the protocol that these runs changed

    @property
    def label_of(self) -> dict[str, str]:
        named = {name: arm.label for name, arm in self.spec.arms.items()}
        return named | {row.arm: row.label for row in self.rows}

    @property
    def is_papers_protocol(self) -> bool:
        return self.protocol == self.spec.papers.protocol and not self.changed


def build(spec: Specification, collected: Collected, plan: Plan, *, mixed: bool = False) -> Table:
    """Puts the table together.

    Raises SuiteError for arms, protocols, metrics or published rows that are not there, and for runs of different
    code or data unless ``mixed``.
    """
    check_plan(plan)
    planned = {arm["name"]: arm for arm in plan["arms"]}
    left_out = plan.get("left_out") or []
    check_arms(spec, [*planned, *left_out])
    metric = spec.metric(plan["protocol"])
    mixture = fingerprints.check(collected.runs, mixed=mixed)
    finals, missing = _finals(collected, metric.metric)
    names = [*(name for name in spec.arms if name in planned), *(name for name in planned if name not in spec.arms)]
    models = {name: _model(collected.runs, name, str(planned[name].get("model") or "")) for name in names}
    models |= dict.fromkeys(left_out, "")
    rows = []
    for name in names:
        arm = spec.arms.get(name) or Arm(str(planned[name].get("label") or name))
        rows.append(_row(spec, plan, name, arm, collected.runs, finals, models))
    rows = [replace(row, judgement=said) for row, said in zip(rows, judge([_comparison(row) for row in rows]))]
    order = {name: position for position, name in enumerate(names)}
    runs = collected.runs.sort_values("arm", key=lambda arms: arms.map(order), kind="stable").reset_index(drop=True)
    warnings = (*collected.warnings, *missing)
    changed = dict(plan.get("changed") or {})
    return Table(spec, plan["protocol"], metric, plan["baseline"], tuple(rows), runs, warnings, tuple(mixture), changed)


def is_papers(spec: Specification, plan: Plan) -> bool:
    """Whether a plan is of the papers' own protocol, nothing of it changed."""
    return bool(plan["protocol"] == spec.papers.protocol and not plan.get("changed"))


def detectable(table: Table, n: int) -> float | None:
    """The smallest difference that ``n`` seeds resolve, in points, with one deviation for all arms of the table."""
    sd = pooled_sd(row.difference for row in table.rows if row.difference is not None)
    return None if sd is None else minimal_detectable_difference(sd, n)


def state_text(run: Any) -> str:
    """``running 40 %``, ``failed: cause``, ``not run`` … of one row of the runs table."""
    if run["cause"]:
        return f"{run['state']}: {run['cause']}"
    if run["state"] not in (DONE, NOT_RUN) and run["progress"] == run["progress"]:
        return f"{run['state']} {int(100 * run['progress'])} %"
    return str(run["state"])


def _row(
    spec: Specification,
    plan: Plan,
    name: str,
    arm: Arm,
    runs: pd.DataFrame,
    finals: dict[str, dict[int, float]],
    models: dict[str, str],
) -> Row:
    mine = runs[runs["arm"] == name]
    values, baseline = finals.get(name, {}), plan["baseline"]
    difference = None if name == baseline else paired_difference(values, finals.get(baseline, {}))
    references = tuple(_reference(spec, plan, name, place, finals, models) for place in arm.published)
    return Row(
        arm=name,
        label=arm.label,
        model=models[name],
        planned=len(mine),
        state=_states(mine, values),
        params_m=_only(mine, "params_m"),
        flops_g=_only(mine, "flops_g"),
        values=values,
        interval=mean_interval(values) if values else None,
        difference=difference,
        references=references,
        is_baseline=name == baseline,
        other_model=bool(models[name]) and variant(models[name]) != variant(models[baseline]),
        judgement=Judgement(Verdict.NO_NUMBER),
    )


def _comparison(row: Row) -> Comparison:
    """What a row is judged by; an arm that the papers do not have still is one of the table's tests."""
    if row.judged is None:
        return Comparison(row.difference, None, same_protocol=False)
    return Comparison(row.judged.ours, row.judged.difference, row.judged.same_protocol, row.judged.rounding)


def _reference(
    spec: Specification,
    plan: Plan,
    name: str,
    place: Published,
    finals: dict[str, dict[int, float]],
    models: dict[str, str],
) -> Reference:
    number = papers.number(place.source, place.table, place.row, spec.papers.metric)
    against = place.against or plan["baseline"]
    base, difference = None, None
    if place.baseline:
        base = papers.number(place.source, place.table, place.baseline, spec.papers.metric)
        if number.value is not None and base.value is not None:
            difference = round(number.value - base.value, max(number.decimals, base.decimals))
    same_model = place.same_model and variant(models[name]) == variant(number.model)
    same = is_papers(spec, plan) and same_model and variant(models[against]) == variant((base or number).model)
    ours = None if name == against else paired_difference(finals.get(name, {}), finals.get(against, {}))
    return Reference(number, difference, base, against, ours, same_model, same)


def _finals(collected: Collected, metric: str) -> tuple[dict[str, dict[int, float]], list[str]]:
    """arm → seed → final value, and what to say about finished runs without it."""
    finals = collected.finals(metric)
    done = collected.runs[collected.runs["state"] == DONE]
    without = done[~done["run"].isin(finals["run"])]["run"].unique()
    if len(done) and finals.empty:
        there = collected.metrics[collected.metrics["final"]]["metric"].unique()
        raise SpecificationError(f"no finished run has it: {unknown('metric', metric, there)}")
    values: dict[str, dict[int, float]] = {}
    for arm, seed, value in finals[["arm", "seed", "value"]].itertuples(index=False):
        values.setdefault(arm, {})[int(seed)] = float(value)
    return values, [f"{run}: finished without {metric}; not counted" for run in without]


def _states(mine: pd.DataFrame, values: dict[int, float]) -> str:
    """States of the runs that gave no value, equal ones counted."""
    texts = [state_text(run) for run in mine.to_dict("records") if run["seed"] not in values]
    counted = {text: texts.count(text) for text in texts}
    return "; ".join(text if count in (1, len(mine)) else f"{count} × {text}" for text, count in counted.items())


def _only(mine: pd.DataFrame, column: str) -> float | None:
    known = mine[column].dropna()
    return float(known.iloc[0]) if len(known) else None


def _model(runs: pd.DataFrame, arm: str, planned: str) -> str:
    known = [str(model) for model in runs[runs["arm"] == arm]["model"] if model]
    return planned or (known[0] if known else "")


def variant(model: str) -> str:
    """``T``, ``t``, ``T*`` and ``atmnet_t`` are one variant."""
    return re.split(r"[-_]", model.lower().rstrip("*"))[-1]
