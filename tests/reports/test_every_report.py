"""Every report, made from the committed run folders, as its readers see it: as text, in LaTeX, in a browser."""

from __future__ import annotations

import re
from decimal import Decimal

import pandas as pd
import pytest
import yaml

from reports import specification_files
from reports.content import compose
from reports.formats import files
from tests.reports import made_up
from tests.reports.browser import broken_links, column, every, header
from tests.reports.latex import typeset
from tests.reports.test_render import balanced, tables, unescaped_bars

LISTED = yaml.safe_load((specification_files.SPECS / "paper.yaml").read_text())["reports"]
OF_OTHERS = ("mixers",)  # beside numbers of another paper
OF_TASKS = ("necks",)  # whose own task has no number in the papers: a folder for each table, and one of them together
TOGETHER = {name: f"{name}/{name}-dense" for name in OF_TASKS}  # the folder of a report's first table; others: its own
REPORTS = sorted([*LISTED, "paper"])
TEXT_ONLY = ("v1_figure1", "learned_offsets")  # no table, or none before anything was measured
WITH_TABLE = [name for name in REPORTS if name not in ("paper", *TEXT_ONLY)]


@pytest.fixture(scope="session")
def every_result(both_papers, tmp_path_factory):
    """Results from run folders, then those of dense tasks. ``necks`` has no run folders."""
    dense = made_up.dense_results(tmp_path_factory.mktemp("dense"))
    return [*(each for each in both_papers if each.spec.name not in OF_TASKS), *dense]


@pytest.fixture(scope="session")
def written(every_result, tmp_path_factory):
    """Report's name → folder. Figures are drawn once, for the page of both papers, on which all reports are.

    A sweep that has results from run folders has its own report of these alone: one table per page.
    """
    folder = tmp_path_factory.mktemp("every")
    sweeps = {each.spec.name for each in every_result}
    for name in REPORTS:
        alone = [each for each in every_result if each.alias is None or name in OF_TASKS]
        results = alone if name in sweeps else every_result
        files.write(compose.page(name, results, figures=name == "paper"), folder / name)
    return folder


@pytest.mark.slow
def test_the_papers_tables_have_dense_results_beneath_every_kind_of_number(written):
    for number in range(2, 8):
        table = pd.read_csv(written / f"aaai_table{number}" / "table.csv")
        ours = table[table["verdict"].notna() & ~table["metric"].isin(["params_m", "flops_g"])]
        done = ours[ours["n"] > 0]
        assert {"miou", "ap_box"} & set(done["metric"]) and (done["runs"] != "").all(), number
        missing = set(ours["metric"]) - set(done["metric"])
        assert missing <= {"miou_ms"}, f"{number}: {missing}"


def test_the_committed_folders_hold_every_state(both_papers):
    states = {state for results in both_papers for state in results.collected.runs["state"]}
    assert states == {"done", "failed", "running", "interrupted", "not run", "unreadable"}
    warnings = [line for results in both_papers for line in results.collected.warnings]
    assert any("torn or not JSON" in line for line in warnings)


def test_all_reports_are_on_the_page_of_both_papers_but_those_of_our_own_questions():
    specs = {name: specification_files.of_sweep(name) for name in specification_files.names("sweep")}
    ours = [name for name, spec in specs.items() if spec.papers is None and name not in OF_TASKS] + [*OF_OTHERS]
    assert ours and sorted(["paper", "profile", "findings", *LISTED, *ours]) == specification_files.names()
    assert all(any(task.papers for task in specs[name].tasks.values()) for name in OF_TASKS)


@pytest.mark.parametrize("name", REPORTS)
def test_markdown_tables_have_equal_columns(written, name):
    page = (written / name / "report.md").read_text()
    assert page.startswith("# ") and "\n\n\n" not in page
    assert not re.search(r"\b(None|nan)\b", page)
    for block in tables(page):
        assert len({unescaped_bars(line) for line in block}) == 1 and len(block) > 2
    for picture in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (written / name / picture).is_file()
    assert bool(tables(page)) == (name not in TEXT_ONLY)


@pytest.mark.parametrize("name", WITH_TABLE)
def test_the_csv_has_a_line_for_every_number(written, name):
    frame = pd.read_csv(written / TOGETHER.get(name, name) / "table.csv")
    assert len(frame) and frame.columns.is_unique


@pytest.mark.parametrize("name", WITH_TABLE)
def test_latex_sets_each_table_by_itself(written, name):
    folder = written / TOGETHER.get(name, name)
    made = typeset(folder, "table_alone")
    shown = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    papers = shown["papers"] if name not in OF_TASKS else []  # the table of all tasks has differences
    printed = [f"{Decimal(text):f}" for text in papers if text]  # 1e-3 stands as 0.001
    assert made.pages <= 2 and (printed or name in OF_TASKS) and all(text in made.text for text in printed)
    assert "?" not in (folder / "table.tex").read_text()  # a character that markup.latex has no sign for


def test_latex_sets_all_tables_and_names_in_one_document(written):
    inputs = "\n".join(
        rf"\clearpage\sbox0{{\input{{{TOGETHER.get(name, name)}/table}}}}\input{{{name}/macros}}\usebox0"
        for name in WITH_TABLE
    )
    macros = [line for name in WITH_TABLE for line in (written / name / "macros.tex").read_text().splitlines()]
    names = [match.group(1) for line in macros if (match := re.match(r"\\newcommand\{(\\\w+)\}", line))]
    assert len(names) == len(set(names)) > 700
    used = " ".join(f"{name}{{}};" for name in names)
    preamble = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}"
    size = r"\usepackage[paperwidth=2000mm,paperheight=900mm]{geometry}"
    text = rf"{preamble}{size}\begin{{document}}\raggedright {inputs}\clearpage {used}\end{{document}}"
    (written / "all.tex").write_text(text)
    made = typeset(written, "all")
    assert balanced(text) and made.pages == 1 + len(WITH_TABLE)
    assert "79.41 ± 0.45 (n = 3), Δ +0.11, agrees" in made.text.replace("∆", "Δ")


@pytest.mark.parametrize("name", REPORTS)
def test_a_browser_shows_it_without_complaint(chromium, written, name):
    chromium.get((written / name / "report.html").as_uri())
    assert broken_links(chromium, written / name) == []
    assert all(width > 0 for width in every(chromium, "img", "e.naturalWidth"))
    if name in WITH_TABLE:
        section = every(chromium, "section[id]", "e.id")[0]
        before = column(chromium, section, 2)
        header(chromium, section, 2).find_element("tag name", "button").click()
        after = column(chromium, section, 2)
        assert sorted(before) == sorted(after)
        assert header(chromium, section, 2).get_attribute("aria-sort") == "ascending"
    assert chromium.get_log("browser") == []
