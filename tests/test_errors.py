"""Messages name the nearest valid choices, and no more names than a reader can use."""

from __future__ import annotations

import pytest

from errors import unknown

RUNS = [f"run-{number:03}" for number in range(200)]


@pytest.mark.parametrize(
    ("name", "valid", "message"),
    [
        ("axail", ["zero", "axial"], "unknown arm 'axail'; did you mean 'axial'? (valid: axial, zero)"),
        ("other", ["zero", "axial"], "unknown arm 'other' (valid: axial, zero)"),
        ("x", [], "unknown arm 'x'"),
        ("run-019x", RUNS, "unknown arm 'run-019x'; did you mean 'run-019' or 'run-199' or 'run-198'?"),
        ("x", RUNS, f"unknown arm 'x' (valid: {', '.join(RUNS[:40])} and 160 more)"),
        ("x", RUNS[:40], f"unknown arm 'x' (valid: {', '.join(RUNS[:40])})"),
    ],
)
def test_an_unknown_name(name, valid, message):
    assert unknown("arm", name, valid) == message
