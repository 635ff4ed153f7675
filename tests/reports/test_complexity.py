"""Counted parameters and FLOPs stand beside every printed number, and agreement means: rounds to it."""

from __future__ import annotations

import itertools
import json

import pytest

from reports import specification_files
from reports.content import complexity
from reports.content.text import text
from reports.formats import terminal
from reports.specification import SpecificationError
from results import papers
from yaml_files import write_yaml

COUNTED = {  # label: M, G, as the specification of the model has them
    "ATMNet-xT": (15.349, 2.180), "ATMNet-T": (27.152, 3.972), "ATMNet-S": (38.631, 6.913), "ATMNet-B": (52.155, 10.148),
    "ATMNet-L": (76.238, 12.386), "ATMNet-L, 384 px": (76.238, 36.388), "T, zero": (26.803, 3.890),
    "T, one set per stage, no PEG (T*)": (26.934, 3.924), "T, one set per stage, PEG": (26.944, 3.928),
    "T, one set per stage, PEG, token offsets": (26.817, 3.896), "T, every 2nd block, no PEG": (27.142, 3.966),
    "xT, S = 1": (16.146, 2.294), "xT, joint, S = 1 (xT-A)": (14.922, 2.137), "xT, joint, released S": (14.125, 2.022),
    "xT, 3 samples, S = 1 (xT-B)": (22.000, 3.239), "xT, 3 samples, released S": (19.610, 2.894),
    "ATMNet-xT, Semantic FPN": (19.104, 33.061), "ATMNet-T, Semantic FPN": (30.907, 42.420),
    "ATMNet-S, Semantic FPN": (42.386, 57.783), "ATMNet-B, Semantic FPN": (55.909, 74.683),
    "ATMNet-L, Semantic FPN": (79.844, 86.605), "ResNet-50, Semantic FPN": (28.515, 45.894),
    "Swin-T, Semantic FPN": (31.894, 47.520), "ResNet-50, Semantic FPN, ATMFPN": (41.711, 55.914),
    "Swin-T, Semantic FPN, ATMFPN": (34.248, 47.548), "ATMNet-T, Semantic FPN, ATMFPN": (32.245, 41.365),
    "ATMNet-L, Semantic FPN, ATMFPN": (82.198, 86.633),
    "ATMNet-xT, UperNet": (45.325, 889.45), "ATMNet-T, UperNet": (57.128, 926.88), "ATMNet-S, UperNet": (68.607, 988.33),
    "ATMNet-B, UperNet": (82.131, 1055.93), "ATMNet-L, UperNet": (107.892, 1105.63),
    "ATMNet-xT, RetinaNet": (25.087, 196.01), "ATMNet-T, RetinaNet": (36.890, 232.57),
    "ATMNet-S, RetinaNet": (48.369, 292.58), "ATMNet-B, RetinaNet": (61.893, 358.59),
    "ATMNet-L, RetinaNet": (86.408, 404.78), "ATMNet-xT, Mask R-CNN": (35.005, 214.58),
    "ATMNet-T, Mask R-CNN": (46.808, 251.14), "ATMNet-S, Mask R-CNN": (58.287, 311.15),
    "ATMNet-B, Mask R-CNN": (71.810, 377.16), "ATMNet-L, Mask R-CNN": (95.744, 423.73),
    "ResNet-50, Mask R-CNN": (44.396, 259.791), "Swin-T, Mask R-CNN": (47.795, 267.009),
    "ResNet-50, Mask R-CNN, ATMFPN": (57.592, 298.931), "Swin-T, Mask R-CNN, ATMFPN": (50.149, 267.117),
    "ATMNet-T, Mask R-CNN, ATMFPN": (48.146, 247.015), "ATMNet-L, Mask R-CNN, ATMFPN": (98.098, 423.834),
    "ATMNet-xT, Cascade Mask R-CNN": (72.840, 693.14),
    "ATMNet-T, Cascade Mask R-CNN": (84.643, 729.69), "ATMNet-S, Cascade Mask R-CNN": (96.122, 789.70),
    "ATMNet-B, Cascade Mask R-CNN": (109.645, 855.71), "ATMNet-L, Cascade Mask R-CNN": (133.579, 902.28),
}  # fmt: skip
KEYS = {"offsets", "samples", "peg", "offset_sharing", "offset_interval", "fusion", "neck_offsets"}


@pytest.fixture
def counted():
    rows = {(row.model, json.dumps(row.kwargs), row.head, row.image_size): row.label for row in complexity.rows()}
    return complexity.compare(lambda model, kwargs, *rest: COUNTED[rows[(model, json.dumps(kwargs), *rest)]])


