"""Arms that are one network under two names are named before anything is trained."""

from __future__ import annotations

import pytest

from experiments import model_costs
from run import main
from sweeps.equal_arms import sentences
from sweeps.plan import load

SWEEP = """
recipes: {smoke: scenes, tiny: tiny_imagenet}
seeds: [0, 1]
baseline: one
arms:
  one: {model.offset_interval: 1}
  two: {model.offset_interval: 2}
  stage: {model.offset_interval: stage}
  no_peg: {model.offset_interval: 2, model.peg: false}
  joint: {model.offsets: joint, model.offset_interval: 2}
"""


@pytest.fixture
def sweep(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    return str(path)


def test_intervals_that_give_the_same_offsets_are_named_once(sweep, tmp_path, capsys):
    (line,) = sentences(load(sweep, "smoke"))
    assert line.startswith("one, two and stage are one network with model=nano")
    assert main([f"sweep={sweep}", "protocol=smoke", "--dry-run", f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert line in capsys.readouterr().out


def test_in_deeper_stages_they_are_others(sweep):
    assert list(sentences(load(sweep, "smoke", {"model.name": "s"}))) == []


def test_other_settings_are_never_the_same_network():
    for name, protocol in (("reach", "smoke"), ("mixers", "smoke"), ("match_mixers", "smoke")):
        assert list(sentences(load(name, protocol))) == []


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("interval", [1, 2, 3, "stage"])
def test_blocks_with_new_offsets_are_those_of_the_model(depth, interval):
    from atm.offsets import opens_set

    every = depth if interval == "stage" else interval
    expected = [block for block in range(depth) if opens_set(block, depth, every)]
    assert model_costs.opening_blocks(depth, interval) == expected
