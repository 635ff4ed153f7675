"""The parts of an HTML page that need no browser: columns of numbers, sentences, links, and a policy that fits."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.content.page import Cell, Grid, Page, RunLine, Section, SourceFile
from reports.content.text import text
from reports.content.values import Count, Numeral, PairedDifference, SeedMean, Text, Value
from reports.formats import alignment, files, html
from results.statistics.estimates import Difference, Interval
from tests.reports import tricky


def spaced(column):
    """As a typewriter would set it."""
    lines = alignment.aligned(column)
    return ["".join(" " * space + piece for space, piece in line.pieces) + " " * line.rest for line in lines]


def test_numbers_with_the_same_words_around_them_meet():
    column = [
        PairedDifference(Difference(0.72, -1.51, 2.95, 3, 1.0, (), ()), 2),
        PairedDifference(Difference(40.97, 32.74, 149.2, 12, 1.0, (), ()), 1),
        Text("baseline"),
        Text("2 × not run"),  # words that begin with a digit are no number
        SeedMean(Interval(5.0, None, None, 2, None), 3, 0),
    ]
    assert spaced(column) == [
        " +0.72 [ −1.51,   +2.95] (n =  3)",
        "+41.0  [+32.7 , +149.2 ] (n = 12)",
        "baseline",
        "2 × not run",
        "  5    (2 of 3)",
    ]
    assert spaced([Count(15.4, 1), Count(152, 0), Count(2.18, 3)]) == [" 15.4  ", "152    ", "  2.180"]
    numbers = [Count(15.4, 1), Text("–"), Count(-2, 0)]
    assert alignment.only_numbers(numbers) and not alignment.only_numbers([*numbers, column[0]])


@dataclass(frozen=True)
class Anything(Value):
    """A value of any words and numerals."""

    content: tuple

    def lines(self):
        return self.content


parts = st.one_of(
    st.text("0. +−[a", max_size=4), st.builds(Numeral, st.floats(-999, 999), st.integers(0, 3), st.booleans())
)
values = st.builds(Anything, st.lists(st.lists(parts, max_size=4).map(tuple), min_size=1, max_size=2).map(tuple))


@given(st.lists(values, max_size=5))
def test_alignment_changes_no_text(column):
    assert ["".join(piece for _, piece in line.pieces) for line in alignment.aligned(column)] == list(map(text, column))


def test_sentences_have_code_and_stress():
    made = html.prose("**Not (`a*b*c`) so**: *agrees*, 2 * 3 * 4, a < b & c")
    assert made == ("<strong>Not (<code>a*b*c</code>) so</strong>: <em>agrees</em>, 2 * 3 * 4, a &lt; b &amp; c")


@given(st.text())
def test_any_sentence_stays_text(text):
    made = str(html.prose(text))
    assert set(re.findall(r"<[^>]*>", made)) <= {
        f"<{end}{tag}>" for end in ("", "/") for tag in ("strong", "em", "code")
    }
    words = unescape(re.sub(r"<[^>]*>", "", made))
    assert words.replace("*", "").replace("`", "") == text.replace("*", "").replace("`", "").replace("\0", "")


def test_sources_are_linked_from_where_the_page_is(tmp_path):
    odd = SourceFile("s", tmp_path / "a b" / "50%&#?.csv")
    assert html.link(odd, tmp_path / "pages" / "x") == "../../a%20b/50%25%26%23%3F.csv"
    assert html.link(SourceFile("s", Path("runs/a")), Path("runs/reports")) == "../a"


def test_the_policy_names_the_style_and_the_script_and_nothing_is_loaded(tmp_path):
    text = html.document(tricky.page(tmp_path), tmp_path / "out")
    policy = unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"^<{tag}>(.*?)</{tag}>", text, flags=re.S | re.M)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert "style=" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S)
    assert not re.findall(r'(?:src|href)="(?!data:|#|[\w.%-])', text) and "://" not in re.sub(r"data:[^\"]*", "", text)
    assert text == html.document(tricky.page(tmp_path / "again"), tmp_path / "again" / "out")


def test_a_table_without_rows_and_half_a_character_are_no_obstacle(tmp_path):
    run = RunLine("r", "a", 0, "failed", "failed: \ud800")
    section = Section("s", "S", grid=Grid(("Arm", "Mean"), "lr", ()), runs=(run,))
    written = files.write(Page("p", "P", (section,)), tmp_path)
    assert "failed: ?" in written[1].read_text()


def test_a_run_that_two_arms_share_has_one_anchor(tmp_path):
    runs = tuple(RunLine("same", arm, 0, "done", "done", commit="c" * 40) for arm in "ab")
    grid = Grid(
        ("Arm", "Mean"),
        "lr",
        tuple(((Cell(Text(arm)), Cell(Count(1.0, 1), ("same",))),) for arm in "ab"),
    )
    text = html.document(Page("p", "P", (Section("s", "S", grid=grid, runs=runs),)), tmp_path)
    assert text.count('id="s.run-same"') == 1 and text.count('popovertarget="s.of-1"') == 2
    assert text.count(" popover>") == 1


def test_a_cell_of_an_unknown_run_is_a_mistake(tmp_path):
    grid = Grid(("Mean",), "r", (((Cell(Count(1.0, 1), ("unknown",)),),),))
    with pytest.raises(KeyError, match="unknown"):
        html.document(Page("p", "P", (Section("s", "S", grid=grid),)), tmp_path)
