"""The cells of a printed table."""

from __future__ import annotations


def lines(printed: str) -> list[list[str]]:
    """The cells of every row below the headings."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if line.startswith("│")]
