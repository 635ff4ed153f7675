"""What a report shows, as frozen dataclasses; ``specification_files`` reads them from ``specs/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from errors import SuiteError, unknown

FIGURES = ("accuracy_flops", "forest", "reach", "examples", "learning_curves")  # of a sweep
PUBLISHED_FIGURES = ("circles",)  # of a published table
COMPLEXITY = "complexity"  # specs/complexity.yaml lists models to count; content.complexity reads it
# kinds of reports
SWEEP, PUBLISHED, OFFSETS, COLLECTION = "sweep", "published", "offsets", "collection"
PROFILE, FINDINGS = "profile", "findings"
SIDES = {"above": 1, "below": -1}


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
class FurtherMetric(Metric):
    """One more metric of a task, shown beside its main one.

    published: what the papers' tables call it, where they print it; protocol: the one that it is reported under, where
    not all; tested: whether its differences are of the family of tests; with_tasks: whether it stands in the table of
    all tasks, too.
    """

    published: str | None = None
    protocol: str | None = None
    tested: bool = False
    with_tasks: bool = False


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
    is the row's very model, so that sizes can be compared, or a model that shows the same effect; model: what a plan
    calls the row's model, where the papers call it otherwise.
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
    model: str | None = None


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
    """A metric of a published table; head and protocol where that prints it for several."""

    label: str
    metric: str
    head: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Contrast:
    """The arms of ``plus`` minus those of ``minus``, by seed: a difference that the report is to state and test.

    label: what it is, where that is more than ``first − second``. Two arms on either side are an interaction.
    tested: whether it is one of the family of tests; otherwise its interval alone is stated. task: the downstream task
    that it is of; without it, the sweep's own.
    """

    plus: tuple[str, ...]
    minus: tuple[str, ...]
    label: str = ""
    tested: bool = True
    task: str | None = None

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
    """How one task of a sweep is reported: its metric per protocol, the papers' numbers beside it, further metrics."""

    protocols: dict[str, Metric] = field(default_factory=dict)
    papers: Papers | None = None
    columns: tuple[FurtherMetric, ...] = ()


@dataclass(frozen=True)
class Specification:
    """A report of one sweep: its arms against its baseline and, in a column of its own, against its control.

    protocols, papers and columns (further metrics) are those of the sweep's own task; ``tasks`` has those of its
    downstream tasks, by name. contrasts: a table of differences for every task that has some.
    together: the arms that differences in the table of all tasks are to; without it, the baseline and the control.
    own_data: arms change the data, so that only those of the same data are compared.
    times: whether the time per training image stands beside parameters and FLOPs.
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
    columns: tuple[FurtherMetric, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    together: tuple[str, ...] = ()
    own_data: bool = False
    times: bool = False

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
        own = TaskReport() if downstream else TaskReport(self.protocols, self.papers, self.columns)
        return self.tasks.get(task, own)


@dataclass(frozen=True)
class PublishedTable:
    """A report of one of the papers' tables: every number in it, and ours beneath those that can be reproduced.

    models: those of the rows that this suite reproduces; a table without columns shows its figures alone.
    recipes: protocol of its numbers → the recipe whose settings they are, in a table of settings.
    """

    name: str
    title: str
    question: str
    source: str
    table: str
    columns: tuple[Column, ...] = ()
    models: tuple[str, ...] = ("xT", "T", "S", "B", "L")
    recipes: dict[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True)
class ProbeColumn:
    """A column of a profile: the metric that answers its question, its level by chance, and the mean from which on an
    arm counts as able."""

    label: str
    metric: str
    chance: float
    mark: float


@dataclass(frozen=True)
class ProfileRow:
    """An arm of a profile. mechanism: how it reads, a sentence."""

    label: str
    mechanism: str


@dataclass(frozen=True)
class ProfilePart:
    """Rows of a profile whose runs are of the same sweeps. sweeps: by probe; rows: by arm; own: whether a mixer of
    one's own stands among them."""

    label: str
    sweeps: dict[str, str]
    rows: dict[str, ProfileRow]
    own: bool = False


@dataclass(frozen=True)
class DistanceFigure:
    """Accuracy against distance of some arms of a sweep. name: of its file."""

    name: str
    sweep: str
    arms: tuple[str, ...]
    axis: str
    title: str


@dataclass(frozen=True)
class Profile:
    """A report that sets arms of several sweeps in rows and probes in columns.

    rates, others: what an arm is, in words, whose name is that of a row, ``_`` and this key: the same at another rate,
    which counts for what the row can do at its best, or otherwise changed, which does not.
    """

    name: str
    title: str
    question: str
    protocol: str
    probes: dict[str, ProbeColumn]
    parts: tuple[ProfilePart, ...]
    rates: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    distances: tuple[DistanceFigure, ...] = ()

    @property
    def sweeps(self) -> tuple[str, ...]:
        of_parts = (sweep for part in self.parts for sweep in part.sweeps.values())
        return tuple(dict.fromkeys([*of_parts, *(each.sweep for each in self.distances)]))


@dataclass(frozen=True)
class PrintedPair:
    """Two numbers of one of the papers' tables whose difference bears on a claim: ``row`` minus ``baseline``.

    label: the metric in words; side: above or below 0, where the papers say no more than that.
    """

    source: str
    table: str
    row: str
    baseline: str
    metric: str
    label: str
    head: str = "classification"
    protocol: str | None = None
    side: str = ""


@dataclass(frozen=True)
class Evidence:
    """What bears on a claim: a difference that the papers print, a contrast of the report of a sweep, or both.

    expected: on which side of 0 the contrast is if the claim holds, ``above`` or ``below``.
    """

    printed: PrintedPair | None = None
    sweep: str = ""
    protocol: str = ""
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    expected: str = ""

    def is_contrast(self, contrast: Contrast) -> bool:
        return contrast.tested and (contrast.plus, contrast.minus) == (self.plus, self.minus)


@dataclass(frozen=True)
class StatedClaim:
    """source: where it is made; limits: what the runs behind its evidence can and cannot tell."""

    claim: str
    source: str
    evidence: tuple[Evidence, ...]
    limits: str


@dataclass(frozen=True)
class Findings:
    """A report of claims and what has been found about each. plans: plans of analysis, files in ``docs/``."""

    name: str
    title: str
    lead: str
    claims: tuple[StatedClaim, ...]
    plans: tuple[str, ...] = ()

    @property
    def sweeps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.sweep for claim in self.claims for each in claim.evidence if each.sweep))

    def protocols(self, sweep: str) -> list[str]:
        """Those under which a sweep bears on a claim."""
        evidence = (each for claim in self.claims for each in claim.evidence)
        return list(dict.fromkeys(each.protocol for each in evidence if each.sweep == sweep))


Report = Specification | PublishedTable | LearnedOffsets | Collection | Profile | Findings
