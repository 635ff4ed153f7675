"""The section of one of the papers' tables: every printed number, and ours beneath those that can be reproduced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from reports.content import ablation, complexity, remarks, reproduction, verdict_words, words
from reports.content.page import Cell, Grid, MacroName, RunLine, Section
from reports.content.reproduction import (
    Counterpart,
    OtherProtocol,
    OurResults,
    Reproduction,
    count,
    counterpart,
    counterparts,
    released,
)
from reports.content.table import ArmRow
from reports.content.values import NOTHING, Count, JudgedOnce, Printed, Text, Value
from reports.figures import Drawing, draw_published
from reports.specification import Column, PublishedTable, SpecificationError
from results import fingerprints, papers
from results.evaluations import JudgedFile
from results.papers import Contradiction, Number
from results.statistics.estimates import LEVEL
from run_format import DONE, NOT_RUN

OURS, RELEASED, EMPTY = Text("ours", tone="ours"), Text("released weights", tone="ours"), Text("")
DIFFERENCE = "_difference"  # behind the name of a metric that a table prints as a gain over another row


@dataclass(frozen=True)
class PrintedLine:
    """One printed row: its numbers by column, None where nothing is printed, and the gains printed beside them."""

    label: str
    head: str
    numbers: tuple[Number | None, ...]
    gains: tuple[Number | None, ...]
    repeatable: bool


def section(spec: PublishedTable, results: OurResults, *, figures: bool = True) -> Section:
    """Sets a published table; ``results`` are searched for the arms that stand for its rows.

    Raises SpecificationError for a column that the table does not have.
    """
    lines = _lines(spec)
    letters = remarks.lettered(n for line in lines for n in (*line.numbers, *line.gains) if n is not None)
    repeatable = [number for line in lines if line.repeatable for number in line.numbers if number]
    settings = reproduction.settings(repeatable, spec.recipes) if spec.recipes else None
    ours = settings or counterparts(repeatable, results)
    judged = released(repeatable, results.evaluations)
    heads = len({line.head for line in lines}) > 1
    sources = _sources(ours)
    drawings, problems = _drawings(spec, results) if figures else ((), ())
    return Section(
        name=spec.name,
        title=spec.title,
        question=spec.question,
        about=" ".join(_about(sources)),
        cautions=tuple(_cautions(sources)),
        grid=_grid(spec, lines, ours, judged, letters, heads) if spec.columns else None,
        legend=(*_legend(spec, ours), *_legend_of_released(judged)) if spec.columns else (),
        places=tuple(_notes(spec, lines)),
        remarks=remarks.sentences(letters),
        drawings=tuple(drawings),
        runs=tuple(_run_lines(sources)),
        configs={row.label: source.configs[row.label] for source, row in sources if row.label in source.configs},
        macros=tuple(_macros(spec, lines, ours)),
        records=tuple(_records(spec, lines, ours)),
        warnings=tuple(problems),
    )


def _drawings(spec: PublishedTable, results: OurResults) -> tuple[Sequence[Drawing], Sequence[str]]:
    numbers = papers.numbers(spec.source, spec.table)
    means = {
        number: interval
        for number in numbers
        if number.model in spec.models and (interval := counterpart(number, results).interval) is not None
    }
    return draw_published(spec, numbers, means)


def _lines(spec: PublishedTable) -> list[PrintedLine]:
    """The table's rows in the order of print. A row stands once for each head, unless columns choose heads."""
    printed = papers.numbers(spec.source, spec.table)
    heads_apart = all(column.head is None for column in spec.columns)
    keys = dict.fromkeys((n.row, n.head if heads_apart else "") for n in printed)
    lines = []
    for label, head in keys:
        of_row = [n for n in printed if n.row == label and head in ("", n.head)]
        numbers = tuple(_chosen(of_row, column, column.metric) for column in spec.columns)
        gains = tuple(_chosen(of_row, column, column.metric + DIFFERENCE) for column in spec.columns)
        lines.append(PrintedLine(label, head, numbers, gains, of_row[0].model in spec.models))
    for column, numbers in zip(spec.columns, zip(*(line.numbers for line in lines))):
        if not any(numbers):
            raise SpecificationError(f"report {spec.name}: {spec.source} {spec.table} has nothing in {column.label!r}")
    return lines


def _chosen(numbers: Sequence[Number], column: Column, metric: str) -> Number | None:
    chosen = [
        n
        for n in numbers
        if n.metric == metric and column.head in (None, n.head) and column.protocol in (None, n.protocol)
    ]
    if len(chosen) > 1:
        protocols = "; ".join(n.protocol for n in chosen)
        raise SpecificationError(
            f"column {column.label!r}: {chosen[0].place} prints {metric} several times; which protocol? ({protocols})"
        )
    return chosen[0] if chosen else None


