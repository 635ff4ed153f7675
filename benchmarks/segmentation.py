"""Segmentation networks on one image at the papers' sizes: time and memory of backbone and head."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from rich.table import Table
from torch import Tensor, nn

from atm.complexity import count
from benchmarks.dense import BACKBONE, DenseReport, Part, add_options, measure_parts, table_of_parts
from benchmarks.networks import build_segmenter
from experiments.tasks.heads.layers import resize

SIZES = {"semantic_fpn": (512, 512), "upernet": (512, 2048)}  # head → height and width that the papers count at
HEAD, BOTH = "head", "both"


@dataclass(frozen=True)
class SegmentationReport(DenseReport):
    """The parts of segmenters; the part "head" is all behind the backbone: neck, head, interpolation to the image."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The backbone, the heads, and the size of images where it is not the papers'."""
    add_options(parser, SIZES, "the papers' sizes")


def measure(options: argparse.Namespace) -> SegmentationReport:
    """Times the parts of all networks in turns, and measures their memory in processes of their own."""
    return measure_parts(options, SegmentationReport, SIZES, build_segmenter, _split)


def _split(network: nn.Module, image: Tensor) -> dict[str, Part]:
    maps = network.backbone(image)
    size = tuple(image.shape[1:])
    both, backbone = count(network, size).flops_g, count(network.backbone, size).flops_g
    return {
        BACKBONE: Part(lambda: network.backbone(image), backbone),
        HEAD: Part(lambda: resize(network.head(network.neck(maps)), like=image), both - backbone),
        BOTH: Part(lambda: network(image), both),
    }


def table(report: SegmentationReport) -> Table:
    """One line per part."""
    return table_of_parts(report, "segmentation heads")
