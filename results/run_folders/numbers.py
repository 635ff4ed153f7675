"""What counts as a number in files that anybody may have edited, and how many of its digits are reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from untrusted_files import is_number

DIGITS = 6  # significant digits of every reported number
RANGE = range(-(2**63), 2**63)


def not_finite(metrics: object) -> str:
    """The first metric that is no finite number, as ``eval/loss is nan``; empty where all are finite."""
    if not isinstance(metrics, Mapping):
        return "" if metrics is None else f"metrics is {str(metrics)[:40]!r}"
    return next((f"{name} is {value!r}" for name, value in metrics.items() if not is_number(value)), "")


def whole(value: object) -> int | None:
    """The number without its fraction; None for anything but a number that 64 bits can hold."""
    if not is_number(value):
        return None
    number = int(value)  # type: ignore[call-overload]
    return number if number in RANGE else None


def rounded(value: Any) -> Any:
    """A float at DIGITS significant digits; anything else is returned unchanged."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
