"""The section of one of the papers' tables: every printed number, and beneath it ours where it can be repeated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from reports import ablation, cells, complexity, macros, words
from reports.cells import NOTHING, signed
from reports.document import Cell, Grid, Run, Section
from reports.figures import Drawing, draw_published
from reports.specification import Column, PublishedTable, SpecificationError
from reports.table import Row, Table
from results import fingerprints, papers
from results.papers import Contradiction, Number
from results.statistics import LEVEL, MARGIN, Comparison, Interval, Judgement, judge
from run_format import NOT_RUN

Place = tuple[str, str, str, str]  # source, table, row, metric
OURS = "ours"
NOT_COUNTED = "not counted"
DIFFERENCE = "_difference"  # behind the name of a metric that a table prints as a gain over another row
COUNTED_HEADS = ("classification", "backbone")


@dataclass(frozen=True)
class Reproduction:
    """A sweep's table on the papers' protocol, and where its runs lie (see ``ablation.section``)."""

    table: Table
    folder: Path
    label: str | None = None
    configs: Mapping[str, str] = field(default_factory=dict)  # label of an arm → its settings


@dataclass(frozen=True)
class Ours:
    """What we have to set beside one printed number: a count, a mean over seeds, or the state of the runs."""

    counted: float | None = None
    source: Reproduction | None = None
    row: Row | None = None
    left_out: str = ""  # the results that would have been taken, but could not be shown
    judgement: Judgement | None = None

    @property
    def interval(self) -> Interval | None:
        return self.row.interval if self.row else None

    @property
    def runs(self) -> tuple[str, ...]:
        if self.source is None or self.row is None:
            return ()
        runs = self.source.table.runs
        return tuple(dict.fromkeys(runs[runs["arm"] == self.row.arm]["run"]))


@dataclass(frozen=True)
class Line:
    """One printed row: its numbers by column, None where nothing is printed, and the gains printed beside them."""

    label: str
    head: str
    numbers: tuple[Number | None, ...]
    gains: tuple[Number | None, ...]
    repeatable: bool


def section(
    spec: PublishedTable,
    reproductions: Sequence[Reproduction],
    left_out: Mapping[Place, str] = MappingProxyType({}),
    *,
    figures: bool = True,
) -> Section:
    """Sets a published table; ``reproductions`` are searched for the arms that stand for its rows.

    left_out: places whose results are there and cannot be shown → what those results are called.
    Raises SpecificationError for a column that the table does not have.
    """
    lines = _lines(spec)
    remarks = cells.lettered(n for line in lines for n in (*line.numbers, *line.gains) if n is not None)
    ours = _judged(
        {n: _ours(n, reproductions, left_out) for line in lines if line.repeatable for n in line.numbers if n}
    )
    heads = len({line.head for line in lines}) > 1
    groups = tuple(_group(line, ours, remarks, heads) for line in lines)
    header = ("Model", *(["Head"] if heads else []), *(column.label for column in spec.columns))
    sides = "l" + "l" * heads + "r" * len(spec.columns)
    sources = _sources(ours)
    drawings, problems = _drawings(spec, reproductions) if figures else ((), ())
    return Section(
        name=spec.name,
        title=spec.title,
        question=spec.question,
        cautions=tuple(_cautions(sources)),
        grid=Grid(header, sides, groups) if spec.columns else None,
        legend=tuple(_legend(spec, ours)) if spec.columns else (),
        places=tuple(_notes(spec, lines)),
        remarks={letter: words.remark(entry) for letter, entry in remarks.items()},
        drawings=tuple(drawings),
        runs=tuple(_runs(sources)),
        configs={row.label: source.configs[row.label] for source, row in sources if row.label in source.configs},
        macros=macros.collected(_macros(spec, lines, ours)),
        records=tuple(_records(spec, lines, ours)),
        warnings=tuple(problems),
    )


def _drawings(spec: PublishedTable, reproductions: Sequence[Reproduction]) -> tuple[Sequence[Drawing], Sequence[str]]:
    numbers = papers.numbers(spec.source, spec.table)
    found = {number: _ours(number, reproductions, {}).interval for number in numbers if number.model in spec.models}
    return draw_published(spec, numbers, {number: mean for number, mean in found.items() if mean is not None})


def _lines(spec: PublishedTable) -> list[Line]:
    """The table's rows in the order of print. A row stands once for each head, unless columns choose heads."""
    printed = papers.numbers(spec.source, spec.table)
    heads_apart = all(column.head is None for column in spec.columns)
    keys = dict.fromkeys((n.row, n.head if heads_apart else "") for n in printed)
    lines = []
    for label, head in keys:
        mine = [n for n in printed if n.row == label and head in ("", n.head)]
        chosen = tuple(_chosen(mine, column, column.metric) for column in spec.columns)
        gains = tuple(_chosen(mine, column, column.metric + DIFFERENCE) for column in spec.columns)
        lines.append(Line(label, head, chosen, gains, mine[0].model in spec.models))
    for column, numbers in zip(spec.columns, zip(*(line.numbers for line in lines))):
        if not any(numbers):
            raise SpecificationError(f"report {spec.name}: {spec.source} {spec.table} has nothing in {column.label!r}")
    return lines


