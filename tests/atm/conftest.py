"""What several of the model's tests run with."""

from collections.abc import Iterator

import pytest

from atm.sampling import use
from atm.sampling.backends import unavailable


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Sampling by the backend of that name; a module says in its ``pytestmark`` by which its tests run."""
    if reason := unavailable(request.param, "cpu"):
        pytest.skip(reason)
    use(request.param)
    yield request.param
    use("auto")
