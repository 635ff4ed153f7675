"""The types of the benchmarks' options. They refuse invalid values in one line with the nearest valid choice."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from errors import ConfigError, unknown


def positive(text: str) -> int:
    """A whole number, at least 1. Raises ArgumentTypeError, to which argparse adds the option."""
    return at_least(1)(text)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that accepts a whole number, at least ``least``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}")
        return value

    return number


def several(read: Callable[[str], object]) -> Callable[[str], list[object]]:
    """The type of an option that accepts values separated by commas, each converted by ``read``."""
    return lambda text: [read(part.strip()) for part in text.split(",")]


def one_of(kind: str, valid: Iterable[str], shown: Iterable[str] | None = None) -> Callable[[str], str]:
    """The type of an option that accepts one of the names in ``valid``.

    shown: the names to list in the error if ``valid`` is long and contains no similar name.
    """
    names = list(valid)

    def name(text: str) -> str:
        if text not in names:
            near = get_close_matches(text, names, n=1, cutoff=0.5)
            raise ConfigError(unknown(kind, text, names if near or shown is None else shown))
        return text

    return name