def _chosen(numbers: Sequence[Number], column: Column, metric: str) -> Number | None:
    found = [
        n
        for n in numbers
        if n.metric == metric and column.head in (None, n.head) and column.protocol in (None, n.protocol)
    ]
    if len(found) > 1:
        protocols = "; ".join(n.protocol for n in found)
        raise SpecificationError(
            f"column {column.label!r}: {found[0].place} prints {metric} several times; which protocol? ({protocols})"
        )
    return found[0] if found else None


def _ours(number: Number, reproductions: Sequence[Reproduction], left_out: Mapping[Place, str]) -> Ours:
    """What was counted for a number, or the runs of an arm that names its place and is of its model."""
    if number.head in COUNTED_HEADS:
        counted = complexity.counted_at().get(((number.source, number.table, number.row), number.metric))
        if counted is not None:
            return Ours(counted)
    candidates = [
        Ours(None, source, row)
        for source in reproductions
        for row in source.table.rows
        if any(reference.number == number and reference.same_model for reference in row.references)
    ]
    missing = Ours(left_out=left_out.get((number.source, number.table, number.row, number.metric), ""))
    return max(candidates, key=lambda found: found.interval.n if found.interval else 0, default=missing)


def _judged(ours: Mapping[Number, Ours]) -> dict[Number, Ours]:
    """The same with verdicts on the means, corrected over the whole table."""
    said = judge([
        Comparison(found.interval, number.value, True, 0.5 * 10.0**-number.decimals) for number, found in ours.items()
    ])  # fmt: skip
    return {number: replace(found, judgement=one) for (number, found), one in zip(ours.items(), said)}


def _group(
    line: Line, ours: Mapping[Number, Ours], remarks: Mapping[str, Contradiction], heads: bool
) -> tuple[tuple[Cell, ...], ...]:
    """A printed row, and our own beneath it where it can be repeated."""
    between = [Cell(line.head)] if heads else []
    printed = (Cell(line.label), *between, *(_printed(n, gain, remarks) for n, gain in zip(line.numbers, line.gains)))
    if not line.repeatable:
        return (printed,)
    mine = (_beneath(n, ours[n]) if n else Cell("") for n in line.numbers)
    return printed, (Cell(OURS, tone=OURS), *(Cell("") for _ in between), *mine)


def _printed(number: Number | None, gain: Number | None, remarks: Mapping[str, Contradiction]) -> Cell:
    if number is None:
        return Cell(NOTHING)
    text = number.printed or number.note or NOTHING
    if gain is not None:
        text += f" (↑{gain.printed})"
    marks = cells.marks([n for n in (number, gain) if n], remarks)
    return Cell(text, number.value, marks=marks)


def _beneath(number: Number, ours: Ours) -> Cell:
    """Our number with its verdict, or the state of its runs."""
    if ours.counted is not None:
        said = "agrees" if _rounds_to(ours.counted, number) else "differs"
        return Cell(f"{_plain(ours.counted)}, {said}", ours.counted, tone=said)
    if ours.left_out:
        return Cell(f"left out: {ours.left_out}", tone="waiting")
    if ours.row is None:
        return Cell(_missing(number), tone="waiting")
    if ours.interval is None:
        return Cell(cells.result(ours.row, 2), runs=ours.runs, tone="waiting")
    decimals = max(2, number.decimals)
    said = ours.judgement.verdict.value if ours.judgement else NOTHING
    gap = "" if number.value is None else f", Δ {signed(ours.interval.mean - number.value, decimals)}"
    return Cell(f"{cells.result(ours.row, decimals)}{gap}, {said}", ours.interval.mean, ours.runs, tone=said)


def _missing(number: Number) -> str:
    return NOT_COUNTED if number.metric in complexity.METRICS else NOT_RUN