def test_rows_are_distinct_models(counted):
    rows = complexity.rows()
    assert {row.label for row in rows} == set(COUNTED)
    assert len({(row.model, json.dumps(row.kwargs), row.head, row.image_size) for row in rows}) == len(rows)
    assert set().union(*(row.kwargs for row in rows)) <= KEYS
    heads = ("Semantic FPN", "UperNet", "RetinaNet", "Mask R-CNN", "Cascade Mask R-CNN")
    b = ["ATMNet-B", *(f"ATMNet-B, {head}" for head in heads)]
    assert [row.label for row in complexity.rows("b")] == b == [row.label for row in complexity.rows("atmnet_b")]
    with pytest.raises(SpecificationError, match=r"unknown model or task 'atmnet_tt' .valid: b, .*, t, xt"):
        complexity.rows("atmnet_tt")


def test_rows_of_one_task():
    classifiers, dense, detectors = map(complexity.rows, ("classification", "segmentation", "detection"))
    assert [*classifiers, *dense, *detectors] == complexity.rows()
    assert complexity.rows("dense") == [*dense, *detectors]
    assert {row.head for row in classifiers} == {"classification"}
    assert {(row.head, row.image_size) for row in dense} == {("Semantic FPN", (512, 512)), ("UperNet", (512, 2048))}
    assert {row.image_size for row in detectors} == {(800, 1280)} and len(detectors) == 21
    with pytest.raises(SpecificationError, match=r"unknown model or task 'segmentaton'; did you mean 'segmentation'"):
        complexity.rows("segmentaton")


@pytest.mark.parametrize(
    ("row", "message"),
    [({"size": [512]}, "size: expected one number, or height and width"),
     ({"size": [1, 2, 3]}, "size: expected one number, or height and width"),
     ({"head": "UpperNet"}, "unknown head 'UpperNet'; did you mean 'UperNet'")],
)  # fmt: skip
def test_a_row_that_cannot_be_counted_is_refused(row, message, tmp_path, monkeypatch):
    row = {"label": "xT", "model": "atmnet_xt", "size": 224, **row}
    monkeypatch.setattr(specification_files, "SPECS", tmp_path)
    (tmp_path / "complexity.yaml").write_text(write_yaml({"rows": [row]}))
    with pytest.raises(SpecificationError, match=message):
        complexity.rows()


def test_the_known_disagreements_and_no_others_are_flagged(counted):
    differing = {(item.row.label, c.metric, c.printed) for item in counted for c in item.differing}
    assert differing == {
        ("ATMNet-xT", "params_m", "15.4"),
        ("ATMNet-B", "params_m", "51.9"),
        ("ATMNet-L", "params_m", "76.4"),
        ("ATMNet-L", "flops_g", "12.3"),
        ("ATMNet-B, UperNet", "flops_g", "1055"),
        ("ATMNet-S, RetinaNet", "params_m", "47"),
        ("ResNet-50, Semantic FPN, ATMFPN", "flops_g", "48.9"),
    }
    assert all(item.row.note for item in counted if item.differing)
    assert complexity.summary(counted) == "141 of 151 printed numbers agree at their printed precision."


def test_every_published_count_of_the_models_is_compared(counted):
    compared = {(c.place, c.metric) for item in counted for c in item.comparisons}
    heads = [head for group in complexity.TASKS.values() for head in group]
    published = papers.load().query("metric in ('params_m', 'flops_g') and model in ('xT', 'T', 'S', 'B', 'L')")
    published = published[published["head"].isin(heads)]
    necks = itertools.product(("ResNet-50", "Swin-Tiny"), ("FPN", "ATMFPN"))
    of_others = {(f"AAAI Table 7 {backbone}, {neck}", "flops_g") for backbone, neck in necks}
    of_others |= {("v1 Table 3 ResNet50", metric) for metric in complexity.METRICS}
    assert compared == {(f"{r.source} {r.table} {r.row}", r.metric) for r in published.itertuples()} | of_others


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
    assert ["ATMNet-L, UperNet", "512 × 2048", "107.892", "108", "1105.630", "1106", "agrees"] in body
    assert any("51.9 (v1 Table 1 Base)" in note for note in complexity.notes(counted))
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    terminal.print_section(section, console)
    output = console.export_text()
    assert "52 / 51.9 ≠" in output and "141 of 151" in output
    rows = {row["label"]: row for row in json.loads(complexity.to_json(counted))["rows"]}
    assert rows["ATMNet-B"]["published"][2] == {
        "metric": "params_m", "place": "v1 Table 1 Base", "printed": "51.9", "note": "", "agrees": False,
    }  # fmt: skip
    assert rows["xT, joint, S = 1 (xT-A)"]["published"][0]["agrees"] is None
    assert rows["ATMNet-L, UperNet"]["head"] == "UperNet" and rows["ATMNet-L, UperNet"]["size"] == [512, 2048]


def test_committed_counts_belong_to_one_head_of_a_row():
    """AAAI Table 7 prints one metric of a row for two heads."""
    row, counted_at = ("AAAI", "Table 7", "ATMNet-L, FPN"), complexity.counted_at()
    assert counted_at[(*row, "Semantic FPN"), "flops_g"] == pytest.approx(86.605, abs=5e-4)
    assert counted_at[(*row, "Mask R-CNN"), "flops_g"] == pytest.approx(423.73, abs=5e-3)
    assert ((*row, "UperNet"), "flops_g") not in counted_at
