"""Segmentation networks on one image at the papers' sizes: time and memory of backbone and head."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor

from atm.complexity import count
from benchmarks.choices import at_least, one_of, several
from benchmarks.networks import autocast, build_segmenter, known_model
from benchmarks.processes import in_new_process, memory_mib, peak_mib
from benchmarks.timing import DTYPES, Conditions, add_machine, conditions, interleave
from experiments.dense_schema import SEGMENTATION_HEADS
from experiments.tasks.heads.layers import resize

PUBLISHED = {"semantic_fpn": (512, 512), "upernet": (512, 2048)}  # head → height and width that the papers count at
BACKBONE, HEAD, BOTH = "backbone", "head", "both"


@dataclass(frozen=True)
class PartTime:
    """One part of the network on one image of ``height`` x ``width`` px; ``head`` is the name of the network's head.

    The part "head" is everything behind the backbone: neck, head and interpolation to the image. ``ratio`` is the
    median over that of both, ``fastest_ratio`` the same for the fastest turns; ``gmacs``: 10^9 multiply-accumulates by
    the papers' count; ``peak_mib``: the peak memory without that of imports, None for the part "head".
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
class SegmentationReport(Conditions):
    network: str
    dtype: str
    rows: list[PartTime]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The backbone, the heads, and the size of images where it is not the papers'."""
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    parser.add_argument(
        "--heads",
        type=several(one_of("head", SEGMENTATION_HEADS)),
        default=list(PUBLISHED),
        help=f"separated by commas (default: {','.join(PUBLISHED)})",
    )
    parser.add_argument("--image", type=at_least(32), help="height and width in pixels (default: the papers' sizes)")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help="of autocast")
    add_machine(parser)


def measure(options: argparse.Namespace) -> SegmentationReport:
    """Times the parts of all networks in turns, and measures their memory in processes of their own."""
    rows = []
    with conditions(options) as (device, machine):
        for head in dict.fromkeys(options.heads):
            height, width = (options.image, options.image) if options.image else PUBLISHED[head]
            network = Parts(options.model, head, (height, width), device, options.dtype)
            times = interleave(network.calls(), options.repeats, device)
            gmacs = network.gmacs()
            del network
            arguments = ((height, width), options.device, options.dtype, options.threads)
            peaks = {
                BACKBONE: in_new_process(_peak, options.model, None, *arguments),
                BOTH: in_new_process(_peak, options.model, head, *arguments),
            }
            for part in (BACKBONE, HEAD, BOTH):
                row = PartTime(
                    head=head,
                    height=height,
                    width=width,
                    part=part,
                    median_s=times[part].median,
                    ratio=times[part].over(times[BOTH]),
                    fastest_ratio=times[part].fastest_over(times[BOTH]),
                    gmacs=gmacs[part],
                    peak_mib=peaks.get(part),
                )
                rows.append(row)
    return SegmentationReport(**vars(machine), network=options.model, dtype=options.dtype, rows=rows)


class Parts:
    """A segmenter, one random image [1, 3, H, W] and its maps. size: H and W in pixels."""

    def __init__(self, name: str, head: str, size: tuple[int, int], device: torch.device, dtype: str):
        self.model = build_segmenter(name, head, device)
        self.image = torch.randn(1, 3, *size, device=device)
        self.dtype = dtype

    def calls(self) -> dict[str, Callable[[], object]]:
        """Part → what computes it, without gradients."""
        with torch.no_grad(), autocast(self.image.device, self.dtype):
            maps = self.model.backbone(self.image)
        calls = {
            BACKBONE: lambda: self.model.backbone(self.image),
            HEAD: lambda: self._head(maps),
            BOTH: lambda: self.model(self.image),
        }
        return {part: self._inference(call) for part, call in calls.items()}

    def gmacs(self) -> dict[str, float]:
        """Part → 10^9 multiply-accumulates by the papers' count."""
        size = tuple(self.image.shape[1:])
        both, backbone = count(self.model, size).flops_g, count(self.model.backbone, size).flops_g
        return {BACKBONE: backbone, HEAD: both - backbone, BOTH: both}

    def _head(self, maps: list[Tensor]) -> Tensor:
        return resize(self.model.head(self.model.neck(maps)), like=self.image)

    def _inference(self, call: Callable[[], object]) -> Callable[[], object]:
        def inference() -> object:
            with torch.no_grad(), autocast(self.image.device, self.dtype):
                return call()

        return inference


def _peak(name: str, head: str | None, size: tuple[int, int], device_name: str, dtype: str, threads: int) -> float:
    """The peak of one inference in MiB, with the parameters. head: None for the backbone alone."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    before = memory_mib(device)
    network, image = build_segmenter(name, head, device), torch.randn(1, 3, *size, device=device)
    with torch.no_grad(), autocast(device, dtype):
        network(image)
    return peak_mib(device) - before


def table(report: SegmentationReport) -> Table:
    """One line per part."""
    memory = "resident memory" if report.device == "cpu" else "memory allocated on the GPU"
    shown = Table(
        title=f"{report.network} with segmentation heads, inference, one image, {report.dtype}, {report.device}",
        caption=f"Medians, {report.caption()}; ratio: time of the part over that of both; G MAC: 10^9 "
        f"multiply-accumulates by the papers' count; MiB: peak {memory} of a separate process without imports",
    )
    for heading in ("head", "image", "part", "s", "ratio", "fastest", "G MAC/s", "MiB"):
        shown.add_column(heading, justify="left" if heading in ("head", "part") else "right", no_wrap=True)
    for row in report.rows:
        times = (f"{row.median_s:.4f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        rate, peak = f"{row.gmacs / row.median_s:.1f}", "" if row.peak_mib is None else f"{row.peak_mib:.0f}"
        shown.add_row(row.head, f"{row.height} x {row.width}", row.part, *times, rate, peak)
    return shown
