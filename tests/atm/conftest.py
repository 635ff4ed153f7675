"""Fixtures of the model's tests."""

from collections.abc import Iterator

import pytest

from atm.sampling import use
from atm.sampling.backends import unavailable


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Makes the named backend sample; a module lists the names in its ``pytestmark``."""
    if reason := unavailable(request.param, "cpu"):
        pytest.skip(reason)
    use(request.param)
    yield request.param
    use("auto")
