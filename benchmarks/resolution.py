"""One network on images of increasing size: time per pixel, which is constant for local operators."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from benchmarks.choices import at_least, one_of, positive, several
from benchmarks.networks import Step, autocast, build, build_segmenter, known_model, random_batch
from benchmarks.timing import DTYPES, Conditions, add_machine, conditions, interleave
from errors import ConfigError
from experiments.dense_schema import SEGMENTATION_HEADS

SIZES = (224, 384, 512, 768, 1024)


@dataclass(frozen=True)
class ResolutionTime:
    """Images of ``image`` x ``image`` px: seconds per batch and nanoseconds per pixel. ``ratio`` is the latter over the
    first row's, ``fastest_ratio`` the same for the fastest turns."""

    image: int
    batch: int
    median_s: float
    ns_per_pixel: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class ResolutionReport(Conditions):
    network: str
    head: str | None
    training: bool
    dtype: str
    rows: list[ResolutionTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the sizes of images, and the batch of the largest size."""
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    parser.add_argument(
        "--sizes",
        type=several(at_least(32)),
        default=list(SIZES),
        help=f"heights and widths in pixels (default: {','.join(map(str, SIZES))})",
    )
    parser.add_argument(
        "--batch", type=positive, default=1, help="images of the largest size; smaller ones come in larger batches"
    )
    parser.add_argument(
        "--head", type=one_of("head", SEGMENTATION_HEADS), help="of segmentation, instead of a classifier"
    )
    parser.add_argument("--training", action="store_true", help="a training step of a classifier instead of inference")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help="of autocast")
    add_machine(parser)


def measure(options: argparse.Namespace) -> ResolutionReport:
    """Times the network at all sizes in turns, with about the same number of pixels in each batch."""
    if options.head and options.training:
        raise ConfigError("--training: a network with a --head is timed in inference only")
    sizes = list(dict.fromkeys(options.sizes))
    pixels = options.batch * max(sizes) ** 2
    batches = {size: max(1, round(pixels / size**2)) for size in sizes}
    with conditions(options) as (device, machine):
        if options.head:
            module: nn.Module = build_segmenter(options.model, options.head, device)
        else:
            module = build(options.model, 224, device).module
        module.train(options.training)
        calls: dict[str, Callable[[], object]] = {}
        for size, batch in batches.items():
            images, classes = random_batch(batch, size, device)
            step = Step(module, images, classes, options.dtype)
            calls[str(size)] = step if options.training else _inference(step)
        try:
            times = interleave(calls, options.repeats, device)
        except AssertionError as error:  # timm raises it for networks that were built for one size
            raise ConfigError(f"--model {options.model} does not take images of every size: {error}") from None
    first = times[str(sizes[0])]
    rows = []
    for size, batch in batches.items():
        size_times = times[str(size)]
        pixel_ratio = batches[sizes[0]] * sizes[0] ** 2 / (batch * size**2)
        row = ResolutionTime(
            image=size,
            batch=batch,
            median_s=size_times.median,
            ns_per_pixel=1e9 * size_times.median / (batch * size**2),
            ratio=size_times.over(first) * pixel_ratio,
            fastest_ratio=size_times.fastest_over(first) * pixel_ratio,
        )
        rows.append(row)
    return ResolutionReport(
        **vars(machine),
        network=options.model,
        head=options.head,
        training=options.training,
        dtype=options.dtype,
        rows=rows,
    )


def _inference(step: Step) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad(), autocast(step.images.device, step.dtype):
            return step.module(step.images)

    return call


def table(report: ResolutionReport) -> Table:
    """One line per size."""
    phase = "training step" if report.training else "inference"
    network = f"{report.network} with {report.head}" if report.head else report.network
    shown = Table(
        title=f"{network} on images of increasing size, {phase}, {report.dtype}, {report.device}",
        caption=f"Medians, {report.caption()}; batches have about the same number of pixels, and at least one "
        f"image; ratio: time per pixel over that at {report.rows[0].image} px",
    )
    for heading in ("image", "batch", "batch, s", "ns per pixel", "ratio", "fastest"):
        shown.add_column(heading, justify="right")
    for row in report.rows:
        times = (f"{row.median_s:.4f}", f"{row.ns_per_pixel:.2f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        shown.add_row(f"{row.image} x {row.image}", str(row.batch), *times)
    return shown
