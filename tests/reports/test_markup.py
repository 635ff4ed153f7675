"""Text of runs and names of arms stay text in every format."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reports.figures import style
from reports.formats import markup

PARTS = st.sampled_from([*"[]()!<>`*_|\\&:# ", "javascript:a", "<img src=x>", "](", "![", "a", "`` ", "https://x.y"])
HOSTILE = st.lists(PARTS, max_size=14).map("".join)
ALLOWED = {"text", "softbreak", "hardbreak", "code_inline", "strong_open", "strong_close", "em_open", "em_close"}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def inline(source: str) -> set[str]:
    return {each.type for token in MARKDOWN.parse(source) for each in token.children or []}


@given(HOSTILE)
def test_a_sentence_in_markdown_has_no_links_pictures_or_html(text):
    assert inline(f"- {markup.markdown_prose(text)}\n") <= ALLOWED
    assert "html_block" not in {token.type for token in MARKDOWN.parse(f"{markup.markdown_prose(text)}\n")}


@given(HOSTILE)
def test_a_cell_in_markdown_is_one_cell_of_text(text):
    table = f"{markup.markdown_row(['a', 'b'])}\n|---|---|\n{markup.markdown_row([text, text])}\n"
    tokens = MARKDOWN.parse(table)
    assert sum(token.type == "td_open" for token in tokens) == 2
    assert inline(table) <= {"text"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("x")'])
def test_a_spreadsheet_takes_text_in_a_csv_as_text(text):
    read = pd.read_csv(io.StringIO(markup.csv(pd.DataFrame([{"arm": text, "value": -1.5}]))))
    assert read.to_dict("records") == [{"arm": f"'{text}", "value": -1.5}]


@pytest.mark.parametrize("label", [r"$\frac{", "a$b$", r"\$x", "x_1^2"])
def test_a_figure_shows_dollars_as_they_are(label):
    with style.theme():
        figure = style.new_figure(2, 2)
        axes = figure.add_subplot()
        axes.plot([0, 1], label=label)
        axes.legend()
        assert style.files(figure, pd.DataFrame([{"arm": label}]), "x")["x.png"].startswith(b"\x89PNG")
