"""The terminal shows the table of the page, and --json is one document that a program can read."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from reports import cells, compose, specification, table, terminal
from results.collect import collect
from tests.results.synthetic import make_plan


def built(collected, plan):
    return table.build(specification.of_sweep("ablation_offsets"), collected, plan)


def shown(width, plan, collected):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    terminal.print_table(built(collected, plan), console)
    return console.export_text()


def test_wide_terminals_have_one_line_per_arm(finished):
    plan, _, collected = finished
    made = built(collected, plan)
    lines = shown(170, plan, collected).splitlines()
    for row in made.rows:
        line = next(line for line in lines if line.split("  ")[0].strip() == row.label)
        assert all(cell in line for cell in cells.cells(made, row))
    assert any("another protocol" in line for line in lines)


def test_narrow_terminals_keep_every_number(finished):
    plan, _, collected = finished
    made = built(collected, plan)
    text = shown(90, plan, collected)
    assert max(map(len, text.splitlines())) <= 90
    for row in made.rows:
        assert f"{row.mean:.2f} ± {row.interval.half:.2f}" in text and f"{row.flops_g:.3f}" in text
        assert row.is_baseline or cells.signed(row.difference.low, 2) in text


def test_json_is_one_document(finished):
    plan, _, collected = finished
    document = json.loads(terminal.to_json(built(collected, plan)))
    assert (document["report"], document["protocol"], document["baseline"]) == ("ablation_offsets", "smoke", "zero")
    rows = {row["arm"]: row for row in document["rows"]}
    assert rows["axial"]["verdict"] == "agrees" and rows["axial"]["papers_difference"] == 2.7
    assert rows["axial"]["difference"] == pytest.approx(rows["axial"]["mean"] - rows["zero"]["mean"], abs=1e-3)
    assert rows["zero"]["difference"] is None and rows["joint"]["papers"] is None
    assert len(document["runs"]) == 21 and document["runs"][0]["text"] == "done"


def test_json_before_anything_has_run(tmp_path):
    plan = make_plan()
    text = terminal.to_json(built(collect(plan, tmp_path), plan))
    assert "NaN" not in text
    document = json.loads(text)
    assert {row["state"] for row in document["rows"]} == {"not run"}
    assert document["runs"][0]["wall_s"] is None and document["runs"][0]["step"] is None


def test_a_table_of_the_papers_stands_on_the_terminal_with_its_remarks(both_papers):
    section = compose.page("aaai_table8", both_papers).sections[0]
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    terminal.print_section(section, console)
    text = console.export_text()
    for row in section.grid.rows:
        line = next(line for line in text.splitlines() if all(cell.text in line for cell in row))
        assert line.split()[0] in "①②③ours"
    assert "3.924 [a]" in text and "[a] AAAI Table 8, ②, misprint" in text and "T* less PEG" in text


def test_a_page_of_many_tables_is_one_document(both_papers):
    document = json.loads(terminal.page_json(compose.page("paper", both_papers, figures=False)))
    sections = {section["section"]: section for section in document["sections"]}
    row = next(row for row in sections["aaai_table1"]["rows"] if (row["row"], row["metric"]) == ("ATMNet-T", "top1"))
    assert row["papers"] == "82.0" and row["n"] == 3 and row["low"] < row["ours"] < row["high"]
    assert len(row["runs"].split()) == 3 and set(row["runs"].split()) <= {
        r["run"] for r in sections["aaai_table1"]["runs"]
    }
