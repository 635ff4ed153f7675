"""A report for the terminal: the same table in rich, or one JSON document. Draws nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from reports import cells, words
from reports.document import Page, Section
from reports.markup import marked
from reports.table import Table, state_text

if TYPE_CHECKING:
    from rich.console import Console


WIDE = 140  # columns from which the table stands with one line per arm


def print_table(table: Table, console: Console | None = None) -> None:
    from rich.markup import escape

    console = console or wide_console()
    header, body, sides = cells.header(table), cells.body(table), "lrrnnrrl"
    if console.width < WIDE:
        header, body, sides = stacked(header), [stacked(row) for row in body], "lrnnrl"
        header[2] = header[2].replace(" ", "\n", 1)
    console.print(f"[bold]{escape(table.spec.title)}[/bold]")
    console.print(_plain(words.about(table)), style="dim", markup=False)
    console.print(grid(header, body, sides))
    for line in (*table.mixed, *words.legend(table)[2:-1]):
        console.print(_plain(line), style="dim", markup=False)
    for warning in table.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def print_section(section: Section, console: Console | None = None) -> None:
    """Prints a section's table with what its reader has to know."""
    from rich.markup import escape

    console = console or wide_console()
    console.print(f"[bold]{escape(section.title)}[/bold]")
    if section.about:
        console.print(_plain(section.about), style="dim", markup=False)
    if section.grid:
        body = [[marked(cell) for cell in row] for row in section.grid.rows]
        console.print(grid(list(section.grid.header), body, section.grid.sides))
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
            "runs": [{"run": run.id, "arm": run.arm, "seed": run.seed, "state": run.state} for run in section.runs],
            "warnings": list(section.warnings),
        }
        for section in page.sections
    ]
    document = {"report": page.name, "title": page.title, "lead": list(page.lead), "sections": sections}
    return json.dumps(document, ensure_ascii=False, indent=1)


def to_json(table: Table) -> str:
    """The same as one JSON document: the table's rows as numbers, the runs behind them, the words around them."""
    return json.dumps(document(table), ensure_ascii=False, indent=1)


def document(table: Table) -> dict[str, Any]:
    from reports.ablation import record

    runs = [{**run, "text": state_text(run)} for run in table.runs.drop(columns="config").to_dict("records")]
    return {
        "report": table.spec.name,
        "title": table.spec.title,
        "sweep": table.spec.sweep,
        "protocol": table.protocol,
        "papers_protocol": table.spec.papers.protocol,
        "metric": table.metric.metric,
        "baseline": table.baseline,
        "rows": [{key: _json(value) for key, value in record(table, row).items()} for row in table.rows],
        "runs": [{key: _json(value) for key, value in run.items()} for run in runs],
        "mixed": list(table.mixed),
        "warnings": list(table.warnings),
        "legend": words.legend(table),
    }


def wide_console() -> Console:
    """The terminal; what is piped is not held to the 80 columns that a terminal of unknown width has."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def stacked(row: list[str]) -> list[str]:
    """The eight cells of a row as six, two lines high, for narrow terminals."""
    arm, params, flops, result, gap, papers, papers_gap, verdict = row
    return [
        arm,
        f"{params}\n{flops}",
        result.replace(" (", "\n("),
        gap.replace(" [", "\n[").replace("] (", "]\n("),
        f"{papers}\n{papers_gap}",
        verdict,
    ]


def grid(header: list[str], body: list[list[str]], sides: str) -> Any:
    """A rich table; ``sides`` holds per column ``l`` or ``r``, or ``n`` for right and never wrapped."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    made = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, side in zip(header, sides):
        text = Text(title.replace(" [", "\n[").replace(" (", "\n(", 1))
        made.add_column(text, justify="left" if side == "l" else "right", overflow="fold", no_wrap=side == "n")
    for row in body:
        made.add_row(*(Text(cell) for cell in row))
    return made


def _plain(text: str) -> str:
    """Without Markdown's marks, which a terminal does not set."""
    return re.sub(r"[*`]", "", text)


def _json(value: Any) -> Any:
    """pandas' and numpy's scalars as JSON's; what is missing is null."""
    if value is None or isinstance(value, str | bool):
        return value
    if hasattr(value, "item"):
        value = value.item()
    return None if value != value or str(value) == "<NA>" else value
