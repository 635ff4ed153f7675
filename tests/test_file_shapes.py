"""Whatever stands in the place of a value in a sweep, recipe, report or site file, its reader refuses it in one line."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import experiments.config as config
import sweeps.sweep_file as sweep_file
from errors import ConfigError, SuiteError
from experiments.commands import runs_folder
from experiments.config import resolve
from experiments.schema import FIELDS
from reports import specification, specification_files
from reports.content import complexity
from sweeps.plan import load as plan
from yaml_files import load, read_yaml, write_yaml

ROOT = Path(__file__).resolve().parents[1]
ODD = [["a"], "text", 7, 10**400, None, True, [], {}, {"x": 1}, [{"x": 1}], [["a"]]]
SWEEP = """
recipes: {paper: imagenet, smoke: scenes}
settings: {smoke: {train.lr: 1e-3}}
seeds: [0, 1]
baseline: zero
downstream: {again: {smoke: scenes_256}}
arms:
  zero: {label: Zero, model.offsets: zero, seeds: [0, 1], downstream: {again: {train.lr: 1e-4}}}
  axial: {recipes: {smoke: scenes}, start_from: zero, model.offsets: zero, tasks: [token_labelling]}
"""


def places(content, at=()):
    """Paths of all values; of those that stand beside each other, all in lists or mappings alike, of the first."""
    if at:
        yield at
    inner = list(
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    alike = isinstance(content, list) or all(isinstance(value, dict) for _, value in inner)
    for key, value in inner[:1] if alike and at else inner:
        yield from places(value, (*at, key))


def with_value(content, at, value):
    changed = copy.deepcopy(content)
    holder = changed
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    return changed


def check(path, content, read):
    """Reads a file with each odd value in each place, of which the reader takes some and refuses others."""
    for at in places(content):
        for odd in ODD:
            path.write_text(write_yaml(with_value(content, at, odd)))
            try:
                read()
            except SuiteError as error:
                assert "\n" not in str(error), (at, odd)
            except Exception as error:
                raise AssertionError(f"{'.'.join(map(str, at))}: {odd!r}"[:200]) from error


def test_values_of_sweep_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_file, "SWEEPS", tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(SWEEP)
    assert {run.task for run in plan("mine", "smoke").runs} == {"token_labelling", "again"}
    check(path, load(SWEEP, "mine"), lambda: plan("mine", "smoke"))


LARGE = ("necks", "variants")  # thousands of values each


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in specification_files.names_in_folder()],
)
def test_values_of_report_files(name, tmp_path, monkeypatch):
    content = read_yaml(specification_files.SPECS / f"{name}.yaml", specification_files.NAMES)
    monkeypatch.setattr(specification_files, "SPECS", tmp_path)
    check(tmp_path / f"{name}.yaml", content, lambda: specification_files.load(name))


def test_values_of_the_file_of_counted_models(tmp_path, monkeypatch):
    path = specification_files.SPECS / f"{specification.COMPLEXITY}.yaml"
    content = read_yaml(path, specification_files.NAMES)
    monkeypatch.setattr(specification_files, "SPECS", tmp_path)
    check(tmp_path / path.name, {**content, "rows": content["rows"][:1]}, complexity.rows)


def test_values_of_recipes(tmp_path, monkeypatch):
    content = read_yaml(config.RECIPES / "imagenet.yaml")
    monkeypatch.setattr(config, "RECIPES", tmp_path)

    def read():
        config._recipe.cache_clear()
        resolve("mine")

    check(tmp_path / "mine.yaml", content, read)


def test_values_of_site_files(tmp_path):
    def read():
        site = config.read_site(tmp_path / "site.yaml")
        runs_folder({}, site)
        resolve("imagenet", site=site)

    check(tmp_path / "site.yaml", read_yaml(ROOT / "site.example.yaml"), read)


@pytest.mark.parametrize("key", FIELDS)
def test_values_of_settings(key):
    for odd in (*ODD, -1, 0.5, ["a", {}], [7, [7]], [None, None], [0.5, True]):
        try:
            resolve("scenes", {key: odd})
        except SuiteError as error:
            assert "\n" not in str(error), odd


ARMS = "recipes: {smoke: scenes}\nseeds: [0]\nbaseline: a\narms: {a: {}, b: {model.offsets: axial}}\n"


@pytest.mark.parametrize(
    ("part", "other", "message"),
    [
        ("b: {", "b: {experiment: search, ", "experiment is not set here: a sweep and an arm have recipes"),
        ("b: {", "b: {seed: 7, ", "seed is not set here: a sweep and an arm have seeds"),
        ("b: {", "b: {model: nano, model.name: xt, ", "model and model.name are one setting"),
        ("b: {", "b: {label: a, ", "several arms are called 'a' in tables"),
        ("b: {", "'': {", "arm '': give it a name"),
    ],
)
def test_a_sweep_file_says_nothing_that_is_not_done(tmp_path, part, other, message):
    path = tmp_path / "mine.yaml"
    path.write_text(ARMS)
    sweep_file.read_sweep(str(path))
    path.write_text(ARMS.replace(part, other))
    with pytest.raises(ConfigError, match=message):
        sweep_file.read_sweep(str(path))
