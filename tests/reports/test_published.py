"""The papers' tables: every printed number is shown, ours stand beneath the right rows, and contradictions are marked."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from statistics import fmean

import pytest
from scipy import stats

from reports import commands, specification_files
from reports.content import compose, published, remarks
from reports.content.build_table import build
from reports.content.page import Page, Section
from reports.content.reproduction import OurResults, Reproduction, RunPrices
from reports.content.text import text
from reports.content.values import NotRun, State
from reports.formats import macros, terminal
from reports.specification import PUBLISHED, Column, PublishedTable, SpecificationError
from results import archive, papers, recipes
from results.collect import collect
from results.statistics.estimates import mean_interval
from tests.reports import made_up
from tests.results.synthetic import edit_json, make_plan

TABLES = [name for name in specification_files.names(PUBLISHED) if specification_files.load(name).columns]


@pytest.fixture(scope="module")
def sections(both_papers):
    return {name: compose.page(name, both_papers).sections[0] for name in TABLES}


def ours(section, row, column):
    """The cell beneath a printed row, below a column."""
    at = section.grid.header.index(column)
    return next(group[1][at] for group in section.grid.groups if text(group[0][0].value) == row)


def printed_in(name):
    source, table = place_of(name)
    every = papers.load()
    return every[(every["source"] == source) & (every["table"] == table)]


def value_of(run, metric="eval_ema/top1"):
    return json.loads((made_up.FOLDER / run / "summary.json").read_text())["metrics"][metric]


def test_every_table_of_the_papers_has_a_report():
    tables = {(spec.source, spec.table) for spec in map(specification_files.load, TABLES)}
    printed = papers.load()
    assert tables == {place for place in zip(printed["source"], printed["table"]) if "Table" in place[1]}
    assert len(tables) == 17  # AAAI Tables 1 to 10, v1 Tables 1 to 7


@pytest.mark.parametrize("name", TABLES)
def test_every_printed_number_stands_in_one_cell(name, sections):
    section, printed = sections[name], printed_in(name)
    gains = printed["metric"].str.endswith("_difference")
    shown = [(r["row"], r["head"], r["protocol"], r["metric"]) for r in section.records]
    assert sorted(shown) == sorted(map(tuple, printed[~gains][["row", "head", "protocol", "metric"]].to_numpy()))
    texts = [text(cell.value) for group in section.grid.groups for cell in group[0]]
    assert sum("↑" in shown for shown in texts) == gains.sum()
    for gain in printed[gains]["value"]:
        assert any(shown.endswith(f"(↑{papers_text(gain, printed)})") for shown in texts)
    assert len({len(row) for row in section.grid.rows} | {len(section.grid.header), len(section.grid.sides)}) == 1


def papers_text(value, printed):
    return printed[printed["value"] == value]["printed"].iloc[0]


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_our_models_and_no_others_have_ours_beneath(name, sections):
    spec, printed = specification_files.load(name), printed_in(name)
    repeatable = set(printed[printed["model"].isin(spec.models)]["row"])
    for group in sections[name].grid.groups:
        assert len(group) == (2 if text(group[0][0].value) in repeatable else 1)
        assert len(group) == 1 or text(group[1][0].value) == "ours"
    assert repeatable


def test_means_are_judged_against_the_printed_number(sections):
    cell = ours(sections["v1_table7"], "①", "ImageNet, Top-1 (%)")
    assert len(cell.runs) == 3 and all("-t-" in run for run in cell.runs)  # the table is of T, another sweep has xT
    values = [value_of(run) for run in cell.runs]
    half = stats.t.ppf(0.975, 2) * stats.sem(values)
    assert text(cell.value) == f"{fmean(values):.2f} ± {half:.2f} (n = 3), Δ +{fmean(values) - 79.3:.2f}, agrees"
    assert cell.value.tone == "agrees" and cell.value.order == pytest.approx(fmean(values))


def test_a_mean_far_from_the_printed_one_excludes_it(sections):
    cell = ours(sections["v1_table7"], "④", "ImageNet, Top-1 (%)")
    assert cell.value.tone == "excluded" and ", Δ −1." in text(cell.value)


def with_zero(folder, values):
    """A sweep of ATMNet-T on the papers' protocol, of which only the arm without offsets has results."""
    plan = make_plan(protocol="paper", model="t")
    made = build(specification_files.of_sweep("ablation_offsets"), collect(plan, folder), plan).first
    interval = mean_interval(values) if values else None
    rows = tuple(replace(row, values=values, interval=interval) if row.arm == "zero" else row for row in made.rows)
    return Reproduction(replace(made, rows=rows), folder)


