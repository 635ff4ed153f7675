"""What stands in a table's cells, as text: the same words for Markdown, LaTeX and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, product
from string import ascii_lowercase

from reports.table import Row, Table
from results.papers import Contradiction, Number, contradicting
from results.statistics import Difference

NOTHING = "–"
LONGEST_STATE = 72  # characters of a state in a cell; the runs table has it in full


def header(table: Table) -> list[str]:
    papers = table.spec.papers.label
    return [
        "Arm",
        "Params (M)",
        "FLOPs (G)",
        f"{table.metric.label} ({table.metric.unit})",
        f"Δ to {table.label_of[table.baseline]} [95 % interval]",
        f"Papers ({papers})",
        "Papers' Δ",
        "Verdict",
    ]


def body(table: Table) -> list[list[str]]:
    return [cells(table, row) for row in table.rows]


def cells(table: Table, row: Row) -> list[str]:
    """One row, in the order of ``header``."""
    gap = difference(row.difference, table.metric.decimals)
    return [
        row.label,
        _fixed(row.params_m, 3),
        _fixed(row.flops_g, 3),
        result(row, table.metric.decimals),
        "baseline" if row.is_baseline else gap + ("†" if _odd(row) else ""),
        _papers(row),
        _papers_difference(table, row),
        row.verdict.value,
    ]


def remarks(table: Table) -> dict[str, Contradiction]:
    """Letter → what contradicts a published number of the table."""
    return lettered(number for row in table.rows for number in published(row))


def lettered(numbers: Iterable[Number]) -> dict[str, Contradiction]:
    """The contradictions of these numbers with a letter each, in their order."""
    found = dict.fromkeys(entry for number in numbers for entry in contradicting(number))
    return dict(zip(_letters(), found))


def marks(numbers: Iterable[Number], remarks: Mapping[str, Contradiction]) -> tuple[str, ...]:
    """The letters that belong to these numbers."""
    mine = {entry for number in numbers for entry in contradicting(number)}
    return tuple(letter for letter, entry in remarks.items() if entry in mine)


def published(row: Row) -> list[Number]:
    """The printed numbers that a row stands on, those it is compared with included."""
    return [n for r in row.references for n in (r.number, r.baseline) if n is not None]


def _letters() -> Iterator[str]:
    """a, b, … z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))


def result(row: Row, decimals: int) -> str:
    """``72.10 ± 0.21 (n = 3)``, ± half of the interval; ``72.10 (1 of 3)``; or the state of runs without a result."""
    if row.interval is None:
        return row.state if len(row.state) <= LONGEST_STATE else row.state[: LONGEST_STATE - 1].rstrip() + "…"
    found = row.interval
    half = f" ± {found.half:.{decimals}f}" if found.half is not None else ""
    n = f"n = {found.n}" if found.n == row.planned else f"{found.n} of {row.planned}"
    return f"{found.mean:.{decimals}f}{half} ({n})"


def difference(value: Difference | None, decimals: int) -> str:
    """``+2.70 [+2.31, +3.09] (n = 3)``; where there is no interval, that is said."""
    if value is None:
        return NOTHING
    if value.low is None or value.high is None:
        return f"{signed(value.mean, decimals)} (n = {value.n}, no interval)"
    interval = f"[{signed(value.low, decimals)}, {signed(value.high, decimals)}]"
    return f"{signed(value.mean, decimals)} {interval} (n = {value.n})"


def signed(value: float, decimals: int) -> str:
    """With a sign always, a true minus, and no negative zero."""
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def _odd(row: Row) -> bool:
    return row.other_model and row.difference is not None


def _papers(row: Row) -> str:
    said = [f"{r.number.printed} ({r.number.model})" if r.number.printed else r.number.note for r in row.references]
    return " / ".join(dict.fromkeys(said)) or NOTHING


def _papers_difference(table: Table, row: Row) -> str:
    judged = row.judged
    if judged is None or judged.difference is None:
        return NOTHING
    text = signed(judged.difference, judged.number.decimals)
    return text if judged.against == table.baseline else f"{text} to {table.label_of[judged.against]}"


def _fixed(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else f"{value:.{decimals}f}"
