"""Sampling equals the bilinear read of deformable convolution, forward and backward, and accepts any offset."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision.ops import deform_conv2d

from atm.sampling import sample_axis, sample_joint

SHAPES = [(2, 5, 7, 6, 3), (1, 1, 1, 4, 2), (3, 1, 9, 4, 4), (2, 8, 1, 6, 1), (1, 6, 6, 8, 8)]


pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["reference", "eager", "native"], indirect=True, scope="module"),
]


def deform_read(x: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
    """torchvision's reading of x [B, H, W, C] at dy, dx [B, H, W, G], through an identity 1x1 kernel."""
    offset = torch.stack([dy, dx], dim=-1).flatten(3).permute(0, 3, 1, 2)
    identity = torch.eye(x.shape[-1], dtype=x.dtype)[:, :, None, None]
    return deform_conv2d(x.permute(0, 3, 1, 2), offset, identity).permute(0, 2, 3, 1)


def inputs(shape: tuple[int, ...], scale: float, seed: int = 0, whole: bool = False) -> list[torch.Tensor]:
    batch, height, width, channels, groups = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, height, width, channels, generator=generator)
    dy, dx = scale * torch.randn(2, batch, height, width, groups, generator=generator)
    if whole:
        dy, dx = dy.round(), dx.round()
    return [x.requires_grad_(), dy.clone().requires_grad_(), dx.clone().requires_grad_()]


