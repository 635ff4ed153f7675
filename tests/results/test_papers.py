"""The published numbers are tidy, add up as the papers say, and stand in the papers' tables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from results import papers

TEXTS = {"AAAI": "atm-aaai2023.md", "v1": "activemlp-v1.md"}
PAPERS = Path(__file__).resolve().parents[3] / "shared" / "papers"
TABLES = [("AAAI", n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)] + [("v1", n) for n in range(1, 8)]
OURS = {"xT", "T", "S", "B", "L"}
UNITS = {
    **dict.fromkeys(("optimizer", "schedule", "augmentation"), "words"),
    **dict.fromkeys(("warmup_epochs", "epochs"), "epochs"),
    **dict.fromkeys(("weight_decay", "smoothing", "mixup", "cutmix", "erasing", "drop_path"), "ratio"),
    "lr": "rate",
    "batch_size": "images",
    "params_m": "M",
    "flops_g": "G",
    "flops_increase": "%",
    "channels": "count",
    "stride": "count",
    "blocks": "count",
    "offsets": "count",
    "expansion": "ratio",
    **dict.fromkeys(("top1", "miou", "miou_ms"), "%"),
    **dict.fromkeys(("ap_box", "ap50_box", "ap75_box", "ap_mask", "ap50_mask", "ap75_mask"), "%"),
    **dict.fromkeys(("ap_small", "ap_medium", "ap_large"), "%"),
}
SIZES = {"xT": "xTiny", "T": "Tiny", "S": "Small", "B": "Base", "L": "Large"}  # v1's Table 1 has its models as columns
KEY = ["source", "table", "row", "head", "protocol", "metric"]


def test_every_row_is_complete_and_there_once():
    table = papers.load()
    assert set(zip(table["source"], table["table"], strict=True)) == {
        *((source, f"Table {number}") for source, number in TABLES),
        ("AAAI", "Fig. 2"),
        ("AAAI", "Table 9"),
        ("STM", "Released models"),
    }
    for column in (*KEY, "model", "unit"):
        assert (table[column].str.strip() == table[column]).all() and (table[column] != "").all(), column
    assert not table.duplicated(KEY).any()
    for metric, unit in table[["metric", "unit"]].drop_duplicates().itertuples(index=False):
        assert unit == ("points" if metric.endswith("_difference") else UNITS[metric])


def test_a_file_holds_one_table_and_a_row_one_model():
    table = papers.load()
    for name, rows in table.groupby("file"):
        (place,) = set(zip(rows["source"], rows["table"], strict=True))
        assert name == f"{place[0].lower()}_{place[1].lower().replace('fig. ', 'figure').replace(' ', '')}.csv"
    assert (table.groupby(["source", "table", "row", "head"])["model"].nunique() == 1).all()
    named = table[table["row"].str.match("ATMNet|ActiveMLP")]
    assert set(named["model"]) == OURS
    assert all(re.match(rf"\w+-{r.model}\b", r.row) for r in named.itertuples())


def test_values_are_printed_as_numbers_or_explained():
    table = papers.load()
    assert table["printed"].str.fullmatch(r"(\d+(\.\d+)?(e-\d+)?)?").all()
    assert (table[table["printed"] == ""]["note"] != "").all()
    assert (table[table["value"].notna()]["value"] > 0).all()


def test_released_models_of_stm_evaluation_are_its_five_mixers_in_four_sizes():
    """Numbers of the released models' list, by size."""
    listed = {
        "U-HaloNet": (75.8, 83.0, 84.0, 84.6), "U-PVT": (72.8, 82.1, 83.2, 83.4), "U-Swin": (74.4, 82.3, 83.3, 83.7),
        "U-ConvNeXt": (75.1, 82.2, 83.1, 83.7), "U-InternImage": (75.3, 83.3, 84.1, 84.5),
    }  # fmt: skip
    rows = {f"{name}, {size}": value for name, values in listed.items()
            for size, value in zip(("micro", "tiny", "small", "base"), values)}  # fmt: skip
    assert {number.row: number.value for number in papers.numbers("STM", "Released models")} == rows


