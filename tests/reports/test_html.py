"""The parts of an HTML page that need no browser: columns of numbers, sentences, links, and a policy that fits."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import decimals, html, render
from reports.document import Cell, Grid, Page, Run, Section, Source
from tests.reports import tricky


def spaced(texts):
    """As a typewriter would set it."""
    return ["".join(" " * space + piece for space, piece in line.pieces) + " " * line.rest for line in texts]


def test_numbers_with_the_same_words_around_them_meet():
    texts = ["+0.72 [−1.51, +2.95] (n = 3)", "+40.97 [+32.74, +149.2] (n = 12)", "baseline", "–", "+5 (2 of 3)"]
    assert spaced(decimals.aligned(texts)) == [
        " +0.72 [ −1.51,   +2.95] (n =  3)",
        "+40.97 [+32.74, +149.2 ] (n = 12)",
        "baseline",
        "–",
        " +5    (2 of 3)",
    ]
    assert spaced(decimals.aligned(["15.4", "152", "2.180"])) == [" 15.4  ", "152    ", "  2.180"]
    assert decimals.alone(["15.4", "–", "−2"]) and not decimals.alone(["15.4", "82.0 (T)"])


@given(st.lists(st.text("0123456789.+−- [](,a", max_size=12), max_size=5))
def test_alignment_changes_no_text(texts):
    assert ["".join(piece for _, piece in line.pieces) for line in decimals.aligned(texts)] == texts


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
    odd = Source("s", tmp_path / "a b" / "50%&#?.csv")
    assert html.link(odd, tmp_path / "pages" / "x") == "../../a%20b/50%25%26%23%3F.csv"
    assert html.link(Source("s", Path("runs/a")), Path("runs/reports")) == "../a"


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
    run = Run("r", "a", 0, "failed: \ud800", "–", "–", "–", "–", "–")
    section = Section("s", "S", grid=Grid(("Arm", "Mean"), "lr", ()), runs=(run,))
    files = render.write(Page("p", "P", (section,)), tmp_path)
    assert "failed: ?" in files[1].read_text()


def test_a_run_that_two_arms_share_has_one_anchor(tmp_path):
    runs = tuple(Run("same", arm, 0, "done", "1", "1", "1", "c" * 40, "–") for arm in "ab")
    grid = Grid(
        ("Arm", "Mean"),
        "lr",
        (((Cell("a"), Cell("1.0", 1.0, ("same",))),), ((Cell("b"), Cell("1.0", 1.0, ("same",))),)),
    )
    text = html.document(Page("p", "P", (Section("s", "S", grid=grid, runs=runs),)), tmp_path)
    assert text.count('id="s.run-same"') == 1 and text.count('popovertarget="s.of-1"') == 2
    assert text.count(" popover>") == 1


def test_a_cell_of_an_unknown_run_is_a_mistake(tmp_path):
    grid = Grid(("Mean",), "r", (((Cell("1.0", 1.0, ("unknown",)),),),))
    with pytest.raises(KeyError, match="unknown"):
        html.document(Page("p", "P", (Section("s", "S", grid=grid),)), tmp_path)
