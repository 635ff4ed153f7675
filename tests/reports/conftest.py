"""A finished offsets sweep, made up once for the whole room."""

from __future__ import annotations

import pytest

from results.collect import collect
from tests.results.synthetic import make_plan, make_runs


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(plan, runs_dir, collected) of seven arms and three seeds. Not to be changed: copy what you break."""
    plan, runs_dir = make_plan(), tmp_path_factory.mktemp("runs")
    make_runs(runs_dir, plan)
    return plan, runs_dir, collect(plan, runs_dir)
