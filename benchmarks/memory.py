"""The most memory that a training step takes, each network in a process of its own."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.table import Table

from benchmarks.networks import COMPARED, Step, add_models, build, random_batch
from benchmarks.processes import alone, memory_mib, peak_mib
from benchmarks.timing import Circumstances, add_inputs, add_machine, circumstances

STEPS = 2


@dataclass(frozen=True)
class Row:
    """MiB. ``peak_mib``: the most that was taken, without what Python, its imports and the images take;
    ``state_mib``: parameters, buffers and optimizer state; ``step_mib``: the rest, activations and gradients.
    ``ratio`` is the first network's peak over this one's, ``step_ratio`` likewise without the state.
    """

    network: str
    peak_mib: float
    state_mib: float
    step_mib: float
    ratio: float
    step_ratio: float


@dataclass(frozen=True)
class Report(Circumstances):
    batch: int
    image: int
    dtype: str
    rows: list[Row]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The networks and the batch; a repeat is a further process, and the median counts."""
    add_models(parser, default=COMPARED[:-1])
    add_inputs(parser)
    add_machine(parser)
    parser.set_defaults(repeats=1)


def measure(options: argparse.Namespace) -> Report:
    """Runs each network in fresh processes, one after the other, and takes the medians.

    Raises Disagreement where a network on deform_conv2d differs from the ATMNet that it was made from.
    """
    with circumstances(options) as (device, where):
        for name in options.models:
            build(name, options.image, device)  # which compares, here and not where memory is measured
        if device.type == "cuda":
            torch.cuda.empty_cache()
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in options.models}
        for _ in range(options.repeats):
            for name, measured in found.items():
                measured.append(
                    alone(_measure, name, options.batch, options.image, options.dtype, options.threads, options.device)
                )
    middle = {name: sorted(measured)[len(measured) // 2] for name, measured in found.items()}
    peak, state = next(iter(middle.values()))
    rows = [
        Row(name, its, its_state, its - its_state, peak / its, (peak - state) / (its - its_state))
        for name, (its, its_state) in middle.items()
    ]
    return Report(**vars(where), batch=options.batch, image=options.image, dtype=options.dtype, rows=rows)


def _measure(name: str, batch: int, image: int, dtype: str, threads: int, device_name: str) -> tuple[float, float]:
    """MiB of a training step at its most, and of parameters and optimizer state alone."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    batch_of_images = random_batch(batch, image, device)
    before = memory_mib(device)
    step = Step(build(name, image, device, checked=False).module.train(), *batch_of_images, dtype)
    for _ in range(STEPS):
        step()
    return peak_mib(device) - before, step.state_bytes() / 2**20


def table(report: Report) -> Table:
    """A line for each network."""
    memory = "resident memory" if report.device == "cpu" else "memory allocated on the GPU"
    shown = Table(
        title=f"Memory of a training step, batch {report.batch}, {report.image} px, AdamW, {report.dtype}, "
        f"{report.device}",
        caption=f"MiB, peak {memory} of a process of its own above what imports and images take, after {STEPS} steps; "
        f"median of {report.repeats}, {report.threads} threads, torch {report.torch}; "
        f"ratio: {report.rows[0].network}'s over the network's",
    )
    for heading in ("", "peak", "parameters and optimizer", "activations and gradients", "ratio", "of activations"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        sizes = (f"{size:.0f}" for size in (row.peak_mib, row.state_mib, row.step_mib))
        shown.add_row(row.network, *sizes, f"{row.ratio:.3f}", f"{row.step_ratio:.3f}")
    return shown
