"""The profile sets arms of several sweeps in rows and probes in columns, whatever has been run of them."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.folder.present_code import is_present
from reports import commands, specification, specification_files
from reports.content import compose
from reports.content.compose import Results
from reports.content.text import text
from reports.figures import profile_map
from reports.formats import files
from tests.reports import made_up
from tests.reports.latex import typeset
from tests.reports.test_check import options
from tests.reports.test_render import tables, unescaped_bars

ENTRY = {"token_labelling": {"metric": "eval/token_accuracy", "label": "Cue accuracy"}}
FURTHER = {"token_labelling": ["eval/token_accuracy_deep"]}  # with nine tenths of the main one


def results(sweep, means, label=None, changed=None, commit="abc"):
    """means: arm → mean over three seeds, None: not run, or (mean, number of seeds)."""
    plan = made_up.plan_of_tasks(sweep, list(means), tasks=ENTRY, protocol="smoke") | {"changed": changed or {}}
    levels = {("token_labelling", arm): mean[0] if isinstance(mean, tuple) else mean for arm, mean in means.items()}
    collected = made_up.collected_by_hand(plan, levels, FURTHER)
    collected.runs["commit"] = collected.runs["commit"].where(collected.runs["state"] != "done", commit)
    for arm, mean in means.items():
        if isinstance(mean, tuple):  # the last seeds are still to be run
            missing = (collected.runs["arm"] == arm) & (collected.runs["seed"] >= mean[1])
            collected.runs.loc[missing, "state"] = "not run"
            collected.metrics = collected.metrics[~collected.metrics["run"].isin(collected.runs[missing]["run"])]
    spec = specification_files.of_sweep(sweep)
    return Results(spec, collected, plan, commands.PAGES, label)


def profile(*found, figures=False):
    return compose.page("profile", found, figures=figures).sections[0]


def rows(section):
    """(label, part) → the texts of the row's other cells."""
    grid = [[text(cell.value) for cell in row] for row in section.grid.rows]
    return {(row[0], row[1]): dict(zip(section.grid.header[2:], row[2:])) for row in grid}


def of(section, label, part="Mixers"):
    return rows(section)[label, part]


def test_a_cell_has_mean_range_and_number_of_seeds_and_says_what_is_missing():
    section = profile(results("search_mixers", {"axial": 90.0, "window": (40.0, 2), "halo": None}))
    axial = of(section, "axial, no PEG, again")
    numbers = next(r for r in section.records if (r["part"], r["arm"], r["probe"]) == ("Mixers", "axial", "search"))
    low, high = numbers["low"], numbers["high"]
    assert axial["Search (%)"] == f"90.0 [{low:.1f}, {high:.1f}] (n = 3)" and low < 90 < high
    assert of(section, "window")["Search (%)"].endswith("(2 of 3)")
    of_plan_and_file = {of(section, label)["Search (%)"] for label in ("halo", "global, PEG")}
    assert of_plan_and_file == {"not run"}
    assert axial["Match (%)"] == "not run"
    assert of(section, "random, no PEG", "Offset modes")["Search (%)"] == "not run"
    assert axial["Commit"] == "abc" and of(section, "halo")["Commit"] == "–"


def test_reach_is_of_the_tokens_far_away():
    section = profile(results("reach_mixers", {"axial": 90.0}))
    assert of(section, "axial, no PEG, again")["Reach, 64 px and more (%)"].startswith("81.0 [")


def test_arms_at_other_rates_stand_below_their_arm_and_the_highest_counts():
    arms = {"axial": 30.0, "window": 40.0, "window_tuned": 60.0, "window_long": 80.0}
    section = profile(results("match_mixers", arms), figures=True)
    labels = [label for label, part in rows(section) if part == "Mixers"]
    place = labels.index("window")
    assert labels[place + 1 : place + 3] == ["window, at its best rate", "window, 4 × steps"]
    assert of(section, "window, at its best rate")["Match (%)"].startswith("60.0")
    assert of(section, "window, at its best rate")["Search (%)"] == "–"  # not an arm of that sweep
    record = next(r for r in section.records if (r["part"], r["arm"], r["probe"]) == ("Mixers", "window", "match"))
    assert (record["highest_over_rates"], record["highest_arm"]) == (pytest.approx(60.0, abs=0.01), "window_tuned")
    shown = pd.read_csv(io.BytesIO(section.drawings[0].files["map.csv"])).set_index("arm")
    assert shown.loc["window", ["mean", "from"]].tolist() == [pytest.approx(60.0, abs=0.01), "window_tuned"]
    assert shown.loc["axial", "from"] == "axial"


def test_a_mixer_of_ones_own_is_the_last_row_and_rows_have_the_sentences_of_the_file():
    section = profile(results("pair_mixers", {"axial": 90.0, "Roll": 33.0}))
    assert list(rows(section))[-1] == ("Arm Roll", "Mixers")
    legend = " ".join(section.legend)
    spec = specification_files.load("profile")
    assert all(
        row.mechanism.endswith(".") and row.mechanism in legend for part in spec.parts for row in part.rows.values()
    )


