"""Whether a recorded fingerprint is that of the present code, from what committed results know of a run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from experiments.config import ROOT, resolve
from experiments.folder import present_code
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.present_code import is_present

OTHER = "0dd0dd0dd0dd0dd0"


@pytest.mark.parametrize("experiment", ["scenes", "tiny_imagenet", "imagenet"])
def test_it_is_the_fingerprint_that_a_run_of_that_recipe_records(experiment):
    recorded = run_fingerprint(resolve(experiment, {"data.num_classes": 4}))
    assert is_present(recorded, experiment, {}) is True
    assert is_present(recorded, experiment, {"model.mixer": "identity", "train.epochs": 5}) is True
    assert is_present(OTHER, experiment, {}) is False


def test_a_task_that_is_not_the_recipes_own_has_another():
    recorded = run_fingerprint(resolve("scenes"))
    assert is_present(recorded, "imagenet", {}) is False
    assert is_present(recorded, "imagenet", {"task": "token_labelling"}) is True


def test_a_run_that_went_on_with_other_code_is_not_of_the_present_code():
    recorded = run_fingerprint(resolve("scenes"))
    assert is_present(f"{OTHER}+{recorded}", "scenes", {}) is False


@pytest.mark.parametrize(
    ("recorded", "experiment", "settings"),
    [
        ("", "scenes", {}),
        (OTHER, "scnes", {}),
        (OTHER, "", {}),
        (OTHER, "scenes", {"task": "boxing"}),
        (OTHER, "scenes", {"model.mixer": "someones_pool"}),
        (OTHER, "imagenet", {"data.dataset": "someones_photographs"}),
    ],
)
def test_what_is_not_here_cannot_be_compared(recorded, experiment, settings):
    assert is_present(recorded, experiment, settings) is None


def test_a_folder_of_images_has_a_name_that_nobody_registered():
    """It may as well be a data set of a missing package, so only the same fingerprint tells."""
    recorded = run_fingerprint(resolve("imagenet", {"data.num_classes": 4}))
    assert is_present(recorded, "imagenet", {"data.dataset": "my_photographs"}) is True


def test_a_mixer_of_another_package_counts_where_it_is_installed(tmp_path, monkeypatch):
    mixer = tmp_path / "my_pool.py"
    mixer.write_text("SIZE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = resolve("scenes")
    config.model.mixer = "my_pool"
    recorded = run_fingerprint(config)
    assert is_present(recorded, "scenes", {"model.mixer": "my_pool"}) is None, "not installed"
    monkeypatch.setattr(present_code, "plugin_module", lambda group, name: "my_pool" if name == "my_pool" else None)
    assert is_present(recorded, "scenes", {"model.mixer": "my_pool"}) is True
    assert is_present(recorded, "scenes", {}) is True, "its version is in the run's id, so no other run depends on it"


def test_a_mixer_in_a_file_is_no_part_of_the_code():
    recorded = run_fingerprint(resolve("scenes"))
    own = {"model.mixer": "Roll", "model.mixer_source": "0123456789abcdef"}
    assert is_present(recorded, "scenes", own) is True
    assert is_present(OTHER, "scenes", own) is False


def test_it_does_not_import_torch():
    code = (
        "import sys; from experiments.folder.present_code import is_present\n"
        "assert is_present('0', 'tiny_imagenet', {}) is False; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
