"""The setting that chooses what reads tokens at their offsets: said, recorded, refused where it cannot run."""

from __future__ import annotations

import pytest

from atm import sampling
from atm.sampling import backends
from errors import ConfigError
from experiments.config import resolve
from experiments.identity import run_id
from experiments.schema import SAMPLERS
from experiments.training import devices, loop
from tests.experiments.processes import finish, frozen, start, wait_for_step

MISSING = "no C++ compiler (g++, clang++) was found"


@pytest.fixture(autouse=True)
def automatic():
    """Runs in this process choose for all of it."""
    yield
    sampling.use("auto")


@pytest.fixture
def no_compiler(monkeypatch):
    """This process, as if nothing could compile C++ here, and as if nobody had been warned of it yet."""
    known = backends.unavailable

    def without(backend: str, device: str) -> str | None:
        return MISSING if backend == "native" else known(backend, device)

    monkeypatch.setattr(backends, "unavailable", without)
    monkeypatch.setattr(devices, "unavailable", without)
    backends._warn.cache_clear()
    yield
    backends._warn.cache_clear()


def test_the_choices_are_those_of_the_model():
    assert SAMPLERS == sampling.BACKENDS


def test_the_choice_is_no_part_of_a_runs_identity():
    assert len({run_id(resolve("scenes", {"machine.sampler": name})) for name in SAMPLERS}) == 1


@pytest.mark.parametrize("name", ["auto", "reference", "eager"])
def test_the_sampler_is_said_once_and_recorded(tmp_path, small_scenes, name):
    folder = frozen(tmp_path, {**small_scenes, "train.epochs": 1, "machine.sampler": name})
    code, said = finish(folder, "--console")
    assert code == 0
    recorded = folder.read_json("provenance.json")["sampler"]
    assert recorded == (sampling.describe("cpu") if name == "auto" else name)
    assert [line for line in said.splitlines() if "sampler" in line] == [f"sampler: {recorded}"]
    assert folder.log.read_text().count(f"INFO sampler: {recorded}\n") == 1


def test_all_devices_read_with_it_and_one_says_so(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 1, "machine.devices": 2, "machine.sampler": "eager"}
    folder = frozen(tmp_path, settings)
    code, said = finish(folder, "--console")
    assert code == 0
    assert said.count("sampler: eager\n") == 1 and "sampler: eager and" not in said
    assert not any(path.stat().st_size for path in folder.path.glob("log.rank-*.txt"))


@pytest.mark.parametrize("device_count", [1, 2])
def test_a_sampler_that_cannot_run_here_is_refused_in_one_line(tmp_path, small_scenes, device_count):
    settings = {**small_scenes, "machine.sampler": "triton", "machine.device": "cpu", "machine.devices": device_count}
    settings["train.epochs"] = 1
    folder = frozen(tmp_path, settings)
    code, said = finish(folder)
    assert said == "machine.sampler=triton cannot run here: the Triton kernels run on CUDA, not on cpu\n"
    assert code == 2
    assert folder.read_json("state.json")["state"] == "refused"
    assert not list(folder.checkpoints.iterdir()) and not (folder.path / "provenance.json").exists()


def test_what_was_refused_for_its_sampler_is_started_with_another(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 1}
    with pytest.raises(ConfigError):
        loop.run(frozen(tmp_path, {**settings, "machine.sampler": "triton", "machine.device": "cpu"}))
    assert loop.run(frozen(tmp_path, settings))["step"] == 4


def test_a_slower_one_in_its_place_is_one_line_for_the_whole_run(tmp_path, small_scenes, no_compiler, recwarn):
    folder = frozen(tmp_path, {**small_scenes, "train.epochs": 2})
    loop.run(folder)
    lines = [line.partition(" ")[2].partition(" ")[2] for line in folder.log.read_text().splitlines()]
    assert [line for line in lines if "sampl" in line] == [
        f"WARNING sampling falls back to the slower backend 'eager' on cpu: {MISSING}",
        f"INFO sampler: eager ({MISSING})",
    ]
    assert folder.read_json("provenance.json")["sampler"] == f"eager ({MISSING})"
    assert not [warning for warning in recwarn if "sampling" in str(warning.message)]


def test_a_sampler_that_was_asked_for_is_not_replaced(tmp_path, small_scenes, no_compiler):
    folder = frozen(tmp_path, {**small_scenes, "machine.sampler": "native"})
    with pytest.raises(ConfigError) as caught:
        loop.run(folder)
    assert str(caught.value) == f"machine.sampler=native cannot run here: {MISSING}"


@pytest.mark.slow
def test_going_on_with_another_sampler_is_noted(tmp_path, small_scenes):
    settings = {**small_scenes, "train.epochs": 8, "machine.sampler": "eager"}
    folder = frozen(tmp_path, settings)
    process = start(folder)
    wait_for_step(folder, 4, process)
    process.kill()
    process.communicate()
    folder = frozen(tmp_path, {**settings, "machine.sampler": "reference"})
    assert loop.run(folder)["notes"] == ["resumed with sampler reference, before eager"]
    assert folder.read_json("provenance.json")["sampler"] == "reference"
