"""Text into Markdown, LaTeX and CSV: escapes, and the jinja2 environment of the templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from reports.content.text import text as text_of
from reports.content.values import NOTHING

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

    from reports.content.page import Cell

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what formulas of spreadsheets begin with
TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
LATEX = {  # in mathematics where text would need a font that small installations lack
    "\\": r"$\backslash$", "{": r"\{", "}": r"\}", "$": r"$\mathdollar$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "*": "$*$",
    "[": "{[}", "]": "{]}",  # a bare [ after \\ would be its argument
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "Δ": r"$\Delta$", "–": "--", "—": "---", "…": r"\dots{}",
    "†": r"$\dagger$", "‡": r"$\ddagger$", "²": "$^2$",
    "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$",
    "↑": r"$\uparrow$", "“": "``", "”": "''", "’": "'", "°": r"$^\circ$", "µ": r"$\mu$",
    **{chr(0x2460 + n): f"({n + 1})" for n in range(9)},
}  # fmt: skip


def latex(text: object) -> str:
    """Any text as LaTeX that pdflatex sets; a character it has no glyph for becomes ``?``."""
    return "".join(LATEX.get(c, c if c.isascii() or c in "äöüÄÖÜßéèáàçñ" else "?") for c in _one_line(text))


def markdown_cell(text: object) -> str:
    """Text that stays within one cell of a Markdown table and is not taken for markup."""
    return _without_links(re.sub(r"([|*_`<>\\])", r"\\\1", _one_line(text)))


def markdown_prose(text: object) -> str:
    """A sentence with the little Markdown that ours use, as in HTML: no links, pictures or HTML of its own."""
    parts = re.split(r"(`[^`]+`)", re.sub("`+", "`", _one_line(text)))
    return "".join(p if n % 2 else _without_links(re.sub(r"([<>\\])", r"\\\1", p)) for n, p in enumerate(parts))


def _without_links(text: str) -> str:
    return re.sub(r"\](?=[(\[:])", r"\\]", text)


def csv(table: pd.DataFrame) -> str:
    """A table for further use. Text that a spreadsheet would calculate is marked as text."""
    safe = table.map(lambda cell: f"'{cell}" if isinstance(cell, str) and cell[:1] in FORMULAS else cell)
    return safe.to_csv(index=False, lineterminator="\n")


def markdown_row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(markdown_cell(cell) for cell in cells) + " |"


def marked(cell: Cell) -> str:
    """A cell's text with the letters of its remarks behind it."""
    return text_of(cell.value) + "".join(f" [{letter}]" for letter in cell.marks)


def latex_cell(cell: Cell) -> str:
    """The same in LaTeX, where the letters are raised."""
    letters = ",".join(cell.marks)
    return latex(text_of(cell.value)) + (rf"\textsuperscript{{{letters}}}" if letters else "")


def markdown_rule(columns: str) -> str:
    """The line under a header: words left, numbers right. ``columns`` holds ``l`` or ``r`` per column."""
    return "|" + "|".join(" --- " if side == "l" else " ---: " for side in columns) + "|"


@cache
def environment() -> Environment:
    """Templates of ``templates/``. An undefined name in a template is an error, not an empty string."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html", "html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters.update(latex=latex, latex_cell=latex_cell, whole=whole)
    environment.filters.update(
        cell=markdown_cell, prose=markdown_prose, row=markdown_row, rule=markdown_rule, marked=marked
    )
    return environment


def whole(number: float | None) -> str:
    """A rounded number of the runs table, or a dash where it is unknown."""
    return NOTHING.words if number is None else f"{number:.0f}"


def _one_line(text: object) -> str:
    """Without line breaks of any kind, control characters and lone surrogates."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
