"""Times the sampler and its FC against a deformable convolution that does the same, in one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from atm.backbone import VARIANTS
from atm.sampling import sample_axis, sample_joint

AXES = ("horizontal", "vertical", "joint")


@dataclass(frozen=True)
class Row:
    """One stage's shape and axis; times are medians in milliseconds, ``ratio`` is ours over deform_conv2d's.

    ``fastest_ratio`` compares the fastest calls instead: the figure to trust when the machine was busy.
    """

    size: int
    channels: int
    sharing: int
    axis: str
    atm_ms: float
    deform_ms: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class Report:
    """The rows and the circumstances they were measured under; ``load_average`` is the machine's, before the start."""

    batch: int
    repeats: int
    threads: int
    device: str
    torch: str
    load_average: float
    rows: list[Row]


def measure(batch: int = 8, repeats: int = 7, threads: int = 2, device: str = "cpu", image: int = 224) -> Report:
    """Measures every stage of xT at ``image`` px, for both axes and the joint arm.

    The operators take turns, so that a busy moment of the machine slows both; the first turn warms up and is not
    counted. Raises RuntimeError if the two disagree by more than 1e-4.
    """
    load_average = os.getloadavg()[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        xt = VARIANTS["xt"]
        rows = [
            _measure_row(batch, image // (4 * 2**stage), channels, sharing, axis, repeats, device)
            for stage, (channels, sharing) in enumerate(zip(xt["dims"], xt["offset_sharing"]))
            for axis in AXES
        ]
    finally:
        torch.set_num_threads(before)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return Report(batch, repeats, threads, name, torch.__version__, load_average, rows)


def _measure_row(batch: int, size: int, channels: int, sharing: int, axis: str, repeats: int, device: str) -> Row:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(device).requires_grad_()

    x = normal(batch, size, size, channels)
    dy, dx = (normal(batch, size, size, channels // sharing, scale=2.0) for _ in range(2))
    weight, bias = normal(channels, channels, scale=0.02), normal(channels)
    cotangent = normal(batch, size, size, channels).detach()
    inputs = [x, weight, bias, *({"horizontal": [dx], "vertical": [dy]}.get(axis, [dy, dx]))]

    def atm() -> Tensor:
        if axis == "joint":
            return F.linear(sample_joint(x, dy, dx), weight, bias)
        return F.linear(
            sample_axis(x, dx if axis == "horizontal" else dy, 2 if axis == "horizontal" else 1), weight, bias
        )

    def deform() -> Tensor:
        # deform_conv2d knows channel groups, but no axis: the other one's offsets are zeros.
        down, right = (
            offsets.permute(0, 3, 1, 2) if axis in (name, "joint") else torch.zeros_like(offsets).permute(0, 3, 1, 2)
            for name, offsets in (("vertical", dy), ("horizontal", dx))
        )
        offset = torch.stack([down, right], dim=2).flatten(1, 2)
        return deform_conv2d(x.permute(0, 3, 1, 2), offset, weight[:, :, None, None], bias).permute(0, 2, 3, 1)

    if not torch.allclose(atm(), deform(), atol=1e-4):
        raise RuntimeError(f"sampler and deform_conv2d disagree at {size} x {size} x {channels}, {axis}")
    times: dict[Callable[[], Tensor], list[float]] = {atm: [], deform: []}
    for turn in range(repeats + 1):
        for operator, measured in times.items():
            elapsed = _time(operator, inputs, cotangent)
            if turn:
                measured.append(elapsed)
    atm_ms, deform_ms = (1e3 * median(times[operator]) for operator in (atm, deform))
    fastest_ratio = min(times[atm]) / min(times[deform])
    return Row(size, channels, sharing, axis, atm_ms, deform_ms, atm_ms / deform_ms, fastest_ratio)


def _time(operator: Callable[[], Tensor], inputs: list[Tensor], cotangent: Tensor) -> float:
    """Seconds for one forward and backward pass."""
    synchronise = torch.cuda.synchronize if cotangent.is_cuda else lambda: None
    synchronise()
    start = perf_counter()
    torch.autograd.grad(operator(), inputs, cotangent)
    synchronise()
    return perf_counter() - start