def _grid(
    spec: PublishedTable,
    lines: Sequence[PrintedLine],
    ours: Mapping[Number, Counterpart],
    judged: Mapping[Number, JudgedFile],
    letters: Mapping[str, Contradiction],
    heads: bool,
) -> Grid:
    """Printed rows, and ours beneath those that can be reproduced."""
    groups = []
    for line in lines:
        head = [Cell(Text(line.head))] if heads else []
        printed = [_printed(number, gain, letters) for number, gain in zip(line.numbers, line.gains)]
        group = [(Cell(Text(line.label)), *head, *printed)]
        if line.repeatable:
            beneath = [Cell(ours[n].value(), ours[n].runs) if n else Cell(NOTHING) for n in line.numbers]
            group.append((Cell(OURS), *(Cell(EMPTY) for _ in head), *beneath))
            if any(number in judged for number in line.numbers):
                worth = [Cell(_worth(n, judged[n]) if n and n in judged else EMPTY) for n in line.numbers]
                group.append((Cell(RELEASED), *(Cell(EMPTY) for _ in head), *worth))
        groups.append(tuple(group))
    header = ("Model", *(["Head"] if heads else []), *(column.label for column in spec.columns))
    return Grid(header, "l" + "l" * heads + "r" * len(spec.columns), tuple(groups))


def _worth(number: Number, judged: JudgedFile) -> JudgedOnce:
    value, printed = judged.metrics[number.metric], number.value
    half, decimals = judged.halves.get(number.metric), max(2, number.decimals)
    return JudgedOnce(value, half, judged.images, judged.size, None if printed is None else value - printed, decimals)


def _printed(number: Number | None, gain: Number | None, letters: Mapping[str, Contradiction]) -> Cell:
    if number is None:
        return Cell(NOTHING)
    return Cell(Printed((number,), gain), marks=remarks.marks([n for n in (number, gain) if n], letters))


def _legend(spec: PublishedTable, ours: Mapping[Number, Counterpart]) -> Iterator[str]:
    yield f"Rows and numbers as printed in {papers.SOURCES[spec.source]}, {spec.table}."
    yield from map(remarks.sentence, papers.statements(spec.source, spec.table))
    if not ours:
        return
    if spec.recipes:
        of_recipes = " and ".join(f"`{recipe}` ({protocol})" for protocol, recipe in spec.recipes.items())
        yield (
            f"*{OURS.words}*, beneath each row: the setting of recipe {of_recipes}, *equal* to the printed one or "
            "*different*. A learning rate is that of the printed batch size."
        )
        return
    yield (
        f"*{OURS.words}*, beneath each row that this suite reproduces: the mean of the last epoch over seeds ± half of "
        f"its {100 * LEVEL:.0f} % t-interval over seeds (n), Δ to the printed number, and a verdict. "
        f"{verdict_words.by_size(difference=False)} "
        f"{verdict_words.margins(number.metric for number, each in ours.items() if each.counted is None)} "
        "p-values are corrected (Holm) over this table's means; intervals and *agrees* are not. "
        "One seed, or seeds that are all equal, are *not judged*. Without a result, the state of the "
        "runs stands there; heads that no recipe trains yet are *not run* and *not counted*."
    )
    yield from _prices(ours)
    yield from _elsewhere(ours)
    if any(each.counted is not None for each in ours.values()):
        yield (
            "Parameters, FLOPs and architecture are counted on our models: *agrees* where the count rounds to the "
            "printed number, else *differs*."
        )


def _prices(ours: Mapping[Number, Counterpart]) -> Iterator[str]:
    """What the hours of runs that have not begun are, and how those are found that are not known."""
    waiting = [each for each in ours.values() if each.interval is None and each.state == NOT_RUN]
    units = dict.fromkeys(
        each.source.prices.unit for each in waiting if each.hours is not None and each.source and each.source.prices
    )
    if units:
        yield (
            f"Hours (h) of runs that have not begun: {' and '.join(units)} for all their seeds and for the runs that "
            "they start from, as far as those are not done; a run that several cells need counts in each."
        )
    trained = [number for number, each in ours.items() if each in waiting and number.metric not in complexity.METRICS]
    if any(ours[number].hours is None for number in trained):
        yield (
            "What a run costs that is *not run* depends on the machine: `price=paper` measures it, and `report=paper` "
            "without `measured` shows it in these cells."
        )


def _elsewhere(ours: Mapping[Number, Counterpart]) -> Iterator[str]:
    """Where the arms of cells that are not run have been run under another protocol."""
    rows: dict[OtherProtocol, dict[str, None]] = {}
    for number, each in ours.items():
        if each.interval is None and each.state == NOT_RUN:
            for other in each.elsewhere:
                rows.setdefault(other, {}).setdefault(number.row)
    for other, of_rows in sorted(rows.items(), key=lambda row: astuple(row[0])):
        arms = f"{words.listed(other.instead)} in the place of " if other.instead else ""
        yield f"Run with protocol `{other.protocol}`, in results {other.name}: {arms}{words.listed(of_rows)}."


