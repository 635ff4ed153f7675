"""The numbers of an ablation: ours, the papers', and the verdict on the difference, one row per arm and task.

``build_table`` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.specification import SIDES, Contrast, Metric, Papers, Published, Specification
from results import exclusion, papers
from results.collect import Collected
from results.statistics.estimates import (
    LEVEL,
    Difference,
    Interval,
    Spread,
    minimal_detectable_difference,
    pooled_sd,
    t_quantile,
)
from results.statistics.images import NewImages
from results.statistics.verdicts import Comparison, Judgement
from run_format import DONE, NOT_RUN

if TYPE_CHECKING:
    import pandas as pd


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
class Delta:
    """A difference of an arm to the arm ``against``, also over seeds and images; judgement: of its being 0."""

    against: str
    difference: Difference | None
    new_images: NewImages | None
    judgement: Judgement


@dataclass(frozen=True)
class ArmRow:
    """One arm in one task. values (seed → value) and interval are of finished runs; ``state`` is that of all others.

    ms_per_image: of training, the mean of the finished runs.
    against: the arm that ``difference`` and, over seeds and images, ``new_images`` are to; mcnemar: p of that test for
    a single pair of runs; judgement: of the difference being 0; control, control_images, control_judgement: the same of
    the difference to the table's control; together: differences in the table of all tasks, where there is one.
    """

    arm: str
    label: str
    model: str
    planned: int
    state: str
    params_m: float | None
    flops_g: float | None
    ms_per_image: float | None
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
    together: tuple[Delta, ...] = ()

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
class ContrastRow:
    """A contrast of arms. new_images: over seeds and images; p_holm: of its being 0, corrected over its table; papers:
    the numbers that one of the papers' tables prints for two arms."""

    label: str
    contrast: Contrast
    difference: Difference | None
    new_images: NewImages | None
    p_holm: float | None
    papers: tuple[papers.Number, papers.Number] | None = None

    @property
    def papers_decimals(self) -> int:
        return max(number.decimals for number in self.papers or ())

    @property
    def papers_difference(self) -> float | None:
        if self.papers is None or self.papers[0].value is None or self.papers[1].value is None:
            return None
        return round(self.papers[0].value - self.papers[1].value, self.papers_decimals)


@dataclass(frozen=True)
class TaskTable:
    """All arms of a sweep in one task. task: its name in the plan, empty in plans of one unnamed task; control: the
    specification's, where it is planned and not the baseline; tested: whether its differences are of the family of
    tests; further: the same task by each of its further metrics."""

    spec: Specification
    task: str
    downstream: bool
    protocol: str
    metric: Metric
    papers: Papers | None
    baseline: str
    control: str | None
    rows: tuple[ArmRow, ...]
    collected: Collected  # of this task alone
    warnings: tuple[str, ...]
    mixed: tuple[str, ...]
    changed: Mapping[str, Any]  # settings of the protocol that these runs changed
    repeats: Spread | None  # of one run measured again, on another day or processor
    contrasts: tuple[ContrastRow, ...] = ()
    tested: bool = True
    further: tuple[TaskTable, ...] = ()

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
    def tested(self) -> tuple[TaskTable, ...]:
        """The tables of main and further metrics whose differences are one family of tests."""
        return tuple(each for table in self.tables for each in (table, *table.further) if each.tested)

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


@dataclass(frozen=True)
class SweepResults:
    """The tables of one sweep's results, by name, with where they lie: run folders, or the measured ones ``label``."""

    name: str
    tables: Ablation
    folder: Path
    label: str | None


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
