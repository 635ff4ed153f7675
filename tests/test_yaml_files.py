"""One dialect of YAML everywhere: text stays text, keys stand once, and what is wrong is named with its line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run as command_line
from errors import ConfigError
from experiments.config import parse_overrides, read_site, resolve
from experiments.folder.run_folder import RunFolder
from experiments.schema import FIELDS
from run_format import CONFIG
from sweeps.plan import load as plan
from sweeps.sweep_file import read_sweep
from yaml_files import load, read_yaml, write_yaml

ROOT = Path(__file__).resolve().parents[1]
ODD = ["on", "off", "yes", "no", "y", "12:30", "1_000", "2024_11_26", "2024-11-26", "0777", "0o17", "1e-3", "1E5", ".5",
       "null", "~", "true", "NaN", ".nan", ".inf", "=", "<<", "", " x", "a: b", "#x", "${USER}", "!x", "&a", "*a", "- a",
       "'q'", "é", "日本", "1.", "+1", "-0", "0x1F"]  # fmt: skip


def test_scalars_are_those_of_yaml_1_2():
    text = "[on, no, 12:30, 1_000, 2024-11-26, 0777, 0o17, 0x1F, 1e-3, 1E5, .5, 1., -.inf, ~, null, True, +1, <<, =]"
    assert load(text, "here") == [
        "on", "no", "12:30", "1_000", "2024-11-26", 777, 15, 31, 0.001, 1e5, 0.5, 1.0, -math.inf, None, None, True, 1, "<<", "="
    ]  # fmt: skip
    assert math.isnan(load(".nan", "here"))
    assert load("{on: 1, 1e-3: 2, 12:30: 3, 7: 4}", "here") == {"on": 1, "1e-3": 2, "12:30": 3, "7": 4}


@pytest.mark.parametrize("text", ODD)
def test_text_is_written_so_that_it_is_read_as_the_same_text(text):
    assert load(write_yaml({"key": text, "list": [text]}), "here") == {"key": text, "list": [text]}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ODD, "key"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1), VALUES, max_size=4))
def test_whatever_is_written_is_read_back(content):
    assert load(write_yaml(content), "here") == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "f.yaml:3: not valid YAML: 'a' stands twice"),
        (b"a:\n  x: 1\n  x: 2\n", "f.yaml:3: not valid YAML: 'x' stands twice"),
        (b"a: [1\n", "f.yaml:2: not valid YAML"),
        (b"? [a]\n: 1\n", "f.yaml:1: not valid YAML: a key must be text"),
        ("a: ä\n".encode("latin-1"), "f.yaml: is not UTF-8"),
        ("a: 1\n".encode("utf-16"), "f.yaml: is not UTF-8"),
        (b"- a\n", "f.yaml: expected keys and values"),
        (b"text\n", "f.yaml: expected keys and values"),
        (b"", "f.yaml: expected keys and values"),
        (b"a: !!python/object/apply:os.system [ls]\n", "f.yaml:1: not valid YAML"),
        (b"[" * 5000, "f.yaml"),
        (b"a: \x07\n", "f.yaml"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_yaml(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


TEXTS = [key for key, f in FIELDS.items() if str(f.type) in ("str", "str | None")]


@pytest.mark.parametrize("key", [*TEXTS, "runs_dir", "into", "because", "measured", "model"])
def test_text_on_the_command_line_is_taken_as_it_stands(key):
    for text in ODD:
        if text not in ("", "null", "~"):  # which are no text
            assert parse_overrides([f"{key}={text}"]) == {key: text}


def test_a_json_string_on_the_command_line_is_the_text_that_it_quotes():
    assert parse_overrides(['data.root="my #1"', 'runs_dir="a', 'slurm.qos=""']) == {
        "data.root": "my #1", "runs_dir": '"a', "slurm.qos": ""
    }  # fmt: skip


def test_other_values_on_the_command_line_are_read_by_the_type_of_their_key():
    assert parse_overrides(["train.lr=1e-3", "seed=3", "data.image_size=[64,32]", "train.clip_grad=null"]) == {
        "train.lr": 0.001, "seed": 3, "data.image_size": [64, 32], "train.clip_grad": None
    }  # fmt: skip
    assert parse_overrides(["arms=[on,1e-3,12:30]", "seeds=[0,1]", "slurm.options=[--x=1e3,on]"]) == {
        "arms": ["on", "1e-3", "12:30"], "seeds": [0, 1], "slurm.options": ["--x=1e3", "on"]
    }  # fmt: skip
    assert parse_overrides(["data.root=", "slurm.qos=null", "data.reader="]) == {
        "data.root": None, "slurm.qos": None, "data.reader": ""
    }  # fmt: skip


@pytest.mark.parametrize("words", [["seed=1", "seed=2"], ["model=nano", "model.name=t"]])
def test_a_key_is_given_once(words):
    with pytest.raises(ConfigError, match="is given twice"):
        parse_overrides(words)


def test_nothing_is_put_in_place_of_what_looks_like_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKEN", "secret")
    config = resolve("scenes", {"slurm.account": "${oc.env:TOKEN}", "slurm.setup": ["export A=${oc.env:TOKEN}"]})
    assert (config.slurm.account, config.slurm.setup) == ("${oc.env:TOKEN}", ["export A=${oc.env:TOKEN}"])
    folder = RunFolder(tmp_path / "run")
    folder.freeze(config)
    assert folder.config() == config and "secret" not in (folder.path / CONFIG).read_text()
    refused_values = {
        "train.lr": "${oc.env:TOKEN}",
        "data.image_size": ["${oc.env:TOKEN}", 1],
        "data.root": "${oc.env:TOKEN}",
    }
    for key, value in refused_values.items():
        with pytest.raises(ConfigError) as refused:
            resolve("scenes", {key: value})
        assert "secret" not in str(refused.value)


SWEEP = (
    "recipes: {smoke: scenes}\nseeds: [0]\nbaseline: on\narms:\n  on: {model.offsets: zero}\n  1e-3: {train.lr: 1e-3}\n"
)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)

    def write(text):
        (tmp_path / "mine.yaml").write_text(text)

    return write


def test_arms_are_called_what_their_file_calls_them(sweep):
    sweep(SWEEP + "  12:30: {start_from: 1e-3, label: 007}\n")
    planned = plan("mine", "smoke")
    assert planned.labels == {"on": "on", "1e-3": "1e-3", "12:30": "007"} and planned.baseline == "on"
    assert {run.arm for run in plan("mine", "smoke", arms=["on", "1e-3"]).runs} == {"on", "1e-3"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seeds:", "seed: [0]\nseeds:"), "mine.yaml: unknown key 'seed'; did you mean 'seeds'"),
        (("baseline:", "baselines: on\nbaseline:"), "mine.yaml: unknown key 'baselines'"),
        (("arms:", "settings: {model.offsets: zero}\narms:"), "mine.yaml: settings: model.offsets: expected keys and values"),
        (("arms:", "settings: {smok: {train.lr: 1}}\narms:"), "settings: unknown protocol 'smok'; did you mean 'smoke'"),
        (("  1e-3: {", "  on: {"), "mine.yaml:6: not valid YAML: 'on' stands twice"),
        (("  1e-3: {train.lr: 1e-3}", "  1e-3: [train.lr]"), "arms: 1e-3: expected keys and values"),
        (("{smoke: scenes}", "scenes"), "recipes: expected keys and values"),
    ],
)  # fmt: skip
def test_a_sweep_file_that_says_something_else_is_refused(sweep, change, message):
    assert change[0] in SWEEP
    sweep(SWEEP.replace(*change, 1))
    with pytest.raises(ConfigError) as refused:
        read_sweep("mine")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slrum: {qos: a}\n", "unknown key 'slrum'; did you mean 'slurm'"),
        ("runs-dir: x\n", "unknown key 'runs-dir'; did you mean 'runs_dir'"),
        ("train: {lr: 1}\n", "unknown key 'train'"),
        ("data: {imagnet: {root: /x}}\n", "no data set is called 'imagnet'; did you mean 'imagenet'"),
        ("slurm: {qos: a}\nslurm: {qos: b}\n", "site.yaml:2: not valid YAML: 'slurm' stands twice"),
    ],
)
def test_a_site_file_that_says_something_else_is_refused(tmp_path, text, message):
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_site(tmp_path / "site.yaml")
    assert message in str(refused.value)
    (tmp_path / "site.yaml").write_text("data: {my_own_photographs: {root: /x}}\n")
    assert read_site(tmp_path / "site.yaml")["data"]


@pytest.mark.parametrize("name", ["2024_11_26", "0777", "no", "my #1", "$USER", "a: b", "1e3"])
def test_run_folders_lie_where_they_are_said_to(tmp_path, name, capsys):
    words = ["experiment=scenes", "--dry-run", "--json", f"runs_dir={tmp_path}/{name}"]
    assert command_line.main(words) == 0
    assert f"{tmp_path}/{name}/scenes-" in capsys.readouterr().out


def test_every_yaml_file_of_the_checkout_means_the_same_in_both_dialects():
    """Files that were written for YAML 1.1 have not changed their meaning."""
    for path in sorted((*ROOT.glob("sweeps/*.yaml"), *ROOT.glob("experiments/recipes/*.yaml"), *ROOT.glob("*.yaml"))):
        before = yaml.safe_load(path.read_text())
        now = read_yaml(path)

        def texts(content):
            if isinstance(content, dict):
                return {str(key): texts(value) for key, value in content.items()}
            return [texts(each) for each in content] if isinstance(content, list) else content

        assert now == texts(before), path
