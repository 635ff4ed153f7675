"""The benchmarks of sampler and mixer measure what their reports state, on maps small enough for a test."""

import pytest
import torch

from benchmarks import mixer, sampler
from tests.benchmarks.tables import lines

TINY = ("--batch", "1", "--threads", "1", "--image", "32")
SHAPES = [(8, 64, 2), (4, 128, 4), (2, 320, 4), (1, 512, 8)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_sampler_measures_every_stage_and_axis(run, dtype) -> None:
    report, printed = run("sampler", *TINY, "--dtype", dtype)
    rows = report["rows"]
    assert [(row["size"], row["channels"], row["sharing"]) for row in rows[::3]] == SHAPES
    assert [row["axis"] for row in rows] == ["horizontal", "vertical", "joint"] * 4
    for row, cells in zip(rows, lines(printed), strict=True):
        assert row["ratio"] == pytest.approx(row["atm_ms"] / row["deform_ms"])
        assert row["sampling_ratio"] == pytest.approx(row["sampling_ms"] / row["fc_ms"])
        assert cells == [
            f"{row['size']} x {row['size']}", str(row["channels"]), str(row["sharing"]), row["axis"],
            f"{row['atm_ms']:.2f}", f"{row['deform_ms']:.2f}", f"{row['ratio']:.3f}", f"{row['fastest_ratio']:.3f}",
            f"{row['sampling_ms']:.3f}", f"{row['fc_ms']:.3f}",
            f"{row['sampling_ratio']:.2f}", f"{row['sampling_fastest_ratio']:.2f}",
        ]  # fmt: skip
    assert report["threads"] == 1 and report["repeats"] == 1 and report["copy_gb_per_s"] is None
    assert "deform_conv2d" in printed and dtype in printed


def test_sampler_is_measured_at_224_px_by_default(run) -> None:
    report, _ = run("sampler", "--batch", "1", "--threads", "1")
    assert [row["size"] for row in report["rows"][::3]] == [56, 28, 14, 7]


def test_refuses_to_time_samplers_that_disagree(refused, monkeypatch) -> None:
    monkeypatch.setattr(sampler, "sample_axis", lambda x, offsets, dim: 2 * x)
    assert "disagree at 8 x 8 x 64, horizontal" in refused("sampler", *TINY, code=1)


def test_refuses_to_time_samplers_whose_gradients_disagree(refused, monkeypatch) -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return 1.1 * gradient

    right = sampler.sample_axis
    monkeypatch.setattr(sampler, "sample_axis", lambda x, offsets, dim: right(Wrong.apply(x), offsets, dim))
    assert "disagree at 8 x 8 x 64, horizontal, in a gradient" in refused("sampler", *TINY, code=1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mixer_measures_every_stage_in_both_phases(run, dtype) -> None:
    report, printed = run("mixer", *TINY, "--dtype", dtype)
    rows = report["rows"]
    assert [(row["size"], row["channels"], row["sharing"]) for row in rows[::2]] == SHAPES
    assert [row["phase"] for row in rows] == ["forward", "forward and backward"] * 4
    for row, cells in zip(rows, lines(printed), strict=True):
        assert row["ratio"] == pytest.approx(row["mixer_ms"] / row["products_ms"])
        times = (row["mixer_ms"], row["products_ms"], row["ratio"], row["fastest_ratio"])
        assert cells[4:] == [f"{value:.2f}" for value in times]


def test_refuses_to_time_a_mixer_that_disagrees(refused, monkeypatch) -> None:
    right = mixer.ActiveTokenMixer.forward
    monkeypatch.setattr(mixer.ActiveTokenMixer, "forward", lambda self, x, offsets: 1.1 * right(self, x, offsets))
    assert "mixer and deform_conv2d's disagree at 8 x 8 x 64" in refused("mixer", *TINY, code=1)
