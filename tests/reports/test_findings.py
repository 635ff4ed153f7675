"""Findings: every claim's verdict follows from the contrast of a sweep's report, whatever the numbers are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from experiments.folder.present_code import is_present
from reports import commands, specification_files
from reports.content import build_table, compose, findings
from reports.content.table import SweepResults
from reports.content.text import text
from reports.formats import files
from reports.specification import Contrast, Evidence, Findings, Metric, PrintedPair, SpecificationError, StatedClaim
from results import archive
from tests.reports.latex import typeset
from tests.reports.test_check import options
from tests.reports.test_render import tables, unescaped_bars

SWEEP = "ablation_offsets"
PRINTED = PrintedPair("AAAI", "Table 8", "②", "①", "top1", "top-1")


def shown(finished, *, expected="above", margin=None, contrast=(("axial",), ("token",)), changed=None, drop=()):
    """The finding and its row of text for one contrast of finished runs. drop: seeds whose runs have not finished."""
    plan, runs_dir, collected = finished
    plan = {**plan, "changed": changed or {}}
    spec = replace(specification_files.of_sweep(SWEEP), contrasts=(Contrast(*contrast),))
    own = spec.protocols[plan["protocol"]]
    spec = replace(spec, protocols={plan["protocol"]: Metric(**{**vars(own), "margin": margin})})
    if drop:
        runs, metrics = collected.runs.copy(), collected.metrics
        runs.loc[runs["seed"].isin(drop), "state"] = "running"
        left = ~metrics["run"].isin(runs[runs["seed"].isin(drop)]["run"])
        collected = replace(collected, runs=runs, metrics=metrics[left])
    results = SweepResults("made up", build_table.build(spec, collected, plan), runs_dir, None)
    evidence = Evidence(PRINTED, SWEEP, plan["protocol"], *contrast, expected)
    claim = StatedClaim("It matters", "AAAI Table 8", (evidence,), "little")
    of = Findings("findings", "Title", "Lead", (claim,))
    table, scale = findings.sections(of, [results], Path("docs"), figures=False)
    assert [text(cell.value) for cell in scale.grid.rows[0]] == ["It matters", "little"]
    (row,) = table.grid.rows
    return table, [text(cell.value) for cell in row]


def difference(finished):
    finals = finished[2].finals("eval/token_accuracy").set_index(["arm", "seed"])["value"]
    return (finals["axial"] - finals["token"]).mean()


def test_the_verdict_follows_from_the_sign_and_the_claim(finished):
    mean = difference(finished)
    side, other = ("above", "below") if mean > 0 else ("below", "above")
    table, row = shown(finished, expected=side)
    assert row[0] == "It matters (AAAI Table 8)" and row[1].startswith("+2.7") and row[-1] == "as claimed"
    assert shown(finished, expected=other)[1][-1] == "opposite"
    (record,) = table.records
    assert record["difference"] == pytest.approx(mean, abs=1e-4) and record["verdict"] == "as claimed"
    assert (record["papers_difference"], record["pairs"], record["planned"]) == (2.7, 3, 3)
    assert {run.arm for run in table.runs} == {"axial", "token"} and len(table.runs) == 6
    assert set(table.grid.rows[0][4].runs) == {run.id for run in table.runs}


def test_a_difference_can_be_real_and_within_the_margin(finished):
    side = "above" if difference(finished) > 0 else "below"
    assert shown(finished, expected=side, margin=1000.0)[1][-1] == "as claimed, within ±1000"


def test_what_is_not_different_is_equivalent_or_not_resolved(finished):
    found = next(findings._find(*_arguments(finished)))
    unresolved = replace(found, row=replace(found.row, p_holm=0.06))
    assert unresolved.verdict == "not resolved"
    wide = replace(found.table, metric=replace(found.table.metric, margin=1000.0))
    assert replace(unresolved, table=wide).verdict == "no difference, within ±1000"
    assert replace(found, row=replace(found.row, p_holm=None)).verdict == "not judged"


def _arguments(finished):
    plan, runs_dir, collected = finished
    spec = replace(specification_files.of_sweep(SWEEP), contrasts=(Contrast(("axial",), ("token",)),))
    evidence = Evidence(None, SWEEP, plan["protocol"], ("axial",), ("token",), "above")
    claim = StatedClaim("It matters", "ours", (evidence,), "little")
    results = SweepResults("made up", build_table.build(spec, collected, plan), runs_dir, None)
    return Findings("findings", "Title", "Lead", (claim,)), [results]


def test_there_is_no_verdict_before_the_last_run(finished):
    _, row = shown(finished, drop=(2,))
    assert row[-1] == "2 of 3 seeds" and row[4].endswith("(n = 2)")


def test_there_is_none_either_before_the_runs_of_other_arms_have_ended(finished):
    """Their tests are corrected together with this one."""
    spec, (results,) = _arguments(finished)
    first, *others = results.tables.tables
    runs = results.tables.runs.copy()
    of_zero = (runs["arm"] == "zero") & (runs["seed"] == 2)
    for state, verdict in (("running", f"{len(runs) - 1} of {len(runs)} runs of the sweep"), ("failed", None)):
        runs.loc[of_zero, "state"] = state
        tables = replace(results.tables, tables=(first, *others), runs=runs)
        (found,) = findings._find(spec, [replace(results, tables=tables)])
        assert found.verdict == (verdict or next(findings._find(*_arguments(finished))).verdict)


def test_results_under_changed_settings_are_no_evidence(finished):
    table, row = shown(finished, changed={"train.epochs": 1})
    assert row[-1] == "not run" and not table.runs and row[3] == f"{SWEEP}, protocol smoke"


@pytest.mark.slow
def test_the_page_in_every_format_and_as_committed(tmp_path, capsys):
    committed = [commands._labelled(label, None) for label in archive.labels()]
    files.write(compose.page("findings", committed), tmp_path)
    page = (tmp_path / "report.md").read_text()
    for block in tables(page):
        assert len({unescaped_bars(line) for line in block}) == 1 and len(block) > 2
    assert not re.search(r"\b(nan|None)\b", page.replace("Amendments: None.", ""))
    assert typeset(tmp_path, "table_alone").pages <= 2
    capsys.readouterr()
    assert commands.report("findings", {}, options(), None, is_present) == 0
    assert capsys.readouterr().out == "findings: as committed\n"


def test_every_claim_is_there_before_anything_has_run():
    spec = specification_files.load("findings")
    table, scale = findings.sections(spec, [], specification_files.SPECS.parents[1] / "docs")
    assert [row[0].value.words for row in scale.grid.rows] == [claim.claim for claim in spec.claims]
    assert {text(row[-1].value) for row in table.grid.rows} == {"not run", "not measured"} and not table.drawings
    printed = [each.printed for claim in spec.claims for each in claim.evidence if each.printed]
    assert len(printed) > 5
    for pair in printed:
        first, second = findings.printed_numbers(pair)
        assert second.value is not None and (first.value is not None or pair.side)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sweep": "campaign_tinny"}, "unknown report 'campaign_tinny'; did you mean 'campaign_tiny'"),
        ({"protocol": "smoke"}, "unknown protocol 'smoke'"),
        ({"minus": ["token"]}, "report campaign_tiny tests no contrast axial − token; those that it tests: zero_peg"),
        ({"expected": "over"}, "unknown side 'over'; did you mean"),
        ({"printed": {"source": "AAAI"}}, "printed: table, row, baseline, metric, label missing"),
    ],
)
def test_evidence_that_no_report_tests_is_refused(tmp_path, monkeypatch, change, message):
    evidence = {
        "sweep": "campaign_tiny",
        "protocol": "tiny",
        "plus": ["axial"],
        "minus": ["zero_peg"],
        "expected": "above",
    }
    claim = {"claim": "It matters", "source": "ours", "limits": "little", "evidence": [evidence | change]}
    specs = tmp_path / "specs"
    specs.mkdir()
    for path in specification_files.SPECS.glob("*.yaml"):
        (specs / path.name).symlink_to(path)
    (specs / "findings.yaml").unlink()
    (specs / "findings.yaml").write_text(
        yaml.safe_dump({"kind": "findings", "title": "t", "lead": "l", "claims": [claim]})
    )
    monkeypatch.setattr(specification_files, "SPECS", specs)
    with pytest.raises(SpecificationError) as error:
        specification_files.load("findings")
    assert message in str(error.value)
