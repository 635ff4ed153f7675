"""The command report= of several sweeps: which results it shows, which it leaves out, and its messages."""

from __future__ import annotations

import argparse
import json
import re
from functools import partial

import pytest

from errors import ConfigError, DataError
from reports import commands, specification_files
from reports.content import compose
from results import archive
from tests.results.synthetic import CODE, edit_json, make_plan, make_runs, run_id

MACRO = re.compile(r"\\newcommand\{(\\\w+)\}")


def options(**given):
    return argparse.Namespace(**{"check": False, "json": False, "mixed": False, "fresh": False, **given})


@pytest.fixture
def planned(tmp_path):
    """Plans of one sweep, finished under the smoke protocol and queued under the papers'; no other can be planned.

    All are of ATMNet-T, as the numbers that the papers print for these arms.
    """
    runs_dir = tmp_path / "runs"
    make_runs(runs_dir, make_plan(seeds=(0, 1)), examples=False)

    def plan_of(sweep, words):
        if sweep != "ablation_offsets" or words["protocol"] == "tiny":
            raise DataError(f"{words['protocol']} needs images")
        plan = make_plan(seeds=(0, 1), protocol=words["protocol"], model="t")
        if words["protocol"] == "paper":
            plan["runs"] = [{**entry, "run": f"imagenet-{entry['run']}"} for entry in plan["runs"]]
        states = {entry["run"]: ("queued", "") for entry in plan["runs"]}
        return plan, runs_dir, lambda: states, dict, lambda: ({}, "device-hours on no machine")

    return plan_of


@pytest.mark.parametrize("state", ["not run", "queued"])
def test_a_sweep_of_which_no_run_has_begun_has_no_page_but_says_how_to_start_it(tmp_path, capsys, state):
    plan = make_plan(seeds=(0, 1))
    states = {entry["run"]: (state, "") for entry in plan["runs"]}
    words = ["report=ablation_offsets", "protocol=smoke", "seeds=[0,1]"]
    given = options(words=words)
    code = commands.report("ablation_offsets", {}, given, lambda *_: (plan, tmp_path, lambda: states, dict, dict))
    err = capsys.readouterr().err
    if state == "queued":
        assert code == 0 and not err
    else:
        assert code == 1 and f"no run of ablation_offsets has begun in {tmp_path}" in err and err.count("\n") == 1
        assert (
            "run.py sweep=ablation_offsets protocol=smoke 'seeds=[0,1]'" in err and not (tmp_path / "reports").exists()
        )


@pytest.fixture
def without_figures(monkeypatch):
    """Figures take most of the time; one test has them."""
    monkeypatch.setattr(commands.compose, "page", partial(compose.page, figures=False))


def page_of(planned, tmp_path, capsys, **given):
    assert commands.report("paper", {}, options(**given), planned) == 0
    return tmp_path / "runs" / "reports" / "paper", *capsys.readouterr()


@pytest.mark.slow
def test_the_page_of_both_papers_has_running_and_committed_results(planned, tmp_path, capsys):
    folder, out, err = page_of(planned, tmp_path, capsys)
    page = (folder / "report.md").read_text()
    titles = re.findall(r"^## (.*)$", page, re.M)
    assert len(titles) == len(set(titles)) and titles[0] == "All differences between arms"
    for name in ("ablation_offsets-paper", "ablation_offsets-smoke", "ablation_offsets-smoke-committed"):
        assert f"## Offset configurations: {name}" in page and (folder / name / "table.csv").is_file()
    assert "| zero | – | – | queued |" in page
    macros = MACRO.findall((folder / "macros.tex").read_text())
    assert len(macros) == len(set(macros))
    assert (
        "protocol paper of ablation_peg, ablation_v1, mixers, necks, resolution_384, variants is left out: paper needs images"
        in err
    )
    assert "report.html" in out


