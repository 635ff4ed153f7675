"""The acceptance holds on this machine: on its GPU, or on the CPU with Triton in its interpreter and gloo for NCCL."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch

from atm.sampling import block_sizes
from atm.sampling.block_sizes import GRID, BlockSizes, keep, kept
from benchmarks.__main__ import main
from benchmarks.acceptance import SECTIONS
from benchmarks.acceptance.outcomes import Check, CheckedDevice, CheckResult, distance, same_bits, within
from benchmarks.acceptance.worker import Worker

PLACE = CheckedDevice("cpu", tiny=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module", params=SECTIONS)
def accepted(request, tmp_path_factory):
    """A section, the lines of its checks, and the exit code."""
    path = tmp_path_factory.mktemp("acceptance") / "report.json"
    code = main(["acceptance", "--device", DEVICE, "--size", "tiny", "--sections", request.param, "--json", str(path)])
    return request.param, json.loads(path.read_text())["lines"], code


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.timeout(3600)
def test_every_line_is_held(accepted) -> None:
    section, lines, code = accepted
    assert [line for line in lines if line["held"] is False] == []
    assert {line["check"] for line in lines} == {check.name for check in SECTIONS[section]}
    assert {line["held"] for line in lines} == {None if section == "speed" else True}, "tiny shapes have no speed"
    assert code == 0


def ten(place: CheckedDevice) -> list[CheckResult]:
    return [CheckResult("ten", True, "10")]


def raising(place: CheckedDevice) -> list[CheckResult]:
    raise ValueError("not here\nnor there")


def dying(place: CheckedDevice) -> list[CheckResult]:
    os._exit(3)


def hanging(place: CheckedDevice) -> list[CheckResult]:
    time.sleep(600)
    return []


@pytest.mark.slow
def test_a_check_that_fails_dies_or_hangs_is_one_missed_line_and_stops_no_other() -> None:
    worker = Worker({})
    found = []
    try:
        for call, limit in ((ten, 300), (raising, 300), (dying, 300), (hanging, 1), (ten, 300)):
            found += worker.run(Check(call.__name__, call), PLACE, limit)
    finally:
        worker.close()
    assert [outcome.held for outcome in found] == [True, False, False, False, True]
    assert [outcome.detail for outcome in found] == [
        "10", "ValueError: not here", "its process died", "it took longer than 1 s", "10",
    ]  # fmt: skip


def test_checks_that_do_not_begin_in_time_are_missed(tmp_path, monkeypatch, capsys) -> None:
    import benchmarks.acceptance as acceptance

    monkeypatch.setitem(acceptance.LIMIT_S, "cpu", 0)
    path = tmp_path / "report.json"
    assert main(["acceptance", "--device", "cpu", "--json", str(path)]) == 1
    lines = json.loads(path.read_text())["lines"]
    assert {line["detail"] for line in lines} == {"not begun: the time was over"}
    assert capsys.readouterr().out.count("missed") == len(lines) + 1


def test_results_that_are_wrong_or_not_finite_are_missed() -> None:
    one, nan = torch.ones(3), torch.tensor([1.0, float("nan"), 1.0])
    assert within("", [one, one], [one, one + 1e-6], 1e-5).held
    assert not within("", [one, one], [one, one + 1e-4], 1e-5).held
    assert distance(nan, one) == float("inf") and not within("", [nan], [one], 1e-5).held
    assert same_bits("", [[one], [one.clone()]]).held and not same_bits("", [[one], [one + 1e-7]]).held


def test_unknown_sections_are_refused(refused) -> None:
    assert "unknown section 'sped'; did you mean 'speed'" in refused("acceptance", "--sections", "sped")
    assert "unknown size 'huge'" in refused("acceptance", "--size", "huge")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ATM_CACHE_DIR", str(tmp_path))
    kept.cache_clear()
    yield tmp_path
    kept.cache_clear()


def test_block_sizes_are_kept_by_the_name_of_the_gpu(folder) -> None:
    sizes = BlockSizes(tile=2048, tile_channels=32, targets=16)
    assert kept("one GPU") == BlockSizes()
    path = keep("one GPU", sizes)
    assert path.parent == folder and kept("one GPU") == sizes and kept("another") == BlockSizes()
    keep("another", BlockSizes(tile=512))
    assert kept("one GPU") == sizes and kept("another").tile == 512


@pytest.mark.parametrize(
    "content",
    [
        '{"GPU": {"tile": 3}}',
        '{"GPU": []}',
        "[]",
        "{",
        '{"GPU": {"tile": 10000000, "tile_channels": 64, "targets": 32}}',
    ],
)
def test_block_sizes_outside_the_grid_are_not_read(folder, content) -> None:
    block_sizes._path().write_text(content)
    assert kept("GPU") == BlockSizes()
    assert vars(BlockSizes()).items() <= {key: values[1] for key, values in GRID.items()}.items()
