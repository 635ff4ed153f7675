"""Our counterpart of a printed number: a count, a mean over seeds with its verdict, or the state of the runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from reports.content import complexity
from reports.content.table import ArmRow, TaskTable
from reports.content.values import WAITING, Count, NotRun, Numeral, Reproduced, SeedMean, Setting, State, Value
from reports.specification import SpecificationError
from results import papers, recipes
from results.evaluations import JudgedFile
from results.papers import Number
from results.statistics.estimates import Interval, mean_interval
from results.statistics.verdicts import Comparison, Verdict, judge
from run_format import DONE, NOT_RUN

RELEASED_WITH, RELEASED_MODELS = "AAAI", "ATMNet-"  # the paper of the authors' checkpoints, and its names of them
OF_VIEWS = "_ms"  # at the end of metrics that are measured in several views
VIEWS = {"segment.test_scales", "segment.test_flip"}  # settings that say which
PrintedPlace = tuple[str, str, str, str]  # source, table, row, metric
NOT_COUNTED = "not counted"


@dataclass(frozen=True)
class RunPrices:
    """What the runs of a sweep cost: device-hours by run id, as far as they are known, and their unit."""

    hours: Mapping[str, float]
    unit: str  # with the hardware: ``GPU-hours on NVIDIA H200``


@dataclass(frozen=True)
class OtherProtocol:
    """Results of an arm under another protocol than the papers'. name: of the results, under which a page has them;
    instead: the arms that stand there in the place of all arms of the papers' protocol."""

    protocol: str
    name: str
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """A sweep's table of one task on the papers' protocol, and where its runs lie (see ``ablation.section``).

    states: run id → its state, and parents: run id → the run it starts from, of all tasks of the sweep.
    """

    table: TaskTable
    folder: Path
    label: str | None = None
    configs: Mapping[str, str] = field(default_factory=dict)  # label of an arm → its settings
    prices: RunPrices | None = None
    states: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)

    def runs(self, arm: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.table.runs[self.table.runs["arm"] == arm]["run"]))

    def hours(self, arm: str) -> float | None:
        """Of an arm's runs that are not done, with those that they start from; None where one has no price."""
        left: dict[str, None] = {}
        for run in self.runs(arm):
            while run and self.states.get(run) != DONE:
                left.setdefault(run)
                run = self.parents.get(run, "")
        known = self.prices.hours if self.prices else {}
        return sum(known[run] for run in left) if left and left.keys() <= known.keys() else None


@dataclass(frozen=True)
class OurResults:
    """What is looked through for the counterparts of printed numbers.

    left_out: places whose results exist and cannot be shown → the name of those results; elsewhere: places whose arm
    has results under other protocols → which; evaluations: what ``evaluate=`` found.
    """

    reproductions: Sequence[Reproduction] = ()
    left_out: Mapping[PrintedPlace, str] = field(default_factory=dict)
    elsewhere: Mapping[PrintedPlace, tuple[OtherProtocol, ...]] = field(default_factory=dict)
    evaluations: Sequence[JudgedFile] = ()


@dataclass(frozen=True)
class Counterpart:
    """What we set beneath one printed number. setting: of a recipe; left_out: name of results that exist but cannot be
    shown; elsewhere: results of the same arm under other protocols."""

    number: Number
    counted: float | None = None
    setting: str | None = None
    source: Reproduction | None = None
    row: ArmRow | None = None
    left_out: str = ""
    elsewhere: tuple[OtherProtocol, ...] = ()
    verdict: Verdict = Verdict.NO_NUMBER

    @property
    def interval(self) -> Interval | None:
        return self.row.interval if self.row else None

    @property
    def runs(self) -> tuple[str, ...]:
        return self.source.runs(self.row.arm) if self.source and self.row else ()

    @property
    def decimals(self) -> int:
        """Of our mean: at least two, and as many as were printed."""
        return max(2, self.number.decimals)

    @property
    def agrees(self) -> bool:
        """Whether a count rounds to the printed number."""
        return (
            self.counted is not None
            and self.number.value is not None
            and complexity.rounds_to(self.counted, self.number)
        )

    @property
    def equal(self) -> bool:
        """Whether a setting is the printed one."""
        if self.setting is None or self.number.value is None:
            return self.setting == self.number.note
        return float(self.setting) == self.number.value

    @property
    def state(self) -> str:
        """The state of the runs, where there is no count."""
        if self.left_out:
            return f"left out: {self.left_out}"
        if self.row is not None:
            return self.row.state
        return NOT_COUNTED if self.number.metric in complexity.METRICS else NOT_RUN

    @property
    def hours(self) -> float | None:
        """What the runs cost, where none has begun and their price is known."""
        if self.state != NOT_RUN or self.source is None or self.row is None:
            return None
        return self.source.hours(self.row.arm)

    @property
    def judgement(self) -> str:
        """The verdict in a word."""
        if self.setting is not None:
            return "equal" if self.equal else "different"
        if self.counted is not None:
            return "agrees" if self.agrees else "differs"
        return self.verdict.value if self.interval else WAITING

    def value(self) -> Value:
        if self.setting is not None:
            return Setting(self.setting if self.number.value is None else _numeral(self.setting), self.equal)
        if self.counted is not None:
            return replace(count(self.counted), agrees=self.agrees)
        if self.interval is None or self.row is None:
            if self.state != NOT_RUN:
                return State(self.state)
            return NotRun(self.hours, tuple(dict.fromkeys(each.protocol for each in self.elsewhere)))
        to_printed = None if self.number.value is None else self.interval.mean - self.number.value
        return Reproduced(SeedMean(self.interval, self.row.planned, self.decimals), to_printed, self.verdict)


