"""Letters behind printed numbers that something contradicts, and what each letter stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import count, product
from string import ascii_lowercase

from results.papers import Contradiction, Number, contradicting


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
    place = f"{entry.source} {entry.table}, {', '.join(entry.rows)}"
    kind = {"editions": "the two versions differ", "text": "text and table differ"}.get(entry.kind, entry.kind)
    return f"{place}, {kind}: printed is {entry.printed}; {entry.against}. {' '.join(entry.evidence.split())}"


def _letters() -> Iterator[str]:
    """a, b, … z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(ascii_lowercase, repeat=length))