def _legend_of_released(judged: Mapping[Number, JudgedFile]) -> Iterator[str]:
    if judged:
        folders = words.listed(sorted({f"`{each.folder.name}`" for each in judged.values()}))
        yield (
            f"*{RELEASED.words}*: the authors' own weights, judged here without training, ± half of the "
            f"{100 * LEVEL:.0f} % interval over these images, and Δ to the printed number; evaluations {folders}."
        )


def _notes(spec: PublishedTable, lines: Sequence[PrintedLine]) -> Iterator[str]:
    """The notes on printed numbers, equal notes of a row once."""
    noted: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number and number.note and number.printed:
                noted.setdefault((line.label, number.note), []).append(column.label)
    for (label, note), columns in noted.items():
        yield f"{label}, {words.listed(columns)}: {note}."


def _sources(ours: Mapping[Number, Counterpart]) -> list[tuple[Reproduction, ArmRow]]:
    """The sweeps and arms behind our numbers, each once, however many of a task's metrics are shown."""
    sources: dict[tuple[int, str], tuple[Reproduction, ArmRow]] = {}
    for each in ours.values():
        if each.source is not None and each.row is not None:
            sources.setdefault((id(each.source.table.collected), each.row.arm), (each.source, each.row))
    return list(sources.values())


def _about(sources: Sequence[tuple[Reproduction, ArmRow]]) -> Iterator[str]:
    """Which code the results beneath the printed numbers are of, sweep by sweep."""
    for table in {id(source.table.collected): source.table for source, _ in sources}.values():
        arms = [row.arm for source, row in sources if source.table.collected is table.collected]
        done = table.runs[table.runs["arm"].isin(arms) & (table.runs["state"] == DONE)]
        if len(done):
            task = f", task {table.task}" if table.downstream else ""
            yield f"*{OURS.words}* of {table.spec.sweep}{task}: {' '.join(words.measured_by(done))}"


def _cautions(sources: Sequence[tuple[Reproduction, ArmRow]]) -> Iterator[str]:
    """Different code or data averaged within a sweep's table, or side by side in this one, task by task."""
    import pandas as pd

    yield from dict.fromkeys(sentence for source, _ in sources for sentence in source.table.mixed)
    left_out = ((source.runs(row.arm), sentence) for source, row in sources for sentence in source.table.left_out)
    yield from dict.fromkeys(sentence for runs, sentence in left_out if any(run in sentence for run in runs))
    parts = [source.table.runs[source.table.runs["arm"] == row.arm] for source, row in sources]
    if parts:
        yield from fingerprints.mixtures(pd.concat(parts), "stand beside each other here, each mean being of one")


def _run_lines(sources: Sequence[tuple[Reproduction, ArmRow]]) -> Iterator[RunLine]:
    listed = set()
    for source, row in sources:
        table = source.table
        for run in table.runs[table.runs["arm"] == row.arm].to_dict("records"):
            if run["run"] not in listed:
                listed.add(run["run"])
                task = table.task if table.downstream else ""
                where = ablation.origin(table, run["run"], source.folder, source.label)
                yield ablation.run_line(row.label, run, table.metric.metric, *where, task)


def _macros(
    spec: PublishedTable, lines: Sequence[PrintedLine], ours: Mapping[Number, Counterpart]
) -> Iterator[tuple[MacroName, Value]]:
    """Printed and own numbers of the rows that can be reproduced."""
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number is None or not line.repeatable or not number.printed:
                continue
            head = "" if line.head in (complexity.CLASSIFICATION, complexity.BACKBONE) else line.head
            place = (spec.name, line.label, head, column.label.partition(" (")[0])
            yield (*place, "Papers"), Printed((number,))
            each = ours[number]
            if each.counted is not None:
                yield (*place, "Ours"), count(each.counted)
            elif each.interval is not None:
                yield (*place, "Ours"), Count(each.interval.mean, each.decimals)


def _records(
    spec: PublishedTable, lines: Sequence[PrintedLine], ours: Mapping[Number, Counterpart]
) -> Iterator[dict[str, Any]]:
    """One line per printed number."""
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number is None:
                continue
            each = ours.get(number, Counterpart(number))
            interval = each.interval
            mean = each.counted if each.counted is not None else interval.mean if interval else None
            yield {
                "source": number.source,
                "table": number.table,
                "row": number.row,
                "model": number.model,
                "head": number.head,
                "protocol": number.protocol,
                "metric": number.metric,
                "column": column.label,
                "papers": number.printed,
                "note": number.note,
                "ours": each.setting if each.setting is not None else None if mean is None else round(mean, 6),
                "low": None if interval is None or interval.low is None else round(interval.low, 4),
                "high": None if interval is None or interval.high is None else round(interval.high, 4),
                "n": interval.n if interval else 0,
                "state": "" if each.counted is not None or each.setting is not None else each.state,
                "hours": None if each.hours is None else round(each.hours, 2),
                "elsewhere": "; ".join(f"{other.protocol}: {other.name}" for other in each.elsewhere),
                "verdict": each.judgement if line.repeatable else "",
                "runs": " ".join(each.runs),
            }
