"""A report for the terminal: the same table in rich, or one JSON document. Draws nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.content import words
from reports.content.ablation import record
from reports.content.page import Cell, Page, Section
from reports.content.table import Ablation, status
from reports.content.text import line_text

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 140  # columns of output that goes to no terminal
LONGEST_NUMBER = 18  # characters of a line of numbers that is kept whole, such as an interval


def print_section(section: Section, console: Console | None = None) -> None:
    """Prints a section's table with all that its reader has to know, as wide as the terminal allows."""
    from rich.markup import escape

    console = console or wide_console()
    console.print(f"[bold]{escape(section.title)}[/bold]")
    if section.about:
        console.print(_plain(section.about), style="dim", markup=False)
    if section.grid:
        header, sides = section.grid.header, section.grid.sides
        table = grid(header, [[_cell(cell, " ") for cell in row] for row in section.grid.rows], sides)
        unlimited = console.options.update(max_width=10 * WIDTH)
        if console.measure(table, options=unlimited).maximum > console.width:
            rows = [[_cell(cell, "\n") for cell in row] for row in section.grid.rows]
            table = grid([name.replace(" ", "\n") for name in header], rows, sides, padding=0)
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


def to_json(ablation: Ablation) -> str:
    """A sweep's report as one JSON document: rows as numbers, the runs behind them, the sentences around them."""
    table, spec = ablation.first, ablation.spec
    rows = [record(each, row) | {"task": each.task} for each in ablation.tables for row in each.rows]
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
    return json.dumps(document, ensure_ascii=False, indent=1)


def wide_console() -> Console:
    """The terminal; piped output is not held to the 80 columns that a terminal of unknown width has."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def grid(header: Sequence[str], body: Sequence[Sequence[str]], sides: str, padding: int = 1) -> Any:
    """A rich table; ``sides`` holds ``l`` or ``r`` per column. Short lines of numbers are never wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, padding))
    for number, (name, side) in enumerate(zip(header, sides)):
        title = Text(name.replace(" [", "\n[").replace(" (", "\n(", 1))
        longest = max((len(line) for row in body for line in row[number].split("\n")), default=0)
        whole = side == "r" and longest <= LONGEST_NUMBER
        table.add_column(title, justify="left" if side == "l" else "right", overflow="fold", no_wrap=whole)
    for row in body:
        table.add_row(*map(Text, row))
    return table


def _cell(cell: Cell, break_: str) -> str:
    """A cell's text with the letters of its remarks; break_: what stands between its lines."""
    lines = break_.join(map(line_text, cell.value.lines()))
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