def read_both(mode: str, x: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if mode == "horizontal":
        return sample_axis(x, dx, 2), deform_read(x, torch.zeros_like(dy), dx)
    if mode == "vertical":
        return sample_axis(x, dy, 1), deform_read(x, dy, torch.zeros_like(dx))
    return sample_joint(x, dy, dx), deform_read(x, dy, dx)


def assert_equal_reads(mode: str, x: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor) -> None:
    ours, theirs = read_both(mode, x, dy, dx)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    variables = {"horizontal": [x, dx], "vertical": [x, dy], "joint": [x, dy, dx]}[mode]
    cotangent = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(torch.autograd.grad(ours, variables, cotangent), torch.autograd.grad(theirs, variables, cotangent)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["horizontal", "vertical", "joint"])
@pytest.mark.parametrize("scale", [0.3, 3.0, 1000.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_deformable_convolution(mode: str, shape: tuple[int, ...], scale: float) -> None:
    assert_equal_reads(mode, *inputs(shape, scale))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    mode=st.sampled_from(["horizontal", "vertical", "joint"]),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    groups=st.integers(1, 4),
    sharing=st.integers(1, 3),
    scale=st.sampled_from([0.0, 0.1, 1.0, 4.0, 1e6]),
    whole=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_deformable_convolution_for_any_shape(mode, sizes, groups, sharing, scale, whole, seed) -> None:
    assert_equal_reads(mode, *inputs((*sizes, groups * sharing, groups), scale, seed, whole))


@pytest.mark.parametrize("mode", ["horizontal", "vertical", "joint"])
def test_gradients_are_those_of_the_function(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    # Not near whole numbers, where the interpolation is not differentiable.
    whole = torch.randint(-3, 4, (2, 2, 3, 4, 2), generator=generator)
    dy, dx = whole + 0.1 + 0.8 * torch.rand(whole.shape, generator=generator, dtype=torch.float64)
    dy, dx = dy.clone().requires_grad_(), dx.clone().requires_grad_()
    if mode == "joint":
        assert gradcheck(sample_joint, (x, dy, dx))
        return
    offsets, dim = (dx, 2) if mode == "horizontal" else (dy, 1)
    assert gradcheck(lambda x, o: sample_axis(x, o, dim), (x, offsets))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shift=st.integers(-6, 6), dim=st.sampled_from([1, 2]))
def test_a_whole_offset_is_a_shift_with_zeros_outside(shift: int, dim: int) -> None:
    x = torch.randn(1, 4, 5, 2)
    read = sample_axis(x, torch.full((1, 4, 5, 1), float(shift)), dim)
    for position in range(x.shape[dim]):
        source = position + shift
        expected = x.select(dim, source) if 0 <= source < x.shape[dim] else torch.zeros_like(x.select(dim, 0))
        assert torch.equal(read.select(dim, position), expected)


def test_interpolates_partially_at_the_border() -> None:
    x = torch.tensor([2.0, 3.0, 5.0]).reshape(1, 1, 3, 1)
    offsets = torch.tensor([-0.75, 0.5, 0.25]).reshape(1, 1, 3, 1)
    assert sample_axis(x, offsets, 2).flatten().tolist() == [0.5, 4.0, 3.75]
    assert sample_joint(x, torch.full_like(offsets, 0.5), offsets).flatten().tolist() == [0.25, 2.0, 1.875]


@pytest.mark.parametrize("far", [1e6, -1e6, 3e9, -3e9, 1e30, float("inf"), float("-inf")])
def test_far_offsets_read_zero_without_gradient(far: float) -> None:
    x = torch.randn(1, 3, 4, 2, requires_grad=True)
    offsets = torch.full((1, 3, 4, 2), far, requires_grad=True)
    for read in (sample_axis(x, offsets, 1), sample_axis(x, offsets, 2), sample_joint(x, offsets, offsets)):
        assert torch.count_nonzero(read) == 0
        for gradient in torch.autograd.grad(read.sum(), [x, offsets]):
            assert torch.count_nonzero(gradient) == 0


def test_a_nan_offset_affects_only_its_own_read() -> None:
    x, offsets = torch.randn(1, 3, 4, 4), torch.zeros(1, 3, 4, 2)
    offsets[0, 1, 2, 0] = float("nan")
    affected = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
    affected[0, 1, 2, :2] = True
    for read in (sample_axis(x, offsets, 1), sample_axis(x, offsets, 2), sample_joint(x, offsets, offsets)):
        assert torch.equal(read.isnan(), affected)
        assert torch.equal(read[~affected], x[~affected])


def test_positions_keep_float32_for_narrow_dtypes() -> None:
    # At position 301.25, bfloat16 could only hold multiples of 2.
    x = torch.arange(400.0).reshape(1, 1, 400, 1)
    offsets = torch.full((1, 1, 400, 1), 0.25, dtype=torch.bfloat16)
    assert sample_axis(x, offsets, 2)[0, 0, 301, 0] == 301.25
    assert sample_joint(x, torch.zeros_like(offsets), offsets)[0, 0, 301, 0] == 301.25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_keeps_the_dtype_of_x(dtype: torch.dtype) -> None:
    x, offsets = torch.randn(1, 2, 3, 4).to(dtype), torch.rand(1, 2, 3, 2)
    assert sample_axis(x, offsets, 2).dtype == sample_joint(x, offsets, offsets).dtype == dtype


def test_reads_any_memory_layout() -> None:
    x, offsets = torch.randn(2, 6, 3, 4), torch.randn(2, 2, 3, 4)
    channels_first, offsets = x.permute(0, 2, 3, 1), offsets.permute(0, 2, 3, 1)
    torch.testing.assert_close(
        sample_axis(channels_first, offsets, 2), sample_axis(channels_first.contiguous(), offsets.contiguous(), 2)
    )


@pytest.mark.parametrize(
    ("x_shape", "offset_shape", "dim", "message"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 3), 2, "do not divide 4 channels"),
        ((1, 2, 3, 4), (1, 3, 2, 4), 2, "expected x"),
        ((2, 3, 4), (2, 3, 4), 2, "expected x"),
        ((1, 2, 3, 4), (1, 2, 3, 4), 3, "dim must be 1"),
    ],
)
def test_refuses_wrong_shapes(x_shape, offset_shape, dim, message) -> None:
    with pytest.raises(ValueError, match=message):
        sample_axis(torch.zeros(x_shape), torch.zeros(offset_shape), dim)


def test_joint_refuses_unequal_axes() -> None:
    with pytest.raises(ValueError, match="dy has 4 offsets per token, dx has 2"):
        sample_joint(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 2))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4)])
def test_an_empty_map_gives_an_empty_result(shape: tuple[int, ...]) -> None:
    x, offsets = torch.zeros(shape, requires_grad=True), torch.zeros((*shape[:3], 2), requires_grad=True)
    for read in (sample_axis(x, offsets, 1), sample_axis(x, offsets, 2), sample_joint(x, offsets, offsets)):
        assert read.shape == shape
        assert [g.shape for g in torch.autograd.grad(read.sum(), [x, offsets])] == [x.shape, offsets.shape]


def test_refuses_offsets_on_another_device() -> None:
    with pytest.raises(ValueError, match="x is on cpu, its offsets are on meta"):
        sample_axis(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4, device="meta"), 2)


def test_several_joint_samples_are_read_one_after_the_other() -> None:
    x, dy, dx = inputs((2, 5, 4, 6, 9 * 3), 2.0)
    cotangent = torch.randn(2, 5, 4, 9 * 6, generator=torch.Generator().manual_seed(1))
    ours = sample_joint(x, dy, dx, samples=9)
    single = [sample_joint(x, down, right) for down, right in zip(dy.chunk(9, -1), dx.chunk(9, -1))]
    theirs = torch.cat(single, dim=-1)
    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(read, (x, dy, dx), cotangent) for read in (ours, theirs)]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="27 offsets per token are not 2 samples"):
        sample_joint(x, dy, dx, samples=2)
