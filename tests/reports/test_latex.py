"""A report's LaTeX is typeset by a real LaTeX with booktabs and graphicx alone, and shows the same numbers."""

from __future__ import annotations

import re

import pytest

from reports.content.page import Cell, Grid, Page, Section
from reports.content.values import Text
from reports.formats import files
from tests.reports.latex import typeset

OWN = r"\documentclass{article}\usepackage[utf8]{inputenc}\usepackage{booktabs}\begin{document}%s\end{document}"


NATURAL = 31.55  # points that the word "column" takes at 10 pt


def written(text):
    """As pdftotext has it: words apart by one space, letters that look alike the same."""
    return re.sub(r"\s+", " ", text).replace("∆", "Δ").replace("−", "-").replace("’", "'")


@pytest.fixture
def folder(finished, write_report, tmp_path):
    plan, _, collected = finished
    write_report(collected, plan, tmp_path, figures=False)
    return tmp_path


def test_the_table_by_itself_says_what_the_page_says(folder):
    made = typeset(folder, "table_alone")
    text = written(made.text)
    assert made.pages == 1 and "Δ to zero [95 % over seeds, these images]" in text
    assert "same sign, opposite sign: our Δ differs from 0" in text
    rows = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| ")][2:9]
    for row in rows:
        cells = [cell for cell in written(row).strip(" |").split(" | ") if cell != "–"]
        cells = [re.sub(r"( \[[a-z]\])+$", "", cell) for cell in cells]  # letters of remarks are raised there
        assert all(cell in text for cell in cells), row
    assert text.count("±") >= 7


def test_every_macro_stands_for_its_number_in_a_document(folder):
    macros = re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", (folder / "macros.tex").read_text())
    assert len(macros) > 50
    used = r"\par ".join(rf"{number}: \{name}{{}};" for number, (name, _) in enumerate(macros))
    (folder / "paper.tex").write_text(OWN % rf"\input{{macros}}\raggedright {used}")
    text = written(typeset(folder, "paper").text)
    for number, (_, tex) in enumerate(macros):
        assert f"{number}: {tex.replace('$-$', '-')};" in text


def test_awkward_words_are_set_as_they_are(messy, write_report, tmp_path):
    plan, collected = messy
    write_report(collected, plan, tmp_path, mixed=True, figures=False)
    expected = (
        "failed: 50% of $x 1$ & {A|B} <b> \\cmd #3"  # the raised and lowered signs behind it have no text of their own
    )
    assert expected in written(typeset(tmp_path, "table_alone").text)
    (tmp_path / "paper.tex").write_text(OWN % (r"\tiny\setlength{\tabcolsep}{0pt}\hspace*{-4cm}\input{table}"))
    assert expected in written(typeset(tmp_path, "paper", over=999).text)  # wider than an article, and that is all


def alone(folder, columns, rows, group=1):
    cells = [tuple(Cell(Text(f"{row}.{column:02}")) for column in range(columns)) for row in range(rows)]
    groups = tuple(tuple(cells[n : n + group]) for n in range(0, rows, group))
    grid = Grid(tuple(f"column {n}" for n in range(columns)), "l" + "r" * (columns - 1), groups)
    files.write(Page("p", "p", (Section("p", "p", grid=grid, legend=("How to read it.",)),)), folder)
    return typeset(folder, "table_alone")


@pytest.mark.parametrize(("columns", "rows", "group"), [(3, 4, 1), (30, 4, 1), (4, 60, 2), (20, 60, 2), (12, 90, 1)])
def test_a_table_of_any_size_is_on_one_page_and_never_enlarged(tmp_path, columns, rows, group):
    made = alone(tmp_path, columns, rows, group)
    first = made.text.split("\f")[0]
    assert all(f"{row}.{column:02}" in first for row in range(rows) for column in (0, columns - 1))
    assert made.pages <= 2 and "How to read it." in made.text
    assert made.first_word == pytest.approx(NATURAL, rel=0.01) if columns * rows < 100 else made.first_word < NATURAL
    assert made.first_word > 0.4 * NATURAL  # small, but it can be read
