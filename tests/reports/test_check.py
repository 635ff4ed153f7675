"""--check makes the committed pages again and fails where they differ; the pages in the checkout agree."""

from __future__ import annotations

import argparse
import io
import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image, PngImagePlugin

from errors import ConfigError
from experiments.folder.present_code import is_present
from reports import commands, specification, specification_files
from reports.content import compose
from reports.formats import comparison
from results import archive


def options(**given):
    return argparse.Namespace(**{"check": True, "json": False, "mixed": False, "fresh": False, **given})


def checked(name, capsys, **given):
    """(exit code, standard output, standard error) of report=name --check."""
    code = commands.report(name, {}, options(**given), None, is_present)
    return code, *capsys.readouterr()


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A copy of the committed pages in their place, with the results at the same relative path."""
    copy = tmp_path / "reports" / "pages"
    shutil.copytree(commands.PAGES, copy)
    (tmp_path / "results").symlink_to(archive.MEASURED.parent)
    monkeypatch.setattr(commands, "PAGES", copy)
    monkeypatch.setattr(archive, "MEASURED", tmp_path / "results" / "measured")
    return copy


@pytest.mark.slow
def test_the_committed_pages_are_what_the_committed_results_give(capsys):
    code, out, err = checked("paper", capsys)
    assert (code, err) == (0, "") and out.count(": as committed") == len(list(commands.PAGES.iterdir()))
    assert {*archive.labels(), "paper", "profile", "findings"} == {path.name for path in commands.PAGES.iterdir()}


@pytest.mark.parametrize(
    ("answer", "sentence", "word"),
    [
        (True, "Measured by the present code", "yes"),
        (False, "Measured by earlier code", "no"),
        (None, "Whether that is the present code cannot be told", "unknown"),
    ],
)
def test_whether_results_are_of_the_present_code_is_on_the_page_and_nothing_else_of_that_code(answer, sentence, word):
    """So a committed page changes where the answer does, and not with every change of the code."""
    spec, folder = specification_files.of_sweep("ablation_peg"), archive.folder("ablation_peg-tiny-50-classes")
    collected = archive.read(folder)
    results = compose.Results(spec, collected, archive.plan_of(collected), folder, folder.name)
    silent = compose.page(spec, [results], figures=False).sections[0]
    said = compose.page(spec, [replace(results, is_present=lambda *_: answer)], figures=False).sections[0]
    (start, end) = said.about.split(f" {sentence}")
    assert silent.about == start + end[end.index(".") + 1 :]
    assert {record["present_code"] for record in said.records} == {word}
    assert {record["present_code"] for record in silent.records} == {None}
    assert replace(said, about=silent.about, records=silent.records) == silent


@pytest.mark.slow
def test_differing_files_are_named_with_their_line(pages, capsys):
    label = "ablation_offsets-smoke"
    page = pages / label / "report.md"
    page.write_text(page.read_text().replace("| axial |", "| axial! |", 1))
    (pages / label / "table.csv").unlink()
    (pages / label / "notes.txt").write_text("mine")
    (pages / label / "reach.png").write_bytes((pages / label / "reach.png").read_bytes() + b"x")
    code, out, err = checked("ablation_offsets", capsys)
    number = 1 + page.read_text().splitlines().index(next(x for x in page.read_text().splitlines() if "axial!" in x))
    where = f"run.py: reports/pages/{label}"
    assert code == 1 and f"{label}: 4 files differ" in out and "ablation_offsets-tiny-50-classes: as committed" in out
    assert err.splitlines() == [
        f"{where}/notes.txt: no report makes it",
        f"{where}/reach.png: differs",
        f"{where}/report.md:{number}: differs",
        f"{where}/table.csv: is missing",
    ]
    code, out, _ = checked("ablation_offsets", capsys, json=True)
    assert code == 1 and len(json.loads(out)["different"][label]) == 4


@pytest.mark.slow
def test_a_table_of_the_papers_is_compared_where_it_is_kept(pages, capsys):
    assert checked("aaai_table8", capsys)[:2] == (0, "paper/aaai_table8: as committed\n")
    (pages / "paper" / "aaai_table8" / "table.tex").write_text("")
    code, _, err = checked("aaai_table8", capsys)
    assert code == 1 and err == "run.py: reports/pages/paper/aaai_table8/table.tex:1: differs\n"


@pytest.mark.slow
def test_results_without_a_page_and_pages_without_results(pages, capsys):
    shutil.rmtree(pages / "ablation_offsets-smoke")
    code, _, err = checked("ablation_offsets", capsys)
    assert code == 1 and "ablation_offsets-smoke/report.md: is missing" in err
    (pages / "ablation_offsets-smok").mkdir()
    with pytest.raises(ConfigError, match=r"reports/pages/ablation_offsets-smok: unknown .* did you mean"):
        checked("paper", capsys)


@pytest.mark.slow
def test_pictures_of_another_drawing_library_are_not_compared_but_their_data_are(pages, capsys):
    folder = pages / "ablation_peg-tiny-50-classes"
    for path in folder.glob("*.png"):
        path.write_bytes(drawn_by("Matplotlib version 1.0", path.read_bytes()))
    (folder / "learning_curves.pdf").write_bytes(b"%PDF of another version")
    assert checked("ablation_peg", capsys)[0] == 0
    (folder / "learning_curves.csv").write_text("step\n")
    code, _, err = checked("ablation_peg", capsys)
    assert code == 1 and len(err.splitlines()) == 1 and "learning_curves.csv:1: differs" in err


def drawn_by(software, png):
    about, made = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("Software", software)
    Image.open(io.BytesIO(png)).save(made, "png", pnginfo=about)
    return made.getvalue()


def test_a_page_is_compared_without_the_pictures_within_it(tmp_path):
    old, new = drawn_by("a", PIXEL), drawn_by("b", PIXEL)
    (tmp_path / "x.png").write_bytes(old)
    (tmp_path / "report.html").write_text('<img src="data:image/png;base64,AAAA=="> one')
    other = '<img src="data:image/png;base64,BBBB"> one'
    assert not list(comparison.differences(tmp_path, {"x.png": new, "report.html": other}))
    assert list(comparison.differences(tmp_path, {"x.png": new, "report.html": other + "!"})) == [
        "report.html:1: differs"
    ]
    assert list(comparison.differences(tmp_path, {"x.png": old, "report.html": other})) == ["report.html:1: differs"]


def _pixel():
    made = io.BytesIO()
    Image.new("RGB", (1, 1)).save(made, "png")
    return made.getvalue()


PIXEL = _pixel()


@pytest.mark.slow
def test_words_that_do_not_go_together():
    with pytest.raises(ConfigError, match="--check compares the committed pages; seeds cannot change them"):
        commands.report("paper", {"seeds": [0]}, options(), None)
    with pytest.raises(specification.SpecificationError, match="complexity is a command of its own"):
        commands.report("complexity", {}, options(), None)
    with pytest.raises(ConfigError, match="report campaign_camvid has no committed page"):
        commands.report("campaign_camvid", {}, options(), None)
    with pytest.raises(ConfigError, match="measured=ablation_offsets-smoke is of sweep ablation_offsets"):
        commands.report("ablation_peg", {"measured": "ablation_offsets-smoke"}, options(check=False), None)
    with pytest.raises(specification.SpecificationError, match="did you mean 'paper'"):
        commands.report("papr", {}, options(), None)