def beneath_zero(*reproductions):
    """The cell beneath the 79.3 that is printed without offsets."""
    section = published.section(specification_files.load("v1_table7"), OurResults(reproductions), figures=False)
    return ours(section, "①", "ImageNet, Top-1 (%)")


@pytest.mark.parametrize(("middle", "excluded"), [(79.34, False), (79.26, False), (79.40, True), (79.20, True)])
def test_a_mean_that_rounds_to_the_printed_number_does_not_exclude_it(tmp_path, middle, excluded):
    values = dict(enumerate([middle - 0.005, middle, middle + 0.005]))
    interval = mean_interval(values)
    assert not interval.low <= 79.3 <= interval.high
    cell = beneath_zero(with_zero(tmp_path, values))
    assert cell.value.order == pytest.approx(middle)
    assert (cell.value.tone == "excluded") is excluded


def test_of_several_reproductions_that_with_most_seeds_is_shown(tmp_path):
    seeds = ({}, {0: 78.0}, {0: 79.1, 1: 79.2, 2: 79.6}, {0: 81.0, 1: 81.5})
    reproductions = [with_zero(tmp_path / str(number), values) for number, values in enumerate(seeds)]
    for ordered in (reproductions, reproductions[::-1]):
        cell = beneath_zero(*ordered)
        assert cell.value.order == pytest.approx(79.3) and "n = 3" in text(cell.value)


@pytest.mark.parametrize(
    ("table", "row", "column", "pattern"),
    [
        ("aaai_table1", "ATMNet-S", "Top-1 (%)", r"83\.\d\d ± \d\.\d\d \(2 of 3\), Δ [+−]?0\.\d\d, agrees"),
        ("aaai_table1", "ATMNet-B", "Top-1 (%)", r"83\.\d\d \(1 of 3\), Δ [+−]0\.\d\d, not judged"),
        ("aaai_table1", "ATMNet-L", "Top-1 (%)", "not run"),
        ("aaai_table1", "ATMNet-L", "FLOPs (G)", "12.386, differs"),
        ("aaai_table1", "ATMNet-L", "Params (M)", "76.238, agrees"),
        ("aaai_table8", "②", "RetinaNet, AP box (%)", "not run"),
        ("aaai_table10", "Stage 4, -S", "Blocks", "3, differs"),
        ("aaai_table10", "Stage 4, -S", "Offsets", "64, agrees"),
        ("v1_table1", "Base", "Params (M)", "52.155, differs"),
    ],
)
def test_states_and_counts(sections, table, row, column, pattern):
    assert re.fullmatch(pattern, text(ours(sections[table], row, column).value))


def test_a_failed_run_is_named_until_another_seed_has_a_result(both_papers):
    """No printed row stands for the arm alone, so the sweep's own report shows it."""
    texts = [
        text(cell.value) for row in compose.page("ablation_peg", both_papers).sections[0].grid.rows for cell in row
    ]
    assert "not run; failed: non-finite loss at step 41; running 39 %" in texts


@pytest.mark.parametrize(
    "entry",
    [entry for entry in papers.contradictions() if entry.rows],
    ids=lambda e: f"{e.source} {e.table} {e.rows[0]}",
)
def test_contradicted_numbers_are_marked(entry, sections):
    name = next(n for n in TABLES if (entry.source, entry.table) == place_of(n))
    section = sections[name]
    letter = next(letter for letter, remark in section.remarks.items() if remark == remarks.sentence(entry))
    marked = {
        text(group[0][0].value) for group in section.grid.groups if any(letter in cell.marks for cell in group[0])
    }
    assert marked <= set(entry.rows) and marked
    metrics = {m.removesuffix("_difference") for m in entry.metrics}
    columns = [column.metric for column in specification_files.load(name).columns]
    offset = len(section.grid.header) - len(columns)
    for group in section.grid.groups:
        for cell, metric in zip(group[0][offset:], columns):
            assert letter not in cell.marks or metric in metrics


