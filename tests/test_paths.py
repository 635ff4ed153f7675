"""Paths on a command line are relative to the current directory, paths in a file to the folder of that file."""

from __future__ import annotations

import json

import pytest

import experiments.config as config
import run as command_line
from errors import ConfigError
from experiments.commands import runs_folder
from experiments.config import read_site, resolve
from experiments.identity import run_id
from sweeps.plan import load as plan

SWEEP = """
recipes: {smoke: scenes}
settings: {smoke: {data.root: common}}
seeds: [0]
baseline: a
arms: {a: {init: weights/a.safetensors}, b: {data.root: /absolute, init: scenes-nano-s0-00000000}, c: {data.root: ~/home}}
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current directory, in which no file lies that a file names."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return folder


def test_paths_of_a_command_line_are_the_callers(elsewhere, capsys):
    (elsewhere / "start.safetensors").write_bytes(b"weights")
    words = ["experiment=scenes", "--dry-run", "--json", "runs_dir=runs/mine", "init=start.safetensors"]
    assert command_line.main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["folder"] == str(elsewhere / "runs" / "mine" / said["run"])
    assert said["config"]["init"] == str(elsewhere / "start.safetensors")


@pytest.mark.parametrize("word", ["runs_dir=~nobody-here/x", "init=~nobody-here/x.pt", "data.root=~nobody-here"])
def test_the_folder_of_an_unknown_user_is_refused_in_one_line(elsewhere, word, capsys):
    assert command_line.main(["experiment=scenes", "--dry-run", word]) == 2
    assert capsys.readouterr().err == f"run.py: {word}: no user is called ~nobody-here\n"


def test_where_weights_lie_does_not_change_a_runs_id(elsewhere, monkeypatch):
    (elsewhere / "start.safetensors").write_bytes(b"weights")
    ids = {
        run_id(resolve("scenes", {"init": init})) for init in ("start.safetensors", f"{elsewhere}/start.safetensors")
    }
    assert len(ids) == 1
    assert resolve("scenes", {"init": "scenes-nano-s0-00000000"}).init == "scenes-nano-s0-00000000"


def test_paths_of_a_site_file_are_relative_to_it(tmp_path, elsewhere):
    path = tmp_path / "site.yaml"
    path.write_text("runs_dir: runs\ndata: {imagenet: {root: images}, tiny_imagenet: {root: /absolute}, ade20k: {}}\n")
    site = read_site(path)
    assert runs_folder({}, site) == tmp_path / "runs"
    assert runs_folder({"runs_dir": "own"}, site) == elsewhere / "own"
    assert resolve("imagenet", site=site).data.root == str(tmp_path / "images")
    assert resolve("tiny_imagenet", site=site).data.root == "/absolute"
    path.write_text("runs_dir: ~/runs\n")
    assert runs_folder({}, read_site(path)) == tmp_path / "user" / "runs"


def test_what_a_checkouts_site_does_not_set_is_the_users_own(tmp_path, elsewhere, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    users = tmp_path / "user" / ".config" / "atm" / "site.yaml"
    users.parent.mkdir(parents=True)
    users.write_text(
        "runs_dir: runs\ndata: {imagenet: {root: photographs, workers: 3}}\nslurm: {account: mine, partition: gpu}\n"
    )
    assert runs_folder({}, read_site(tmp_path / "absent.yaml")) == users.parent / "runs"
    path = tmp_path / "site.yaml"
    path.write_text("runs_dir: of-the-checkout\ndata: {imagenet: {root: images}}\nslurm: {partition: low}\n")
    site = read_site(path)
    config = resolve("imagenet", site=site)
    assert runs_folder({}, site) == tmp_path / "of-the-checkout"
    assert (config.data.root, config.data.workers) == (str(tmp_path / "images"), 3)
    assert (config.slurm.account, config.slurm.partition) == ("mine", "low")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    assert "account" not in read_site(path)["slurm"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(users.parent.parent))
    users.write_text("runs: here\n")
    with pytest.raises(ConfigError, match=r"site\.yaml: unknown key 'runs'"):
        read_site(path)


def test_the_environment_names_the_folder_of_runs_before_a_site_and_after_the_command_line(
    tmp_path, elsewhere, monkeypatch
):
    monkeypatch.setenv("ATM_RUNS_DIR", "of-the-environment")
    assert runs_folder({}, {"runs_dir": "/site"}) == elsewhere / "of-the-environment"
    assert runs_folder({"runs_dir": "given"}, {}) == elsewhere / "given"
    monkeypatch.setenv("ATM_RUNS_DIR", "~nobody-here/x")
    with pytest.raises(ConfigError, match="ATM_RUNS_DIR=~nobody-here/x: no user"):
        runs_folder({}, {})


def test_paths_of_a_sweep_file_are_relative_to_it(tmp_path, elsewhere, monkeypatch):
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)
    (tmp_path / "mine.yaml").write_text(SWEEP)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.safetensors").write_bytes(b"weights")
    configs = {run.arm: run.config for run in plan("mine", "smoke").runs}
    assert configs["a"].init == str(tmp_path / "weights" / "a.safetensors")
    assert configs["a"].data.root == str(tmp_path / "common")
    assert (configs["b"].init, configs["b"].data.root) == ("scenes-nano-s0-00000000", "/absolute")
    assert configs["c"].data.root == str(tmp_path / "user" / "home")


def test_paths_of_a_recipe_are_relative_to_it(tmp_path, elsewhere, monkeypatch):
    monkeypatch.setattr(config, "RECIPES", tmp_path)
    config._recipe.cache_clear()
    (tmp_path / "mine.yaml").write_text(
        "task: token_labelling\ndata: {dataset: scenes, root: images}\ninit: start.pt\n"
    )
    try:
        resolved = resolve("mine", {"data.num_classes": 4})
    finally:
        config._recipe.cache_clear()
    assert (resolved.data.root, resolved.init) == (str(tmp_path / "images"), str(tmp_path / "start.pt"))
