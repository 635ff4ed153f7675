"""The sampler with its FC against deform_conv2d, alone against the FC, and on a GPU against a copy's bandwidth."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from atm.sampling import sample_axis, sample_joint
from atm.variants import VARIANTS
from benchmarks.deformable import deformed_fc
from benchmarks.timing import DTYPES, Conditions, add_inputs, add_machine, conditions, interleave, require_same

AXES = ("horizontal", "vertical", "joint")
TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}
COPIED_BYTES = 2**30


@dataclass(frozen=True)
class SamplerTime:
    """One stage's shape and axis; times are medians in milliseconds.

    ``ratio`` is our time over deform_conv2d's, forward and backward; ``sampling_ratio`` the time of the sampler's
    forward pass over that of its FC. ``fastest_ratio`` compares the fastest calls, which is more reliable on a busy
    machine. ``gb_per_s``, on a GPU: the least number of bytes that the sampler must read and write, in 1e9 bytes per
    second, and ``copy_share``, its ratio to the same number for a copy.
    """

    size: int
    channels: int
    sharing: int
    axis: str
    atm_ms: float
    deform_ms: float
    ratio: float
    fastest_ratio: float
    sampling_ms: float
    fc_ms: float
    sampling_ratio: float
    sampling_fastest_ratio: float
    gb_per_s: float | None
    copy_share: float | None


@dataclass(frozen=True)
class SamplerReport(Conditions):
    """``copy_gb_per_s``: 1e9 bytes per second read and written by a copy, the median over the rows; None on a CPU."""

    batch: int
    image: int
    dtype: str
    copy_gb_per_s: float | None
    rows: list[SamplerTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Batch, image and dtype, and the options of every benchmark on torch."""
    add_inputs(parser, least=1, dtype="of tokens and weights; offsets stay float32")
    add_machine(parser)


def measure(options: argparse.Namespace) -> SamplerReport:
    """Measures every stage of xT, for both axes and for joint reads.

    Raises Disagreement if the outputs or a gradient of sampler and deform_conv2d differ.
    """
    xt = VARIANTS["xt"]
    with conditions(options) as (device, machine):
        copied = torch.empty(2, COPIED_BYTES, dtype=torch.uint8, device=device) if device.type == "cuda" else None
        measured = [
            _measure_row(options, options.image // (4 * 2**stage), channels, sharing, axis, device, copied)
            for stage, (channels, sharing) in enumerate(zip(xt["dims"], xt["offset_sharing"]))
            for axis in AXES
        ]
    rates = sorted(rate for _, rate in measured if rate is not None)
    rate = rates[len(rates) // 2] if rates else None
    rows = [row for row, _ in measured]
    return SamplerReport(
        **vars(machine), batch=options.batch, image=options.image, dtype=options.dtype, copy_gb_per_s=rate, rows=rows
    )


def _measure_row(
    options: argparse.Namespace,
    size: int,
    channels: int,
    sharing: int,
    axis: str,
    device: torch.device,
    copied: Tensor | None,
) -> tuple[SamplerTime, float | None]:
    """A row, and the rate of the copies in the same turns, in 1e9 bytes per second."""
    batch, dtype = options.batch, DTYPES[options.dtype]
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0, dtype: torch.dtype = dtype) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(device, dtype).requires_grad_()

    x = normal(batch, size, size, channels)
    dy, dx = (normal(batch, size, size, channels // sharing, scale=2.0, dtype=torch.float32) for _ in range(2))
    weight, bias = normal(channels, channels, scale=0.02), normal(channels)
    cotangent = normal(batch, size, size, channels).detach()
    offsets = {"horizontal": [dx], "vertical": [dy]}.get(axis, [dy, dx])
    inputs = [x, weight, bias, *offsets]

    def sampled() -> Tensor:
        if axis == "joint":
            return sample_joint(x, dy, dx)
        return sample_axis(x, dx, 2) if axis == "horizontal" else sample_axis(x, dy, 1)

    def atm() -> Tensor:
        return F.linear(sampled(), weight, bias)

    def deform() -> Tensor:
        return deformed_fc(x, None if axis == "horizontal" else dy, None if axis == "vertical" else dx, weight, bias)

    def backward(operator: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(operator(), inputs, cotangent)

    description = f"sampler and deform_conv2d disagree at {size} x {size} x {channels}, {axis}"
    require_same(description, atm(), deform(), TOLERANCES[options.dtype])
    for ours, peer in zip(backward(atm)(), backward(deform)()):
        require_same(f"{description}, in a gradient", ours, peer, TOLERANCES[options.dtype])
    both = interleave({"atm": backward(atm), "deform": backward(deform)}, options.repeats, device)
    calls: dict[str, Callable[[], object]] = {"sampling": sampled, "fc": lambda: F.linear(x, weight, bias)}
    if copied is not None:
        calls["copy"] = lambda: copied[0].copy_(copied[1])
    with torch.no_grad():
        forward = interleave(calls, options.repeats, device)

    gb_per_s = copy_gb_per_s = None
    if copied is not None:
        moved = sum(
            tensor.numel() * tensor.element_size() for tensor in (x, x, *offsets)
        )  # the output is as large as x
        gb_per_s = moved / forward["sampling"].median / 1e9
        copy_gb_per_s = 2 * COPIED_BYTES / forward["copy"].median / 1e9
    row = SamplerTime(
        size=size,
        channels=channels,
        sharing=sharing,
        axis=axis,
        atm_ms=1e3 * both["atm"].median,
        deform_ms=1e3 * both["deform"].median,
        ratio=both["atm"].over(both["deform"]),
        fastest_ratio=both["atm"].fastest_over(both["deform"]),
        sampling_ms=1e3 * forward["sampling"].median,
        fc_ms=1e3 * forward["fc"].median,
        sampling_ratio=forward["sampling"].over(forward["fc"]),
        sampling_fastest_ratio=forward["sampling"].fastest_over(forward["fc"]),
        gb_per_s=gb_per_s,
        copy_share=gb_per_s / copy_gb_per_s if gb_per_s and copy_gb_per_s else None,
    )
    return row, copy_gb_per_s


def table(report: SamplerReport) -> Table:
    """One line per stage and axis."""
    copy = f", a copy moves {report.copy_gb_per_s:.0f} GB/s" if report.copy_gb_per_s else ""
    shown = Table(
        title="Sampling and its FC against deform_conv2d, forward and backward; sampling against its FC, forward; "
        f"batch {report.batch}, {report.image} px, {report.dtype}, {report.device}",
        caption=f"Medians in ms, {report.caption()}{copy}",
    )
    headings = ["map", "channels", "S", "axis", "atm", "deform", "ratio", "fastest"]
    headings += ["sampling", "FC", "ratio", "fastest"]
    if report.copy_gb_per_s:
        headings += ["GB/s", "of a copy"]
    for heading in headings:
        shown.add_column(heading, justify="right")
    for row in report.rows:
        cells = [f"{row.size} x {row.size}", str(row.channels), str(row.sharing), row.axis]
        cells += [f"{row.atm_ms:.2f}", f"{row.deform_ms:.2f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}"]
        cells += [f"{row.sampling_ms:.3f}", f"{row.fc_ms:.3f}"]
        cells += [f"{row.sampling_ratio:.2f}", f"{row.sampling_fastest_ratio:.2f}"]
        if row.gb_per_s is not None and row.copy_share is not None:
            cells += [f"{row.gb_per_s:.0f}", f"{100 * row.copy_share:.0f} %"]
        shown.add_row(*cells)
    return shown
