"""What the benchmarks' options accept; anything else is refused in one line that names the nearest valid choice."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from errors import ConfigError, unknown


def positive(text: str) -> int:
    """A whole number, at least 1. Raises ArgumentTypeError, to which argparse adds the option."""
    return at_least(1)(text)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` on."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}")
        return value

    return number


def several(one: Callable[[str], object]) -> Callable[[str], list[object]]:
    """The type of an option that takes values separated by commas, each as ``one`` reads it."""
    return lambda text: [one(part.strip()) for part in text.split(",")]


def one_of(kind: str, valid: Iterable[str], shown: Iterable[str] | None = None) -> Callable[[str], str]:
    """The type of an option that takes one of the names in ``valid``.

    shown: the names to suggest where none of a long ``valid`` is near.
    """
    names = list(valid)

    def name(text: str) -> str:
        if text not in names:
            near = get_close_matches(text, names, n=1, cutoff=0.5)
            raise ConfigError(unknown(kind, text, names if near or shown is None else shown))
        return text

    return name
