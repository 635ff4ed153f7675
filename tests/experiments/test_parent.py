"""Which weights a run may start from, and the refusal where it cannot."""

from __future__ import annotations

import hashlib

import pytest

from errors import ConfigError
from experiments.config import resolve
from experiments.folder.parent import refuse_other_weights, weights_of
from experiments.folder.run_folder import RunFolder
from run_format import WEIGHTS
from tests.ended import end

RUN = "scenes-nano-s0-0123abcd"


@pytest.fixture
def parent(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / RUN)
    folder.freeze(resolve("scenes"))
    return folder


def refusal(init: str, runs_dir) -> str:
    with pytest.raises(ConfigError) as refused:
        weights_of(init, runs_dir)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_missing_run_is_refused_with_the_nearest_name(parent, tmp_path):
    message = refusal("scenes-nano-s0-0123abce", tmp_path)
    assert f"no such run in {tmp_path}; did you mean {RUN!r}?" in message
    assert refusal("imagenet-l-s0-00000000", tmp_path).endswith(f"no such run in {tmp_path}")
    assert "no such run" in refusal(RUN, tmp_path / "nowhere")
    assert "no such file" in refusal("weights.pth", tmp_path)


def test_a_run_that_is_not_done_is_refused_with_its_state(parent, tmp_path):
    assert "was not started yet" in refusal(RUN, tmp_path)
    (parent.path / WEIGHTS).write_bytes(b"of a process that died before its summary")
    parent.set_state("running", step=3)
    assert "not done: its process died" in refusal(RUN, tmp_path)
    with parent.claim():
        assert "not done yet, it is being run by" in refusal(RUN, tmp_path)
    parent.set_state("failed", cause="non-finite loss at step 7")
    assert "not done: failed (non-finite loss at step 7)" in refusal(RUN, tmp_path)


def test_weights_of_a_finished_run_and_of_a_file(parent, tmp_path):
    end(parent)
    assert "its weights.safetensors is missing" in refusal(RUN, tmp_path)
    (parent.path / WEIGHTS).write_bytes(b"weights")
    assert weights_of(RUN, tmp_path) == parent.path / WEIGHTS
    assert weights_of(str(parent.path / WEIGHTS), tmp_path / "nowhere") == parent.path / WEIGHTS


def test_weights_that_the_run_did_not_write_are_refused(parent, tmp_path):
    (parent.path / WEIGHTS).write_bytes(b"weights")
    end(parent, sha256={WEIGHTS: hashlib.sha256(b"weights").hexdigest()})
    assert weights_of(RUN, tmp_path) == parent.path / WEIGHTS
    (parent.path / WEIGHTS).write_bytes(b"WEIGHTS")
    assert "is not the file that the run wrote" in refusal(RUN, tmp_path)


def test_a_run_is_not_taken_for_one_that_starts_from_other_weights(parent, tmp_path):
    file = tmp_path / "start.pth"
    file.write_bytes(b"first")
    refuse_other_weights(parent, str(file), tmp_path)  # it has recorded nothing
    parent.write_json("provenance.json", {"init_sha256": hashlib.sha256(b"first").hexdigest()})
    refuse_other_weights(parent, str(file), tmp_path)
    file.write_bytes(b"other")
    with pytest.raises(ConfigError, match=f"start.pth has changed since {RUN} started from it"):
        refuse_other_weights(parent, str(file), tmp_path)
    file.unlink()
    refuse_other_weights(parent, str(file), tmp_path)
