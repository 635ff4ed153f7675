"""Counted parameters and FLOPs stand beside every printed number, and agreement means: rounds to it."""

from __future__ import annotations

import json

import pytest

from reports.content import complexity
from reports.content.text import text
from reports.formats import terminal
from reports.specification import SpecificationError
from results import papers

COUNTED = {  # label: M, G, as the specification of the model has them
    "ATMNet-xT": (15.349, 2.180), "ATMNet-T": (27.152, 3.972), "ATMNet-S": (38.631, 6.913), "ATMNet-B": (52.155, 10.148),
    "ATMNet-L": (76.238, 12.386), "ATMNet-L, 384 px": (76.238, 36.388), "T, zero": (26.803, 3.890),
    "T, one set per stage, no PEG (T*)": (26.934, 3.924), "T, one set per stage, PEG": (26.944, 3.928),
    "T, one set per stage, PEG, token offsets": (26.817, 3.896), "T, every 2nd block, no PEG": (27.142, 3.966),
    "xT, S = 1": (16.146, 2.294), "xT, joint, S = 1 (xT-A)": (14.922, 2.137), "xT, joint, released S": (14.125, 2.022),
    "xT, 3 samples, S = 1 (xT-B)": (22.000, 3.239), "xT, 3 samples, released S": (19.610, 2.894),
}  # fmt: skip
KEYS = {"offsets", "samples", "peg", "offset_sharing", "offset_interval", "fusion"}


@pytest.fixture
def counted():
    rows = {(row.model, json.dumps(row.kwargs), row.size): row.label for row in complexity.rows()}
    return complexity.compare(lambda model, kwargs, size: COUNTED[rows[model, json.dumps(kwargs), size]])


def test_rows_are_distinct_models(counted):
    rows = complexity.rows()
    assert {row.label for row in rows} == set(COUNTED)
    assert len({(row.model, json.dumps(row.kwargs), row.size) for row in rows}) == len(rows)
    assert set().union(*(row.kwargs for row in rows)) <= KEYS
    assert [row.label for row in complexity.rows("b")] == ["ATMNet-B"] == [r.label for r in complexity.rows("atmnet_b")]
    with pytest.raises(SpecificationError, match=r"unknown model 'atmnet_tt' .valid: b, l, s, t, xt"):
        complexity.rows("atmnet_tt")


def test_the_known_disagreements_and_no_others_are_flagged(counted):
    differing = {(item.row.label, c.metric, c.printed) for item in counted for c in item.differing}
    assert differing == {
        ("ATMNet-xT", "params_m", "15.4"),
        ("ATMNet-B", "params_m", "51.9"),
        ("ATMNet-L", "params_m", "76.4"),
        ("ATMNet-L", "flops_g", "12.3"),
    }
    assert all(item.row.note for item in counted if item.differing)
    assert complexity.summary(counted) == "37 of 43 printed numbers agree at their printed precision."


def test_every_published_count_of_the_models_is_compared(counted):
    compared = {(c.place, c.metric) for item in counted for c in item.comparisons}
    published = papers.load().query("metric in ('params_m', 'flops_g') and head == 'classification'")
    published = published[published["model"].isin(["xT", "T", "S", "B", "L"])]
    assert compared == {(f"{r.source} {r.table} {r.row}", r.metric) for r in published.itertuples()}


@pytest.mark.parametrize(
    ("value", "printed", "agrees"),
    [(15.349, "15", True), (15.349, "15.3", True), (15.349, "15.4", False), (15.5, "15", True), (15.51, "15", False),
     (3.972, "3.972", True), (3.9726, "3.972", False), (10.05, "10.1", True), (36.388, "36.4", True)],
)  # fmt: skip
def test_agreement_is_at_printed_precision(value, printed, agrees):
    number = papers.Number("AAAI", "Table 1", "x", "T", float(printed), printed, "M", "")
    assert complexity.rounds_to(value, number) is agrees


def test_terminal_and_json_show_the_same(counted):
    from rich.console import Console

    section = complexity.section(counted)
    body = [[text(cell.value) for cell in row] for row in section.grid.rows]
    assert len(body) == len(COUNTED) and {len(row) for row in body} == {len(complexity.HEADER)}
    assert ["ATMNet-B", "224", "52.155", "52 / 51.9 ≠", "10.148", "10.1", "1 of 6 differ"] in body
    assert any("51.9 (v1 Table 1 Base)" in note for note in complexity.notes(counted))
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    terminal.print_section(section, console)
    output = console.export_text()
    assert "52 / 51.9 ≠" in output and "37 of 43" in output
    rows = {row["label"]: row for row in json.loads(complexity.to_json(counted))["rows"]}
    assert rows["ATMNet-B"]["published"][2] == {
        "metric": "params_m", "place": "v1 Table 1 Base", "printed": "51.9", "note": "", "agrees": False,
    }  # fmt: skip
    assert rows["xT, joint, S = 1 (xT-A)"]["published"][0]["agrees"] is None
