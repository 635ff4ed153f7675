"""What the papers state about their numbers, and what must hold between them, holds or is a known contradiction."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import pytest
import yaml

from results import papers

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT.parent / "shared" / "papers"
TEXTS = {"AAAI": "atm-aaai2023.md", "v1": "activemlp-v1.md"}
KINDS = {"misprint", "rounding", "editions", "text"}
TOP1, MIOU = ("top1", "classification"), ("miou", "Semantic FPN")
FLOPS, SEGMENTATION_M = ("flops_g", "classification"), ("params_m", "Semantic FPN")
RETINA, RETINA_M = ("ap_box", "RetinaNet", "COCO, 1x"), ("params_m", "RetinaNet", "COCO, 1x")
RETINA_3X, RETINA_3X_M = ("ap_box", "RetinaNet", "COCO, 3x MS"), ("params_m", "RetinaNet", "COCO, 3x MS")
MASK_RCNN = ("ap_box", "Mask R-CNN", "COCO, 1x")
MASK = ("ap_mask", "Mask R-CNN", "COCO, 1x")
MASK_RCNN_MS = ("ap_box", "Mask R-CNN", "COCO, 1x MS")

# What the prose says: (source, table, ours, theirs, (metric, head[, protocol]), stated). "%" after a count is relative.
STATED = [
    ("AAAI", 1, "ATMNet-T", "Swin-T", TOP1, "+0.8"), ("AAAI", 1, "ATMNet-B", "Swin-S", TOP1, "+0.3"),
    ("AAAI", 1, "ATMNet-L", "Swin-B", TOP1, "+0.3"), ("AAAI", 1, "ATMNet-L†", "Swin-B†", FLOPS, "-23%"),
    ("AAAI", 1, "ATMNet-xT", "CycleMLP-B1", TOP1, "+0.8"), ("AAAI", 1, "ATMNet-T", "CycleMLP-B2", TOP1, "+0.5"),
    ("AAAI", 1, "ATMNet-S", "CycleMLP-B3", TOP1, "+0.4"), ("AAAI", 1, "ATMNet-B", "CycleMLP-B4", TOP1, "+0.5"),
    ("AAAI", 1, "ATMNet-L", "CycleMLP-B5", TOP1, "+0.7"),
    ("AAAI", 2, "ATMNet-L", "Twins-L", MIOU, "+1.4"), ("AAAI", 2, "ATMNet-L", "Twins-L", SEGMENTATION_M, "-23%"),
    ("AAAI", 2, "ATMNet-L", "Twins-L", ("flops_g", "Semantic FPN"), "-16%"),
    ("AAAI", 3, "ATMNet-L", "Swin-B", ("miou_ms", "UperNet"), "+1.4"),
    ("AAAI", 3, "ATMNet-L", "Swin-B", ("params_m", "UperNet"), "-10%"),
    ("AAAI", 3, "ATMNet-S", "Swin-B", ("params_m", "UperNet"), "-50%"),
    ("AAAI", 5, "ATMNet-T", "Swin-T", MASK_RCNN, "+2.6"), ("AAAI", 5, "ATMNet-T", "Swin-T", MASK, "+1.9"),
    ("AAAI", 5, "ATMNet-L", "Swin-B", MASK_RCNN, "+1.9"), ("AAAI", 5, "ATMNet-L", "Swin-B", MASK, "+1.9"),
    ("AAAI", 5, "ATMNet-L", "Twins-L", MASK_RCNN, "+1.5"),
    ("AAAI", 5, "ATMNet-L", "Twins-L", ("params_m", "Mask R-CNN"), "-20%"),
    ("AAAI", 7, "ResNet-50, ATMFPN", "ResNet-50, FPN", MIOU, "+3.0"),
    ("AAAI", 7, "ResNet-50, ATMFPN", "ResNet-50, FPN", MASK_RCNN, "+1.9"),
    ("AAAI", 8, "②", "①", TOP1, "+2.7"), ("AAAI", 8, "②", "①", RETINA, "+7.4"), ("AAAI", 8, "②", "①", MIOU, "+7.7"),
    ("v1", 2, "ActiveMLP-T", "Swin-T", TOP1, "+0.8"), ("v1", 2, "ActiveMLP-B", "Swin-S", TOP1, "+0.3"),
    ("v1", 2, "ActiveMLP-L", "Swin-B", TOP1, "+0.1"), ("v1", 2, "ActiveMLP-T", "ResMLP-S24", TOP1, "+2.6"),
    ("v1", 2, "ActiveMLP-L", "ResMLP-B24", TOP1, "+2.6"), ("v1", 2, "ActiveMLP-T", "ResMLP-S24", FLOPS, "-33%"),
    ("v1", 2, "ActiveMLP-L", "ResMLP-B24", FLOPS, "-47%"), ("v1", 2, "ActiveMLP-L", "Swin-B", FLOPS, "-20%"),
    ("v1", 2, "ActiveMLP-L", "Swin-B", ("params_m", "classification"), "-14%"),
    ("v1", 2, "ActiveMLP-xT", "CycleMLP-B1", TOP1, "+0.8"), ("v1", 2, "ActiveMLP-T", "CycleMLP-B2", TOP1, "+0.4"),
    ("v1", 2, "ActiveMLP-S", "CycleMLP-B3", TOP1, "+0.4"), ("v1", 2, "ActiveMLP-B", "CycleMLP-B4", TOP1, "+0.5"),
    ("v1", 2, "ActiveMLP-L", "CycleMLP-B5", TOP1, "+0.5"),
    ("v1", 3, "ActiveMLP-xT", "Swin-T", MIOU, "+1.5"), ("v1", 3, "ActiveMLP-xT", "PVT-T", MIOU, "+3.2"),
    ("v1", 3, "ActiveMLP-L", "Twins-L", MIOU, "+1.4"), ("v1", 3, "ActiveMLP-L", "Twins-L", SEGMENTATION_M, "-23%"),
    ("v1", 3, "ActiveMLP-L", "Twins-L", ("flops_g", "Semantic FPN"), "-16%"),
    ("v1", 4, "ActiveMLP-L", "Swin-B", ("miou_ms", "UperNet"), "+1.4"),
    ("v1", 4, "ActiveMLP-L", "Swin-B", ("params_m", "UperNet"), "-10%"),
    ("v1", 5, "ActiveMLP-xT", "WaveMLP-T", RETINA, "+0.8"), ("v1", 5, "ActiveMLP-T", "WaveMLP-S", RETINA, "+0.2"),
    ("v1", 5, "ActiveMLP-S", "WaveMLP-M", RETINA, "+0.6"), ("v1", 5, "ActiveMLP-L", "WaveMLP-B", RETINA, "+1.9"),
    ("v1", 5, "ActiveMLP-T", "Swin-T", MASK_RCNN, "+2.6"), ("v1", 5, "ActiveMLP-T", "Swin-T", MASK, "+1.9"),
    ("v1", 5, "ActiveMLP-B", "Swin-S", MASK_RCNN, "+1.7"), ("v1", 5, "ActiveMLP-B", "Swin-S", MASK, "+1.6"),
    ("v1", 5, "ActiveMLP-L", "Swin-B", MASK_RCNN, "+1.9"), ("v1", 5, "ActiveMLP-L", "Swin-B", MASK, "+1.1"),
    ("v1", 5, "ActiveMLP-L", "Twins-L", MASK_RCNN, "+1.5"), ("v1", 5, "ActiveMLP-L", "Twins-L", RETINA, "+0.4"),
    ("v1", 5, "ActiveMLP-L", "Twins-L", ("params_m", "Mask R-CNN"), "-20%"),
    ("v1", 5, "ActiveMLP-L", "Twins-L", RETINA_M, "-23%"),
    ("v1", 6, "ActiveMLP-L", "Swin-B", MASK_RCNN_MS, "+0.8"), ("v1", 6, "ActiveMLP-L", "Swin-B", RETINA_3X, "+1.7"),
    ("v1", 6, "ActiveMLP-L", "Swin-B", ("params_m", "Mask R-CNN"), "-10%"),
    ("v1", 6, "ActiveMLP-L", "Swin-B", RETINA_3X_M, "-13%"),
    ("v1", 7, "②", "①", TOP1, "+2.5"), ("v1", 7, "②", "①", MASK_RCNN_MS, "+8.2"),
    ("v1", 7, "②", "①", ("ap_mask", "Mask R-CNN"), "+6.0"),
]  # fmt: skip
SAME = [  # tables of the two versions that print the same experiments: (AAAI, v1)
    (1, 2), (2, 3), (3, 4), (4, 5), (4, 6), (5, 5), (5, 6),
]  # fmt: skip


def known(source: str, table: str, row: str, metric: str, head: str, protocol: str = "") -> bool:
    """Whether a number has a contradiction other than in the prose."""
    return any(
        entry.kind != "text"
        and metric in entry.metrics
        and head == entry.head
        and (not protocol or entry.protocol in (None, protocol))
        for entry in papers.contradictions(source, table, row)
    )


def test_every_contradiction_points_at_numbers_that_are_printed():
    assert len(papers.contradictions()) > 30
    for entry in papers.contradictions():
        numbers = [
            papers.number(entry.source, entry.table, row, metric, entry.head, entry.protocol)
            for row, metric in product(entry.rows, entry.metrics)
        ]
        assert entry.kind in KINDS and entry.against and entry.evidence and numbers, entry
        if entry.kind != "text":
            printed = ", ".join(number.printed for number in numbers)
            assert entry.printed == printed or {entry.printed} == {number.model for number in numbers}, entry


def test_contradictions_are_found_by_their_place():
    (table_7,) = papers.contradictions("AAAI", "Table 7")
    assert table_7.rows == ("ResNet-50, ATMFPN",) and table_7.printed == "48.9" and table_7.head == "Semantic FPN"
    assert {entry.kind for entry in papers.contradictions("AAAI", "Table 1", "ATMNet-L")} == {"editions", "rounding"}
    assert papers.contradictions("AAAI", "Table 1", "ATMNet-xT") == ()


@pytest.mark.parametrize("stated", STATED, ids=lambda stated: "-".join(str(part) for part in (*stated[:4], stated[5])))
def test_what_the_prose_states_is_what_the_tables_give_or_a_known_contradiction(stated):
    source, number, ours, theirs, (metric, *where), claim = stated
    values = [papers.number(source, f"Table {number}", row, metric, *where).value for row in (ours, theirs)]
    if claim.endswith("%"):
        percent = 100 * (values[0] / values[1] - 1)
        holds = float(claim[:-1]) in (math.trunc(percent), round(percent))
    else:
        holds = values[0] - values[1] == pytest.approx(float(claim))
    noted = [
        entry
        for entry in papers.contradictions(source, f"Table {number}", ours)
        if entry.kind == "text"
        and metric in entry.metrics
        and entry.printed.removesuffix("%") == claim.removesuffix("%")
    ]
    assert holds != bool(noted)


def test_what_the_prose_is_said_to_state_stands_there():
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not beside the checkout")
    text = {source: (PAPERS / name).read_text(encoding="utf-8") for source, name in TEXTS.items()}
    claims = [(source, claim) for source, *_, claim in STATED]
    claims += [(entry.source, entry.printed) for entry in papers.contradictions() if entry.kind == "text"]
    assert not [
        (source, claim)
        for source, claim in claims
        if not re.search(rf"(?<![\d.]){re.escape(claim.lstrip('+'))}(?![\d]|\.\d)", text[source])
    ]


def test_the_two_versions_print_the_same_or_the_difference_is_known():
    table = papers.load()
    table = table[~table["metric"].str.endswith("_difference")]
    table["name"] = table["row"].str.replace("ActiveMLP", "ATMNet").str.replace("Wave-MLP", "WaveMLP").str.lower()
    counts = table["metric"].isin(["params_m", "flops_g"])
    table["setting"] = table["protocol"].where(~counts, "")
    compared = differing = 0
    for aaai, v1 in SAME:
        left = table[(table["source"] == "AAAI") & (table["table"] == f"Table {aaai}")]
        right = table[(table["source"] == "v1") & (table["table"] == f"Table {v1}")]
        both = left.merge(right, on=["name", "head", "metric", "setting"], suffixes=("", "_v1"))
        for row in both.to_dict("records"):
            compared += 1
            decimals = min(len(row[key].partition(".")[2]) for key in ("printed", "printed_v1"))
            if abs(row["value"] - row["value_v1"]) > 0.5 * 10**-decimals + 1e-9:
                differing += 1
                assert known("AAAI", row["table"], row["row"], row["metric"], row["head"], row["protocol"]) or known(
                    "v1", row["table_v1"], row["row_v1"], row["metric"], row["head"], row["protocol_v1"]
                ), row
    assert (compared, differing) == (473, 29)


def test_v1_table_1_repeats_its_other_tables_or_the_difference_is_known():
    names = {"xTiny": "xT", "Tiny": "T", "Small": "S", "Base": "B", "Large": "L"}
    for row, metric in product(names, ("ap_box", "ap_mask")):
        summary = papers.number("v1", "Table 1", row, metric, "Mask R-CNN")
        full = papers.number("v1", "Table 6", f"ActiveMLP-{names[row]}", metric, "Mask R-CNN")
        assert (summary.value != full.value) == known("v1", "Table 1", row, metric, "Mask R-CNN")


def test_detection_rows_are_possible_or_known():
    table = papers.load()
    for place, rows in table.groupby(["source", "table", "row", "head", "protocol"]):
        values = dict(zip(rows["metric"], rows["value"], strict=True))
        for less, more in (
            ("ap_box", "ap50_box"), ("ap75_box", "ap50_box"), ("ap_mask", "ap50_mask"), ("ap75_mask", "ap50_mask"),
            ("ap_mask", "ap_box"), ("ap_small", "ap_medium"), ("ap_medium", "ap_large"), ("miou", "miou_ms"),
        ):  # fmt: skip
            if less in values and more in values and values[less] >= values[more]:
                assert known(*place[:3], less, *place[3:]), (place, less, more)


def test_two_detectors_differ_by_the_same_cost_on_every_backbone_or_it_is_known():
    table = papers.load()
    counts = table[(table["source"] == "AAAI") & (table["metric"] == "flops_g")]
    both = counts[counts["table"] == "Table 4"].merge(counts[counts["table"] == "Table 5"], on="row")
    assert len(both) == 13
    for row in both.to_dict("records"):
        usual = row["value_y"] - row["value_x"] in (18, 19)
        assert usual != known("AAAI", "Table 4", row["row"], "flops_g", "RetinaNet"), row


def test_table_10_is_the_architecture_but_for_the_known_misprints():
    variants = yaml.safe_load((ROOT / "atm" / "variants.yaml").read_text(encoding="utf-8"))
    for name, stage in product(("xT", "T", "S", "B", "L"), range(4)):
        model = variants[name.lower()]
        own, shared = f"Stage {stage + 1}, -{name}", f"Stage {stage + 1}"
        ours = {
            (shared, "channels"): model["dims"][stage],
            (own, "blocks"): model["depths"][stage],
            (own, "expansion"): model["mlp_ratios"][stage],
            (own, "offsets"): model["dims"][stage] / model["offset_sharing"][stage],
        }
        for (row, metric), value in ours.items():
            printed = papers.number("AAAI", "Table 10", row, metric, "backbone").value
            assert printed == value or known("AAAI", "Table 10", row, metric, "backbone"), (row, metric)
