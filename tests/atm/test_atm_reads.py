"""Offsets of a model as arrays and as a picture, and the examples of docs/inspecting.md."""

import contextlib
import io
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from atm.neck import ATMLayer
from atm.reads import FAINTEST, LayerOffsets, draw_reads, read_offsets
from atm.sampling import recompose

matplotlib.use("Agg")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "inspecting.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", PAGE, flags=re.M | re.S)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES)
def test_the_examples_of_the_page_run_and_print_what_it_says(code, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    assert out.getvalue() == printed
    assert printed or (tmp_path / "reads.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_has_an_example_of_each():
    assert len(EXAMPLES) == 3


def network(**arm: object) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", depths=[3, 1, 1, 1], **arm)
    for name, parameter in model.named_parameters():
        if ".offsets.proj" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def interpolated(plane: np.ndarray, row: float, column: float) -> float:
    """A map [H, W] at a position, zero outside of it."""
    value = 0.0
    for y in (int(np.floor(row)), int(np.floor(row)) + 1):
        for x in (int(np.floor(column)), int(np.floor(column)) + 1):
            if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]:
                value += plane[y, x] * (1 - abs(row - y)) * (1 - abs(column - x))
    return value


@pytest.mark.parametrize(
    "arm",
    [{}, {"offsets": "joint"}, {"samples": 3}, {"offsets": "token"}, {"offsets": "static"}, {"offsets": "shift"}],
    ids=str,
)
def test_reading_at_the_positions_gives_what_the_mixer_reads(arm):
    model, images = network(**arm), torch.randn(2, 3, 64, 48)
    seen: list[tuple[Tensor, Tensor]] = []
    model.stages[0].blocks[0].mixer.register_forward_hook(lambda module, args, output: seen.append(args))
    layer = read_offsets(model, images)["stages.0.blocks.0.offsets"]
    x, given = seen[0]
    samples = arm.get("samples", 1)
    joint = arm.get("offsets") == "joint"
    assert layer.joint is joint and layer.channels == 16 and layer.horizontal.shape[:4] == (2, 16, 12, samples)
    tokens = recompose(x, given, joint, samples)[0][1, 5, 7].split([16] * (1 + samples * (1 if joint else 2)))
    places = layer.positions(1, 5, 7)
    assert list(places) == (["both"] if joint else ["along the row", "along the column"])
    group = 16 // layer.horizontal.shape[-1]
    for number, (branch, sample) in enumerate((branch, s) for branch in places for s in range(samples)):
        for channel in range(16):
            row, column = places[branch][sample, channel // group]
            expected = interpolated(x[1, ..., channel].numpy(), row, column)
            assert float(tokens[number][channel]) == pytest.approx(expected, abs=1e-5), (branch, sample, channel)


def test_layers_are_named_by_their_paths_in_any_model():
    model = network(offset_interval=1)
    whole = nn.ModuleDict({"inner": model})
    whole.forward = lambda x: model(x)
    inside = read_offsets(whole, torch.randn(1, 3, 64, 64))
    alone = read_offsets(model, torch.randn(1, 3, 64, 64))
    assert list(inside) == [f"inner.{path}" for path in alone]
    assert "stages.0.blocks.1.offsets" in alone and "stages.0.blocks.2.offsets" not in alone
    assert list(read_offsets(ATMLayer(8, 4), torch.randn(1, 8, 5, 6))) == ["offsets"]


def test_the_model_stays_as_it_was():
    model = network().train()
    model.norm.eval()
    read_offsets(model, torch.randn(1, 3, 64, 64))
    assert model.training and not model.norm.training
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        read_offsets(model, torch.randn(1, 4, 64, 64))
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_a_model_without_offsets_is_refused():
    for model in (network(offsets="zero"), nn.Linear(3, 3)):
        with pytest.raises(ValueError, match="no offsets"):
            read_offsets(model, torch.randn(1, 3, 64, 64))


def test_the_picture_has_the_tokens_that_are_read():
    horizontal = np.array([2, 2, 2, 0.4, 99, -1], np.float32)
    layer = LayerOffsets(
        *(np.broadcast_to(part, (1, 8, 6, 1, 6)) for part in (horizontal, 0 * horizontal - 3)), False, 6
    )
    axes = draw_reads(np.zeros((80, 60, 3)), layer, row=4, column=3)
    along_row, along_column = axes.collections
    assert along_row.get_offsets().tolist() == [[2, 4], [3, 4], [5, 4]], "x and y; 99 lies outside"
    faint = FAINTEST + (1 - FAINTEST) / 3
    assert along_row.get_alpha().tolist() == pytest.approx([faint, faint, 1])
    assert along_column.get_offsets().tolist() == [[3, 1]]
    assert axes.get_xlim() == (-0.5, 5.5) and axes.get_ylim() == (7.5, -0.5)
    with pytest.raises(IndexError, match="8 rows and 6 columns"):
        draw_reads(np.zeros((80, 60, 3)), layer, row=8, column=0)
    far = LayerOffsets(horizontal=layer.horizontal + 99, vertical=layer.vertical + 99, joint=True, channels=6)
    assert draw_reads(np.zeros((8, 6, 3)), far, 0, 0, axes=axes) is axes, "nothing inside is no error"
