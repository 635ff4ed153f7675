"""What the papers state about their numbers, and what must hold between them, holds or is a known contradiction."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations, permutations, product
from pathlib import Path

import pytest
import yaml

from results import papers

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT.parent / "shared" / "papers"
TEXTS = {"AAAI": "atm-aaai2023.md", "v1": "activemlp-v1.md"}
KINDS = {"misprint", "rounding", "tables", "editions", "text", "wording"}
IN_WORDS = {"text", "wording"}  # kinds whose ``printed`` is the prose and not the numbers
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
SAME_NAME = {"Wave-MLP": "WaveMLP", "ResNet-": "ResNet", "Swin-Tiny": "Swin-T", "ActiveMLP": "ATMNet", ", FPN": ""}
OWN_NAME = {  # rows that are named by a number; v1's ③ and ④ are T*, which no other table has
    ("AAAI", "Table 8", "③"): "ATMNet-T", ("v1", "Table 7", "③"): "T*, PEG", ("v1", "Table 7", "④"): "T*, one offset",
    ("v1", "Table 1", "xTiny"): "ATMNet-xT", ("v1", "Table 1", "Tiny"): "ATMNet-T",
    ("v1", "Table 1", "Small"): "ATMNet-S", ("v1", "Table 1", "Base"): "ATMNet-B", ("v1", "Table 1", "Large"): "ATMNet-L",
}  # fmt: skip
# What the papers say where no number is wrong, and the words that contradict it, by place.
SAID = {
    ("AAAI", "Section 4.3"): (
        "we report the standard 1× (MS) schedule and 3× MS schedule",
        "For 1× schedule, we train the model with the single-scale inputs",
    ),
    ("AAAI", "Equation 3"): (
        r"\alpha^W \odot \tilde{\mathbf{x}}^W + \alpha^H \odot \tilde{\mathbf{x}}^H + \alpha^I \odot \tilde{\mathbf{x}}^I",
        r"to embed  $\tilde{\mathbf{x}}^{\{W,H,I\}}$  to  $\hat{\mathbf{x}}^{\{W,H,I\}}$ , respectively, which are then mixed",
    ),
    ("AAAI", "Section A2.2"): (
        "show the histograms of offsets w.r.t. the center token on COCO (object detection task) in Table 6",
        "Figure 6: Histograms of learned offsets for the center token from different layers, counted on all samples from "
        "COCO val",
    ),
    ("AAAI", "Table 8"): (
        "all offsets are fixed to 0, which means there is no spatial information interaction between different tokens in "
        "①",
        "The downsampling layer is implemented by overlapping patch embedding",
    ),
    ("v1", "Table 7"): (
        "Though there is no information interaction between different tokens in the MLP-based baseline ①",
        "are learned from the summation",  # of all branches, by the fusion, which ① has too
    ),
}


def known(source: str, table: str, row: str, metric: str, head: str, protocol: str = "") -> bool:
    """Whether a number has a contradiction other than in the prose."""
    return any(
        entry.kind not in IN_WORDS
        and metric in entry.metrics
        and head == entry.head
        and (not protocol or entry.protocol in (None, protocol))
        for entry in papers.contradictions(source, table, row)
    )


def texts() -> dict[str, str]:
    """The text of each version."""
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not beside the checkout")
    return {source: (PAPERS / name).read_text(encoding="utf-8") for source, name in TEXTS.items()}


def numbers_of(entry: papers.Contradiction) -> list[papers.Number]:
    return [
        papers.number(entry.source, entry.table, row, metric, entry.head, entry.protocol)
        for row, metric in product(entry.rows, entry.metrics)
    ]


def test_every_contradiction_points_at_numbers_that_are_printed():
    assert len(papers.contradictions()) > 50
    for entry in papers.contradictions():
        numbers = numbers_of(entry)
        assert entry.kind in KINDS and entry.against and entry.evidence, entry
        assert bool(numbers) != (entry in papers.statements()), entry
        if entry.kind not in IN_WORDS:
            printed = ", ".join(number.printed for number in numbers)
            assert entry.printed == printed or {entry.printed} == {number.model for number in numbers}, entry


def test_a_statement_without_a_number_concerns_tables_that_are_printed():
    assert [entry.table for entry in papers.statements()] == ["Section 4.3", "Equation 3", "Section A2.2"]
    for entry in papers.statements():
        assert entry.kind == "wording" and not entry.metrics
        assert all(papers.numbers(entry.source, table) for table in entry.concerns)
    assert [entry.table for entry in papers.statements("AAAI", "Table 5")] == ["Section 4.3"]
    assert papers.statements("AAAI", "Table 8") == papers.statements("v1") == ()


def test_contradictions_are_found_by_their_place():
    (neck,) = papers.contradictions("AAAI", "Table 7", "ResNet-50, ATMFPN")
    assert neck.rows == ("ResNet-50, ATMFPN",) and neck.printed == "48.9" and neck.head == "Semantic FPN"
    assert {entry.kind for entry in papers.contradictions("AAAI", "Table 1", "ATMNet-S")} == {"editions", "text"}
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
    text = texts()
    claims = [(source, claim) for source, *_, claim in STATED]
    claims += [(entry.source, entry.printed) for entry in papers.contradictions() if entry.kind == "text"]
    assert not [
        (source, claim)
        for source, claim in claims
        if not re.search(rf"(?<![\d.]){re.escape(claim.lstrip('+'))}(?![\d]|\.\d)", text[source])
    ]


def test_words_that_others_contradict_stand_there_with_the_others():
    text, wording = texts(), [entry for entry in papers.contradictions() if entry.kind == "wording"]
    assert {(entry.source, entry.table) for entry in wording} == set(SAID) and len(wording) == len(SAID)
    for entry in wording:
        said, otherwise = SAID[entry.source, entry.table]
        assert said in text[entry.source] and otherwise in text[entry.source], entry
        assert entry.table == "Equation 3" or entry.printed in said, entry
    formula = SAID["AAAI", "Equation 3"][0]
    assert formula not in text["v1"] and formula.replace("tilde", "hat") in text["v1"]


def test_the_single_scale_schedule_is_the_one_that_table_5_has():
    """v1 prints both schedules of Mask R-CNN; AAAI's numbers of its own models are those without MS."""
    for name in ("xT", "T", "S", "B", "L"):
        of_aaai = papers.number("AAAI", "Table 5", f"ATMNet-{name}", *MASK_RCNN).value
        assert of_aaai == papers.number("v1", "Table 5", f"ActiveMLP-{name}", *MASK_RCNN).value
        assert of_aaai != papers.number("v1", "Table 6", f"ActiveMLP-{name}", *MASK_RCNN_MS).value