@pytest.mark.slow
def test_every_sweep_of_a_page_says_whether_it_was_measured_by_the_present_code(
    planned, tmp_path, capsys, without_figures
):
    def is_present(recorded, experiment, settings):
        return recorded == CODE  # of the runs here, and not of the committed ones

    assert commands.report("paper", {}, options(), planned, is_present) == 0
    page = (tmp_path / "runs" / "reports" / "paper" / "report.md").read_text()
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    ours = {title: text for title, text in sections.items() if "code fingerprint" in text and "Protocol `" in text}
    reports = specification_files.find("paper", planned=False).reports
    sweeps = [archive.plan_of(archive.read(archive.folder(label)))["sweep"] for label in archive.labels()]
    assert len(ours) == 1 + sum(sweep in reports for sweep in sweeps)
    for title, text in ours.items():
        measured = title == "Offset configurations: ablation_offsets-smoke"
        assert ("Measured by the present code" in text) == measured, title
        assert ("Measured by earlier code" in text) != measured, title


def test_a_part_of_the_runs_may_be_of_the_present_code(planned, tmp_path, capsys, without_figures):
    edit_json(tmp_path / "runs" / run_id("zero", 0) / "provenance.json", code_fingerprint="0dd")
    words = {"protocol": "smoke"}
    assert (
        commands.report("ablation_offsets", words, options(json=True, mixed=True), planned, lambda *a: a[0] == CODE)
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert [row["present_code"] for row in document["rows"]] == ["mixed", *["yes"] * 6]
    assert [run["present_code"] for run in document["runs"]].count("no") == 1
    page = (tmp_path / "runs" / "reports" / "ablation_offsets-smoke" / "report.md").read_text()
    assert "13 of 14 were measured by the present code." in page


@pytest.mark.slow
def test_a_sweep_of_mixed_code_does_not_take_the_whole_page_with_it(planned, tmp_path, capsys, without_figures):
    edit_json(tmp_path / "runs" / run_id("zero", 0) / "provenance.json", code_fingerprint="0dd")
    folder, _, _ = page_of(planned, tmp_path, capsys)
    page = (folder / "report.md").read_text()
    assert "**ablation_offsets-smoke is left out: Runs of different code would be averaged" in page
    assert "## Offset configurations: ablation_offsets-smoke-committed" in page
    folder, _, _ = page_of(planned, tmp_path, capsys, mixed=True)
    page = (folder / "report.md").read_text()
    assert "is left out" not in page and "**Runs of different code are averaged here" in page


@pytest.mark.slow
def test_json_of_many_sections(planned, tmp_path, capsys, without_figures):
    _, out, _ = page_of(planned, tmp_path, capsys, json=True)
    sections = [section["section"] for section in json.loads(out)["sections"]]
    assert len(sections) == len(set(sections)) and "ablation_offsets-paper" in sections


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1_table7", "paper"])
def test_a_table_of_the_papers_takes_runs_of_their_protocol_only(planned, tmp_path, capsys, without_figures, name):
    """By itself, and on the page that has the finished runs of the other protocol as well."""
    assert commands.report(name, {}, options(json=True), planned) == 0
    sections = {section["section"]: section for section in json.loads(capsys.readouterr().out)["sections"]}
    printed = [row for row in sections["v1_table7"]["rows"] if row["metric"] == "top1"]
    assert {row["row"]: row["state"] for row in printed} == {
        "①": "queued", "②": "not run", "③": "not run", "④": "not run"
    }  # fmt: skip
    for row in printed:
        assert (row["ours"], row["n"]) == (None, 0), row["row"]
        assert all(run.startswith("imagenet-") for run in row["runs"].split()), row["row"]
    if name == "paper":
        assert all(row["n"] == 2 for row in sections["ablation_offsets-smoke"]["rows"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"protocol": "smoke"}, "it takes measured, runs_dir, seed, seeds, no protocol="),
        ({"arms": ["zero"]}, "no arms="),
        ({"train.epochs": 1}, "no train.epochs="),
        ({"model": "t"}, "no model="),
        ({"bogus": 1}, "no bogus="),
        ({"measured": "all", "seeds": [0]}, "measured=all names results; seeds cannot change them"),
        ({"measured": archive.labels()[0]}, "measured=all takes every committed result"),
    ],
)
def test_words_of_one_sweep_are_refused(planned, given, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        commands.report("paper", given, options(), planned)


def test_fresh_is_about_the_run_folders_of_one_sweep(planned):
    for name, words in (("paper", {}), ("ablation_offsets", {"measured": "ablation_offsets-smoke"})):
        with pytest.raises(ConfigError, match="--fresh shows the run folders of one sweep alone"):
            commands.report(name, words, options(fresh=True), planned)
