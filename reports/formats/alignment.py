"""Numbers of a column one below the other: how wide a gap each needs so that decimal points meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reports.content.text import digits, parts, text
from reports.content.values import Numeral, Value


class Aligned(NamedTuple):
    """A text in pieces, each with the space before it in digits, and the space behind the last piece."""

    pieces: list[tuple[int, str]]
    rest: int


class Placed(NamedTuple):
    """A numeral's digits, with all words that precede it in its value."""

    behind: tuple[str, ...]
    whole: str
    fraction: str


def aligned(column: Sequence[Value]) -> list[Aligned]:
    """Space for a column's values; a value that does not begin with a number is left as it is.

    ``+0.72 [−1.51, +2.95]`` and ``+40.97 [+32.74, +49.20]`` meet at all three points, because the same words stand
    before each; numbers behind different words are not aligned with one another.
    """
    placed = [_placed(value) if _begins_with_number(value) else [text(value)] for value in column]
    wholes: dict[tuple[str, ...], int] = {}
    fractions: dict[tuple[str, ...], int] = {}
    for part in (part for line in placed for part in line):
        if isinstance(part, Placed):
            wholes[part.behind] = max(wholes.get(part.behind, 0), len(part.whole))
            fractions[part.behind] = max(fractions.get(part.behind, 0), len(part.fraction))
    lines = []
    for line in placed:
        pieces, space = [], 0
        for part in line:
            if isinstance(part, str):
                pieces.append((space, part))
                space = 0
            else:
                pieces.append((space + wholes[part.behind] - len(part.whole), part.whole + part.fraction))
                space = fractions[part.behind] - len(part.fraction)
        lines.append(Aligned(pieces, space))
    return lines


def unaligned(value: Value) -> Aligned:
    return Aligned([(0, text(value))], 0)


def only_numbers(column: Sequence[Value]) -> bool:
    """Whether there is nothing beside the numbers, so that they can stand at the right edge."""
    return all(len(list(parts(value))) == 1 for value in column if _begins_with_number(value))


def _begins_with_number(value: Value) -> bool:
    return isinstance(next(parts(value), None), Numeral)


def _placed(value: Value) -> list[str | Placed]:
    placed: list[str | Placed] = []
    words: list[str] = [""]
    for part in parts(value):
        if isinstance(part, str):
            words[-1] = part
            placed.append(part)
        else:
            placed.append(Placed(tuple(words), *digits(part)))
            words.append("")
    return placed
