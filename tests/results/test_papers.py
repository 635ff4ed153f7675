"""The published numbers are tidy, add up as the papers say, and stand in the papers' text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from results import papers

TEXTS = {"AAAI": "atm-aaai2023.md", "v1": "activemlp-v1.md"}
PAPERS = Path(__file__).resolve().parents[3] / "shared" / "papers"
UNITS = {
    "top1": "%",
    "ap_box": "%",
    "ap_mask": "%",
    "miou": "%",
    "params_m": "M",
    "flops_g": "G",
    "flops_increase": "%",
}
IN_HEADER = ("Table 1",)  # v1's Table 1 has its models as columns


def test_every_row_is_complete_and_there_once():
    table = papers.load()
    assert len(table) > 100
    for column in ("source", "table", "row", "model", "head", "protocol", "metric", "unit"):
        assert (table[column].str.strip() == table[column]).all() and (table[column] != "").all(), column
    assert set(table["source"]) == set(papers.SOURCES)
    assert set(table["model"]) == {"xT", "T", "S", "B", "L"}
    assert not table.duplicated(["source", "table", "row", "head", "metric"]).any()
    for metric, unit in table[["metric", "unit"]].drop_duplicates().itertuples(index=False):
        assert unit == ("points" if metric.endswith("_difference") else UNITS[metric])


def test_values_are_printed_as_numbers_or_explained():
    table = papers.load()
    assert table["printed"].str.fullmatch(r"(\d+(\.\d+)?)?").all()
    assert (table[table["printed"] == ""]["note"] != "").all()
    assert (table[table["value"].notna()]["value"] > 0).all()


def test_printed_differences_are_those_of_the_printed_values():
    table = papers.load()
    checked = 0
    for row in table[table["metric"].str.endswith("_difference")].to_dict("records"):
        base = "xT" if row["table"] == "Fig. 2" else "①"
        place = (row["source"], row["table"])
        metric = row["metric"].removesuffix("_difference")
        value = papers.number(*place, row["row"], metric, row["head"]).value
        assert value - papers.number(*place, base, metric, row["head"]).value == pytest.approx(row["value"]), row
        checked += 1
    assert checked == 16


def test_values_stand_in_the_text_of_the_papers():
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not beside the checkout")
    missing = []
    for row in papers.load().to_dict("records"):
        if not row["printed"] or row["note"].startswith("derived"):
            continue
        lines = (PAPERS / TEXTS[row["source"]]).read_text(encoding="utf-8").splitlines()
        named = row["table"] != "Fig. 2" and not (row["source"] == "v1" and row["table"] in IN_HEADER)
        token = re.compile(rf"(?<![\d.]){re.escape(row['printed'])}(?!\d|\.\d)")
        key = row["row"].removesuffix("†")
        if not any(token.search(line) and (key in line or not named) for line in lines):
            missing.append((row["source"], row["table"], row["row"], row["metric"], row["printed"]))
    assert not missing


def test_a_derived_value_is_its_derivation():
    derived = papers.load()
    derived = derived[derived["note"].str.startswith("derived")]
    assert len(derived) == 1
    for row in derived.to_dict("records"):
        left, right = row["note"].removeprefix("derived: ").split(" + ")
        assert float(left) + float(right) == pytest.approx(row["value"])


def test_numbers_are_looked_up_with_their_place_and_precision():
    number = papers.number("AAAI", "Table 8", "①", "flops_g")
    assert (number.value, number.printed, number.decimals, number.model) == (3.89, "3.890", 3, "T")
    assert number.place == "AAAI Table 8 ①"
    assert papers.number("AAAI", "Fig. 2", "xT-A", "top1").value is None
    assert papers.metrics("v1", "Table 7", "③") == ["params_m", "flops_g", "top1", "top1_difference"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (("AAI", "Table 8", "①", "top1"), "unknown source 'AAI'; did you mean 'AAAI'"),
        (("AAAI", "Table 9", "①", "top1"), "unknown table 'Table 9'"),
        (("AAAI", "Table 8", "④", "top1"), "unknown row '④' (valid: ①, ②, ③)"),
        (("AAAI", "Table 8", "①", "top5"), "unknown metric 'top5'; did you mean 'top1'"),
    ],
)
def test_what_was_not_published_is_refused_with_the_nearest_name(place, says):
    with pytest.raises(papers.PublishedError) as refused:
        papers.number(*place)
    assert says in str(refused.value) and "\n" not in str(refused.value)
