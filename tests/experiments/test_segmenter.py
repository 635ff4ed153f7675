"""Necks, heads and the segmenter: the papers' counts, the published structure and initialisation, shapes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atm.complexity import count
from errors import ConfigError
from experiments.config import resolve
from experiments.tasks.heads.fcn import FCNHead
from experiments.tasks.heads.pyramid_pooling import PyramidPooling, average
from experiments.tasks.heads.semantic_fpn import SemanticFPNHead
from experiments.tasks.heads.upernet import UperNetHead
from experiments.tasks.necks.fpn import FPN
from experiments.tasks.network import dense_backbone
from experiments.tasks.segmenter import STRIDES, Segmenter

CHANNELS = (3, 4, 6, 5)
SIZES = ((22, 14), (11, 7), (6, 4), (3, 2))  # of maps of an image whose sides no power of 2 divides
SEMANTIC_FPN = {  # at 512 x 512: M, G
    "xt": ("19.104", "33.061"), "t": ("30.907", "42.420"), "s": ("42.386", "57.783"), "b": ("55.909", "74.683"),
    "l": ("79.844", "86.605"),
}  # fmt: skip
UPERNET = {  # at 512 x 2048
    "xt": ("45.325", "889.45"), "t": ("57.128", "926.88"), "s": ("68.607", "988.33"), "b": ("82.131", "1055.93"),
    "l": ("107.892", "1105.63"),
}  # fmt: skip
EXPECTED = [
    *((variant, "semantic_fpn", 512, *numbers) for variant, numbers in SEMANTIC_FPN.items()),
    *((variant, "upernet", 2048, *numbers) for variant, numbers in UPERNET.items()),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("variant", "head", "width", "params_m", "flops_g"), EXPECTED)
def test_the_papers_models_have_the_papers_counts(variant, head, width, params_m, flops_g):
    with torch.device("meta"):
        model = Segmenter(backbone(variant), head, 150)
    counted = count(model, (3, 512, width))
    assert f"{counted.params_m:.3f}" == params_m
    assert f"{counted.flops_g:.{len(flops_g.partition('.')[2])}f}" == flops_g


def test_the_fpn_equals_one_written_out():
    neck = randomised(FPN(CHANNELS, 7))
    lateral = [conv.get_submodule("0") for conv in neck.pyramid.inner_blocks]
    output = [conv.get_submodule("0") for conv in neck.pyramid.layer_blocks]
    inputs = maps(CHANNELS)
    sums = [F.conv2d(stage, conv.weight, conv.bias) for stage, conv in zip(inputs, lateral)]
    for fine, coarse in ((2, 3), (1, 2), (0, 1)):
        (height, width), (h, w) = SIZES[fine], SIZES[coarse]
        rows, columns = torch.arange(height) * h // height, torch.arange(width) * w // width
        sums[fine] = sums[fine] + sums[coarse][:, :, rows][:, :, :, columns]
    expected = [F.conv2d(each, conv.weight, conv.bias, padding=1) for each, conv in zip(sums, output)]
    assert_equal(neck(inputs), expected)


def test_the_semantic_fpn_head_equals_one_written_out():
    head = randomised(SemanticFPNHead(STRIDES, classes=4, in_width=5, width=6)).eval()
    inputs = maps([5] * 4)
    assert [len(level) for level in head.levels] == [1, 2, 4, 6]
    first, second, third, fourth = head.levels
    total = block(first[0], inputs[0])
    total = total + upsample(double(block(second[0], inputs[1])), (22, 14))
    total = total + upsample(double(block(third[2], double(block(third[0], inputs[2])))), (22, 14))
    for i in (0, 2, 4):
        inputs[3] = double(block(fourth[i], inputs[3]))
    total = total + upsample(inputs[3], (22, 14))
    conv = head.classifier[1]
    assert_equal([head(maps([5] * 4))], [F.conv2d(total, conv.weight, conv.bias)])


def test_the_upernet_head_equals_one_written_out():
    head = randomised(UperNetHead(CHANNELS, classes=4, width=6)).eval()
    inputs = maps(CHANNELS)
    coarsest = inputs[3]
    pooled = [coarsest]
    for cells, layer in zip((1, 2, 3, 6), head.pooling.convolutions):
        pooled.append(upsample(block(layer, pool(coarsest, cells), padding=0), (3, 2)))
    levels = [block(layer, stage, padding=0) for layer, stage in zip(head.laterals, inputs)]
    levels.append(block(head.bottleneck, torch.cat(pooled, 1)))
    levels[2] = levels[2] + upsample(levels[3], SIZES[2])
    levels[1] = levels[1] + upsample(levels[2], SIZES[1])
    levels[0] = levels[0] + upsample(levels[1], SIZES[0])
    outputs = [block(layer, level) for layer, level in zip(head.outputs, levels)]
    fused = block(head.fusion, torch.cat([upsample(each, SIZES[0]) for each in [*outputs, levels[3]]], 1))
    conv = head.classifier[1]
    assert_equal([head(maps(CHANNELS))], [F.conv2d(fused, conv.weight, conv.bias)])


@pytest.mark.parametrize(("size", "cells"), [((7, 5), 3), ((6, 12), 6), ((3, 2), 6), ((4, 9), 2), ((5, 4), 1)])
def test_pooling_is_the_mean_over_cells_and_its_gradient_that_of_the_mean(size, cells):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = pool(x, cells)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(average(x, cells), expected)
    (gradient,) = torch.autograd.grad((average(x, cells) * weights).sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad((expected * weights).sum(), x)[0])
    assert torch.autograd.gradcheck(lambda x: average(x, cells), x)


def test_pooling_counts_one_per_input_element():
    with torch.device("meta"):
        pooling = PyramidPooling(8, 4)
    convolved = sum(8 * 4 * n * n + 2 * 4 * n * n for n in (1, 2, 3, 6))
    assert count(pooling, (8, 12, 10)).flops == 4 * 8 * 120 + convolved + 4 * 4 * 4 * 120


@torch.no_grad()
def test_convolutions_are_initialised_as_published():
    head = UperNetHead((64, 128, 320, 512), classes=150)
    neck = FPN((64, 128, 320, 512))
    for conv, fan_out in ((head.fusion[0], 512 * 9), (head.laterals[0][0], 512), (head.bottleneck[0], 512 * 9)):
        assert float(conv.weight.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.02) and conv.bias is None
        assert abs(float(conv.weight.mean())) < 0.02 * (2 / fan_out) ** 0.5
    for classifier in (
        head.classifier[1],
        FCNHead(320, 150).classifier[1],
        SemanticFPNHead(STRIDES, 150).classifier[1],
    ):
        assert float(classifier.weight.std()) == pytest.approx(0.01, rel=0.02) and not classifier.bias.any()
    for block_, fans in ((neck.pyramid.inner_blocks[2], 320 + 256), (neck.pyramid.layer_blocks[0], 9 * (256 + 256))):
        bound = (6 / fans) ** 0.5
        assert 0.999 * bound < float(block_[0].weight.abs().max()) <= bound and not block_[0].bias.any()
        assert float(block_[0].weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 12 and all((n.weight == 1).all() and not n.bias.any() and n.eps == 1e-5 for n in norms)


@pytest.mark.parametrize("name", ["nano", "timm/resnet18"])
@pytest.mark.parametrize(("head", "width"), [("semantic_fpn", 16), ("upernet", 8)])
def test_logits_have_the_size_of_the_images(name, head, width):
    model = Segmenter(backbone(name), head, 5, width=width, neck_width=12, auxiliary_width=4)
    images = torch.randn(2, 3, 72, 104)
    logits, auxiliary = model(images)
    assert logits.shape == (2, 5, 72, 104)
    assert auxiliary is None if head == "semantic_fpn" else auxiliary.shape == logits.shape
    (logits.mean() + (0 if auxiliary is None else auxiliary.mean())).backward()
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert {name for name in unused if not name.startswith("backbone")} == set()
    with torch.no_grad():
        assert model.eval()(images[:1]).shape == (1, 5, 72, 104)


def test_the_heads_read_the_maps_that_they_should():
    """The auxiliary head reads stage 3; the logits of the finest stride are interpolated to the image."""
    model = randomised(Segmenter(backbone("nano"), "upernet", 5, width=8, auxiliary_width=4))
    model.eval()
    images = torch.randn(1, 3, 64, 96)
    stages = model.backbone(images)
    assert [tuple(stage.shape[1:]) for stage in stages] == [(16, 16, 24), (32, 8, 12), (64, 4, 6), (96, 2, 3)]
    torch.testing.assert_close(model(images), upsample(model.head(stages), (64, 96)))
    model.training = True  # of the segmenter alone: its parts keep what they have learned
    conv = model.auxiliary.classifier[1]
    expected = F.conv2d(block(model.auxiliary.convolution, stages[2]), conv.weight, conv.bias)
    torch.testing.assert_close(model(images)[1], upsample(expected, (64, 96)))


def test_dropout_drops_whole_channels_before_the_classifier():
    for head in (UperNetHead(CHANNELS, 4, width=6), SemanticFPNHead(STRIDES, 4), FCNHead(3, 4)):
        dropout, conv = head.classifier
        assert isinstance(dropout, nn.Dropout2d) and dropout.p == 0.1 and conv.kernel_size == (1, 1)


def test_an_unknown_head_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown segmentation head 'uppernet'; did you mean 'upernet'"):
        Segmenter(backbone("nano"), "uppernet", 5)


def backbone(name: str) -> nn.Module:
    return dense_backbone(_model(name), STRIDES)


@cache
def _model(name: str):
    return resolve("scenes", {"model": name}).model


def maps(channels) -> list[Tensor]:
    """The same maps at every call, finest first."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, each, *size, generator=generator) for each, size in zip(channels, SIZES)]