def test_printed_differences_are_those_of_the_printed_values():
    table = papers.load()
    checked = 0
    for row in table[table["metric"].str.endswith("_difference")].to_dict("records"):
        base = {"Fig. 2": "xT", "Table 7": row["row"].replace("ATMFPN", "FPN")}.get(row["table"], "①")
        base = "①" if row["source"] == "v1" else base
        place = (row["source"], row["table"])
        metric = row["metric"].removesuffix("_difference")
        value = papers.number(*place, row["row"], metric, row["head"]).value
        assert value - papers.number(*place, base, metric, row["head"]).value == pytest.approx(row["value"]), row
        checked += 1
    assert checked == 24


@cache
def _printed(source: str, number: int) -> tuple[tuple[str, ...], ...]:
    """The lines of one printed table as cells; AAAI sets captions below its tables, v1 above."""
    lines = (PAPERS / TEXTS[source]).read_text(encoding="utf-8").splitlines()
    (caption,) = [place for place, line in enumerate(lines) if line.startswith(f"Table {number}:")]
    step = -1 if source == "AAAI" else 1
    inside: list[str] = []
    place = caption + step
    while not re.match(r"Table \d|#+ ", lines[place]) and len(lines[place]) < 1000:
        if "\t" in lines[place]:
            inside.append(lines[place])
        elif inside and source == "v1" and lines[place]:
            break
        place += step
    return tuple(tuple(_plain(cell) for cell in line.split("\t")) for line in inside[::step])


def _plain(cell: str) -> str:
    """A cell without emphasis and citations."""
    for markup, text in (("<sup>†</sup>", "†"), (r"$\dagger$", "†"), ("<sup>2</sup>", "²"), ("<b>", ""), ("</b>", "")):
        cell = cell.replace(markup, text)
    cell = re.sub(r"\s*\[[\d, ]+\]", "", cell)
    return re.sub(r"\s*([²†])\s*", r"\1", cell).strip()


