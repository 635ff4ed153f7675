"""Every backend equals the formula, forward and backward, for any memory layout, and repeats its bits."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atm.sampling import native, recompose, reference, sample_axis
from atm.sampling.operator import read
from atm.sampling.patterns import PATTERNS

# The largest relative error of one rounding to a dtype, half a unit in the last place. Sums and positions are computed
# in a wider dtype, so that a result is rounded once.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["eager", "native"], indirect=True, scope="module"),
]


def formula(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    """The results of ``read``, by the formula."""
    parts = offsets.chunk(samples * (1 if pattern in ("row", "column") else 2), dim=-1)
    if pattern == "joint":
        tokens = [reference.sample_joint(x, parts[samples + i], parts[i]) for i in range(samples)]
    else:
        dims = {"row": [2], "column": [1], "cross": [2, 1]}[pattern]
        tokens = [reference.sample_axis(x, part, dims[i // samples]) for i, part in enumerate(parts)]
    result = torch.cat([*tokens, x] if keep else tokens, dim=-1)
    return result, reference.mean(result) if keep else x.new_empty(0)


def inputs(
    sizes: tuple[int, int, int], groups: int, share: int, pattern: str, samples: int, scale: float = 2.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    directions = samples * (1 if pattern in ("row", "column") else 2)
    x = torch.randn(*sizes, groups * share, generator=generator)
    return x, scale * torch.randn(*sizes, directions * groups, generator=generator)


def results(function: Callable, x: Tensor, offsets: Tensor, grads: list[Tensor | None]) -> list[Tensor]:
    """The function's tokens and means, and its gradients from ``grads``, in which None stands for an unused output."""
    leaves = [x.detach().requires_grad_(), offsets.detach().requires_grad_()]
    outputs = function(*leaves)
    used = [(o, g) for o, g in zip(outputs, grads) if g is not None]
    return [
        *(o.detach() for o in outputs),
        *torch.autograd.grad([o for o, _ in used], leaves, [g.to(o.dtype) for o, g in used]),
    ]


