"""From a report and the results of its runs to the page that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from errors import SuiteError
from reports.content import ablation, all_tasks, contrasts, findings, profile, published, remarks
from reports.content.build_table import build, is_papers
from reports.content.page import Page, Section
from reports.content.reproduction import OtherProtocol, OurResults, PrintedPlace, Reproduction, RunPrices
from reports.content.table import Ablation, SweepResults
from reports.figures import draw_differences
from reports.offsets import gathered, interventions
from reports.specification import (
    Collection,
    Findings,
    LearnedOffsets,
    Profile,
    PublishedTable,
    Report,
    Specification,
    SpecificationError,
    TaskReport,
)
from reports.specification_files import load
from results.collect import Collected, Plan
from results.evaluations import JudgedFile, read_evaluations
from results.fingerprints import IsPresent, with_present_code

PLANS = Path(__file__).resolve().parents[2] / "docs"  # plans of analysis


@dataclass(frozen=True)
class Results:
    """The collected results of one sweep and protocol.

    folder: run folders or a measured folder; label: name of measured results; alias: the name of these results on a
    page where others have theirs; is_present: says whether runs are of the present code, where a page is to say so;
    prices: what its runs cost, where that is known.
    """

    spec: Specification
    collected: Collected
    plan: Plan
    folder: Path
    label: str | None = None
    alias: str | None = None
    is_present: IsPresent | None = None
    prices: RunPrices | None = None
    _ablations: dict[bool, Ablation] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.alias or self.label or f"{self.spec.name}-{self.plan['protocol']}"

    def ablation(self, mixed: bool = False) -> Ablation:
        """Its tables, which are built once. Raises SuiteError where specification and plan contradict each other, and
        for mixed code or data."""
        if mixed not in self._ablations:
            collected = self.collected
            if self.is_present is not None:
                collected = with_present_code(collected, self.plan, self.is_present)
            self._ablations[mixed] = build(self.spec, collected, self.plan, mixed=mixed)
        return self._ablations[mixed]


def page(
    report: str | Report, results: Sequence[Results], *, mixed: bool = False, date: str = "", figures: bool = True
) -> Page:
    """The page of a report, by its name or its specification, of those ``results`` that it shows.

    date: of the runs, where their finished times are not to be taken. Raises SuiteError as ``Results.ablation`` does
    for the report of one sweep; a page of several sweeps leaves out results that cannot be shown, and says so.
    """
    spec = load(report) if isinstance(report, str) else report
    if isinstance(spec, Profile | Findings):
        results = [each for each in results if each.plan["sweep"] in spec.sweeps]
    ablations: list[tuple[Results, Ablation]] = []
    left_out: dict[str, tuple[Results, str]] = {}
    for each in results:
        try:
            ablations.append((each, each.ablation(mixed)))
        except SuiteError as error:
            if isinstance(spec, Specification):
                raise
            left_out[each.name] = (each, f"{each.name} is left out: {error}.")
    specs = [load(name) for name in spec.reports] if isinstance(spec, Collection) else [spec]
    reports = tuple(each.name for each in specs)
    beside_papers = any(isinstance(each, PublishedTable) for each in specs)
    evaluations, unreadable = _evaluations(ablations) if beside_papers else ([], [])
    ours = _ours(ablations, [each for each, _ in left_out.values()], evaluations)
    shown = _Shown(ablations, ours, mixed, date, figures, reports)
    sections = [section for each in specs for section in _sections(each, shown)]
    sentences = (*(sentence for _, sentence in left_out.values()), *unreadable)
    if isinstance(spec, Collection):
        titles = {each.name: f"{each.spec.title}: {each.name}" for each in results}  # a sweep may have several sections
        sections = [replace(section, title=titles.get(section.name, section.title)) for section in sections]
        if figures and spec.differences:
            sections = [*_differences(spec, ablations), *sections]
        if spec.statements:
            sections.append(remarks.statements(spec.statements))
        return Page(spec.name, spec.title, tuple(sections), " ".join(spec.lead.split()), sentences)
    if isinstance(spec, Findings):
        return Page(spec.name, spec.title, tuple(sections), spec.lead, sentences)
    # beside the table of one sweep, a page may have that of its interventions
    alone = len(sections) == 1 or [each.spec.name for each, _ in ablations] == [spec.name]
    name, title = (sections[0].name, sections[0].title) if alone else (spec.name, spec.title)
    return Page(name, title, tuple(sections), left_out=sentences)


@dataclass(frozen=True)
class _Shown:
    """What the sections of a page are made from. ours: what stands beside the papers' numbers; reports: names of all
    reports on the page."""

    ablations: Sequence[tuple[Results, Ablation]]
    ours: OurResults
    mixed: bool
    date: str
    figures: bool
    reports: tuple[str, ...]

    def of_sweeps(self) -> list[SweepResults]:
        return [SweepResults(each.name, tables, each.folder, each.label) for each, tables in self.ablations]


def _evaluations(ablations: Iterable[tuple[Results, Ablation]]) -> tuple[list[JudgedFile], list[str]]:
    """What ``evaluate=`` found beside the run folders, and a line about each evaluation that cannot be read."""
    found = [
        read_evaluations(folder) for folder in dict.fromkeys(each.folder for each, _ in ablations if not each.label)
    ]
    return [each for judged, _ in found for each in judged], [line for _, lines in found for line in lines]


def _ours(
    ablations: Sequence[tuple[Results, Ablation]], left_out: Iterable[Results], evaluations: Sequence[JudgedFile]
) -> OurResults:
    """What stands beside the papers' numbers. left_out: results that cannot be shown."""
    reproductions = [
        Reproduction(
            table, each.folder, each.label, ablation.configs(results, each.plan), each.prices,
            dict(zip(results.runs["run"], results.runs["state"])),
            {entry["run"]: entry["parent"] for entry in each.plan["runs"] if entry.get("parent")},
        )
        for each, results in ablations
        for main in results.tables
        for table in (main, *main.further)
        if table.is_papers_protocol
    ]  # fmt: skip
    return OurResults(reproductions, _left_out(left_out), _elsewhere(ablations), evaluations)


