"""The sampler's benchmark measures what it says, on maps small enough for a test."""

import json

import pytest

from benchmarks import sampler
from benchmarks.__main__ import main


def test_measures_every_stage_and_axis_and_writes_json(tmp_path, capsys) -> None:
    main(["sampler", "--batch", "1", "--repeats", "1", "--threads", "1", "--json", str(tmp_path / "sampler.json")])
    report = json.loads((tmp_path / "sampler.json").read_text())
    assert [(row["size"], row["channels"], row["sharing"]) for row in report["rows"][::3]] == [
        (56, 64, 2),
        (28, 128, 4),
        (14, 320, 4),
        (7, 512, 8),
    ]
    assert [row["axis"] for row in report["rows"]] == ["horizontal", "vertical", "joint"] * 4
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["atm_ms"] / row["deform_ms"])
    assert report["threads"] == 1 and report["repeats"] == 1
    assert "deform_conv2d" in capsys.readouterr().out


def test_refuses_to_time_operators_that_disagree(monkeypatch) -> None:
    monkeypatch.setattr(sampler, "sample_axis", lambda x, offsets, dim: 2 * x)
    with pytest.raises(RuntimeError, match="disagree at 8 x 8 x 64, horizontal"):
        sampler.measure(batch=1, repeats=1, threads=1, image=32)
