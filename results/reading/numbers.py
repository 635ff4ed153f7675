"""What counts as a number in files that anybody may have edited."""

from __future__ import annotations

import math

RANGE = range(-(2**63), 2**63)


def is_number(value: object) -> bool:
    """A finite number that a float can hold; not a bool."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def whole(value: object) -> int | None:
    """A number without its fraction, where 64 bits hold it."""
    if not is_number(value):
        return None
    found = int(value)  # type: ignore[call-overload]
    return found if found in RANGE else None
