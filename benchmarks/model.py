"""Whole networks against their peers: inference and training step, beside what a large matrix product reaches."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.networks import Network, Step, add_models, autocast, build, random_batch
from benchmarks.timing import DTYPES, Circumstances, Times, add_inputs, add_machine, circumstances, interleave

PRODUCT = "matrix product"
PASSES = {"inference": 1, "training step": 3}  # and the multiply-accumulates of each, in forward passes


@dataclass(frozen=True)
class Row:
    """One network and pass: seconds per batch, images and 1e9 multiply-accumulates a second.

    The multiply-accumulates are the papers' for a forward pass, three times as many for a training step; ``share`` is
    their rate over that of the matrix product in the same turns. ``ratio`` is the first network's time over this one's,
    ``fastest_ratio`` that of the fastest turns. None is what is unknown, or not said of the product.
    """

    network: str
    what: str
    median_s: float
    fastest_s: float
    images_s: float | None
    gmac_s: float | None
    share: float | None
    ratio: float | None
    fastest_ratio: float | None


@dataclass(frozen=True)
class Report(Circumstances):
    """``params_m`` and ``gmac``, by network: millions of parameters, 1e9 multiply-accumulates of one forward pass."""

    batch: int
    image: int
    dtype: str
    compiled: bool
    channels_last: bool
    product: str
    params_m: dict[str, float]
    gmac: dict[str, float | None]
    rows: list[Row]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The networks and how they are run, all alike."""
    add_models(parser)
    add_inputs(parser)
    parser.add_argument("--compile", action="store_true", help="torch.compile every network")
    parser.add_argument("--channels-last", action="store_true", help="channels-last images and convolutions")
    add_machine(parser)


def measure(options: argparse.Namespace) -> Report:
    """Times all networks in turns, first in inference, then in training.

    Raises Disagreement where a network on deform_conv2d differs from the ATMNet that it was made from.
    """
    with circumstances(options) as (device, where):
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
        for what in PASSES:
            calls: dict[str, Callable[[], object]] = {}
            for network in networks:
                network.module.train(what != "inference")
                forward = forwards[network.name]
                if what == "inference":
                    calls[network.name] = _inference(forward, images, options.dtype)
                else:
                    calls[network.name] = Step(network.module, images, classes, options.dtype, forward)
            times = interleave({**calls, PRODUCT: product}, options.repeats, device)
            rows += _rows(what, networks, times, options.batch, macs)
    return Report(
        **vars(where),
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
    """A product large enough to reach what the machine can, its multiply-accumulates, and what it is called."""
    rows, inner, columns = (4096, 1024, 1024) if device.type == "cpu" else (8192, 8192, 8192)
    if device.type == "cuda" and dtype == "float32":
        dtype = "bfloat16"  # the machine's rate, whatever the networks make of it
    one = torch.randn(rows, inner).to(device, DTYPES[dtype])
    other = torch.randn(inner, columns).to(device, DTYPES[dtype])
    return lambda: torch.mm(one, other), rows * inner * columns, f"{rows} x {inner} x {columns}, {dtype}"


def _rows(what: str, networks: list[Network], times: dict[str, Times], batch: int, macs: int) -> list[Row]:
    reached = macs / times[PRODUCT].median / 1e9
    ours = times[networks[0].name]
    rows = []
    for network in networks:
        its = times[network.name]
        rate = PASSES[what] * network.macs * batch / its.median / 1e9 if network.macs else None
        rows.append(
            Row(
                network=network.name,
                what=what,
                median_s=its.median,
                fastest_s=its.fastest,
                images_s=batch / its.median,
                gmac_s=rate,
                share=rate / reached if rate else None,
                ratio=ours.over(its),
                fastest_ratio=ours.fastest_over(its),
            )
        )
    product = times[PRODUCT]
    return [*rows, Row(PRODUCT, what, product.median, product.fastest, None, reached, 1.0, None, None)]


def table(report: Report) -> Table:
    """A line for each network and pass, and one for the matrix product."""
    ways = [*(["compiled"] if report.compiled else []), *(["channels-last"] if report.channels_last else [])]
    first = report.rows[0].network
    shown = Table(
        title=f"Networks, batch {report.batch}, {report.image} px, {', '.join([report.dtype, *ways])}, {report.device}",
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
            row.what,
            f"{row.median_s:.4f}",
            f"{row.images_s:.1f}" if row.images_s else "",
            f"{row.gmac_s:.1f}" if row.gmac_s else "",
            f"{100 * row.share:.1f} %" if row.share else "",
            f"{row.ratio:.3f} ({row.fastest_ratio:.3f})" if row.ratio else "",
            end_section=row.network == PRODUCT,
        )
    return shown