def counterparts(numbers: Iterable[Number], ours: OurResults) -> dict[Number, Counterpart]:
    """The counterparts of a table's numbers, with verdicts on the means, corrected over the whole table."""
    unjudged = [counterpart(number, ours) for number in numbers]
    judgements = judge([
        Comparison(
            each.interval, each.number.value, True, 0.5 * 10.0**-each.number.decimals, papers.margin(each.number.metric)
        )
        for each in unjudged
    ])  # fmt: skip
    return {each.number: replace(each, verdict=j.verdict) for each, j in zip(unjudged, judgements)}


def settings(numbers: Iterable[Number], of_protocol: Mapping[str, str]) -> dict[Number, Counterpart]:
    """The settings of our recipes beneath printed ones. of_protocol: protocol of a number → recipe.

    Raises SpecificationError for one whose recipe has no such setting.
    """
    known = recipes.load()
    ours = {}
    for number in numbers:
        key = (of_protocol.get(number.protocol, ""), number.model.lower(), number.metric)
        if key not in known:
            raise SpecificationError(f"{number.place}, {number.metric}: {recipes.RECIPES.name} has no {', '.join(key)}")
        ours[number] = Counterpart(number, setting=known[key])
    return ours


def counterpart(number: Number, ours: OurResults) -> Counterpart:
    """What was counted for a number, or the runs of an arm that names its place and is of its model, not judged yet.

    Of several arms, the one with most finished seeds. A number of several views is found in the evaluations of the runs
    that stand for the number of one view beside it.
    """
    place = (number.source, number.table, number.row, number.head)
    counted = complexity.counted_at().get((place, number.metric))
    if counted is not None:
        return Counterpart(number, counted)
    candidates = [
        Counterpart(number, source=source, row=row, elsewhere=ours.elsewhere.get(printed_place(number), ()))
        for source in ours.reproductions
        for row in source.table.rows
        if any(reference.number == number and reference.same_model for reference in row.references)
    ]
    if not candidates and number.metric.endswith(OF_VIEWS):
        candidates = [
            found
            for each in papers.numbers(number.source, number.table)
            if (each.row, each.head, each.protocol) == (number.row, number.head, number.protocol)
            and each.metric == number.metric.removesuffix(OF_VIEWS)
            for found in _of_views(number, counterpart(each, ours), ours.evaluations)
        ]
    left_out = ours.left_out.get(printed_place(number), "")
    missing = Counterpart(number, left_out=left_out, elsewhere=ours.elsewhere.get(printed_place(number), ()))
    return max(candidates, key=lambda each: each.interval.n if each.interval else 0, default=missing)


def printed_place(number: Number) -> PrintedPlace:
    return number.source, number.table, number.row, number.metric


def _numeral(setting: str) -> Numeral:
    """A setting as a number with all its decimals: 5e-06 is 0.000005."""
    exponent = Decimal(setting).normalize().as_tuple().exponent
    return Numeral(float(setting), max(0, -int(exponent)))


def released(numbers: Iterable[Number], evaluations: Sequence[JudgedFile]) -> dict[Number, JudgedFile]:
    """Printed top-1 accuracies of the authors' own models, and what their released weights were judged to be worth.

    Of several evaluations of a model at the row's image size, that of most images, or else the latest.
    """
    judged = {}
    for number in numbers:
        if number.metric != "top1" or number.source != RELEASED_WITH or not number.row.startswith(RELEASED_MODELS):
            continue
        fitting = [
            each
            for each in evaluations
            if each.released
            and (each.dataset, each.protocol) == ("imagenet", "paper")
            and each.model == number.model.lower()
            and each.size == _size_of_row(number)
            and "top1" in each.metrics
        ]
        if fitting:
            judged[number] = max(reversed(fitting), key=lambda each: each.images)
    return judged


def _size_of_row(number: Number) -> tuple[int, int] | None:
    """The image size that the number's row prints FLOPs for."""
    sizes = (
        re.fullmatch(r"(\d+)x(\d+)", each.protocol)
        for each in papers.numbers(number.source, number.table)
        if each.row == number.row and each.metric == "flops_g"
    )
    found = next((match for match in sizes if match), None)
    return (int(found[1]), int(found[2])) if found else None


def _of_views(number: Number, single: Counterpart, evaluations: Sequence[JudgedFile]) -> list[Counterpart]:
    """The runs that stand for a number of one view, with what ``evaluate=`` found of them in several views."""
    if single.source is None or single.row is None:
        return []
    of_runs = {
        each.of: each.metrics[number.metric]
        for each in evaluations
        if number.metric in each.metrics and set(each.changed) <= VIEWS
    }
    runs = single.source.table.runs
    runs = runs[runs["arm"] == single.row.arm]
    values = {int(seed): of_runs[run] for run, seed in zip(runs["run"], runs["seed"]) if run in of_runs}
    if not values:
        return []
    return [replace(single, number=number, row=replace(single.row, values=values, interval=mean_interval(values)))]


def count(value: float) -> Count:
    """Whole numbers without decimals, others with three."""
    return Count(value, 0 if value == int(value) else 3)