@pytest.mark.parametrize("entry", papers.statements(), ids=lambda e: f"{e.source} {e.table}")
def test_contradicted_words_stand_on_the_page_of_both_papers_and_by_the_tables_they_concern(entry, sections):
    page = compose.page("paper", [], figures=False)
    (section,) = (section for section in page.sections if section.name == "statements")
    (row,) = (row for row in section.grid.rows if text(row[0].value) == f"{entry.source} {entry.table}")
    assert text(row[1].value) == entry.printed
    (letter,) = row[0].marks
    assert section.remarks[letter] == remarks.sentence(entry)
    for name in TABLES:
        source, table = place_of(name)
        concerned = source == entry.source and table in entry.concerns
        assert (remarks.sentence(entry) in sections[name].legend) == concerned


def place_of(name):
    spec = specification_files.load(name)
    return spec.source, spec.table


def test_runs_of_all_cells_are_listed_with_their_files(sections):
    for section in sections.values():
        behind = {run for row in section.grid.rows for cell in row for run in cell.runs}
        assert behind == {run.id for run in section.runs}
        for run in section.runs:
            assert all(source.path.is_file() for source in run.sources)
    sources = {source.text: source for source in sections["aaai_table8"].runs[0].sources}
    assert list(sources) == ["config.yaml", "provenance.json", "metrics.jsonl", "summary.json"]
    log = sources["metrics.jsonl"]
    row = json.loads(log.path.read_text().splitlines()[log.line - 1])
    assert row["eval_ema/top1"] == value_of(log.path.parent.name)


def test_committed_results_are_linked_to_their_lines():
    """Of the smoke sweep's page, every run to the line of metrics.csv with its reported value."""
    label = "ablation_offsets-smoke"
    folder = archive.folder(label)
    collected = archive.read(folder)
    results = compose.Results(
        specification_files.of_sweep("ablation_offsets"), collected, archive.plan_of(collected), folder, label
    )
    section = compose.page("ablation_offsets", [results], figures=False).sections[0]
    lines = (folder / "metrics.csv").read_text().splitlines()
    finals = collected.finals("eval/token_accuracy").set_index("run")["value"]
    for run in section.runs:
        assert [source.path for source in run.sources] == [folder / "metrics.csv", folder / "runs.csv"]
        row = dict(zip(lines[0].split(","), lines[run.sources[0].line - 1].split(",")))
        assert (row["run"], row["metric"], row["final"]) == (run.id, "eval/token_accuracy", "True")
        assert float(row["value"]) == finals[run.id]


def test_macros_are_names_that_latex_takes(sections):
    names = [name for section in sections.values() for name in macros.macros(section)]
    assert len(names) == len(set(names)) > 500
    assert all(re.fullmatch("[A-Za-z]+", name) for name in names)
    assert macros.macros(sections["aaai_table8"])["atmAaaiTableEightTwoImageNetTopOnePapers"] == "82.0"


def test_a_missing_or_ambiguous_column_is_refused():
    table = PublishedTable("x", "x", "x", "AAAI", "Table 4", (Column("AP", "ap_box"),))
    with pytest.raises(SpecificationError, match=r"column 'AP': .* prints ap_box several times; which protocol\?"):
        published.section(table, OurResults())
    table = PublishedTable("x", "x", "x", "AAAI", "Table 4", (Column("Top-1", "top1"),))
    with pytest.raises(SpecificationError, match="AAAI Table 4 has nothing in 'Top-1'"):
        published.section(table, OurResults())
    table = PublishedTable("x", "x", "x", "AAAI", "Table 44", (Column("Top-1", "top1"),))
    with pytest.raises(papers.PublishedError, match="unknown table 'AAAI Table 44'; did you mean 'AAAI Table 4'"):
        published.section(table, OurResults())


def rebuilt(both_papers, name, **changes):
    """All results, those of one sweep with a changed plan."""
    return [replace(each, plan={**each.plan, **changes}) if each.spec.name == name else each for each in both_papers]


