"""Numbers of a column one below the other: how wide a gap each needs so that decimal points meet."""

from __future__ import annotations

import re
from collections.abc import Sequence

Piece = tuple[int, str]  # digits of space, and the text behind them

NUMBER = re.compile(r"([+−-]?\d+)((?:\.\d+)?)")
STARTS = re.compile(r"[+−-]?\d")


def aligned(texts: Sequence[str]) -> list[list[Piece]]:
    """Each text in pieces with space before them; a text that does not begin with a number is left as it is.

    ``+0.72 [−1.51, +2.95]`` and ``+40.97 [+32.74, +49.20]`` meet at all three points, because the same words stand
    before each; numbers behind different words have nothing to do with one another.
    """
    split = [_split(text) if STARTS.match(text) else [] for text in texts]
    heads: dict[tuple[str, ...], int] = {}
    tails: dict[tuple[str, ...], int] = {}
    for numbers in split:
        for words, head, tail in numbers:
            heads[words] = max(heads.get(words, 0), len(head))
            tails[words] = max(tails.get(words, 0), len(tail))
    return [_spaced(text, numbers, heads, tails) for text, numbers in zip(texts, split)]


def plain(texts: Sequence[str]) -> bool:
    """Whether there is nothing beside the numbers, so that they can stand at the right edge."""
    return all(NUMBER.fullmatch(text) for text in texts if STARTS.match(text))


def _split(text: str) -> list[tuple[tuple[str, ...], str, str]]:
    """Every number of a text in two halves, with the words before it and before the numbers that precede it."""
    found: list[tuple[tuple[str, ...], str, str]] = []
    words: list[str] = []
    end = 0
    for match in NUMBER.finditer(text):
        words.append(text[end : match.start()])
        found.append((tuple(words), match[1], match[2]))
        end = match.end()
    return found


def _spaced(
    text: str,
    numbers: Sequence[tuple[tuple[str, ...], str, str]],
    heads: dict[tuple[str, ...], int],
    tails: dict[tuple[str, ...], int],
) -> list[Piece]:
    pieces: list[Piece] = []
    gap = 0
    for words, head, tail in numbers:
        pieces += [(gap, words[-1]), (heads[words] - len(head), head + tail)]
        gap = tails[words] - len(tail)
    rest = text[sum(len(piece) for _, piece in pieces) :]
    return [(width, piece) for width, piece in [*pieces, (gap, rest)] if width or piece]
