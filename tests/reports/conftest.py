"""A finished offsets sweep and a messy one, made once for all tests here, and a function that writes their reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reports import specification_files
from reports.content import compose
from reports.formats import files
from results.collect import collect
from tests.reports import browser, made_up, programs
from tests.results.synthetic import edit_json, make_plan, make_runs, run_id

NASTY = r"50% of $x_1$ & {A|B} <b> \cmd #3 ~^ [y] *z* `c` ① Δ ±"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(plan, runs_dir, collected) of seven arms and three seeds. Tests that change it work on a copy."""
    plan, runs_dir = make_plan(), tmp_path_factory.mktemp("runs")
    make_runs(runs_dir, plan)
    return plan, runs_dir, collect(plan, runs_dir)


@pytest.fixture(scope="session")
def both_papers(tmp_path_factory):
    """Results of every sweep, in every state, from the committed run folders."""
    runs_dir = tmp_path_factory.mktemp("both") / "runs"
    shutil.copytree(made_up.FOLDER, runs_dir)
    return made_up.results(runs_dir)


@pytest.fixture
def messy(finished, tmp_path):
    """(plan, collected) of unfinished runs, awkward words, mixed code: everything that a table must be able to set."""
    plan, runs_dir, _ = finished
    shutil.copytree(runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("*.npz"))
    runs_dir = tmp_path / "runs"
    (runs_dir / run_id("token", 0) / "summary.json").unlink()
    edit_json(runs_dir / run_id("token", 0) / "state.json", state="failed", cause=NASTY)
    for seed in (1, 2):
        shutil.rmtree(runs_dir / run_id("token", seed))
    edit_json(runs_dir / run_id("zero", 1) / "summary.json", notes=[NASTY, "resumed\nonce"])
    edit_json(runs_dir / run_id("zero", 2) / "provenance.json", code_fingerprint="0dd", dirty=True)
    (runs_dir / run_id("joint", 0) / "provenance.json").unlink()
    return plan, collect(plan, runs_dir)


@pytest.fixture(scope="session")
def write_report():
    """Writes the report of an offsets sweep, as the command line does, and returns its files."""

    def written(collected, plan, out_dir, *, folder=Path("runs"), label=None, **options):
        results = compose.Results(specification_files.of_sweep(plan["sweep"]), collected, plan, folder, label)
        return files.write(compose.page(plan["sweep"], [results], **options), out_dir)

    return written


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests."""
    programs.need(programs.without_browser())
    driver = browser.start()
    yield driver
    driver.quit()
