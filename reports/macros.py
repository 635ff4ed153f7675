"""Names for numbers in running text: ``\\atmAblationOffsetsSmokeAxialDelta`` stands for ``+45.30``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from errors import SuiteError
from reports import cells
from reports.table import Row, Table

PREFIX = "atm"
SIGNS = str.maketrans({"†": "Dagger", "‡": "DoubleDagger", "*": "Star"})
DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


class MacroError(SuiteError):
    """Two numbers that would have one name."""


def name(*parts: str) -> str:
    """A LaTeX command's name, which has letters only: words begin with a capital, digits are spelled out."""
    spelled = unicodedata.normalize("NFKC", " ".join(parts)).translate(SIGNS)  # ① becomes 1
    words = re.findall(r"[A-Za-z]+|\d", spelled)
    return PREFIX + "".join(DIGITS[int(word)] if word.isdigit() else word[0].upper() + word[1:] for word in words)


def collected(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Name → text. Raises MacroError where two have one name."""
    macros: dict[str, str] = {}
    for macro, text in found:
        if macro in macros:
            raise MacroError(f"two numbers would be called \\{macro} in LaTeX: give one of their arms another name")
        macros[macro] = text
    return macros


def of_table(table: Table, section: str) -> dict[str, str]:
    """Every number of an ablation's table."""
    return collected(
        (name(section, row.arm, quantity), text) for row in table.rows for quantity, text in _quantities(table, row)
    )


def _quantities(table: Table, row: Row) -> Iterable[tuple[str, str]]:
    decimals, gap, judged = table.metric.decimals, row.difference, row.judged
    if row.params_m is not None:
        yield "Params", f"{row.params_m:.3f}"
    if row.flops_g is not None:
        yield "Flops", f"{row.flops_g:.3f}"
    if row.mean is not None:
        yield "Mean", f"{row.mean:.{decimals}f}"
        yield "N", str(len(row.values))
    if row.sd is not None:
        yield "Deviation", f"{row.sd:.{decimals}f}"
    if gap is not None:
        yield "Delta", cells.signed(gap.mean, decimals)
        if gap.low is not None and gap.high is not None:
            yield "DeltaLow", cells.signed(gap.low, decimals)
            yield "DeltaHigh", cells.signed(gap.high, decimals)
    if judged is not None and judged.difference is not None:
        yield "PapersDelta", cells.signed(judged.difference, judged.number.decimals)
        yield "Verdict", row.verdict.value
