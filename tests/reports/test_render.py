"""A report is complete, well formed, safe to typeset, and the same bytes every time."""

from __future__ import annotations

import re
from statistics import fmean, stdev

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.formats import markup
from results import archive
from results.collect import collect
from tests.reports.conftest import NASTY
from tests.results.synthetic import make_plan, run_id


def unescaped_bars(line):
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))


def tables(page):
    """Runs of consecutive lines that start with a bar."""
    blocks, block = [], []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            blocks.append(block)
            block = []
    return blocks


def balanced(tex):
    """Braces and environments of LaTeX source, comments and escaped signs left out."""
    tex = re.sub(r"(?<!\\)%.*", "", tex).replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for sign in tex:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0 and tex.count(r"\begin{") == tex.count(r"\end{")


@pytest.fixture(scope="module")
def report(finished, write_report, tmp_path_factory):
    plan, _, collected = finished
    folder = tmp_path_factory.mktemp("report")
    return folder, write_report(collected, plan, folder)


def test_files(report):
    folder, files = report
    kinds = ("accuracy_flops", "forest", "reach", "examples", "learning_curves")
    expected = {"report.md", "report.html", "macros.tex", "table.tex", "table_alone.tex", "table.csv"}
    expected |= {f"{kind}.{suffix}" for kind in kinds for suffix in ("png", "pdf", "csv")}
    assert {path.name for path in files} == expected == {path.name for path in folder.iterdir()}
    assert all(path.stat().st_size > 100 for path in files)


def test_macros_are_the_numbers_of_the_runs(report, finished):
    """Each is computed here from the runs' last values."""
    written = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", (report[0] / "macros.tex").read_text()))
    finals = finished[2].finals("eval/token_accuracy").sort_values("seed").groupby("arm")["value"].apply(list)
    arms = {"zero": "Zero", "zero_mean": "ZeroMean", "token": "Token", "axial": "Axial", "axial_x3": "AxialXThree"}
    expected = {"AxialParams": "1.235", "AxialFlops": "0.152", "AxialVerdict": "same sign", "AxialPapersDelta": "+2.7"}
    for arm, name in arms.items():
        expected |= {f"{name}Mean": f"{fmean(finals[arm]):.2f}", f"{name}Deviation": f"{stdev(finals[arm]):.2f}"}
        expected |= {f"{name}N": "3"}
        if arm != "zero":
            differences = [value - zero for value, zero in zip(finals[arm], finals["zero"])]
            half = stats.t.ppf(0.975, 2) * stats.sem(differences)
            ends = {"Delta": 0.0, "DeltaLow": -half, "DeltaHigh": half}
            expected |= {name + end: f"{fmean(differences) + by:+.2f}".replace("-", "$-$") for end, by in ends.items()}
    shown = {name: written.get(f"atmAblationOffsetsSmoke{name}") for name in expected}
    assert shown == expected and shown["ZeroMeanDelta"].startswith("$-$")
    assert not any(name.startswith("atmAblationOffsetsSmokeZeroDelta") for name in written)


def test_the_page_says_what_it_shows(report, finished):
    folder, _ = report
    page = (folder / "report.md").read_text()
    assert page.startswith("# Offset configurations\n")
    assert "Protocol `smoke`, model nano, seeds 0, 1, 2: 21 of 21 runs have finished." in page
    assert "1,200 steps (20 epochs) on cpu" in page and "Commit a1b2c3d4;" in page and "2031-05-04" in page
    for entry in finished[0]["runs"]:
        assert entry["run"] in page
    for figure in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (folder / figure).is_file()
    assert "## Warnings" not in page and "\n\n\n" not in page


def test_markdown_columns_are_equal(report, messy, write_report, tmp_path):
    plan, collected = messy
    write_report(collected, plan, tmp_path / "out", mixed=True, figures=False)
    for folder in (report[0], tmp_path / "out"):
        blocks = tables((folder / "report.md").read_text())
        assert [len(block) for block in blocks] == [9, 23]
        for block in blocks:
            assert len({unescaped_bars(line) for line in block}) == 1
            assert re.fullmatch(r"\|( --- \|| ---: \|)+", block[1])


def test_a_messy_report_says_everything(messy, write_report, tmp_path):
    plan, collected = messy
    write_report(collected, plan, tmp_path, mixed=True, label="by hand", date="yesterday")
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# Offset configurations: by hand\n") and "Finished: yesterday." in page
    assert "Runs of different code are averaged here" in page and "with uncommitted changes" in page
    assert "## Warnings" in page and f"{run_id('joint', 0)}: provenance.json is missing" in page.replace("\\", "")
    assert markup.markdown_cell(NASTY) in page  # in full where the runs are listed
    assert "resumed once" in page
    assert balanced((tmp_path / "table.tex").read_text()) and balanced((tmp_path / "table_alone.tex").read_text())


def test_the_csv_holds_plain_numbers(report):
    table = pd.read_csv(report[0] / "table.csv").set_index("arm")
    assert len(table) == 7
    assert table.loc["axial", "difference"] == pytest.approx(
        table.loc["axial", "mean"] - table.loc["zero", "mean"], abs=1e-3
    )
    assert table.loc["axial", "low"] < table.loc["axial", "difference"] < table.loc["axial", "high"]
    assert table.loc["token", "papers_difference"] == 2.0 and table.loc["token", "papers_place"] == "v1 Table 7 ④"
    assert table.loc["axial_x3", "papers_against"] == "axial"


def test_latex_has_equal_columns_and_balances(report):
    tex = (report[0] / "table.tex").read_text()
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 8 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {7}
    assert balanced(tex) and tex.isascii()
    assert not balanced(tex.replace(r"\end{tabular}", "")) and not balanced(tex + "}")


@given(st.text())
def test_any_text_becomes_balanced_latex_and_one_markdown_cell(text):
    assert balanced(markup.latex(text))
    assert unescaped_bars(markup.markdown_row([text, "x"])) == 3
    assert "\n" not in markup.latex(text) and len(markup.markdown_row([text]).splitlines()) == 1


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(report, finished, write_report, tmp_path):
    plan, runs_dir, _ = finished
    again = write_report(collect(plan, runs_dir), plan, tmp_path)
    assert again[0].parent != report[1][0].parent
    for path in report[1]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_measured_folders_give_the_report_of_their_runs(report, finished, write_report, tmp_path):
    plan, _, collected = finished
    archive.write(collected, tmp_path / "measured", plan, title="t", date="d")
    back = archive.read(tmp_path / "measured")
    write_report(back, archive.plan_of(back), tmp_path / "out")
    for name in (
        "table.tex",
        "table.csv",
        "accuracy_flops.png",
        "reach.png",
        "learning_curves.csv",
        "learning_curves.png",
    ):
        assert (tmp_path / "out" / name).read_bytes() == (report[0] / name).read_bytes(), name
    without = re.sub(r"## Examples.*?(?=## )", "", (report[0] / "report.md").read_text(), flags=re.S)
    assert (tmp_path / "out" / "report.md").read_text() == without


def test_a_report_before_anything_has_run(write_report, tmp_path):
    plan = make_plan()
    files = write_report(collect(plan, tmp_path / "none"), plan, tmp_path / "out")
    names = ["report.md", "report.html", "macros.tex", "table.tex", "table_alone.tex", "table.csv"]
    assert [path.name for path in files] == names
    page = (tmp_path / "out" / "report.md").read_text()
    result, runs = tables(page)
    assert [line.count(" not run |") for line in result[2:]] == [1, 1, 2, 2, 2, 2, 1]  # the state, and waiting verdicts
    assert all(line.count(" not run |") == 1 for line in runs[2:])
