"""Every backend reads what the formula reads, forward and backward, from any memory and in the same bits each time."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atm.sampling import native, recompose, reference, sample_axis
from atm.sampling.operator import read
from atm.sampling.patterns import PATTERNS

# Half a unit in the last place, at most this part of a number: what one rounding to a dtype may change. Sums and
# positions are wider, so that a result is rounded once.
ROUNDING = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.parametrize("backend", ["eager", "native"], indirect=True, scope="module"),
]


def formula(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    """What ``read`` returns, by the formula."""
    moves = offsets.chunk(samples * (1 if pattern in ("row", "column") else 2), dim=-1)
    if pattern == "joint":
        tokens = [reference.sample_joint(x, moves[samples + i], moves[i]) for i in range(samples)]
    else:
        dims = {"row": [2], "column": [1], "cross": [2, 1]}[pattern]
        tokens = [reference.sample_axis(x, m, dims[i // samples]) for i, m in enumerate(moves)]
    together = torch.cat([*tokens, x] if keep else tokens, dim=-1)
    return together, reference.mean(together) if keep else x.new_empty(0)


def inputs(
    sizes: tuple[int, int, int], groups: int, share: int, pattern: str, samples: int, scale: float = 2.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    directions = samples * (1 if pattern in ("row", "column") else 2)
    x = torch.randn(*sizes, groups * share, generator=generator)
    return x, scale * torch.randn(*sizes, directions * groups, generator=generator)


def results(function: Callable, x: Tensor, offsets: Tensor, owed: list[Tensor | None]) -> list[Tensor]:
    """The function's tokens and means, and its gradients; ``owed``: the gradient of each, None for what is not used."""
    leaves = [x.detach().requires_grad_(), offsets.detach().requires_grad_()]
    outputs = function(*leaves)
    used = [(o, g) for o, g in zip(outputs, owed) if g is not None]
    return [
        *(o.detach() for o in outputs),
        *torch.autograd.grad([o for o, _ in used], leaves, [g.to(o.dtype) for o, g in used]),
    ]