@cache
def _rows(source: str, number: int) -> tuple[tuple[str, ...], ...]:
    """The lines of a printed table in reading order: v1 sets some tables in two halves side by side."""
    lines = _printed(source, number)
    halves = 2 if source == "v1" and number in (2, 3, 4) else 1
    rows = [line[len(line) // halves * side :][: len(line) // halves] for side in range(halves) for line in lines]
    if (source, number) in {("AAAI", 7), ("v1", 4)}:  # a name that holds for the lines below it
        names = [row[0] for row in rows]
        names = [next(name for name in reversed(names[: place + 1]) if name or not place) for place in range(len(rows))]
        rows = [(name, *row[1:]) for name, row in zip(names, rows, strict=True)]
    return tuple(rows)


def _row(row: dict[str, str], number: int) -> tuple[str, ...]:
    """The printed line that a row of the data names."""
    named = [cells for cells in _rows(row["source"], number) if _names(row, number, cells)]
    if "(" in row["row"]:
        return named[["1st", "2nd", "3rd"].index(row["row"].split("(")[1][:-1])]
    return named[0]


def _names(row: dict[str, str], number: int, cells: tuple[str, ...]) -> bool:
    name = row["row"].split(" (")[0]
    if (row["source"], number) == ("v1", 4):
        return cells[:2] == (row["head"], name)
    if (row["source"], number) == ("AAAI", 7):
        return f"{cells[0]}, {cells[1].upper()}" == name
    return cells[0] == name


def _numbers(cells: tuple[str, ...]) -> list[str]:
    """The numbers of a row in the order of printing, a difference after its value."""
    return re.findall(
        r"(?<![\w.])\d+(?:\.\d+)?(?!\w)", " ".join(cell for cell in cells if cell not in ("224²", "384²"))
    )


@pytest.mark.parametrize(("source", "number"), TABLES)
def test_a_table_is_what_was_printed_number_for_number(source, number):
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not beside the checkout")
    table = papers.load()
    table = table[(table["source"] == source) & (table["table"] == f"Table {number}")]
    checked = 0
    columns: dict[int, set[tuple[str, str, bool]]] = {}
    if (source, number) in {("v1", 1), ("AAAI", 10)}:
        checked = _check_columns(source, number, table)
    else:
        for _, group in table.groupby(["row", "head"] if (source, number) == ("v1", 4) else ["row"], sort=False):
            cells = _row(group.iloc[0].to_dict(), number)
            names = 2 if (source, number) in {("v1", 4), ("AAAI", 7), ("AAAI", 8), ("v1", 7)} else 1
            assert _numbers(cells[names:]) == list(group["printed"]), cells
            rows = iter(group.to_dict("records"))
            for place, cell in enumerate(cells[names:]):
                held = [next(rows) for _ in _numbers((cell,))][:1]
                for r in held:  # the methods of v1's Table 4 share its columns
                    head = "" if (source, number) == ("v1", 4) else r["head"]
                    columns.setdefault(place, set()).add((r["metric"], head, "3x" in r["protocol"]))
            checked += len(group)
    assert checked == len(table) and checked >= 12
    meanings = [meaning for column in columns.values() for meaning in column]
    assert all(len(column) <= 1 for column in columns.values()) and len(set(meanings)) == len(meanings)


def _check_columns(source: str, number: int, table) -> int:
    """The two tables whose models are columns."""
    checked = 0
    if source == "v1":
        lines = {line[0]: line[1:] for line in _printed(source, number)}
        where = {"params_m": "#Param. (M)", "flops_g": "FLOPs (G)", "top1": "ImageNet-1K (%)"}
        for row in table.to_dict("records"):
            column = 2 * list(SIZES).index(row["model"]) + (row["metric"] == "ap_mask")
            assert lines[where.get(row["metric"], "COCO (mAP)")][column] == row["printed"], row
            assert lines[""][2 * list(SIZES).index(row["model"])] == row["row"]
            checked += 1
        return checked
    symbols = {"expansion": "E", "blocks": "N", "offsets": r"|\mathcal{O}", "stride": "S", "channels": "C"}
    text = {}
    stage = ""
    for line in _printed(source, number):
        stage = line[0] or stage
        text.setdefault(stage, []).extend(cell for cell in line[1:] if cell)
    for row in table.to_dict("records"):
        stage, _, variant = row["row"].partition(", -")
        cells = text[stage]
        if variant:
            block = cells.index("ATM Block") + 1 + list(SIZES).index(variant)
            cells = [cells[block]]
        symbol = re.escape(symbols[row["metric"]].removeprefix("|"))
        pattern = rf"{symbol}_{stage[-1]}\|?\s*=\s*{row['printed']}\b"
        assert any(re.search(pattern, cell) for cell in cells), row
        checked += 1
    return checked


@pytest.mark.parametrize(("source", "number"), [place for place in TABLES if place not in {("v1", 1), ("AAAI", 10)}])
def test_no_printed_row_is_left_out(source, number):
    if not PAPERS.is_dir():
        pytest.skip("the papers' text is not beside the checkout")
    table = papers.load()
    table = table[(table["source"] == source) & (table["table"] == f"Table {number}")]
    filled = [
        cells for cells in _rows(source, number) if sum(bool(re.match(r"\d+(\.\d+)?( |$)", c)) for c in cells) > 1
    ]
    assert len(filled) == len(table.drop_duplicates(["row", "head"] if (source, number) == ("v1", 4) else ["row"]))


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
    assert list(papers.metrics("v1", "Table 7", "③")) == ["params_m", "flops_g", "top1", "top1_difference"]
    longer = papers.number("AAAI", "Table 4", "ATMNet-L", "ap_box", "RetinaNet", "COCO, 3x MS")
    assert (longer.value, longer.model) == (48.1, "L")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (("AAI", "Table 8", "①", "top1"), "unknown source 'AAI'; did you mean 'AAAI'"),
        (("AAAI", "Table 19", "①", "top1"), "unknown table 'Table 19'"),
        (("AAAI", "Table 8", "④", "top1"), "unknown row '④' (valid: ①, ②, ③)"),
        (("AAAI", "Table 8", "①", "top5"), "unknown metric 'top5'; did you mean 'top1'"),
        (("AAAI", "Table 4", "Swin-T", "ap_box", "RetinaNet"), "needs its protocol (COCO, 1x; COCO, 3x MS)"),
    ],
)
def test_what_was_not_published_is_refused_with_the_nearest_name(place, says):
    with pytest.raises(papers.PublishedError) as refused:
        papers.number(*place)
    assert says in str(refused.value) and "\n" not in str(refused.value)