def test_runs_that_changed_the_protocol_are_not_the_papers(both_papers):
    changed = rebuilt(both_papers, "variants", changed={"train.epochs": 1})
    section = compose.page("aaai_table1", changed, figures=False).sections[0]
    assert ours(section, "ATMNet-xT", "Top-1 (%)").value == NotRun(None, ("paper, changed",))
    page = compose.page("variants", changed, figures=False).sections[0]
    assert "Protocol `paper`, changed by `train.epochs=1`" in page.about
    assert any("another protocol than this table's (`paper`, changed)" in line for line in page.legend)


def test_what_is_not_run_has_its_price_with_the_runs_that_it_starts_from(both_papers):
    (of_384,) = [each for each in both_papers if each.spec.name == "resolution_384"]
    hours = {entry["run"]: {"224": 500.0, "384": 40.25}[entry["arm"]] for entry in of_384.plan["runs"]}
    priced = [replace(each, prices=RunPrices(hours, "GPU-hours on a GPU")) for each in both_papers]
    section = compose.page("aaai_table1", priced, figures=False).sections[0]
    assert text(ours(section, "ATMNet-L†", "Top-1 (%)").value) == "not run, 1621 h"
    (legend,) = [line for line in section.legend if "GPU-hours on a GPU" in line]
    assert "that they start from" in legend
    records = {(record["row"], record["metric"]): record for record in section.records}
    assert records["ATMNet-L†", "top1"]["hours"] == 3 * 540.25 and records["ATMNet-xT", "top1"]["hours"] is None
    assert text(ours(section, "ATMNet-S", "Top-1 (%)").value).startswith("83.10"), "2 of 3 are a result"

    del hours[next(entry["run"] for entry in of_384.plan["runs"] if entry["arm"] == "224")]
    section = compose.page("aaai_table1", priced, figures=False).sections[0]
    assert text(ours(section, "ATMNet-L†", "Top-1 (%)").value) == "not run", "a part of a price is none"
    assert any("`price=paper` measures it" in line for line in section.legend)


@pytest.mark.slow
def test_what_is_not_run_says_under_which_protocols_its_arm_was_run():
    committed = [commands._labelled(label, None) for label in archive.labels()]
    table8 = compose.page("aaai_table8", committed, figures=False).sections[0]
    assert text(ours(table8, "②", "ImageNet, Top-1 (%)").value) == "not run; run with smoke, tiny"
    assert text(ours(table8, "②", "RetinaNet, AP box (%)").value) == "not run; run with smoke"
    assert "Run with protocol `smoke`, in results paper-smoke-ablation_peg: ①, ② and ③." in table8.legend
    table7 = compose.page("aaai_table7", committed, figures=False).sections[0]
    assert text(ours(table7, "ATMNet-T, ATMFPN", "Mask R-CNN, AP box (%)").value) == "not run; run with smoke"
    assert text(ours(table7, "ATMNet-L, ATMFPN", "Mask R-CNN, AP box (%)").value) == "not run"
    table4 = compose.page("aaai_table4", committed, figures=False).sections[0]
    (sentence,) = [line for line in table4.legend if "paper-smoke-variants" in line]
    assert "nano in the place of ATMNet-xT" in sentence
    assert {record["elsewhere"] for record in table4.records if record["verdict"] == "waiting"} == {
        "smoke: paper-smoke-variants"
    }


def test_an_arm_of_a_similar_model_stands_for_no_row(both_papers, sections):
    """The offsets sweep with model T has a token arm too, of another offset interval than v1's."""
    expected = ours(sections["v1_table7"], "④", "ImageNet, Top-1 (%)")
    arms = [
        {**arm, "model": "t"}
        for each in both_papers
        if each.spec.name == "ablation_offsets"
        for arm in each.plan["arms"]
    ]
    section = compose.page("v1_table7", rebuilt(both_papers, "ablation_offsets", arms=arms), figures=False).sections[0]
    assert ours(section, "④", "ImageNet, Top-1 (%)") == expected and all("-t-" in run for run in expected.runs)


