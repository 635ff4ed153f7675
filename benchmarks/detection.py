"""Detectors on one image of 800 x 1280 px: time of backbone, neck and heads, memory of backbone and detector."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn

from atm.complexity import count
from benchmarks.dense import BACKBONE, DenseReport, Part, add_options, measure_parts, table_of_parts
from benchmarks.networks import build_detector
from experiments.tasks.detectors.options import PUBLISHED

SIZE = (800, 1280)  # height and width that the papers count at
NECK, HEADS, ALL = "neck", "heads", "all"


@dataclass(frozen=True)
class DetectionReport(DenseReport):
    """The parts of detectors, each computing as much as the papers count, whatever there is in the image.

    The part "heads" is every network behind the neck, those on regions with as many of them as an image has at most.
    Nothing has what the papers do not count: choosing proposals, pooling regions, and suppressing boxes.
    """


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The backbone, the detectors, and the size of the image where it is not the papers'."""
    add_options(parser, PUBLISHED, f"{SIZE[0]} x {SIZE[1]}")


def measure(options: argparse.Namespace) -> DetectionReport:
    """Times the parts of all detectors in turns, and measures their memory in processes of their own."""
    return measure_parts(options, DetectionReport, dict.fromkeys(PUBLISHED, SIZE), build_detector, _split)


def _split(network: nn.Module, image: Tensor) -> dict[str, Part]:
    detector = network.network
    maps = detector.backbone(image)[detector.start :]
    levels = detector.neck(maps)
    size = tuple(image.shape[1:])
    whole, backbone = count(network, size).flops_g, count(detector.backbone, size).flops_g
    shapes = [torch.empty_like(level, device="meta", dtype=torch.float32) for level in maps]
    neck = count(detector.neck, inputs=(shapes,)).flops_g
    return {
        BACKBONE: Part(lambda: detector.backbone(image), backbone),
        NECK: Part(lambda: detector.neck(maps), neck),
        HEADS: Part(lambda: detector.run_heads(levels), whole - backbone - neck),
        ALL: Part(lambda: detector.compute(image), whole),
    }


def table(report: DetectionReport) -> Table:
    """One line per part."""
    return table_of_parts(report, "detectors")
