"""Networks for segmentation or detection on one image: time of their parts, memory of the backbone and of the whole."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from rich.table import Table
from torch import Tensor, nn

from benchmarks.choices import at_least, one_of, several
from benchmarks.networks import autocast, known_model
from benchmarks.processes import in_new_process, memory_mib, peak_mib
from benchmarks.timing import DTYPES, Conditions, Times, add_machine, conditions, interleave

BACKBONE = "backbone"

Report = TypeVar("Report", bound="DenseReport")
Build = Callable[[str, str | None, torch.device], nn.Module]  # name, head or None for the backbone alone, device


@dataclass(frozen=True)
class Part:
    """``call`` computes a part of a network on one image; ``gmacs``: 10^9 multiply-accumulates as the papers count."""

    call: Callable[[], object]
    gmacs: float


# a network and an image [1, 3, H, W] → its parts by name: the backbone, those behind it, and last the whole network
Split = Callable[[nn.Module, Tensor], dict[str, Part]]


@dataclass(frozen=True)
class PartTime:
    """One part of the network on one image of ``height`` x ``width`` px; ``head`` is the name of the network's head.

    ``ratio`` is the median over that of the whole network, ``fastest_ratio`` the same for the fastest turns; ``gmacs``:
    10^9 multiply-accumulates by the papers' count; ``peak_mib``: the peak memory without that of imports, only of the
    backbone and of the whole network.
    """

    head: str
    height: int
    width: int
    part: str
    median_s: float
    ratio: float
    fastest_ratio: float
    gmacs: float
    peak_mib: float | None


@dataclass(frozen=True)
class DenseReport(Conditions):
    network: str
    dtype: str
    rows: list[PartTime]


def add_options(parser: argparse.ArgumentParser, heads: Collection[str], sizes: str) -> None:
    """``--model``, ``--heads``, ``--image``, ``--dtype`` and those of the machine. sizes: the default, in words."""
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    parser.add_argument(
        "--heads",
        type=several(one_of("head", heads)),
        default=list(heads),
        help=f"separated by commas (default: {','.join(heads)})",
    )
    parser.add_argument("--image", type=at_least(32), help=f"height and width in pixels (default: {sizes})")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help="of autocast")
    add_machine(parser)


def measure_parts(
    options: argparse.Namespace, report: type[Report], sizes: Mapping[str, tuple[int, int]], build: Build, split: Split
) -> Report:
    """Times the parts of all networks in turns, and measures their memory in processes of their own.

    sizes: head → height and width in px where ``--image`` is not given; build: a function of a module.
    """
    rows = []
    with conditions(options) as (device, machine):
        for head in dict.fromkeys(options.heads):
            height, width = size = (options.image, options.image) if options.image else sizes[head]
            times, gmacs = _time_parts(build(options.model, head, device), split, size, options, device)
            whole = list(times)[-1]
            measure_peak = partial(in_new_process, partial(_peak, build), options.model)
            arguments = (size, options.device, options.dtype, options.threads)
            peaks = {BACKBONE: measure_peak(None, *arguments), whole: measure_peak(head, *arguments)}
            for part, measured in times.items():
                row = PartTime(
                    head=head,
                    height=height,
                    width=width,
                    part=part,
                    median_s=measured.median,
                    ratio=measured.over(times[whole]),
                    fastest_ratio=measured.fastest_over(times[whole]),
                    gmacs=gmacs[part],
                    peak_mib=peaks.get(part),
                )
                rows.append(row)
    return report(**vars(machine), network=options.model, dtype=options.dtype, rows=rows)


def _time_parts(
    network: nn.Module, split: Split, size: tuple[int, int], options: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Times], dict[str, float]]:
    image = torch.randn(1, 3, *size, device=device)
    with _inference(device, options.dtype):
        parts = split(network, image)
        times = interleave({name: part.call for name, part in parts.items()}, options.repeats, device)
    return times, {name: part.gmacs for name, part in parts.items()}


def _peak(
    build: Build, name: str, head: str | None, size: tuple[int, int], device_name: str, dtype: str, threads: int
) -> float:
    """The peak of one inference in MiB, with the parameters. head: None for the backbone alone."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    before = memory_mib(device)
    network, image = build(name, head, device), torch.randn(1, 3, *size, device=device)
    with _inference(device, dtype):
        network(image)
    return peak_mib(device) - before


@contextmanager
def _inference(device: torch.device, dtype: str) -> Iterator[None]:
    with torch.no_grad(), autocast(device, dtype):
        yield


def table_of_parts(report: DenseReport, heads: str) -> Table:
    """One line per part. heads: what kind the title names."""
    memory = "resident memory" if report.device == "cpu" else "memory allocated on the GPU"
    shown = Table(
        title=f"{report.network} with {heads}, inference, one image, {report.dtype}, {report.device}",
        caption=f"Medians, {report.caption()}; ratio: time of the part over that of {report.rows[-1].part}; G MAC: "
        f"10^9 multiply-accumulates by the papers' count; MiB: peak {memory} of a separate process without imports",
    )
    for heading in ("head", "image", "part", "s", "ratio", "fastest", "G MAC/s", "MiB"):
        shown.add_column(heading, justify="left" if heading in ("head", "part") else "right", no_wrap=True)
    for row in report.rows:
        times = (f"{row.median_s:.4f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        rate, peak = f"{row.gmacs / row.median_s:.1f}", "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        shown.add_row(row.head, f"{row.height} x {row.width}", row.part, *times, rate, peak)
    return shown