def _legend(spec: PublishedTable, ours: Mapping[Number, Ours]) -> Iterator[str]:
    yield f"Rows and numbers as printed in {papers.SOURCES[spec.source]}, {spec.table}."
    if not ours:
        return
    yield (
        f"*{OURS}*, beneath a row that is to be repeated here: the mean of the last epoch over seeds ± half of its "
        f"{100 * LEVEL:.0f} % t-interval (n seeds), Δ to the printed number, and a verdict: *contradicts* where a "
        f"t-test at {1 - LEVEL:.2g}, with Holm's correction over this table, excludes the printed number, known to its "
        f"last digit only; else *agrees*, or *within noise* where the interval reaches further than ±{MARGIN}. "
        "One seed, or seeds that are all equal, are *not judged*. Without a result, the state of the "
        "runs stands there; heads that no recipe trains yet are *not run* and *not counted*."
    )
    if any(found.counted is not None for found in ours.values()):
        yield (
            "Parameters, FLOPs and architecture are counted on our models: *agrees* where the count rounds to the "
            "printed number, else *differs*."
        )


def _notes(spec: PublishedTable, lines: Sequence[Line]) -> Iterator[str]:
    """What is noted of printed numbers, equal notes of a row once."""
    noted: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number and number.note and number.printed:
                noted.setdefault((line.label, number.note), []).append(column.label)
    for (label, note), columns in noted.items():
        yield f"{label}, {words.listed(columns)}: {note}."


def _sources(ours: Mapping[Number, Ours]) -> list[tuple[Reproduction, Row]]:
    """The sweeps and arms that ours are of, each once."""
    found: dict[tuple[int, str], tuple[Reproduction, Row]] = {}
    for one in ours.values():
        if one.source is not None and one.row is not None:
            found.setdefault((id(one.source), one.row.arm), (one.source, one.row))
    return list(found.values())


def _cautions(sources: Sequence[tuple[Reproduction, Row]]) -> Iterator[str]:
    """What is mixed within a sweep's table, and what stands beside each other here."""
    import pandas as pd

    yield from dict.fromkeys(sentence for source, _ in sources for sentence in source.table.mixed)
    parts = [source.table.runs[source.table.runs["arm"] == row.arm] for source, row in sources]
    if parts:
        for sentence in fingerprints.check(pd.concat(parts), mixed=True):
            yield sentence.replace("are averaged here", "stand beside each other here, each mean being of one")


def _runs(sources: Sequence[tuple[Reproduction, Row]]) -> Iterator[Run]:
    seen = set()
    for source, row in sources:
        runs = source.table.runs
        for run in runs[runs["arm"] == row.arm].to_dict("records"):
            if run["run"] not in seen:
                seen.add(run["run"])
                yield ablation.run_line(row.label, run, source.table.metric.metric, source.folder, source.label)


def _macros(spec: PublishedTable, lines: Sequence[Line], ours: Mapping[Number, Ours]) -> Iterator[tuple[str, str]]:
    """Printed and own numbers of the rows that are to be repeated."""
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number is None or not line.repeatable or not number.printed:
                continue
            head = "" if line.head in COUNTED_HEADS else line.head
            place = (spec.name, line.label, head, column.label.partition(" (")[0])
            yield macros.name(*place, "Papers"), number.printed
            found = ours[number]
            if found.counted is not None:
                yield macros.name(*place, "Ours"), _plain(found.counted)
            elif found.interval is not None:
                yield macros.name(*place, "Ours"), f"{found.interval.mean:.{max(2, number.decimals)}f}"


def _records(spec: PublishedTable, lines: Sequence[Line], ours: Mapping[Number, Ours]) -> Iterator[dict[str, Any]]:
    """One line per printed number."""
    for line in lines:
        for column, number in zip(spec.columns, line.numbers):
            if number is None:
                continue
            found = ours.get(number, Ours())
            interval = found.interval
            mean = found.counted if found.counted is not None else interval.mean if interval else None
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
                "ours": None if mean is None else round(mean, 6),
                "low": None if interval is None or interval.low is None else round(interval.low, 4),
                "high": None if interval is None or interval.high is None else round(interval.high, 4),
                "n": interval.n if interval else 0,
                "state": f"left out: {found.left_out}"
                if found.left_out
                else found.row.state
                if found.row
                else ""
                if found.counted is not None
                else _missing(number),
                "verdict": _beneath(number, found).tone if line.repeatable else "",
                "runs": " ".join(found.runs),
            }


def _rounds_to(value: float, number: Number) -> bool:
    return number.value is not None and complexity.rounds_to(value, number)


def _plain(value: float) -> str:
    """A count: whole numbers as they are, others to three decimals."""
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"