def cotangents(x: Tensor, pattern: str, samples: int, keep: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    width = (samples * (2 if pattern == "cross" else 1) + keep) * x.shape[-1]
    means = torch.randn(x.shape[0], width, generator=generator) if keep else None
    return [torch.randn(*x.shape[:3], width, generator=generator).to(x.dtype), means]


def assert_by_the_formula(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> None:
    """To 1e-5 (1e-12 in float64), and one rounding to the result's dtype."""
    owed = cotangents(x, pattern, samples, keep)
    ours = results(lambda *t: read(*t, pattern, samples, keep), x, offsets, owed)
    wide = [None if g is None else g.double() for g in owed]
    expected = results(lambda *t: formula(*t, pattern, samples, keep), x.double(), offsets.double(), wide)
    if keep:  # of tokens that were rounded before
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
def test_read_by_the_formula_in_float32(pattern, sizes, groups_share, samples, keep, scale, seed) -> None:
    assert_by_the_formula(*inputs(sizes, *groups_share, pattern, samples, scale, seed), pattern, samples, keep)


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
    assert_by_the_formula(x.to(dtypes[0]), offsets.to(dtypes[1]), pattern, samples, keep)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("far", [-3e9, 1e30, float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_read_zero_far_outside_without_gradient(pattern: str, far: float, dtype: torch.dtype) -> None:
    x, offsets = inputs((1, 3, 4), 3, 5, pattern, 1)
    x, offsets = x.to(dtype), torch.full_like(offsets, far)
    owed = cotangents(x, pattern, 1, False)
    for result in results(lambda *t: read(*t, pattern, 1, False), x, offsets, owed):
        assert torch.count_nonzero(result) == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_nan_offset_spoils_its_own_reading_and_no_gradient_of_x(pattern: str) -> None:
    x, offsets = inputs((1, 4, 5), 3, 2, pattern, 1)
    offsets.reshape(1, 4, 5, -1, 3)[0, 2, 3, :, 1] = float("nan")
    owed = cotangents(x, pattern, 1, True)
    tokens, _, grad_x, grad_offsets = results(lambda *t: read(*t, pattern, 1, True), x, offsets, owed)
    spoilt = torch.zeros_like(tokens, dtype=torch.bool).reshape(1, 4, 5, -1, 3, 2)
    spoilt[0, 2, 3, :-1, 1] = True
    assert torch.equal(tokens.isnan(), spoilt.reshape(tokens.shape))
    expected = results(lambda *t: formula(*t, pattern, 1, True), x.double(), offsets.double(), owed)
    torch.testing.assert_close(grad_x.double(), expected[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grad_offsets.double(), expected[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("unused", [None, "tokens", "means"])
def test_recompose_as_the_reference_does(joint: bool, samples: int, unused: str | None) -> None:
    pattern = "joint" if joint else "cross"
    x, offsets = inputs((2, 5, 6), 4, 3, pattern, samples)
    owed = cotangents(x, pattern, samples, True)
    if unused:
        owed[unused == "means"] = None
    ours = results(lambda *t: recompose(*t, joint, samples), x, offsets, owed)
    expected = results(lambda *t: reference.recompose(*t, joint, samples), x, offsets, owed)
    for a, b in zip(ours, expected):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def crowded(pattern: str) -> tuple[Tensor, Tensor]:
    """Every token reads near one of three places, so that the order of a sum would show."""
    x, offsets = inputs((3, 9, 9), 37, 2, pattern, 1, scale=0.3)
    here = torch.arange(9.0)
    right, down = ((here % 3 - here).reshape(shape) for shape in ([1, 1, 9, 1], [1, 9, 1, 1]))
    steps = {"row": [right], "column": [down]}.get(pattern, [right, down])
    return x, offsets + torch.cat([step.expand(3, 9, 9, 37) for step in steps], dim=-1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_give_the_same_bits_twice(pattern: str) -> None:
    x, offsets = crowded(pattern)
    owed = cotangents(x, pattern, 1, True)
    first, second = (results(lambda *t: read(*t, pattern, 1, True), x, offsets, owed) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_give_the_same_bits_with_any_number_of_threads(pattern: str, backend: str) -> None:
    if backend == "eager":
        pytest.skip("PyTorch's own sums")
    x, offsets = crowded(pattern)
    owed = cotangents(x, pattern, 1, True)
    threads, runs = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            runs.append(results(lambda *t: read(*t, pattern, 1, True), x, offsets, owed))
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
    owed = cotangents(x, pattern, 2, True)
    tensors = {"x": x, "offsets": offsets, "grad": owed[0]}
    tensors[which] = layout(tensors[which])
    assert not tensors[which].is_contiguous()

    def run(x: Tensor, offsets: Tensor, grad: Tensor) -> list[Tensor]:
        return results(lambda *t: read(*t, pattern, 2, True), x, offsets, [grad, owed[1]])

    for a, b in zip(run(**tensors), run(**{name: t.contiguous() for name, t in tensors.items()})):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_read_a_single_channel_of_many() -> None:
    x, offsets = inputs((2, 4, 5), 3, 1, "row", 1)
    read_alone = sample_axis(x[..., 1:2], offsets[..., 1:2], 2)
    assert torch.equal(read_alone, sample_axis(x, offsets, 2)[..., 1:2])


def test_read_tokens_further_apart_than_32_bits_can_tell() -> None:
    # Never touched, and so never taken from the machine, but for a few pages.
    x = torch.empty(3 * 2**30 + 64, dtype=torch.bfloat16).as_strided((1, 4, 2, 4), (0, 2**30, 8, 1))
    x.copy_(torch.arange(32.0).reshape(1, 4, 2, 4))
    assert native.takes(x)
    offsets = torch.tensor([3.0, 1.0, -1.0, -3.0]).reshape(1, 4, 1, 1).expand(1, 4, 2, 4)
    assert torch.equal(sample_axis(x, offsets, 1), x.flip(1))
