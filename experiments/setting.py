"""A setting of the schema: a field with its meaning, its valid values and whether it decides numbers. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
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


UNITS = {"seconds": 1, "minutes": 60}  # of settings that are a length of time, in seconds
CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


def read_time(text: str, unit: str) -> float | None:
    """A length of time as Slurm writes it, in ``unit``: ``30:00`` (minutes:seconds), ``24:00:00``, ``2-12``,
    ``2-12:30:00``; None for any other text, a bare number among them, which is in ``unit`` already.
    """
    match = CLOCK.fullmatch(text.strip())
    if match is None or not any(match[part] for part in ("days", "second")):
        return None
    first, second, third = (int(match[part] or 0) for part in ("first", "second", "third"))
    if match["days"] or match["third"]:  # they begin with hours
        seconds = 86400 * int(match["days"] or 0) + 3600 * first + 60 * second + third
    else:
        seconds = 60 * first + second
    return seconds / UNITS[unit]


def setting(
    default: Any,
    says: str,
    *,
    choices: tuple[str, ...] = (),
    plugins: str | None = None,
    within: str | None = None,
    pattern: str | None = None,
    unit: str | None = None,
    others: Mapping[str, str] | None = None,
    scientific: bool = True,
    neutral: Any = MISSING,
) -> Any:
    """A dataclass field with what the config needs to know about it.

    choices: valid values; plugins: entry-point group whose names are valid, too; within: the interval of valid numbers,
    of each where it is a list, e.g. ``(0, 1]``; pattern: regular expression of valid text;
    unit: of a length of time, one of UNITS; others: what other programs call a value → the value here, for messages.
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
        "unit": unit,
        "others": dict(others or {}),
        "scientific": scientific,
        "neutral": neutral,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
