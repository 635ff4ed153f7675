"""The profile divides a step's time among operators and modules, and counts the bytes that operators move."""

import pytest

from tests.benchmarks.tables import lines

WORDS = ("profile", "--model", "atmnet_nano", "--batch", "2", "--image", "64", "--threads", "1")
MAPS = [(16, 16), (8, 32), (4, 64), (2, 96)]  # side and channels of nano's stages


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_divided_among_operators_and_modules(run, dtype) -> None:
    report, printed = run(*WORDS, "--dtype", dtype)
    parts = {(row["phase"], row["kind"], row["name"]): row for row in report["rows"]}
    for phase in ("forward", "backward"):
        operators = [row["ms"] for (in_phase, kind, _), row in parts.items() if (in_phase, kind) == (phase, "operator")]
        modules = [row["ms"] for (in_phase, kind, _), row in parts.items() if (in_phase, kind) == (phase, "module")]
        outside = parts[phase, "operator", "outside operators"]["ms"]
        assert sum(operators) == pytest.approx(report["ms"][phase], rel=1e-3)
        assert sum(modules) == pytest.approx(sum(operators) - outside, rel=1e-3)
        for name in ("stages.*.blocks.*.mixer", "stages.*.blocks.*.mlp.fc1", "stages.*.peg.conv", "stem"):
            assert parts[phase, "module", name]["ms"] > 0
    assert {"atm::read", "aten::gelu", "aten::linear"} <= {name for _, kind, name in parts if kind == "operator"}
    assert "atm::read_backward" in printed and len(lines(printed)) > 20


def test_bytes_are_those_of_inputs_and_outputs(run) -> None:
    report, _ = run(*WORDS)
    moved = {(row["phase"], row["name"]): row["gbytes"] for row in report["rows"] if row["kind"] == "operator"}
    blocks, batch = 2, 2
    hidden = sum(blocks * batch * side**2 * 4 * channels for side, channels in MAPS)
    in_fusions = sum(blocks * batch * (channels // 4) for _, channels in MAPS)
    assert moved["forward", "aten::gelu"] == pytest.approx(2 * 4 * (hidden + in_fusions) / 1e9, rel=1e-6)
    assert moved["forward", "aten::linear"] > moved["forward", "aten::gelu"], "of what a composed operator calls"
    assert moved["forward", "outside operators"] is None
