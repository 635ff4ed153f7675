"""Rounds many measured numbers at once, to the very floats that formatting and parsing each of them gives."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

DIGITS = 6  # significant digits kept of any measured number, here already: a committed CSV then loses nothing more
EXACT = 22  # 10 ** 22 is the last power of ten that is a float
NEAR = 1e-6  # scaled numbers carry an error of 1e-10 at most; this close to a half they are rounded one by one


def rounded(value: Any) -> Any:
    """A measured number at DIGITS significant digits; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def rounded_all(values: np.ndarray) -> np.ndarray:
    """``rounded`` of every element; what is not finite stays as it is.

    A number is scaled to an integer of DIGITS digits and back. Both steps take exact factors, so each is rounded once:
    the second gives the float nearest to that decimal, which is what parsing its digits gives; only next to a half can
    the first tip a digit, and there, as with very large and very small numbers, the digits are written out.
    """
    import numpy as np

    flat = values.ravel()
    sizes = np.abs(flat)
    easy = (sizes >= 1e-16) & (sizes < 1e20)
    sizes = np.where(easy, sizes, 1.0)
    places = DIGITS - 1 - np.floor(np.log10(sizes)).astype(np.int64)
    scaled = _shifted(sizes, places)
    places -= scaled >= 10**DIGITS  # the logarithm may be off by one next to a power of ten
    places += scaled < 10 ** (DIGITS - 1)
    scaled = _shifted(sizes, places)
    digits = np.rint(scaled)
    easy &= np.abs(np.abs(scaled - digits) - 0.5) > NEAR
    found = np.where(easy, np.copysign(_shifted(digits, -places), flat), flat)
    hard = np.flatnonzero(~easy & np.isfinite(flat) & (flat != 0))
    found[hard] = [rounded(value) for value in flat[hard].tolist()]
    return found.reshape(values.shape)


def _shifted(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values × 10 ** places: a product or a quotient with a power of ten that is a float."""
    import numpy as np

    factors, up = _powers()[np.abs(places)], places >= 0
    found: np.ndarray = values * factors if up.all() else np.where(up, values * factors, values / factors)
    return found


@cache
def _powers() -> np.ndarray:
    import numpy as np

    return np.array([float(10**power) for power in range(EXACT + 1)])
