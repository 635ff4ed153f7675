"""The page of findings: for every claim the papers' number, ours, and a verdict that a rule derives from both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.content import ablation, contrasts, words
from reports.content.page import Cell, Grid, RunLine, Section
from reports.content.table import ContrastRow, SweepResults, TaskTable
from reports.content.values import NOTHING, PairedDifference, PrintedDifference, PValue, Text, Value
from reports.figures import draw_findings
from reports.specification import SIDES, Evidence, Findings, PrintedPair, SpecificationError, StatedClaim
from reports.specification_files import arm_labels, of_sweep
from results import fingerprints, papers
from results.statistics.estimates import LEVEL
from run_format import DONE, EXCLUDED, FAILED, NOT_RUN

AS_CLAIMED, OPPOSITE, NO_DIFFERENCE = "as claimed", "opposite", "no difference"
NOT_JUDGED, NOT_MEASURED = "not judged", "not measured"
ENDED = (DONE, FAILED, EXCLUDED)  # states of runs that nothing is to be expected of any more


@dataclass(frozen=True)
class JudgedEvidence:
    """A claim's evidence and what has been found: the contrast in the results of its sweep. Without results, none.

    n, planned: pairs of runs that are finished and that are planned.
    """

    claim: StatedClaim
    evidence: Evidence
    results: SweepResults | None = None
    table: TaskTable | None = None
    row: ContrastRow | None = None

    @property
    def n(self) -> int:
        return self.row.difference.n if self.row and self.row.difference else 0

    @property
    def planned(self) -> int:
        if self.table is None or self.row is None:
            return 0
        arms = self.row.contrast.arms
        return min(row.planned for row in self.table.rows if row.arm in arms)

    @property
    def label(self) -> str:
        """What is compared: in the words of the sweep's report, or of its file where there are no results."""
        if self.row is not None:
            return self.row.label
        labels = arm_labels(self.evidence.sweep)
        sides = (self.evidence.plus, self.evidence.minus)
        return " − ".join(" + ".join(labels.get(arm, arm) for arm in side) for side in sides)

    @property
    def verdict(self) -> str:
        """By rule, from the contrast's own test, which is corrected over the contrasts of its sweep's report.

        *as claimed* and *opposite*: different from 0, on the side of the claim or on the other. *no difference*: not
        different, and equivalent within the margin. No verdict before every planned pair of runs has finished, nor
        before the others of the sweep have ended, whose tests are corrected together with this one.
        """
        if not self.evidence.sweep:
            return NOT_MEASURED
        if self.row is None or self.table is None or self.results is None or not self.n:
            return NOT_RUN
        if self.n < self.planned:
            return f"{self.n} of {self.planned} seeds"
        states = self.results.tables.runs["state"]
        if (ended := int(states.isin(ENDED).sum())) < len(states):
            return f"{ended} of {len(states)} runs of the sweep"
        judged = contrasts.judged(self.table, self.row).split(", ")
        margin = self.table.metric.margin
        within = f"within ±{margin:g}" if margin is not None else ""
        if contrasts.DIFFERENT in judged:
            assert self.row.difference is not None
            same = self.row.difference.mean * SIDES[self.evidence.expected] > 0
            verdict = AS_CLAIMED if same else OPPOSITE
            return f"{verdict}, {within}" if contrasts.EQUIVALENT in judged else verdict
        if contrasts.EQUIVALENT in judged:
            return f"{NO_DIFFERENCE}, {within}"
        return contrasts.NOT_RESOLVED if contrasts.NOT_RESOLVED in judged else NOT_JUDGED