def _places(spec: Specification) -> Iterator[tuple[str, str, TaskReport, PrintedPlace]]:
    """Arm, task (empty: the sweep's own) and place of every number that is printed for a sweep's very models."""
    own = TaskReport(spec.protocols, spec.papers, spec.columns)
    for name, task in {"": own, **spec.tasks}.items():
        further = [column.published for column in task.columns if column.published]
        for metric in [task.papers.metric, *further] if task.papers else []:
            for arm, described in spec.arms.items():
                for place in described.published:
                    if place.same_model and (place.task or name) == name:
                        yield arm, name, task, (place.source, place.table, place.row, metric)


def _left_out(left_out: Iterable[Results]) -> dict[PrintedPlace, str]:
    """The published numbers that results would have stood beside, had they not been left out."""
    return {
        place: each.name
        for each in left_out
        for _, _, task, place in _places(each.spec)
        if is_papers(task.papers, each.plan)
    }


def _elsewhere(
    ablations: Iterable[tuple[Results, Ablation]],
) -> dict[PrintedPlace, tuple[OtherProtocol, ...]]:
    """The published numbers whose arms have results under another protocol than the papers', and those results.

    Where a protocol has none of the papers' arms, the arms that it has stand in their place. A downstream task is
    taken to be that of another protocol which is judged by the same metric.
    """
    found: dict[PrintedPlace, list[OtherProtocol]] = {}
    for each, ablation_of in ablations:
        arms = {row.arm for row in ablation_of.first.rows}
        protocol = each.plan["protocol"] + ", changed" * bool(each.plan.get("changed"))
        for arm, task_name, task, place in _places(each.spec):
            papers = task.papers
            if papers is None or is_papers(papers, each.plan):
                continue
            tables = [ablation_of.first]
            if task_name:
                metric = task.protocols[papers.protocol].metric
                tables = [table for table in ablation_of.tables[1:] if table.metric.metric == metric]
            rows = [row for table in tables for row in table.rows if row.values]
            instead = () if arms & each.spec.arms.keys() else tuple(dict.fromkeys(row.label for row in rows))
            if instead or any(row.arm == arm for row in rows):
                other = OtherProtocol(protocol, each.name, instead)
                of_place = found.setdefault(place, [])
                if other not in of_place:
                    of_place.append(other)
    return {place: tuple(sorted(others, key=astuple)) for place, others in found.items()}


def _differences(spec: Collection, ablations: Sequence[tuple[Results, Ablation]]) -> list[Section]:
    """One picture of every difference on the page, where there is any."""
    tables = [table for each, ablation in ablations if each.spec.name in spec.reports for table in ablation.tables]
    drawing = draw_differences(tables)
    return [] if drawing is None else [Section("differences", spec.differences, drawings=(drawing,))]


def _sections(spec: Report, shown: _Shown) -> list[Section]:
    if isinstance(spec, Collection):
        raise SpecificationError(f"report {spec.name} is a collection itself, and cannot be part of another")
    if isinstance(spec, Profile):
        return [profile.section(spec, shown.of_sweeps(), figures=shown.figures)]
    if isinstance(spec, Findings):
        return list(findings.sections(spec, shown.of_sweeps(), PLANS, figures=shown.figures))
    if isinstance(spec, PublishedTable):
        return [published.section(spec, shown.ours, figures=shown.figures)]
    if isinstance(spec, LearnedOffsets):
        of_folders = [each for each, _ in shown.ablations if each.spec.sweep in spec.sweeps and not each.label]
        sweeps = {each.name: (each.plan, each.folder) for each in of_folders}
        # a page that has the report of the sweep shows its interventions there
        collected = {each.name: each.collected for each in of_folders if each.spec.name not in shown.reports}
        return list(gathered.sections(spec, sweeps, collected, mixed=shown.mixed, figures=shown.figures))
    of_sweep = ((each, results) for each, results in shown.ablations if each.spec.name == spec.name)
    return [section for each, results in of_sweep for section in _of_results(each, results, shown)]


def _of_results(each: Results, results: Ablation, shown: _Shown) -> Iterator[Section]:
    """The table of a sweep and, where there are any, those of its tasks, of its contrasts and of the interventions on
    its runs."""
    section = ablation.section(
        results, each.plan,
        name=each.name, folder=each.folder, label=each.label, date=shown.date, figures=shown.figures,
    )  # fmt: skip
    further = (
        *(all_tasks.sections(results, section) if results.several else (section,)),
        *(contrasts.section(table, each.name) for table in results.tables),
        interventions.of_results(each.name, each.collected, each.plan, mixed=shown.mixed),
    )
    yield from (section for section in further if section is not None)
