"""A word of the command line must not make arms one run that the sweep file tells apart."""

from __future__ import annotations

import pytest

from errors import ConfigError
from sweeps.plan import load

RECIPE = "recipes: {smoke: scenes}\nseeds: [0]\nbaseline: one\n"


@pytest.fixture
def own(tmp_path):
    """Plans a sweep with these arms, by arm its settings as YAML."""

    def planned(arms, **overrides):
        body = "".join(f"  {arm}: {{{settings}}}\n" for arm, settings in arms.items())
        path = tmp_path / "mine.yaml"
        path.write_text(f"{RECIPE}arms:\n{body}")
        return load(str(path), "smoke", {key.replace("__", "."): value for key, value in overrides.items()})

    return planned


def test_a_word_that_makes_arms_equal_is_refused_with_the_key_and_two_arms():
    with pytest.raises(ConfigError) as refused:
        load("reach", "smoke", {"model.offsets": "zero"}, arms=["zero", "shift", "static"])
    text = str(refused.value)
    assert "model.offsets" in text and "'zero'" in text and "'shift'" in text and "\n" not in text


def test_a_short_word_counts_as_the_key_it_stands_for(own):
    with pytest.raises(ConfigError, match="model of the command line would make arms 'one' and 'two' the same run"):
        own({"one": "model.name: nano", "two": "model.name: xt"}, model="xt")


def test_a_word_that_leaves_arms_different_is_taken(own):
    arms = {"one": "model.offsets: zero, model.peg: false", "two": "model.offsets: static, model.peg: true"}
    assert len(own(arms, model__offsets="zero").distinct()) == 2
    assert len(own(arms, train__lr=0.002).distinct()) == 2


def test_arms_that_are_equal_in_the_file_stay_allowed(own):
    arms = {"one": "model.offsets: zero", "two": "model.offsets: zero", "three": "model.offsets: static"}
    assert len(own({key: arms[key] for key in ("one", "two")}, model__offsets="static").distinct()) == 1
    with pytest.raises(ConfigError, match="'one' and 'three'"):
        own(arms, model__offsets="static")