def sections(
    spec: Findings, results: Sequence[SweepResults], plans: Path, *, figures: bool = True
) -> Iterator[Section]:
    """The table of findings, and what the scale of each can tell. plans: the folder that plans of analysis lie in."""
    found = list(_find(spec, results))
    used = list({id(each.results): each.results for each in found if each.results}.values())
    yield Section(
        name=spec.name,
        title=spec.title,
        about=" ".join(_about(used)),
        cautions=tuple(dict.fromkeys(line for each in used for line in (*each.tables.mixed, *each.tables.left_out))),
        grid=_grid(found),
        legend=tuple(_legend(spec, plans)),
        drawings=tuple(draw_findings(found) if figures else ()),
        runs=tuple(_runs(found)),
        records=tuple(_record(each) for each in found),
    )
    rows = [((Cell(Text(claim.claim)), Cell(Text(claim.limits))),) for claim in spec.claims]
    yield Section(
        name=f"{spec.name}-scale",
        title="What the scale can and cannot tell",
        grid=Grid(("Claim", "What these runs can and cannot tell"), "ll", tuple(rows)),
        runs_in=spec.name,
    )


def _find(spec: Findings, results: Sequence[SweepResults]) -> Iterator[JudgedEvidence]:
    """Evidence in the order of the specification. Of several results of a sweep, those with most finished runs."""
    for claim in spec.claims:
        for evidence in claim.evidence:
            report = of_sweep(evidence.sweep) if evidence.sweep else None
            of_this = [
                each
                for each in results
                if report and each.tables.spec.name == report.name
                and each.tables.first.protocol == evidence.protocol and not each.tables.first.changed
            ]  # fmt: skip
            best = max(of_this, key=lambda each: int((each.tables.runs["state"] == DONE).sum()), default=None)
            yield next(_contrasts(claim, evidence, best), JudgedEvidence(claim, evidence))


def _contrasts(claim: StatedClaim, evidence: Evidence, results: SweepResults | None) -> Iterator[JudgedEvidence]:
    for table in results.tables.tables if results else ():
        for row in table.contrasts:
            if evidence.is_contrast(row.contrast):
                yield JudgedEvidence(claim, evidence, results, table, row)


def _about(used: Iterable[SweepResults]) -> Iterator[str]:
    for each in used:
        runs = each.tables.runs
        done = runs[runs["state"] == DONE]
        yield f"{each.name}: {len(done)} of {len(runs)} runs have finished."
        if len(done):
            yield from words.measured_by(done)


def _grid(found: Sequence[JudgedEvidence]) -> Grid:
    header = ("Claim", "Papers' Δ", "Here", "Results", "Δ, points [95 % over seeds]", "p (Holm)", "Verdict")
    groups: dict[str, list[tuple[Cell, ...]]] = {}
    for each in found:
        group = groups.setdefault(each.claim.claim, [])
        claim = f"{each.claim.claim} ({each.claim.source})" if not group else ""
        group.append((
            Cell(Text(claim)),
            Cell(_printed(each.evidence.printed)),
            Cell(Text(each.label) if each.evidence.sweep else NOTHING),
            Cell(Text(_place(each)) if each.evidence.sweep else NOTHING),
            Cell(_difference(each), tuple(run.id for run in _runs_of(each))),
            Cell(PValue(each.row.p_holm) if each.row and each.row.p_holm is not None else NOTHING),
            Cell(Text(each.verdict)),
        ))  # fmt: skip
    return Grid(header, "lrllrrl", tuple(map(tuple, groups.values())))


def _place(found: JudgedEvidence) -> str:
    if found.results is None or found.table is None:
        return f"{found.evidence.sweep}, protocol {found.evidence.protocol}"
    return f"{found.results.name}, {found.table.metric.label}"


def _difference(found: JudgedEvidence) -> Value:
    if found.row is None or found.row.difference is None or found.table is None:
        return NOTHING
    return PairedDifference(found.row.difference, found.table.metric.decimals)


def _printed(pair: PrintedPair | None) -> Value:
    if pair is None:
        return NOTHING
    difference = _printed_difference(pair)
    if difference is None:
        return PrintedDifference(None, 0, side=pair.side, of=pair.label)
    return PrintedDifference(difference, _decimals(pair), of=pair.label)