def test_results_that_cannot_be_shown_are_left_out_and_not_called_not_run(both_papers, tmp_path):
    shutil.copytree(made_up.FOLDER, tmp_path / "runs")
    (odd,) = {
        run
        for each in both_papers
        if each.spec.name == "variants"
        for run in each.collected.finals("eval_ema/top1")["run"]
        if "-xt-s0" in run
    }
    edit_json(tmp_path / "runs" / odd / "provenance.json", code_fingerprint="0dd")
    mixed = made_up.results(tmp_path / "runs")
    page = compose.page("aaai_table1", mixed, figures=False)
    assert ours(page.sections[0], "ATMNet-xT", "Top-1 (%)").value == State("left out: variants-paper")
    sentence = next(line for line in page.left_out if line.startswith("variants-paper is left out"))
    assert "Runs of different code would be averaged" in sentence
    records = {(r["row"], r["metric"]): r for r in page.sections[0].records}
    assert records["ATMNet-xT", "top1"]["state"] == "left out: variants-paper"
    assert json.loads(terminal.page_json(page))["lead"] == list(page.left_out)


def test_runs_of_different_data_beside_each_other_are_named(both_papers, tmp_path):
    shutil.copytree(made_up.FOLDER, tmp_path / "runs")
    for each in both_papers:
        if each.spec.name == "ablation_v1":
            for run in each.collected.runs.query("arm == 'token_peg'")["run"]:
                edit_json(tmp_path / "runs" / run / "provenance.json", data_fingerprint="0dd")
    results = [each for each in made_up.results(tmp_path / "runs") if each.spec.name != "ablation_v1"]
    alone = [each for each in made_up.results(tmp_path / "runs") if each.spec.name == "ablation_v1"]
    assert compose.page("v1_table7", results, figures=False).sections[0].cautions == ()
    token = [{**entry} for entry in alone[0].plan["runs"] if entry["arm"] == "token_peg"]
    arms = [arm for arm in alone[0].plan["arms"] if arm["name"] == "token_peg"]
    plan = {
        **alone[0].plan,
        "runs": token,
        "arms": arms,
        "baseline": "token_peg",
        "left_out": ["zero", "axial_nopeg", "axial_peg"],
    }
    other = replace(alone[0], plan=plan, collected=collect(plan, tmp_path / "runs"))
    section = compose.page("v1_table7", [*results, other], figures=False).sections[0]
    assert len(section.cautions) == 1 and "Runs of different data stand beside each other here" in section.cautions[0]


def test_a_table_says_which_code_measured_what_stands_beneath_its_numbers(both_papers):
    named = [replace(each, is_present=lambda *_: True) for each in both_papers]
    section = compose.page("aaai_table1", named, figures=False).sections[0]
    sweeps = {sentence.partition(":")[0] for sentence in section.about.split("*ours* of ")[1:]}
    assert "variants" in sweeps and section.about.count("Commit a1b2c3d4; code fingerprint") == len(sweeps)
    assert section.about.count("Measured by") == len(sweeps)
    assert compose.page("aaai_table1", [], figures=False).sections[0].about == ""


def test_the_settings_of_the_arms_behind_a_table_are_shown(sections):
    assert "offsets: zero" in sections["aaai_table8"].configs["zero"]


def test_sections_of_one_name_are_refused():
    twice = Section("same", "A")
    with pytest.raises(ValueError, match="several sections of page x have one name"):
        Page("x", "X", (twice, twice))


def test_settings_of_recipes_stand_beneath_the_printed_ones(monkeypatch):
    section = compose.page("aaai_table9", [], figures=False).sections[0]
    group = next(group for group in section.grid.groups if text(group[0][0].value) == "xT")
    assert text(group[0][2].value) == "0.001" and text(group[1][2].value) == "0.001, equal"
    assert text(group[1][1].value) == "AdamW, equal"
    assert {record["verdict"] for record in section.records} == {"equal"}
    fine_tuned = section.grid.groups[-1]
    assert [text(cell.value) for cell in fine_tuned[0]].count("–") == 11
    changed = recipes.load() | {("imagenet", "xt", "lr"): "0.0005"}
    monkeypatch.setattr(recipes, "load", lambda: changed)
    section = compose.page("aaai_table9", [], figures=False).sections[0]
    assert [record["row"] for record in section.records if record["verdict"] == "different"] == ["xT"]
    monkeypatch.setattr(recipes, "load", dict)
    with pytest.raises(SpecificationError, match="has no imagenet, xt, optimizer"):
        compose.page("aaai_table9", [], figures=False)
