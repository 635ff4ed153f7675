"""The whole mixer against four matrix products like its FCs: the cost of sampling and fusion."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from atm.mixer import ActiveTokenMixer
from atm.variants import VARIANTS
from benchmarks.deformable import DeformableMixer
from benchmarks.sampler import TOLERANCES
from benchmarks.timing import DTYPES, Conditions, add_inputs, add_machine, conditions, interleave, require_same

PHASES = ("forward", "forward and backward")


@dataclass(frozen=True)
class MixerTime:
    """One stage and phase; medians in milliseconds. ``ratio`` is the mixer's time over the products', ``fastest_ratio``
    that of the fastest calls."""

    size: int
    channels: int
    sharing: int
    phase: str
    mixer_ms: float
    products_ms: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class MixerReport(Conditions):
    batch: int
    image: int
    dtype: str
    rows: list[MixerTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Batch, image and dtype, and the options of every benchmark on torch."""
    add_inputs(parser, least=1, dtype="of tokens and weights; offsets stay float32")
    add_machine(parser)


def measure(options: argparse.Namespace) -> MixerReport:
    """Measures the axial mixer of every stage of xT, at random offsets.

    The products are computed one after the other on the same tokens, C to C without bias. Their backward pass computes
    the gradients of tokens and weights, like the mixer's. Raises Disagreement if our mixer and deform_conv2d's differ.
    """
    xt = VARIANTS["xt"]
    rows = []
    with conditions(options) as (device, machine):
        for stage, (channels, sharing) in enumerate(zip(xt["dims"], xt["offset_sharing"])):
            rows += _measure_stage(options, options.image // (4 * 2**stage), channels, sharing, device)
    return MixerReport(**vars(machine), batch=options.batch, image=options.image, dtype=options.dtype, rows=rows)


def _measure_stage(
    options: argparse.Namespace, size: int, channels: int, sharing: int, device: torch.device
) -> list[MixerTime]:
    torch.manual_seed(0)
    dtype, shape = DTYPES[options.dtype], (options.batch, size, size)
    mixer = ActiveTokenMixer(channels, offsets="axial", samples=1).to(device, dtype)
    x = torch.randn(*shape, channels).to(device, dtype).requires_grad_()
    offsets = (2 * torch.randn(*shape, 2 * channels // sharing)).to(device).requires_grad_()
    cotangent = torch.randn(*shape, channels).to(device, dtype)
    weights = [(torch.randn(channels, channels) / channels**0.5).to(device, dtype).requires_grad_() for _ in range(4)]

    def mix() -> Tensor:
        return mixer(x, offsets)

    def products() -> Tensor:
        y = x
        for weight in weights:
            y = F.linear(y, weight)
        return y

    def backward(operator: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(operator(), inputs, cotangent)

    with torch.no_grad():
        require_same(
            f"mixer and deform_conv2d's disagree at {size} x {size} x {channels}",
            mix(),
            DeformableMixer(mixer)(x, offsets),
            TOLERANCES[options.dtype],
        )
        forward = interleave({"mixer": mix, "products": products}, options.repeats, device)
    both = interleave(
        {
            "mixer": backward(mix, [x, offsets, *mixer.parameters()]),
            "products": backward(products, [x, *weights]),
        },
        options.repeats,
        device,
    )
    rows = []
    for phase, times in zip(PHASES, (forward, both)):
        ours, peer = times["mixer"], times["products"]
        medians = (1e3 * ours.median, 1e3 * peer.median)
        rows.append(MixerTime(size, channels, sharing, phase, *medians, ours.over(peer), ours.fastest_over(peer)))
    return rows


def table(report: MixerReport) -> Table:
    """Two lines per stage."""
    shown = Table(
        title=f"The mixer against four matrix products C to C, batch {report.batch}, {report.image} px, "
        f"{report.dtype}, {report.device}",
        caption=f"Medians in ms, {report.caption()}",
    )
    for heading in ("map", "channels", "S", "", "mixer", "products", "ratio", "fastest"):
        shown.add_column(heading, justify="right")
    for row in report.rows:
        times = (f"{row.mixer_ms:.2f}", f"{row.products_ms:.2f}", f"{row.ratio:.2f}", f"{row.fastest_ratio:.2f}")
        shown.add_row(f"{row.size} x {row.size}", str(row.channels), str(row.sharing), row.phase, *times)
    return shown
