"""One network at growing images: time per pixel, which a network of local operators keeps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table

from benchmarks.choices import at_least, one_of, positive, several
from benchmarks.networks import Step, autocast, build, known_model, random_batch
from benchmarks.timing import DTYPES, Circumstances, add_machine, circumstances, interleave
from errors import ConfigError

SIZES = (224, 384, 512, 768, 1024)


@dataclass(frozen=True)
class Row:
    """Images of ``image`` x ``image`` px: seconds per batch, nanoseconds per pixel, and the latter over the first
    row's; ``fastest_ratio`` is that of the fastest turns."""

    image: int
    batch: int
    median_s: float
    ns_per_pixel: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class Report(Circumstances):
    network: str
    training: bool
    dtype: str
    rows: list[Row]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, its images, and how many of the largest."""
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    parser.add_argument(
        "--sizes",
        type=several(at_least(32)),
        default=list(SIZES),
        help=f"heights and widths in pixels (default: {','.join(map(str, SIZES))})",
    )
    parser.add_argument("--batch", type=positive, default=1, help="images of the largest size; more of the smaller")
    parser.add_argument("--training", action="store_true", help="a training step instead of inference")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help="of autocast")
    add_machine(parser)


def measure(options: argparse.Namespace) -> Report:
    """Times one and the same network at all sizes in turns, on about as many pixels each."""
    sizes = list(dict.fromkeys(options.sizes))
    pixels = options.batch * max(sizes) ** 2
    batches = {size: max(1, round(pixels / size**2)) for size in sizes}
    with circumstances(options) as (device, where):
        network = build(options.model, 224, device)
        network.module.train(options.training)
        calls: dict[str, Callable[[], object]] = {}
        for size, batch in batches.items():
            images, classes = random_batch(batch, size, device)
            step = Step(network.module, images, classes, options.dtype)
            calls[str(size)] = step if options.training else _inference(step)
        try:
            times = interleave(calls, options.repeats, device)
        except AssertionError as error:  # timm's way to say that a network was built for one size
            raise ConfigError(f"--model {options.model} does not take images of every size: {error}") from None
    first = times[str(sizes[0])]
    rows = []
    for size, batch in batches.items():
        its, share = times[str(size)], batches[sizes[0]] * sizes[0] ** 2 / (batch * size**2)
        row = Row(
            image=size,
            batch=batch,
            median_s=its.median,
            ns_per_pixel=1e9 * its.median / (batch * size**2),
            ratio=its.over(first) * share,
            fastest_ratio=its.fastest_over(first) * share,
        )
        rows.append(row)
    return Report(**vars(where), network=options.model, training=options.training, dtype=options.dtype, rows=rows)


def _inference(step: Step) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad(), autocast(step.images.device, step.dtype):
            return step.module(step.images)

    return call


def table(report: Report) -> Table:
    """A line for each size."""
    what = "training step" if report.training else "inference"
    shown = Table(
        title=f"{report.network} at growing images, {what}, {report.dtype}, {report.device}",
        caption=f"Medians, {report.caption()}; batches are chosen for about as many pixels at every size, at least one "
        f"image; ratio: time per pixel over that at {report.rows[0].image} px",
    )
    for heading in ("image", "batch", "batch, s", "ns per pixel", "ratio", "fastest"):
        shown.add_column(heading, justify="right")
    for row in report.rows:
        times = (f"{row.median_s:.4f}", f"{row.ns_per_pixel:.2f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        shown.add_row(f"{row.image} x {row.image}", str(row.batch), *times)
    return shown
