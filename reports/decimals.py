"""Numbers of a column one below the other: how wide a gap each needs so that decimal points meet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NUMBER = re.compile(r"([+−-]?\d+)((?:\.\d+)?)")
STARTS = re.compile(r"[+−-]?\d")


class Aligned(NamedTuple):
    """A text in pieces, each with the space before it in digits, and the space behind the last one."""

    pieces: list[tuple[int, str]]
    rest: int


class Number(NamedTuple):
    """A number within a text. behind: the words before it, and those before the numbers that precede it."""

    behind: tuple[str, ...]
    whole: str
    fraction: str


def aligned(texts: Sequence[str]) -> list[Aligned]:
    """Space for a column's texts; one that does not begin with a number is left as it is.

    ``+0.72 [−1.51, +2.95]`` and ``+40.97 [+32.74, +49.20]`` meet at all three points, because the same words stand
    before each; numbers behind different words have nothing to do with one another.
    """
    found = [_numbers(text) if STARTS.match(text) else [] for text in texts]
    wholes: dict[tuple[str, ...], int] = {}
    fractions: dict[tuple[str, ...], int] = {}
    for number in (number for numbers in found for number in numbers):
        wholes[number.behind] = max(wholes.get(number.behind, 0), len(number.whole))
        fractions[number.behind] = max(fractions.get(number.behind, 0), len(number.fraction))
    return [_spaced(text, numbers, wholes, fractions) for text, numbers in zip(texts, found)]


def as_it_is(text: str) -> Aligned:
    return Aligned([(0, text)], 0)


def alone(texts: Sequence[str]) -> bool:
    """Whether there is nothing beside the numbers, so that they can stand at the right edge."""
    return all(NUMBER.fullmatch(text) for text in texts if STARTS.match(text))


def _numbers(text: str) -> list[Number]:
    found: list[Number] = []
    words: list[str] = []
    end = 0
    for match in NUMBER.finditer(text):
        words.append(text[end : match.start()])
        found.append(Number(tuple(words), match[1], match[2]))
        end = match.end()
    return found


def _spaced(
    text: str,
    numbers: Sequence[Number],
    wholes: Mapping[tuple[str, ...], int],
    fractions: Mapping[tuple[str, ...], int],
) -> Aligned:
    pieces: list[tuple[int, str]] = []
    space = end = 0
    for number in numbers:
        words = number.behind[-1]
        pieces += [(space, words), (wholes[number.behind] - len(number.whole), number.whole + number.fraction)]
        space = fractions[number.behind] - len(number.fraction)
        end += len(words + number.whole + number.fraction)
    if text[end:]:
        pieces.append((space, text[end:]))
        space = 0
    return Aligned([piece for piece in pieces if any(piece)], space)
