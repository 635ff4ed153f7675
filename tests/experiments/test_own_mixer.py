"""A mixer of one's own in a file outside the checkout: an arm of a sweep, whose source is a part of its runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import timm

from errors import ConfigError
from experiments import own_mixer
from experiments.config import ROOT, from_dict, resolve
from experiments.folder.fingerprint import run_fingerprint
from experiments.identity import run_id
from experiments.tasks.network import backbone
from run import main
from sweeps.plan import load

DOCUMENTED = (ROOT / "docs" / "mixers.md").read_text("utf-8")
(SOURCE,) = [block for block in re.findall(r"```python\n(.*?)```", DOCUMENTED, re.DOTALL) if "class" in block]
(SWEEP,) = [block for block in re.findall(r"```yaml\n(.*?)```", DOCUMENTED, re.DOTALL) if "arms" in block]
SHORT_RUN = ("train.steps=2", "data.train_images=8", "data.eval_images=4", "train.batch_size=4", "train.warmup_steps=0")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the documentation's mixer and sweep, as a user writes them down."""
    (tmp_path / "roll.py").write_text(SOURCE)
    (tmp_path / "my_sweep.yaml").write_text(SWEEP)
    return tmp_path


def roll(folder: Path) -> dict[str, str]:
    return {"model.mixer": f"{folder / 'roll.py'}:Roll"}


def test_the_mixer_of_the_documentation_has_ten_lines():
    assert len([line for line in SOURCE.splitlines() if line.strip()]) <= 10


def test_it_is_an_arm_of_a_sweep(folder):
    plan = load(str(folder / "my_sweep.yaml"), "smoke", seeds=[0])
    assert {run.config.model.mixer for run in plan.runs} == {"atm", f"{folder / 'roll.py'}:Roll"}
    assert str(folder) not in json.dumps(plan.as_dict()["arms"]), "results keep no place on this machine"


@pytest.mark.slow
def test_its_arm_is_compared_with_others_and_two_versions_never_meet(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = ["my_sweep.yaml", "protocol=smoke", f"runs_dir={folder / 'runs'}", "seeds=[0]", *SHORT_RUN]
    assert main([f"sweep={words[0]}", *words[1:], "--jobs", "1"]) == 0
    assert main([f"report={words[0]}", *words[1:], "--json"]) == 0
    capsys.readouterr()
    (folder / "roll.py").write_text(SOURCE.replace("roll(1", "roll(2"))
    assert main([f"status={words[0]}", *words[1:], "--json"]) == 0
    states = {run["arm"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert states == {"axial": "done", "roll": "not run"}


def test_another_version_of_the_file_is_another_run(folder):
    def current() -> str:
        return run_id(resolve("scenes", roll(folder)))

    first = current()
    (folder / "roll.py").write_text(f'"""A comment."""\n# more\n{SOURCE}')
    assert current() == first, "comments and docstrings are no other version"
    (folder / "elsewhere").mkdir()
    moved = (folder / "roll.py").rename(folder / "elsewhere" / "roll.py")
    assert run_id(resolve("scenes", {"model.mixer": f"{moved}:Roll"})) == first, "nor is another place"
    moved.write_text(SOURCE.replace("roll(1", "roll(2"))
    assert run_id(resolve("scenes", {"model.mixer": f"{moved}:Roll"})) != first


def test_a_planned_run_is_not_trained_with_another_version(folder):
    config = from_dict(resolve("scenes", roll(folder)).as_dict())
    assert timm.create_model(backbone(config.model)[0], **backbone(config.model)[1]) is not None
    (folder / "roll.py").write_text(SOURCE.replace("roll(1", "roll(2"))
    with pytest.raises(ConfigError, match=r"roll.py was edited: it is \w{16} now, and the run was planned with \w{16}"):
        backbone(config.model)


def test_paths_in_a_file_are_relative_to_it(folder):
    (folder / "recipe.yaml").write_text(
        (ROOT / "experiments" / "recipes" / "scenes.yaml").read_text().replace("{name: nano", "{name: nano, mixer: roll.py:Roll")
    )  # fmt: skip
    assert resolve(str(folder / "recipe.yaml")).model.mixer == f"{folder / 'roll.py'}:Roll"


def test_its_widths_can_be_matched(folder):
    dims = resolve("scenes", {**roll(folder), "model.match": "flops"}).model.dims
    assert dims and all(dim > own for dim, own in zip(dims, [16, 32, 64, 96]))


@pytest.mark.parametrize(
    ("source", "mixer", "says"),
    [
        (None, "rol.py:Roll", "rol.py:Roll: cannot read the file: No such file or directory"),
        (None, "roll.py:Rol", "unknown name in roll.py 'Rol'; did you mean 'Roll'"),
        ("class Roll(\n", "roll.py:Roll", "not valid Python"),
    ],
)
def test_what_is_not_there_is_refused_at_planning(folder, source, mixer, says, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    if source:
        (folder / "roll.py").write_text(source)
    assert main(["experiment=scenes", f"model.mixer={mixer}", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert says in err and len(err.splitlines()) == 1


def test_timm_makes_a_network_with_it(folder):
    network = timm.create_model("atmnet_nano", mixer=f"{folder / 'roll.py'}:Roll")
    assert type(network.stages[0].blocks[0].mixer).__name__ == "Roll"
    with pytest.raises(ValueError, match="there is no file"):
        timm.create_model("atmnet_nano", mixer=f"{folder / 'none.py'}:Roll")
    with pytest.raises(ValueError, match="has no 'Rol'"):
        timm.create_model("atmnet_nano", mixer=f"{folder / 'roll.py'}:Rol")


@pytest.fixture
def installed(folder, monkeypatch):
    """The mixer as a package registers it, ``model.mixer=rolled``."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("experiments.config.plugin_names", lambda group: ("rolled",) if group == "atm.mixers" else ())
    monkeypatch.setattr(own_mixer, "plugin_module", lambda group, name: "roll" if name == "rolled" else None)
    return folder / "roll.py"


def test_the_source_of_an_installed_mixer_is_in_the_id_of_its_runs_and_in_no_fingerprint(installed):
    """So a run of axial beside it has the fingerprint of its runs, and reports average no two versions."""
    config, axial = resolve("scenes", {"model.mixer": "rolled"}), resolve("scenes")
    assert config.model.mixer_source == own_mixer.source_hash(installed) and axial.model.mixer_source is None
    assert run_fingerprint(config) == run_fingerprint(axial)
    installed.write_text(f"# a comment\n{SOURCE}")
    assert run_id(resolve("scenes", {"model.mixer": "rolled"})) == run_id(config)
    installed.write_text(SOURCE.replace("roll(1", "roll(2"))
    assert run_id(resolve("scenes", {"model.mixer": "rolled"})) != run_id(config)
    with pytest.raises(ConfigError, match=r"model.mixer=rolled: roll.py was edited: it is"):
        run_fingerprint(config)  # which a run asks for when it begins and when it is resumed
