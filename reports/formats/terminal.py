"""A report for the terminal: the same table in rich, or one JSON document. Draws nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import output
from reports.content import words
from reports.content.ablation import records
from reports.content.page import Cell, Grid, Page, Section
from reports.content.table import Ablation, status
from reports.content.text import line_text

if TYPE_CHECKING:
    from rich.console import Console

HEADER_WIDTH = 9  # columns of a header in a narrow terminal
LONGEST_NUMBER = 18  # characters of a line of numbers that is kept whole, such as an interval


def print_section(section: Section, console: Console | None = None) -> None:
    """Prints a section's table with all that its reader has to know, as wide as the terminal allows."""
    from rich.markup import escape

    console = console or output.console()
    console.print(f"[bold]{escape(section.title)}[/bold]")
    if section.about:
        console.print(_plain(section.about), style="dim", markup=False)
    if section.grid:
        for table in _tables(section.grid, console):
            console.print(table)
    remarks = [f"[{letter}] {remark}" for letter, remark in section.remarks.items()]
    for line in (*map(_plain, (*section.cautions, *section.legend)), *remarks):
        console.print(line, style="dim", markup=False)
    for warning in section.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def page_json(page: Page) -> str:
    """A page of several sections as one JSON document: the rows of its tables and the runs behind them."""
    sections = [
        {
            "section": section.name,
            "title": section.title,
            "cautions": list(section.cautions),
            "rows": [{key: _json(value) for key, value in record.items()} for record in section.records],
            "remarks": dict(section.remarks),
            "runs": [{"run": run.id, "arm": run.arm, "seed": run.seed, "state": run.status} for run in section.runs],
            "warnings": list(section.warnings),
        }
        for section in page.sections
    ]
    lead = [*([page.lead] if page.lead else []), *page.left_out]
    document = {"report": page.name, "title": page.title, "lead": lead, "sections": sections}
    return json.dumps(document, ensure_ascii=False, indent=1)


def to_json(ablation: Ablation, further: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> str:
    """A sweep's report as one JSON document: rows as numbers, the runs behind them, the sentences around them.

    further: the rows of further tables of the report (contrasts, interventions) by what they are.
    """
    table, spec = ablation.first, ablation.spec
    rows = [
        record | {"task": each.task} for each in ablation.tables for row in each.rows for record in records(each, row)
    ]
    runs = [{**run, "text": status(run)} for run in ablation.runs.drop(columns="config").to_dict("records")]
    document = {
        "report": spec.name,
        "title": spec.title,
        "sweep": spec.sweep,
        "protocol": table.protocol,
        "papers_protocol": table.papers.protocol if table.papers else None,
        "metric": table.metric.metric,
        "tasks": [{"task": each.task, "metric": each.metric.metric} for each in ablation.tables],
        "baseline": table.baseline,
        "rows": [{key: _json(value) for key, value in row.items()} for row in rows],
        "runs": [{key: _json(value) for key, value in run.items()} for run in runs],
        "mixed": list(ablation.mixed),
        "warnings": list(ablation.warnings),
        "legend": words.legend(ablation),
    }
    for name, records_of in (further or {}).items():
        document[name] = [{key: _json(value) for key, value in row.items()} for row in records_of]
    return json.dumps(document, ensure_ascii=False, indent=1)


def rich_table(header: Sequence[str], body: Sequence[Sequence[str]], sides: str, padding: int = 1) -> Any:
    """A rich table; ``sides`` holds ``l`` or ``r`` per column. Short lines of numbers are never wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding))
    for number, (name, side) in enumerate(zip(header, sides)):
        title = Text(name if "\n" in name else name.replace(" [", "\n[").replace(" (", "\n(", 1))
        longest = max((len(line) for row in body for line in row[number].split("\n")), default=0)
        whole = side == "r" and longest <= LONGEST_NUMBER
        table.add_column(title, justify="left" if side == "l" else "right", overflow="fold", no_wrap=whole)
    for row in body:
        table.add_row(*map(Text, row))
    return table


def _tables(grid: Grid, console: Console) -> list[Any]:
    """The whole grid if it fits, if need be with cells of several lines; else its parts one below the other."""
    columns = range(len(grid.header))
    parts = [[*([0] if start else []), *columns[start:end]] for start, end in pairwise([0, *grid.parts, len(columns)])]
    unlimited = console.options.update(max_width=output.UNLIMITED)
    tables = []
    for chosen, separator in (([columns], " "), ([columns], "\n"), (parts, " "), (parts, "\n")):
        tables = [_table(grid, part, separator) for part in chosen]
        widths = [console.measure(table, options=unlimited) for table in tables]
        if all((w.maximum if separator == " " else w.minimum) <= console.width for w in widths):
            break
    return tables


def _table(grid: Grid, columns: Sequence[int], separator: str) -> Any:
    """Some columns of a grid; separator: what stands between the lines of a cell."""
    rows = [[_cell(row[n], separator) for n in columns] for row in grid.rows]
    header, sides = [grid.header[n] for n in columns], "".join(grid.sides[n] for n in columns)
    if separator == " ":
        return rich_table(header, rows, sides)
    widths = [max((len(line) for cell in column for line in cell.split("\n")), default=0) for column in zip(*rows)]
    header = [
        "\n".join(wrap(name, max(width, HEADER_WIDTH), break_long_words=False)) for name, width in zip(header, widths)
    ]
    return rich_table(header, rows, sides, padding=0)


def _cell(cell: Cell, separator: str) -> str:
    """A cell's text with the letters of its remarks; separator: what stands between its lines."""
    lines = separator.join(map(line_text, cell.value.lines()))
    return lines + "".join(f" [{letter}]" for letter in cell.marks)


def _plain(sentence: str) -> str:
    """Without Markdown's marks, which a terminal does not set."""
    return re.sub(r"[*`]", "", sentence)


def _json(value: Any) -> Any:
    """pandas' and numpy's scalars as JSON's; missing values are null."""
    if value is None or isinstance(value, str | bool):
        return value
    if hasattr(value, "item"):
        value = value.item()
    return None if value != value or str(value) == "<NA>" else value
