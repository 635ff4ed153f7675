"""A finished run answers for its own data and initial weights only."""

from __future__ import annotations

import shutil

import pytest

import run as command_line
from experiments.config import resolve
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.origin import PresentData
from run_format import PROVENANCE
from tests.conftest import write_images
from tests.experiments.test_images import config_of

SMALL = {
    "data.image_size": "[32,32]", "data.workers": 0, "train.batch_size": 6, "train.epochs": 1, "train.warmup_epochs": 0,
    "machine.threads": 1, "model": "nano",
}  # fmt: skip
WORDS = [f"{key}={value}" for key, value in SMALL.items()]


@pytest.mark.slow
def test_another_root_is_not_answered_with_the_run_of_the_first(images, tmp_path, capsys):
    other = write_images(tmp_path / "other")
    (other / "train" / "class0" / "0.jpg").rename(other / "train" / "class0" / "another.jpg")
    copy = shutil.copytree(images, tmp_path / "copy")

    def run(root, *words):
        code = command_line.main([*words, *WORDS, f"data.root={root}", f"runs_dir={tmp_path / 'runs'}"])
        return code, capsys.readouterr()

    single = "experiment=tiny_imagenet"
    assert run(images, single)[0] == 0
    assert run(copy, single)[0] == 0, "the same data in another place are the same data"
    sweep = ("sweep=ablation_offsets", "protocol=tiny", "seeds=[0]", "arms=[zero]")
    plans = {"dry": (*sweep, "--dry-run"), "sweep": sweep, "single": (single,)}
    assert (done := run(images, *plans["sweep"]))[0] == 0, done
    for words in plans.values():
        code, said = run(other, *words)
        assert code == 2, said
        assert f"than data.root={other} holds now" in said.err and "give another runs_dir" in said.err
        assert said.err.count("\n") == 1


def test_a_run_that_has_not_begun_lists_nothing(images, tmp_path, monkeypatch):
    config = config_of(images)
    folder = RunFolder(tmp_path / run_id(config))
    folder.freeze(config)
    monkeypatch.setattr("experiments.origin.data_fingerprint", lambda config: pytest.fail("listed"))
    from experiments.origin import refuse_other_origin

    refuse_other_origin(folder, config, PresentData())
    folder.write_json(PROVENANCE, {"data_fingerprint": "something"})
    with pytest.raises(pytest.fail.Exception, match="listed"):
        refuse_other_origin(folder, config, PresentData())


def test_data_that_are_not_here_are_no_others(images):
    config = config_of(images)
    shutil.rmtree(images)
    assert not PresentData().differ(config, "something")
    assert not PresentData().differ(resolve("scenes"), "something"), "drawn by code"
