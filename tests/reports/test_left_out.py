"""Every page that would have held an excluded run says that it is left out, why, and what its own value is."""

from __future__ import annotations

import json
import shutil

import pytest

from reports import specification_files
from reports.content import compose
from reports.content.compose import Results
from reports.offsets import gathered, page
from results import archive, fill, label
from results.collect import collect
from tests.reports import made_up
from tests.reports.test_offset_figures import make, plan
from tests.results.synthetic import OFFSETS, make_plan, make_runs, run_id

WHY = "the node had ECC errors"


def exclude(folder, because=WHY):
    (folder / "excluded.json").write_text(json.dumps({"because": because}))


def test_a_sweeps_page_names_the_run_and_counts_the_others(tmp_path):
    planned, run = make_plan(seeds=(0, 1, 2)), run_id("axial", 2)
    make_runs(tmp_path, planned, examples=False)
    spec = specification_files.of_sweep("ablation_offsets")
    value = collect(planned, tmp_path).finals("eval/token_accuracy").set_index("run")["value"][run]
    exclude(tmp_path / run)
    results = Results(spec, collect(planned, tmp_path), planned, tmp_path)
    (section,) = compose.page(spec, [results], figures=False).sections
    (sentence,) = section.cautions
    assert all(part in sentence for part in (run, "seed 2", WHY, f"{value:.2f} %"))
    (line,) = [line for line in section.runs if line.id == run]
    assert (line.state, line.status) == ("excluded", f"excluded: {WHY}")
    (record,) = [record for record in section.records if record["arm"] == "axial"]
    assert (record["n"], record["planned"]) == (2, 3)
    assert value not in [number for number in record.values() if isinstance(number, float)]


def test_an_arm_of_which_every_run_is_excluded_shows_that_state(tmp_path):
    planned = make_plan(seeds=(0,))
    make_runs(tmp_path, planned, examples=False)
    exclude(tmp_path / run_id("axial", 0))
    spec = specification_files.of_sweep("ablation_offsets")
    results = Results(spec, collect(planned, tmp_path), planned, tmp_path)
    records = compose.page(spec, [results], figures=False).sections[0].records
    assert [record["state"] for record in records if record["arm"] == "axial"] == [f"excluded: {WHY}"]


def test_a_table_of_the_papers_names_the_excluded_runs_of_its_rows_alone(both_papers, tmp_path):
    shutil.copytree(made_up.FOLDER, tmp_path / "runs")
    of_variants = next(each for each in both_papers if each.spec.name == "variants")
    runs = of_variants.collected.runs
    run = runs[runs["arm"] == "xt"]["run"].iloc[0] if "xt" in set(runs["arm"]) else runs["run"].iloc[0]
    exclude(tmp_path / "runs" / run)
    results = made_up.results(tmp_path / "runs")
    (section,) = compose.page("aaai_table1", results, figures=False).sections
    assert [sentence for sentence in section.cautions if run in sentence and WHY in sentence]
    (other,) = compose.page("v1_table7", results, figures=False).sections
    assert not [sentence for sentence in other.cautions if run in sentence]


def test_the_offsets_of_an_excluded_run_are_left_out(tmp_path):
    planned = plan(("axial", 0), ("axial", 1))
    for run in ("axial-0", "axial-1"):
        make(tmp_path / run / "offsets", layers=4, name=run)
    exclude(tmp_path / "axial-1")
    spec = specification_files.load("learned_offsets")
    (section,) = gathered.sections(
        spec, {"ablation_offsets-smoke": (planned, tmp_path)}, {}, mixed=False, figures=False
    )
    assert f"Run axial-1 is left out: {WHY}." in section.cautions
    assert [run.status for run in section.runs] == ["measured", f"excluded: {WHY}"]
    folders = {"axial-0": tmp_path / "axial-0" / "offsets", "axial-1": f"excluded: {WHY}"}
    _, of_sweep = page.of_sweep(planned, folders)
    assert of_sweep.cautions == section.cautions


@pytest.fixture
def half(tmp_path, monkeypatch):
    """A report of which one seed was collected, and has no folder any more."""
    monkeypatch.setattr(archive, "MEASURED", tmp_path / "measured")
    planned, runs_dir = make_plan(OFFSETS, (0, 1)), tmp_path / "runs"
    make_runs(runs_dir, planned, examples=False)
    gone = [entry["run"] for entry in planned["runs"] if entry["seed"] == 0]
    first = {**planned, "runs": [entry for entry in planned["runs"] if entry["seed"] == 0]}
    label.into_label(collect(first, runs_dir), first, "half", title="t", date="d")
    for run in gone:
        shutil.rmtree(runs_dir / run)
    spec = specification_files.of_sweep("ablation_offsets")
    collected = fill.filled(collect(planned, runs_dir), planned, {"half": gone})
    return compose.page(spec, [Results(spec, collected, planned, runs_dir)], figures=False).sections[0], gone


def test_rows_from_measured_results_are_named_and_lead_to_their_files(half, tmp_path):
    section, gone = half
    assert any(
        line.startswith("From results/measured/half: ") and "axial (seed 0)" in line for line in section.cautions
    )
    assert "All other rows are from run folders." in section.cautions
    for run in section.runs:
        folders = {source.path.parent for source in run.sources}
        assert folders == ({tmp_path / "measured" / "half"} if run.id in gone else {tmp_path / "runs" / run.id})
    for run in [run for run in section.runs if run.id in gone]:
        lines = (tmp_path / "measured" / "half" / "metrics.csv").read_text().splitlines()
        assert lines[run.sources[0].line - 1].startswith(f"{run.id},")
