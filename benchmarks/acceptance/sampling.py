"""The Triton kernels against the formula, on a GPU or in Triton's interpreter, and their block sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from time import perf_counter

import torch
from torch import Tensor

from atm import sampling
from atm.sampling import reference
from atm.sampling.block_sizes import GRID, BlockSizes, device_name, keep, trying
from atm.variants import VARIANTS
from benchmarks.acceptance.outcomes import CheckedDevice, CheckResult, same_bits, within
from benchmarks.timing import interleave

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ROUNDING = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}  # half a unit in the last place
TUNING_S = 60.0  # sizes that were not tried by then are left out
TINY_GRID = {"tile": (4,), "tile_channels": (2,), "targets": (1,)}

# height and width, channels, groups of a map
Shape = tuple[int, int, int]
Read = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def kernels(place: CheckedDevice) -> list[CheckResult]:
    """Outputs and gradients of all reads in every type against the formula in float64, and their bits when repeated."""
    outcomes = []
    with _backend("triton"):
        for dtype in DTYPES:
            results: list[Tensor] = []
            expected: list[Tensor] = []
            for shape, joint, samples in product(_shapes(place), (False, True), (2,) if place.tiny else (1, 3)):
                tensors = _inputs(shape, dtype, place.device, samples)
                results += _differentiated(_recompose(joint, samples), *tensors)
                wide = [tensor.double() for tensor in tensors]
                expected += _differentiated(_formula(joint, samples), *wide)
            rounding = ROUNDING.get(dtype, 0.0) * (1 if place.on_gpu else 2)  # the interpreter truncates
            exact = 1e-12 if dtype == torch.float64 else 1e-5
            outcomes.append(within(f"equal the formula, {_name(dtype)}", results, expected, exact + rounding))
        for dtype in (torch.float32, torch.bfloat16):
            runs = [_all_reads(place, dtype) for _ in range(2 if place.tiny else 5)]
            outcomes.append(same_bits(f"repeat their bits, {_name(dtype)}", runs))
    return outcomes


def tuned_block_sizes(place: CheckedDevice) -> list[CheckResult]:
    """Times the kernels at the sizes of a small grid, and keeps the fastest that give the bits of the defaults."""
    default = BlockSizes()
    grid = TINY_GRID if place.tiny else GRID
    started = perf_counter()
    with _backend("triton"):
        expected = _all_reads(place, torch.bfloat16)
        best = default
        tried = refused = 0
        # The last size belongs to a kernel of its own, so it is chosen after the others.
        for keys in (("tile", "tile_channels"), ("targets",)):
            calls: dict[str, Callable[[], object]] = {}
            by_name = {}
            for values in product(*(grid[key] for key in keys)):
                if perf_counter() - started > TUNING_S:
                    break
                sizes = BlockSizes(**{**vars(best), **dict(zip(keys, values))})
                tried += 1
                with trying(sizes):
                    same = all(map(torch.equal, _all_reads(place, torch.bfloat16), expected))
                if same:
                    by_name[str(values)] = sizes
                    calls[str(values)] = _timed(place, sizes)
                refused += not same
            if calls:
                times = interleave(calls, place.repeats, place.device)
                best = by_name[min(times, key=lambda name: times[name].median)]
        speed = interleave(
            {"default": _timed(place, default), "best": _timed(place, best)}, place.repeats, place.device
        )
    path = None if place.tiny else keep(device_name(place.device), best)
    described = ", ".join(f"{key}={value}" for key, value in vars(best).items())
    return [
        CheckResult(
            "block sizes",
            True,
            f"{described}: {speed['best'].over(speed['default']):.2f} of the defaults' time; {tried} tried, {refused} "
            f"with other bits; {f'kept in {path}' if path else 'not kept'}",
        )
    ]


@contextmanager
def _backend(name: str) -> Iterator[None]:
    before = sampling.backends.chosen()
    sampling.use(name)
    try:
        yield
    finally:
        sampling.use(before)


def _shapes(place: CheckedDevice) -> list[Shape]:
    """Maps of the checks: the stages of xT at 224 px, and odd sizes."""
    if place.tiny:
        return [(2, 4, 2)]
    xt = VARIANTS["xt"]
    stages = [(56 // 2**i, dim, dim // s) for i, (dim, s) in enumerate(zip(xt["dims"], xt["offset_sharing"]))]
    return [*stages, (37, 40, 8), (5, 6, 1)]


def _inputs(shape: Shape, dtype: torch.dtype, device: torch.device, samples: int) -> list[Tensor]:
    """Tokens, offsets, and gradients of tokens and means are made from them. Positions are multiples of 1/8, so that
    rounding moves none to another cell, where a derivative differs."""
    size, channels, groups = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, size, size + 1, channels, generator=generator).to(dtype)
    offsets = (3 * torch.randn(2, size, size + 1, 2 * samples * groups, generator=generator)).mul(8).round().div(8)
    return [x.to(device), offsets.to(device, torch.promote_types(dtype, torch.float32))]


def _recompose(joint: bool, samples: int) -> Read:
    return lambda x, offsets: sampling.recompose(x, offsets, joint, samples)


def _formula(joint: bool, samples: int) -> Read:
    return lambda x, offsets: reference.recompose(x, offsets, joint, samples)


def _differentiated(read: Read, x: Tensor, offsets: Tensor) -> list[Tensor]:
    """The results of a read and its gradients, from random ones of its results."""
    inputs = [x.detach().requires_grad_(), offsets.detach().requires_grad_()]
    outputs = read(*inputs)
    generator = torch.Generator().manual_seed(1)
    # multiples of 1/4 are exact in every type
    gradients = [
        torch.randint(-8, 9, output.shape, generator=generator).div(4).to(output.device, output.dtype)
        for output in outputs
    ]
    return [*(output.detach() for output in outputs), *torch.autograd.grad(outputs, inputs, gradients)]


def _all_reads(place: CheckedDevice, dtype: torch.dtype) -> list[Tensor]:
    return [
        tensor
        for shape, joint in product(_shapes(place), (False, True))
        for tensor in _differentiated(_recompose(joint, 1), *_inputs(shape, dtype, place.device, 1))
    ]


def _timed(place: CheckedDevice, sizes: BlockSizes) -> Callable[[], object]:
    """Axial reads of every stage of xT in bfloat16, forward and backward."""
    batch = [
        [t.repeat(1 if place.tiny else 32, 1, 1, 1) for t in _inputs(shape, torch.bfloat16, place.device, 1)]
        for shape in _shapes(place)[:4]
    ]

    def call() -> None:
        with trying(sizes):
            for x, offsets in batch:
                _differentiated_alike(x, offsets)

    return call


def _differentiated_alike(x: Tensor, offsets: Tensor) -> None:
    inputs = [x.requires_grad_(), offsets.requires_grad_()]
    tokens, means = sampling.recompose(*inputs, False, 1)
    torch.autograd.grad([tokens, means], inputs, [tokens.detach(), means.detach()])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