def randomised(module: nn.Module) -> nn.Module:
    """Biases and batch norms away from 0 and 1, so that a missing one shows."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith("weight"):
            nn.init.normal_(tensor, std=0.3)
    return module


def block(layer: nn.Module, x: Tensor, padding: int = 1) -> Tensor:
    """Convolution, batch norm by its stored statistics, ReLU."""
    conv, norm = layer[0], layer[1]
    y = F.conv2d(x, conv.weight, padding=padding)
    mean, var, weight, bias = (
        each[:, None, None] for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return ((y - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation whose corners are not aligned, by the weights of two neighbours per axis."""
    return interpolate(interpolate(x, size[0], 2), size[1], 3)


def interpolate(x: Tensor, length: int, dim: int) -> Tensor:
    own = x.shape[dim]
    position = ((torch.arange(length, dtype=torch.float64) + 0.5) * own / length - 0.5).clamp(min=0)
    low = position.floor().long()
    high = (low + 1).clamp(max=own - 1)
    weight = (position - low).to(x.dtype).view([-1 if d == dim else 1 for d in range(4)])
    return x.index_select(dim, low) * (1 - weight) + x.index_select(dim, high) * weight


def double(x: Tensor) -> Tensor:
    return upsample(x, (2 * x.shape[2], 2 * x.shape[3]))


def pool(x: Tensor, cells: int) -> Tensor:
    """Means over cells from floor(i L / cells) to ceil((i + 1) L / cells), by loops."""
    height, width = x.shape[2:]

    def span(i: int, length: int) -> slice:
        return slice(i * length // cells, -(-(i + 1) * length // cells))

    rows = [
        torch.stack([x[:, :, span(i, height), span(j, width)].mean((2, 3)) for j in range(cells)], -1)
        for i in range(cells)
    ]
    return torch.stack(rows, -2)


def assert_equal(outputs: list[Tensor], expected: list[Tensor]) -> None:
    assert len(outputs) == len(expected)
    for output, other in zip(outputs, expected):
        torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-4)
