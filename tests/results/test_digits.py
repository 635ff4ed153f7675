"""Numbers rounded together are the numbers rounded one by one, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from results.reading.digits import rounded, rounded_all


def bits(values):
    return np.array(values, dtype=float).view(np.int64).tolist()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
@example([0.0, -0.0, 999999.5, 9999995.0, 99999.95, 1e5, 1e6, 1e-5, 0.1234565, 2.5e-310, 1.7e308, 1e22, 1e23])
def test_any_float(values):
    assert bits(rounded_all(np.array(values))) == bits([rounded(value) for value in values])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-(10**7), 10**7), st.integers(-25, 25)), min_size=1))
def test_decimals_next_to_a_half(pairs):
    near = [float(f"{digits}5e{power}") for digits, power in pairs]
    values = [*near, *np.nextafter(near, np.inf).tolist(), *np.nextafter(near, -np.inf).tolist()]
    assert bits(rounded_all(np.array(values))) == bits([rounded(value) for value in values])


def test_what_a_training_logs():
    random = np.random.default_rng(0)
    values = [
        *(100 * random.integers(0, 50_000, 5000) / 50_000),
        *random.random(5000) * 10.0 ** random.integers(-9, 3, 5000),
    ]
    assert bits(rounded_all(np.array(values))) == bits([rounded(float(value)) for value in values])


def test_what_is_missing_stays_missing():
    assert np.isnan(rounded_all(np.array([[np.nan, 1.0]]))[0, 0])
