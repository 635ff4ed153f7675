"""All tasks of a sweep in one table: an arm's metrics in one row, and below it its differences to other arms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from reports.content import ablation, remarks, words
from reports.content.page import Cell, Grid, Section
from reports.content.table import Ablation, ArmRow, Delta, TaskTable
from reports.content.values import NOTHING, JudgedDifference, PairedDifference, Printed, PrintedVerdict, Text, Value
from reports.specification import FurtherMetric
from results.papers import Contradiction
from results.statistics.estimates import LEVEL

DIFFERENT, NOT_RESOLVED, NOT_TESTED, NOT_JUDGED = "different", "not resolved", "not tested", "not judged"
PAPERS = "papers"


def sections(of_sweep: Ablation, section: Section) -> Iterator[Section]:
    """The section of a sweep of several tasks, with the table of all of them, then the table of each task.

    section: that of the sweep without a table. It lists the runs of all others.
    """
    tables = columns(of_sweep)
    letters = remarks.lettered(number for table in tables for row in table.rows for number in row.printed)
    yield replace(
        section,
        grid=grid(of_sweep, letters),
        legend=(*_legend(of_sweep), *section.legend),
        remarks=remarks.sentences(letters),
        records=tuple(records(of_sweep)),
    )
    for table in of_sweep.tables:
        letters = ablation.letters(table)
        yield Section(
            name=f"{section.name}-{table.task}",
            title=f"{table.metric.label}: {section.name}, {table.task}",
            grid=ablation.grid(table, letters),
            legend=(
                f"Read as the table of all tasks, {section.name}, whose p-values are corrected together with these.",
            ),
            places=tuple(words.places(of_sweep, [table])),
            remarks=remarks.sentences(letters),
            runs=tuple(run for run in section.runs if run.task == table.task),
            records=tuple(each for row in table.rows for each in ablation.records(table, row)),
            runs_in=section.name,
        )


def columns(of_sweep: Ablation) -> list[TaskTable]:
    """The main metric of each task, and those further ones that the specification sets beside them."""
    return [
        each
        for table in of_sweep.tables
        for each in (table, *table.further)
        if not isinstance(each.metric, FurtherMetric) or each.metric.with_tasks
    ]


def grid(of_sweep: Ablation, letters: Mapping[str, Contradiction]) -> Grid:
    """A group of rows per arm: results, differences to each arm that they are to, and what the papers print."""
    shown = columns(of_sweep)
    header = ("Arm", *ablation.SIZES, *(f"{each.metric.label} ({each.metric.unit})" for each in shown))
    groups = []
    for place, first in enumerate(of_sweep.first.rows):
        rows = [each.rows[place] for each in shown]
        means = [
            Cell(ablation.result(row, table.metric.decimals), ablation.arm_runs(table, row.arm))
            for table, row in zip(shown, rows)
        ]
        group = [(Cell(Text(first.label)), *ablation.sizes(first), *means)]
        blank = [Cell(Text("")) for _ in ablation.SIZES]
        for number, delta in enumerate(_shown(first)):
            cells = [_difference(table, row, row.together[number]) for table, row in zip(shown, rows)]
            group.append((Cell(Text(f"Δ to {of_sweep.first.label_of[delta.against]}")), *blank, *cells))
        if any(row.references for row in rows):
            group.append((Cell(Text(PAPERS)), *blank, *(_printed(row, letters) for row in rows)))
        groups.append(tuple(group))
    parts = tuple(range(len(header) - len(shown) + 1, len(header)))
    return Grid(header, "lrr" + "r" * len(shown), tuple(groups), parts)


def judged(table: TaskTable, delta: Delta) -> str:
    """Whether a difference was resolved from 0, in a word."""
    if not table.tested:
        return NOT_TESTED
    if delta.judgement.p_holm is None:
        return NOT_JUDGED
    return DIFFERENT if delta.judgement.p_holm < 1 - LEVEL else NOT_RESOLVED


def records(of_sweep: Ablation) -> Iterator[dict[str, Any]]:
    """A line per arm, metric and arm that the difference is to; one without a difference where there is none."""
    for table in columns(of_sweep):
        for row in table.rows:
            own = {
                "arm": row.arm,
                "label": row.label,
                "task": table.task,
                "protocol": table.protocol,
                "metric": table.metric.metric,
                "mean": row.mean,
                "sd": row.sd,
                "n": len(row.values),
                "planned": row.planned,
                "state": row.state,
            }
            for delta in _shown(row):
                yield own | _record(table, row, delta)
            if not _shown(row):
                yield own


def _shown(row: ArmRow) -> list[Delta]:
    """The differences of an arm; of two arms that differences are to, the second has that to the first alone."""
    return list(takewhile(lambda delta: delta.against != row.arm, row.together))


def _record(table: TaskTable, row: ArmRow, delta: Delta) -> dict[str, Any]:
    difference, images = delta.difference, delta.new_images
    papers = _papers(row, delta)
    return {
        "against": delta.against,
        "difference": difference.mean if difference else None,
        "low": difference.low if difference else None,
        "high": difference.high if difference else None,
        "pairs": difference.n if difference else 0,
        "new_images_low": images.low if images else None,
        "new_images_high": images.high if images else None,
        "p_holm": delta.judgement.p_holm,
        "resolved": judged(table, delta) if difference else "",
        "papers_difference": " / ".join(str(each.difference) for each in papers if each.difference is not None),
        "verdict": " / ".join(each.verdict.value for each in papers) if table.tested else "",
    }


def _difference(table: TaskTable, row: ArmRow, delta: Delta) -> Cell:
    if delta.difference is None:
        return Cell(NOTHING)
    papers = _papers(row, delta) if table.tested else ()
    own = PairedDifference(delta.difference, table.metric.decimals)
    value = JudgedDifference(own, judged(table, delta), delta.judgement.p_holm, papers)
    return Cell(value, (*ablation.arm_runs(table, row.arm), *ablation.arm_runs(table, delta.against)))


def _papers(row: ArmRow, delta: Delta) -> tuple[PrintedVerdict, ...]:
    """What the papers say of the same difference, equal ones of both editions once."""
    of_this = [each for each in row.compared if each.against == delta.against]
    return tuple(
        dict.fromkeys(
            PrintedVerdict(each.difference, each.number.decimals, each.place.side or "", each.judgement.verdict)
            for each in of_this
        )
    )


def _printed(row: ArmRow, letters: Mapping[str, Contradiction]) -> Cell:
    numbers = tuple(reference.number for reference in row.references)
    value: Value = Printed(numbers, with_models=True) if numbers else NOTHING
    return Cell(value, marks=remarks.marks(row.printed, letters))


def _legend(of_sweep: Ablation) -> Iterator[str]:
    others = [of_sweep.first.label_of[delta.against] for delta in of_sweep.first.rows[0].together]
    yield (
        f"A row per arm with its results in all tasks, and below it its differences to {words.listed(others)} by seed, "
        f"each with its {100 * LEVEL:.0f} % interval over seeds on these images. *{DIFFERENT}*: from 0 (p < "
        f"{1 - LEVEL:.2g}, corrected over all tasks). *{NOT_RESOLVED}*: it may be 0. *{NOT_JUDGED}*: no interval. "
        f"*{NOT_TESTED}*: a further metric outside the family of tests. Parameters and FLOPs are those of the first "
        "task. The table of each task is below; it has the intervals over new images, too."
    )
    if any(row.references for table in columns(of_sweep) for row in table.rows):
        yield (
            f"*{PAPERS}*: the number that they print, with its model; in a difference, theirs to the same arm and the "
            "verdict on it."
        )
