"""A mixer of one's own joins a sweep, and the five probes of the profile, by one word of the command line."""

from __future__ import annotations

import json

import pytest

from experiments.config import ROOT
from results import archive
from run import main
from sweeps.collection import load_collection
from sweeps.plan import load
from sweeps.sweep_file import read_sweep
from tests.experiments.test_own_mixer import SHORT_RUN, SOURCE
from tests.results.synthetic import make_run

PROBES = ("reach", "search", "pair", "diagonal", "match")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "roll.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(capsys, *words):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_planned_beside_the_baseline_in_every_probe(folder, capsys):
    words = ("sweep=profile", "protocol=smoke", "mixer=roll.py:Roll", f"runs_dir={folder / 'runs'}", "--dry-run")
    planned = document(capsys, *words)
    arms = {f"{probe}_mixers/{arm}" for probe in PROBES for arm in ("axial", "Roll")}
    assert {run["arm"] for run in planned["runs"]} == arms and len(planned["runs"]) == 3 * len(arms)
    assert list(planned["tables"]) == list(PROBES)


def test_its_rate_seeds_and_flops_are_those_of_the_others(folder):
    (axial, own), (window,) = (
        load("search_mixers", "smoke", seeds=[0], **which).runs
        for which in ({"mixer": "roll.py:Roll"}, {"arms": ["window"], "compared": False})
    )
    settings = [
        {part: vars(getattr(run.config, part)) for part in ("train", "data", "augment")} for run in (axial, own, window)
    ]
    assert settings[0] == settings[1] == settings[2]
    assert own.config.model.peg is False and own.config.model.dims > [16, 32, 64, 96] > window.config.model.dims
    assert {run.id for run in load("search_mixers", "smoke").runs if run.arm == "axial" and run.seed == 0} == {axial.id}


def test_a_mixer_that_needs_peg_has_it(folder):
    (folder / "roll.py").write_text(
        SOURCE.replace("class Roll(nn.Module):\n", "class Roll(nn.Module):\n    needs_peg = True\n")
    )
    assert [run.config.model.peg for run in load("search_mixers", "smoke", seeds=[0], mixer="roll.py:Roll").runs][
        1
    ] is True


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("mixer=roll.py:window", "sweep reach_mixers has an arm 'window'; give your mixer another name"),
        ("mixer=roll.py:Rol", "unknown name in roll.py 'Rol'; did you mean 'Roll'"),
        ("mixer=[a,b]", "give a mixer of your own, e.g. mixer=roll.py:Roll"),
        ("mixer=rol", "unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_arm_is_refused_at_planning(folder, capsys, word, says):
    assert main(["sweep=profile", "protocol=smoke", word, "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_it_is_trained_and_reported_beside_axial(folder, capsys):
    words = ("protocol=smoke", "mixer=roll.py:Roll", "seeds=[0]", f"runs_dir={folder / 'runs'}", *SHORT_RUN)
    assert main(["sweep=profile", "tables=[search]", *words, "--jobs", "1"]) == 0
    capsys.readouterr()
    rows = document(capsys, "report=search_mixers", *words)["rows"]
    assert {row["arm"]: row["n"] for row in rows} == {"axial": 1, "Roll": 1}


@pytest.mark.slow
def test_its_row_stands_on_the_page_of_the_profile(folder, capsys, monkeypatch):
    monkeypatch.setattr(archive, "MEASURED", ROOT / "results" / "measured")  # the committed ones
    plan = load_collection("profile", "smoke", tables=["search"], mixer="roll.py:Roll")
    for run in plan.runs:
        if run.arm == "search_mixers/Roll":
            make_run(folder / "runs", plan.sweeps[0].as_dict(), {"run": run.id, "seed": run.seed}, 40.0, 50.0, 0.1)
    (section,) = document(capsys, "report=profile", "mixer=roll.py:Roll", f"runs_dir={folder / 'runs'}")["sections"]
    own = [row for row in section["rows"] if row["arm"] == "Roll"]
    assert {row["part"] for row in own} == {"Mixers"} and len(own) == len(PROBES)
    assert {row["probe"]: row["n"] for row in own if row["n"]} == {"search": 3}
    modes = [row for row in section["rows"] if row["part"] == "Offset modes" and row["probe"] == "search"]
    assert {row["results"] for row in modes if row["n"]} == {"search-smoke"}


def test_the_sweeps_of_the_profile_have_the_same_arms_seeds_and_baseline():
    """Each repeats them, so that each can be read, and run, alone; tuned arms are those of one probe."""
    first, *others = (read_sweep(f"{probe}_mixers") for probe in PROBES)
    for other in others:
        arms = {name: arm for name, arm in other["arms"].items() if not name.endswith("_tuned")}
        assert arms == {name: arm for name, arm in first["arms"].items() if not name.endswith("_tuned")}
        assert (other["seeds"], other["baseline"]) == (first["seeds"], first["baseline"])
