"""Whole networks against their peers: inference and training step, compared with a large matrix product."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.networks import Network, Step, add_models, autocast, build, random_batch
from benchmarks.timing import DTYPES, Conditions, Times, add_inputs, add_machine, conditions, interleave

PRODUCT = "matrix product"
PHASES = {"inference": 1, "training step": 3}  # the multiply-accumulates of each, in forward passes


@dataclass(frozen=True)
class NetworkTime:
    """One network and phase: seconds per batch, images and 1e9 multiply-accumulates per second.

    The multiply-accumulates are the papers' for a forward pass, and three times as many for a training step. ``share``
    is their rate over that of the matrix product in the same turns. ``ratio`` is the first network's time over this
    one's, ``fastest_ratio`` that of the fastest turns. None: unknown, or not applicable to the product.
    """

    network: str
    phase: str
    median_s: float
    fastest_s: float
    images_s: float | None
    gmac_s: float | None
    share: float | None
    ratio: float | None
    fastest_ratio: float | None


@dataclass(frozen=True)
class ModelReport(Conditions):
    """``params_m`` and ``gmac`` by network: millions of parameters, 1e9 multiply-accumulates of a forward pass."""

    batch: int
    image: int
    dtype: str
    compiled: bool
    channels_last: bool
    product: str
    params_m: dict[str, float]
    gmac: dict[str, float | None]
    rows: list[NetworkTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The networks, and the options that apply to all of them."""
    add_models(parser)
    add_inputs(parser)
    parser.add_argument("--compile", action="store_true", help="torch.compile every network")
    parser.add_argument("--channels-last", action="store_true", help="channels-last images and convolutions")
    add_machine(parser)


def measure(options: argparse.Namespace) -> ModelReport:
    """Times all networks in turns, first in inference, then in training.

    Raises Disagreement if a network on deform_conv2d differs from the ATMNet that it was made from.
    """
    with conditions(options) as (device, machine):
        networks = [build(name, options.image, device) for name in dict.fromkeys(options.models)]
        images, classes = random_batch(options.batch, options.image, device)
        forwards: dict[str, Callable[[Tensor], Tensor]] = {}
        for network in networks:
            if options.channels_last:
                network.module.to(memory_format=torch.channels_last)
            forwards[network.name] = torch.compile(network.module, dynamic=False) if options.compile else network.module
        if options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        product, macs, name = _matrix_product(device, options.dtype)
        rows = []
        for phase in PHASES:
            calls: dict[str, Callable[[], object]] = {}
            for network in networks:
                network.module.train(phase != "inference")
                forward = forwards[network.name]
                if phase == "inference":
                    calls[network.name] = _inference(forward, images, options.dtype)
                else:
                    calls[network.name] = Step(network.module, images, classes, options.dtype, forward)
            times = interleave({**calls, PRODUCT: product}, options.repeats, device)
            rows += _rows(phase, networks, times, options.batch, macs)
    return ModelReport(
        **vars(machine),
        batch=options.batch,
        image=options.image,
        dtype=options.dtype,
        compiled=options.compile,
        channels_last=options.channels_last,
        product=name,
        params_m={network.name: network.params / 1e6 for network in networks},
        gmac={network.name: network.macs / 1e9 if network.macs else None for network in networks},
        rows=rows,
    )


def _inference(forward: Callable[[Tensor], Tensor], images: Tensor, dtype: str) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad(), autocast(images.device, dtype):
            return forward(images)

    return call


def _matrix_product(device: torch.device, dtype: str) -> tuple[Callable[[], object], int, str]:
    """A product large enough for the machine's full rate, its multiply-accumulates, and its description."""
    rows, inner, columns = (4096, 1024, 1024) if device.type == "cpu" else (8192, 8192, 8192)
    if device.type == "cuda" and dtype == "float32":
        dtype = "bfloat16"  # the machine's full rate, also if the networks compute in float32
    left = torch.randn(rows, inner).to(device, DTYPES[dtype])
    right = torch.randn(inner, columns).to(device, DTYPES[dtype])
    return lambda: torch.mm(left, right), rows * inner * columns, f"{rows} x {inner} x {columns}, {dtype}"


def _rows(phase: str, networks: list[Network], times: dict[str, Times], batch: int, macs: int) -> list[NetworkTime]:
    product_rate = macs / times[PRODUCT].median / 1e9
    first = times[networks[0].name]
    rows = []
    for network in networks:
        network_times = times[network.name]
        rate = PHASES[phase] * network.macs * batch / network_times.median / 1e9 if network.macs else None
        rows.append(
            NetworkTime(
                network=network.name,
                phase=phase,
                median_s=network_times.median,
                fastest_s=network_times.fastest,
                images_s=batch / network_times.median,
                gmac_s=rate,
                share=rate / product_rate if rate else None,
                ratio=first.over(network_times),
                fastest_ratio=first.fastest_over(network_times),
            )
        )
    product = times[PRODUCT]
    return [*rows, NetworkTime(PRODUCT, phase, product.median, product.fastest, None, product_rate, 1.0, None, None)]


def table(report: ModelReport) -> Table:
    """One line per network and phase, and one for the matrix product."""
    settings = [
        report.dtype,
        *(["compiled"] if report.compiled else []),
        *(["channels-last"] if report.channels_last else []),
    ]
    first = report.rows[0].network
    shown = Table(
        title=f"Networks, batch {report.batch}, {report.image} px, {', '.join(settings)}, {report.device}",
        caption=f"Medians, {report.caption()}; matrix product {report.product}; a training step counts as three "
        f"forward passes; ratio: the time of {first} over the network's, in brackets that of the fastest turns",
    )
    headings = ("", "params, M", "G MAC", "", "batch, s", "images/s", "G MAC/s", "of the product", "ratio")
    for heading in headings:
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        gmac = report.gmac.get(row.network)
        shown.add_row(
            row.network,
            f"{report.params_m[row.network]:.1f}" if row.network in report.params_m else "",
            f"{gmac:.2f}" if gmac else "",
            row.phase,
            f"{row.median_s:.4f}",
            f"{row.images_s:.1f}" if row.images_s else "",
            f"{row.gmac_s:.1f}" if row.gmac_s else "",
            f"{100 * row.share:.1f} %" if row.share else "",
            f"{row.ratio:.3f} ({row.fastest_ratio:.3f})" if row.ratio else "",
            end_section=row.network == PRODUCT,
        )
    return shown
