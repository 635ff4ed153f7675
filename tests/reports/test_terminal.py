"""The terminal shows the table of the page, and --json is one document that a program can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from reports import specification_files
from reports.content import ablation, build_table, compose
from reports.content.text import signed, text
from reports.formats import terminal
from results.collect import collect
from tests.results.synthetic import make_plan


def built(collected, plan):
    return build_table.build(specification_files.of_sweep("ablation_offsets"), collected, plan)


def section_of(collected, plan):
    return ablation.section(built(collected, plan), plan, name="a", folder=Path("runs"), figures=False)


def shown(width, section):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    terminal.print_section(section, console)
    return console.export_text()


def test_wide_terminals_have_one_line_per_arm(finished):
    plan, _, collected = finished
    section = section_of(collected, plan)
    lines = shown(170, section).splitlines()
    for row in section.grid.rows:
        line = next(line for line in lines if line.split("  ")[0].strip() == text(row[0].value))
        assert all(text(cell.value) in line for cell in row)
    assert any("another protocol" in line for line in lines)


def test_narrow_terminals_keep_every_number(finished):
    plan, _, collected = finished
    output = shown(90, section_of(collected, plan))
    assert max(map(len, output.splitlines())) <= 90
    for row in built(collected, plan).first.rows:
        assert f"{row.mean:.2f} ± {row.interval.half:.2f}" in output and f"{row.flops_g:.3f}" in output
        assert row.is_baseline or signed(row.difference.low, 2) in output


def test_json_is_one_document(finished):
    plan, _, collected = finished
    document = json.loads(terminal.to_json(built(collected, plan)))
    assert (document["report"], document["protocol"], document["baseline"]) == ("ablation_offsets", "smoke", "zero")
    rows = {row["arm"]: row for row in document["rows"]}
    assert rows["axial"]["verdict"] == "same sign" and rows["axial"]["papers_difference"] == 2.7
    assert rows["axial"]["difference"] == pytest.approx(rows["axial"]["mean"] - rows["zero"]["mean"], abs=1e-3)
    assert rows["zero"]["difference"] is None and rows["joint"]["papers"] is None
    assert len(document["runs"]) == 21 and document["runs"][0]["text"] == "done"


def test_json_before_anything_has_run(tmp_path):
    plan = make_plan()
    written = terminal.to_json(built(collect(plan, tmp_path), plan))
    assert "NaN" not in written
    document = json.loads(written)
    assert {row["state"] for row in document["rows"]} == {"not run"}
    assert document["runs"][0]["wall_s"] is None and document["runs"][0]["step"] is None


def test_a_table_of_the_papers_stands_on_the_terminal_with_its_remarks(both_papers):
    section = compose.page("aaai_table8", both_papers).sections[0]
    output = shown(140, section)
    for row in section.grid.rows:
        line = next(line for line in output.splitlines() if all(text(cell.value) in line for cell in row))
        assert line.split()[0] in "①②③ours"
    assert "3.924 [b]" in output and "[b] AAAI Table 8, ②, misprint" in output and "T* less PEG" in output


def test_a_page_of_many_tables_is_one_document(both_papers):
    document = json.loads(terminal.page_json(compose.page("paper", both_papers, figures=False)))
    sections = {section["section"]: section for section in document["sections"]}
    row = next(row for row in sections["aaai_table1"]["rows"] if (row["row"], row["metric"]) == ("ATMNet-T", "top1"))
    assert row["papers"] == "82.0" and row["n"] == 3 and row["low"] < row["ours"] < row["high"]
    assert len(row["runs"].split()) == 3 and set(row["runs"].split()) <= {
        r["run"] for r in sections["aaai_table1"]["runs"]
    }
