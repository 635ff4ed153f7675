"""What contradicts the papers: letters behind printed numbers, and sentences on statements that name no number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, product
from string import ascii_lowercase

from reports.content.page import Cell, Grid, Section
from reports.content.values import NOTHING, Text
from results import papers
from results.papers import Contradiction, Number, contradicting

KINDS = {
    "tables": "two tables differ",
    "editions": "the two versions differ",
    "text": "text and table differ",
    "wording": "wording",
}


def lettered(numbers: Iterable[Number]) -> dict[str, Contradiction]:
    """The contradictions of these numbers with a letter each, in their order."""
    entries = dict.fromkeys(entry for number in numbers for entry in contradicting(number))
    return dict(zip(_letters(), entries))


def marks(numbers: Iterable[Number], remarks: Mapping[str, Contradiction]) -> tuple[str, ...]:
    """The letters that belong to these numbers."""
    entries = {entry for number in numbers for entry in contradicting(number)}
    return tuple(letter for letter, entry in remarks.items() if entry in entries)


def sentence(entry: Contradiction) -> str:
    """One contradiction in a sentence or two."""
    place = ", ".join((f"{entry.source} {entry.table}", *entry.rows))
    kind = KINDS.get(entry.kind, entry.kind)
    printed = f": {entry.printed}" if entry.printed[0].isalpha() and " " in entry.printed else f" {entry.printed}"
    return f"{place}, {kind}: printed is{printed}; {entry.against}. {' '.join(entry.evidence.split())}"


def sentences(letters: Mapping[str, Contradiction]) -> dict[str, str]:
    """Letter → its contradiction in words."""
    return {letter: sentence(entry) for letter, entry in letters.items()}


def statements(title: str) -> Section:
    """A table of everything contradicted in the papers that names no number, with the evidence below it."""
    letters = dict(zip(_letters(), papers.statements()))
    rows = [
        (
            Cell(Text(f"{entry.source} {entry.table}"), marks=(letter,)),
            Cell(Text(entry.printed)),
            Cell(Text(", ".join(entry.concerns)) if entry.concerns else NOTHING),
        )
        for letter, entry in letters.items()
    ]
    return Section(
        name="statements",
        title=title,
        grid=Grid(("Place", "Printed", "Concerns"), "lll", tuple((row,) for row in rows)),
        remarks=sentences(letters),
    )


def _letters() -> Iterator[str]:
    """a, b, … z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
