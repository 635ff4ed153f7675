"""A setting of the schema: a field with its meaning, its valid values and whether it decides numbers. No torch."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; an open end is not one of them. NaN lies in none."""

    low: float
    high: float
    text: str

    @classmethod
    def read(cls, text: str) -> Range:
        """From ``[0, 1)`` or ``(0, inf)``."""
        low, high = (float(end) for end in text[1:-1].split(","))
        return cls(low, high, text)

    def __contains__(self, number: float) -> bool:
        above = number > self.low or (number == self.low and self.text[0] == "[")
        below = number < self.high or (number == self.high and self.text[-1] == "]")
        return above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low:g}" if self.text[0] == "[" else f"above {self.low:g}"
        return f"in {self.text}"


def setting(
    default: Any,
    says: str,
    *,
    choices: tuple[str, ...] = (),
    plugins: str | None = None,
    within: str | None = None,
    pattern: str | None = None,
    scientific: bool = True,
    neutral: Any = MISSING,
) -> Any:
    """A dataclass field with what the config needs to know about it.

    choices: valid values; plugins: entry-point group whose names are valid, too; within: the interval of valid numbers,
    of each where it is a list, e.g. ``(0, 1]``; pattern: regular expression of valid text.
    neutral: the value at which the setting changes nothing about a run. While a setting has its neutral value, it is
    left out of the run's identity, so a setting that is added with one moves no run id. The neutral value is pinned
    when the setting is added and never changes, also where the default does.
    """
    metadata = {
        "says": says,
        "choices": choices,
        "plugins": plugins,
        "within": Range.read(within) if within else None,
        "pattern": pattern,
        "scientific": scientific,
        "neutral": neutral,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