def cotangents(x: Tensor, pattern: str, samples: int, keep: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    width = (samples * (2 if pattern == "cross" else 1) + keep) * x.shape[-1]
    means = torch.randn(x.shape[0], width, generator=generator) if keep else None
    return [torch.randn(*x.shape[:3], width, generator=generator).to(x.dtype), means]


def assert_equals_the_formula(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> None:
    """Within 1e-5 (1e-12 in float64) and one rounding to the result's dtype."""
    grads = cotangents(x, pattern, samples, keep)
    ours = results(lambda *t: read(*t, pattern, samples, keep), x, offsets, grads)
    wide = [None if g is None else g.double() for g in grads]
    expected = results(lambda *t: formula(*t, pattern, samples, keep), x.double(), offsets.double(), wide)
    if keep:  # means are those of the rounded tokens
        expected[1] = ours[0].double().mean((1, 2))
    exact = 1e-12 if x.dtype == torch.float64 and offsets.dtype == torch.float64 else 1e-5
    for name, a, b, dtype in zip(
        ["tokens", "means", "grad_x", "grad_offsets"], ours, expected, [x.dtype, None, x.dtype, offsets.dtype]
    ):
        rounding = ROUNDING.get(dtype, 0.0)
        torch.testing.assert_close(
            a.double(), b, rtol=exact + rounding, atol=exact, msg=lambda m, name=name: f"{name}: {m}"
        )
        assert dtype is None or a.dtype == dtype


CASES = {
    "pattern": st.sampled_from(PATTERNS),
    "sizes": st.sampled_from([(1, 1, 1), (2, 1, 1), (2, 5, 3), (1, 1, 7), (3, 7, 1), (1, 4, 6), (2, 2, 2)]),
    "groups_share": st.sampled_from(
        [(1, 1), (3, 1), (17, 1), (70, 1), (4, 2), (65, 2), (5, 3), (3, 5), (2, 16), (1, 48), (1, 7), (2, 12), (33, 4)]
    ),
    "samples": st.sampled_from([1, 3]),
    "keep": st.booleans(),
    "seed": st.integers(0, 2**16),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**CASES, scale=st.sampled_from([0.0, 0.3, 2.0, 1e6]))
def test_equal_the_formula_in_float32(pattern, sizes, groups_share, samples, keep, scale, seed) -> None:
    assert_equals_the_formula(*inputs(sizes, *groups_share, pattern, samples, scale, seed), pattern, samples, keep)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    **CASES,
    dtypes=st.sampled_from(
        [
            (torch.bfloat16, torch.bfloat16),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.bfloat16),
            (torch.float16, torch.float16),
            (torch.float16, torch.float32),
            (torch.float64, torch.float64),
        ]
    ),
)
def test_round_once_in_other_dtypes(pattern, sizes, groups_share, samples, keep, seed, dtypes) -> None:
    x, offsets = inputs(sizes, *groups_share, pattern, samples, 2.0, seed)
    assert_equals_the_formula(x.to(dtypes[0]), offsets.to(dtypes[1]), pattern, samples, keep)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("far", [-3e9, 1e30, float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_read_zero_far_outside_without_gradient(pattern: str, far: float, dtype: torch.dtype) -> None:
    x, offsets = inputs((1, 3, 4), 3, 5, pattern, 1)
    x, offsets = x.to(dtype), torch.full_like(offsets, far)
    grads = cotangents(x, pattern, 1, False)
    for result in results(lambda *t: read(*t, pattern, 1, False), x, offsets, grads):
        assert torch.count_nonzero(result) == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_nan_offset_affects_its_own_read_and_no_gradient_of_x(pattern: str) -> None:
    x, offsets = inputs((1, 4, 5), 3, 2, pattern, 1)
    offsets.reshape(1, 4, 5, -1, 3)[0, 2, 3, :, 1] = float("nan")
    grads = cotangents(x, pattern, 1, True)
    tokens, _, grad_x, grad_offsets = results(lambda *t: read(*t, pattern, 1, True), x, offsets, grads)
    affected = torch.zeros_like(tokens, dtype=torch.bool).reshape(1, 4, 5, -1, 3, 2)
    affected[0, 2, 3, :-1, 1] = True
    assert torch.equal(tokens.isnan(), affected.reshape(tokens.shape))
    expected = results(lambda *t: formula(*t, pattern, 1, True), x.double(), offsets.double(), grads)
    torch.testing.assert_close(grad_x.double(), expected[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad_offsets.double(), expected[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("unused", [None, "tokens", "means"])
def test_recompose_equals_the_reference(joint: bool, samples: int, unused: str | None) -> None:
    pattern = "joint" if joint else "cross"
    x, offsets = inputs((2, 5, 6), 4, 3, pattern, samples)
    grads = cotangents(x, pattern, samples, True)
    if unused:
        grads[unused == "means"] = None
    ours = results(lambda *t: recompose(*t, joint, samples), x, offsets, grads)
    expected = results(lambda *t: reference.recompose(*t, joint, samples), x, offsets, grads)
    for a, b in zip(ours, expected):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def crowded(pattern: str) -> tuple[Tensor, Tensor]:
    """Every token reads near one of three positions, so that another order of summation would change the bits."""
    x, offsets = inputs((3, 9, 9), 37, 2, pattern, 1, scale=0.3)
    positions = torch.arange(9.0)
    right, down = ((positions % 3 - positions).reshape(shape) for shape in ([1, 1, 9, 1], [1, 9, 1, 1]))
    steps = {"row": [right], "column": [down]}.get(pattern, [right, down])
    return x, offsets + torch.cat([step.expand(3, 9, 9, 37) for step in steps], dim=-1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_give_the_same_bits_twice(pattern: str) -> None:
    x, offsets = crowded(pattern)
    grads = cotangents(x, pattern, 1, True)
    first, second = (results(lambda *t: read(*t, pattern, 1, True), x, offsets, grads) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_give_the_same_bits_with_any_number_of_threads(pattern: str, backend: str) -> None:
    if backend == "eager":
        pytest.skip("PyTorch decides the order of its sums")
    x, offsets = crowded(pattern)
    grads = cotangents(x, pattern, 1, True)
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(results(lambda *t: read(*t, pattern, 1, True), x, offsets, grads))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run))


def channels_first(t: Tensor) -> Tensor:
    return t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)


def channel_slice(t: Tensor) -> Tensor:
    return torch.cat([t + 1, t, t + 2], dim=-1)[..., t.shape[-1] : 2 * t.shape[-1]]


def window(t: Tensor) -> Tensor:
    wide = torch.full((t.shape[0], t.shape[1] + 3, t.shape[2] + 2, t.shape[3]), 9.0)
    wide[:, 1:-2, 1:-1] = t
    return wide[:, 1:-2, 1:-1]


def every_second_channel(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, dim=-1)[..., ::2]


def columns_first(t: Tensor) -> Tensor:
    return t.transpose(1, 2).contiguous().transpose(1, 2)


def one_image_for_all(t: Tensor) -> Tensor:
    return t[:1].expand(t.shape)


def one_value_for_all(t: Tensor) -> Tensor:
    return t[:1, :1, :1, :1].expand(t.shape)


LAYOUTS = [
    channels_first,
    channel_slice,
    window,
    every_second_channel,
    columns_first,
    one_image_for_all,
    one_value_for_all,
]


@pytest.mark.parametrize("pattern", ["cross", "joint"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("which", ["x", "offsets", "grad"])
def test_read_any_memory_layout(pattern: str, layout: Callable[[Tensor], Tensor], which: str) -> None:
    x, offsets = inputs((2, 4, 5), 3, 2, pattern, 2)
    grads = cotangents(x, pattern, 2, True)
    tensors = {"x": x, "offsets": offsets, "grad": grads[0]}
    tensors[which] = layout(tensors[which])
    assert not tensors[which].is_contiguous()

    def run(x: Tensor, offsets: Tensor, grad: Tensor) -> list[Tensor]:
        return results(lambda *t: read(*t, pattern, 2, True), x, offsets, [grad, grads[1]])

    for a, b in zip(run(**tensors), run(**{name: t.contiguous() for name, t in tensors.items()})):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_read_a_slice_of_one_channel() -> None:
    x, offsets = inputs((2, 4, 5), 3, 1, "row", 1)
    single = sample_axis(x[..., 1:2], offsets[..., 1:2], 2)
    assert torch.equal(single, sample_axis(x, offsets, 2)[..., 1:2])


def test_read_tokens_at_distances_beyond_32_bits() -> None:
    # The system allocates only the few pages that are touched.
    x = torch.empty(3 * 2**30 + 64, dtype=torch.bfloat16).as_strided((1, 4, 2, 4), (0, 2**30, 8, 1))
    x.copy_(torch.arange(32.0).reshape(1, 4, 2, 4))
    assert native.supports(x)
    offsets = torch.tensor([3.0, 1.0, -1.0, -3.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 4)
    assert torch.equal(sample_axis(x, offsets, 1), x.flip(1))