def printed_numbers(pair: PrintedPair) -> tuple[papers.Number, papers.Number]:
    """The number of the row and that of its baseline. Raises PublishedError where the papers have no such number."""
    first, second = (
        papers.number(pair.source, pair.table, row, pair.metric, pair.head, pair.protocol)
        for row in (pair.row, pair.baseline)
    )
    return first, second


def _legend(spec: Findings, plans: Path) -> Iterator[str]:
    yield (
        f"Verdicts follow from our numbers. *{AS_CLAIMED}*, *{OPPOSITE}*: the difference is not 0 (p below "
        f"{1 - LEVEL:.2f} after Holm's correction over the contrasts of its sweep's report), on the side that the "
        f"claim says or on the other. *{NO_DIFFERENCE}*: not so, and it lies within the margin of that report. "
        f"*{contrasts.NOT_RESOLVED}*: neither, which does not show that there is none. *{NOT_JUDGED}*: one pair of "
        "runs. There is no verdict before the last planned run of the sweep has ended, and none is about the papers' "
        "own trainings."
    )
    for name in spec.plans:
        yield f"Plan of analysis: docs/{name}.md, made before its first run. Amendments: {_amendments(plans, name)}"


def _amendments(plans: Path, name: str) -> str:
    """What a plan of analysis lists as changed since, on one line."""
    _, heading, after = (plans / f"{name}.md").read_text(encoding="utf-8").partition("\n## Amendments\n")
    if not heading:
        raise SpecificationError(f"docs/{name}.md is no plan of analysis: it has no section Amendments")
    return " ".join(after.partition("\n## ")[0].split())


def _runs_of(found: JudgedEvidence) -> Iterator[RunLine]:
    """The runs behind a difference."""
    if found.table is None or found.row is None or found.results is None:
        return
    for run in found.table.runs.to_dict("records"):
        if run["arm"] in found.row.contrast.arms:
            where = ablation.origin(found.table, run["run"], found.results.folder, found.results.label)
            arm = found.table.label_of[run["arm"]]
            yield ablation.run_line(arm, run, found.table.metric.metric, *where, task=found.results.name)


def _runs(found: Iterable[JudgedEvidence]) -> Iterator[RunLine]:
    lines: Mapping[str, RunLine] = {run.id: run for each in found for run in _runs_of(each)}
    yield from lines.values()


def _printed_difference(pair: PrintedPair) -> float | None:
    """None where the papers say only on which side it is."""
    first, second = printed_numbers(pair)
    if first.value is None or second.value is None:
        return None
    return round(first.value - second.value, _decimals(pair))


def _decimals(pair: PrintedPair) -> int:
    return max(number.decimals for number in printed_numbers(pair))


def _record(found: JudgedEvidence) -> dict[str, Any]:
    difference = found.row.difference if found.row else None
    printed = found.evidence.printed
    runs = (
        found.table.runs[found.table.runs["arm"].isin(found.row.contrast.arms)] if found.table and found.row else None
    )
    return {
        "claim": found.claim.claim,
        "papers": f"{printed.source} {printed.table}, {printed.row} − {printed.baseline}, {printed.label}"
        if printed
        else "",
        "papers_difference": _printed_difference(printed) if printed else None,
        "papers_side": printed.side if printed else "",
        "sweep": found.evidence.sweep,
        "protocol": found.evidence.protocol if found.evidence.sweep else "",
        "results": found.results.name if found.results else "",
        "metric": found.table.metric.metric if found.table else "",
        "plus": " ".join(found.evidence.plus),
        "minus": " ".join(found.evidence.minus),
        "expected": found.evidence.expected if found.evidence.sweep else "",
        "pairs": found.n,
        "planned": found.planned,
        "difference": round(difference.mean, 4) if difference else None,
        "low": round(difference.low, 4) if difference and difference.low is not None else None,
        "high": round(difference.high, 4) if difference and difference.high is not None else None,
        "p_holm": found.row.p_holm if found.row else None,
        "verdict": found.verdict,
        fingerprints.PRESENT_CODE: fingerprints.present_code(runs) if runs is not None else None,
    }