def test_results_of_other_protocols_and_settings_are_left_out():
    section = profile(
        results("search_mixers", {"axial": 50.0}, changed={"train.lr": 1e-3}),
        results("variants", {"t": 80.0}),
    )
    assert of(section, "axial, no PEG, again")["Search (%)"] == "not run"


def test_of_two_results_of_an_arm_the_fuller_counts_and_a_run_of_both_is_named_with_its_own():
    """A launch with one more arm does not hide the committed rows of the others."""
    own = results("search_mixers", {"axial": (70.0, 1), "Roll": 20.0}, commit="newer")
    committed = results("search_mixers", {"axial": 90.0, "window": 40.0}, label="search_mixers-smoke")
    modes = results("search", {"zero": 30.0, "axial": 95.0}, label="search-smoke", commit="older")
    section = profile(own, committed, modes)
    assert of(section, "axial, no PEG, again")["Search (%)"].startswith("90.0")
    assert of(section, "axial, no PEG, again")["Commit"] == "abc"
    assert of(section, "axial, no PEG", "Offset modes")["Commit"] == "older"
    assert of(section, "Arm Roll")["Commit"] == "newer"
    twice = [line for line in section.runs if line.id.startswith("token_labelling-axial-s0")]
    assert {line.commit for line in twice} == {"abc", "older"} and len({line.id for line in twice}) == 2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page with everything on it: all arms of both parts, a variant, one's own mixer, curves by distance."""
    spec = specification_files.load("profile")
    made, random = [], np.random.default_rng(0)
    for part in spec.parts:
        for sweep in part.sweeps.values():
            arms = {arm: float(random.uniform(25, 100)) for arm in part.rows}
            each = results(sweep, arms | {"axial_fast": 99.0} | ({"Roll": 44.0} if part.label == "Mixers" else {}))
            runs = each.collected.runs[["run", "arm", "seed", "task"]]
            curves = [
                runs.assign(curve="reach", direction=direction, distance=distance, correct=30 + distance, count=100)
                for direction in ("horizontal", "vertical")
                for distance in (8, 16, 24)
            ]
            each.collected.curves = pd.concat(curves, ignore_index=True)
            made.append(each)
    folder = tmp_path_factory.mktemp("profile")
    files.write(compose.page(spec, made), folder)
    return folder


@pytest.mark.slow
def test_the_page_in_every_format(written):
    page = (written / "report.md").read_text()
    for block in tables(page):
        assert len({unescaped_bars(line) for line in block}) == 1 and len(block) > 2
    assert "nan" not in page and "None" not in page
    assert {path.stem for path in written.glob("*.png")} == {
        "map", "reach_search", "reach_search_mixers", "reach_match", "reach_match_mixers",
    }  # fmt: skip
    html = (written / "report.html").read_text()
    assert html.count('id="profile.run-') == len(pd.read_csv(written / "table.csv").query("n > 0")) * 3
    assert typeset(written, "table_alone").pages <= 2


@pytest.mark.slow
def test_the_map_is_read_at_400_px(written):
    """Its numbers keep 10 px of height where the picture is shown 400 px wide."""
    with Image.open(written / "map.png") as picture:
        width, dpi = picture.width, picture.info["dpi"][0]
    assert profile_map.NUMBER / 72 * dpi * 400 / width >= 10


def test_specifications_name_what_does_not_exist(monkeypatch):
    content = specification_files.read_yaml("profile", [])
    for change, message in (
        (lambda c: c["parts"][0]["rows"].update(axail={"label": "x", "mechanism": "y"}), "unknown arm 'axail'"),
        (lambda c: c["parts"][0]["sweeps"].update(serch="search"), "unknown probe 'serch'; did you mean 'search'"),
        (lambda c: c["parts"][0]["sweeps"].update(search="serch"), "unknown sweep 'serch'; did you mean 'search'"),
        (lambda c: c["distances"][0].pop("axis"), "axis missing"),
    ):
        changed = specification_files.read_yaml("profile", [])
        change(changed)
        monkeypatch.setattr(specification_files, "read_yaml", lambda *_, changed=changed: changed)
        with pytest.raises(specification.SpecificationError, match=message):
            specification_files.load("profile")
        monkeypatch.undo()
    assert content["kind"] == "profile"


@pytest.mark.slow
def test_the_committed_page_is_of_committed_results_alone(capsys):
    assert commands.report("profile", {}, options(), None, is_present) == 0
    assert capsys.readouterr().out == "profile: as committed\n"
    with pytest.raises(commands.ConfigError, match="shows several sweeps: measured=all"):
        commands.report("profile", {"measured": "search-smoke"}, options(check=False), None)
    with pytest.raises(commands.ConfigError, match="it takes measured, runs_dir, seed, seeds, mixer, no arms="):
        commands.report("profile", {"arms": ["axial"]}, options(check=False), None)