def test_the_introduction_compares_two_resolutions():
    top1 = {row: papers.number("AAAI", "Table 1", row, "top1") for row in ("ATMNet-T", "ATMNet-L", "ATMNet-L†")}
    assert [number.value for number in top1.values()] == [82.0, 83.8, 84.8]
    assert "384x384" in top1["ATMNet-L†"].protocol and "384" not in top1["ATMNet-L"].protocol
    assert (
        "achieves 82.0% top-1 accuracy with 27M parameters and reaches 84.8% when scaling up to 76M" in texts()["AAAI"]
    )


def test_a_variant_is_not_more_accurate_than_a_network_of_its_scale():
    """Within the groups of the printed table, which end with our variants; models at 384 px are a group of their own."""
    ahead = []
    rivals: list[papers.Number] = []
    for number in papers.numbers("AAAI", "Table 1"):
        if number.metric == "top1" and not number.row.endswith("†"):
            if number.row.startswith("ATMNet"):
                ahead += [(number.row, rival.row) for rival in rivals if rival.value >= number.value]
                rivals = []
            else:
                rivals.append(number)
    assert ahead == [("ATMNet-L", "DeiT III-B")]
    assert any(entry.rows == ahead[0] and entry.kind == "text" for entry in papers.contradictions("AAAI", "Table 1"))


def same_things() -> Iterator[tuple[dict, dict]]:
    """Pairs of numbers that different tables, of one version or both, print for one thing."""
    table = papers.load()
    table = table[~table["metric"].str.endswith("_difference") & (table["printed"] != "")]
    name = [OWN_NAME.get(place, place[2]) for place in zip(table["source"], table["table"], table["row"])]
    for theirs, ours in SAME_NAME.items():
        name = [text.replace(theirs, ours) for text in name]
    trained = table["protocol"].str.replace(", 300 epochs", "")
    setting = trained.where(~table["metric"].isin(["params_m", "flops_g"]), "")
    table = table.assign(name=[text.lower() for text in name], setting=setting)
    for _, rows in table.groupby(["name", "head", "metric", "setting"]):
        for pair in combinations(rows.to_dict("records"), 2):
            if len({(row["source"], row["table"]) for row in pair}) == 2:
                yield pair


def differ(pair: tuple[dict, dict]) -> bool:
    """Whether no value rounds to both."""
    unit = 10.0 ** -min(len(row["printed"].partition(".")[2]) for row in pair)
    return abs(pair[0]["value"] - pair[1]["value"]) > 0.5 * unit + 1e-9


def test_tables_print_the_same_for_one_thing_or_the_difference_is_known():
    """Also the other way round: what is listed as a difference between tables is one."""
    place = ("source", "table", "row", "metric", "head", "protocol")
    compared, others = 0, defaultdict(set)  # a number's place -> the versions of those that differ from it
    for pair in same_things():
        compared += 1
        if differ(pair):
            places = [tuple(row[column] for column in place) for row in pair]
            assert any(known(*each) for each in places), places
            for this, other in permutations(places):
                others[this].add(other[0])
    assert compared > 500
    for entry in papers.contradictions():
        if entry.kind in ("tables", "editions"):
            wanted = {entry.source} if entry.kind == "tables" else set(papers.SOURCES) - {entry.source}
            for number in numbers_of(entry):
                assert wanted <= others[tuple(getattr(number, column) for column in place)], number


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
