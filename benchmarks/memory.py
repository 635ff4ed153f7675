"""The peak memory of a training step, measured for each network in a separate process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from rich.table import Table

from benchmarks.networks import COMPARED, Step, add_models, build, random_batch
from benchmarks.processes import in_new_process, memory_mib, peak_mib
from benchmarks.timing import Conditions, add_inputs, add_machine, conditions

STEPS = 2


@dataclass(frozen=True)
class MemoryUse:
    """MiB. ``peak_mib``: the peak, without the memory of Python, its imports and the images; ``state_mib``: parameters,
    buffers and optimizer state; ``step_mib``: the rest, activations and gradients. ``ratio`` is the first network's
    peak over this one's, ``step_ratio`` the same without the state.
    """

    network: str
    peak_mib: float
    state_mib: float
    step_mib: float
    ratio: float
    step_ratio: float


@dataclass(frozen=True)
class MemoryReport(Conditions):
    batch: int
    image: int
    dtype: str
    rows: list[MemoryUse]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The networks and the batch. A repeat is a further process; the report has the medians."""
    add_models(parser, default=COMPARED[:-1])
    add_inputs(parser)
    add_machine(parser)
    parser.set_defaults(repeats=1)


def measure(options: argparse.Namespace) -> MemoryReport:
    """Runs each network in fresh processes, one after the other, and takes the medians.

    Raises Disagreement if a network on deform_conv2d differs from the ATMNet that it was made from.
    """
    with conditions(options) as (device, machine):
        for name in options.models:
            build(name, options.image, device)  # compares the networks in this process, where memory is not measured
        if device.type == "cuda":
            torch.cuda.empty_cache()
        arguments = (options.batch, options.image, options.dtype, options.threads, options.device)
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in options.models}
        for _ in range(options.repeats):
            for name, pairs in measured.items():
                pairs.append(in_new_process(_measure, name, *arguments))
    medians = {name: sorted(pairs)[len(pairs) // 2] for name, pairs in measured.items()}
    first_peak, first_state = next(iter(medians.values()))
    rows = [
        MemoryUse(name, peak, state, peak - state, first_peak / peak, (first_peak - first_state) / (peak - state))
        for name, (peak, state) in medians.items()
    ]
    return MemoryReport(**vars(machine), batch=options.batch, image=options.image, dtype=options.dtype, rows=rows)


def _measure(name: str, batch: int, image: int, dtype: str, threads: int, device_name: str) -> tuple[float, float]:
    """The peak of a training step, and parameters and optimizer state alone, in MiB."""
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    images, classes = random_batch(batch, image, device)
    before = memory_mib(device)
    step = Step(build(name, image, device, checked=False).module.train(), images, classes, dtype)
    for _ in range(STEPS):
        step()
    return peak_mib(device) - before, step.state_bytes() / 2**20


def table(report: MemoryReport) -> Table:
    """One line per network."""
    memory = "resident memory" if report.device == "cpu" else "memory allocated on the GPU"
    shown = Table(
        title=f"Memory of a training step, batch {report.batch}, {report.image} px, AdamW, {report.dtype}, "
        f"{report.device}",
        caption=f"MiB, peak {memory} of a separate process without that of imports and images, after {STEPS} steps; "
        f"median of {report.repeats}, {report.threads} threads, torch {report.torch}; "
        f"ratio: the peak of {report.rows[0].network} over the network's",
    )
    for heading in ("", "peak", "parameters and optimizer", "activations and gradients", "ratio", "of activations"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        sizes = (f"{size:.0f}" for size in (row.peak_mib, row.state_mib, row.step_mib))
        shown.add_row(row.network, *sizes, f"{row.ratio:.3f}", f"{row.step_ratio:.3f}")
    return shown
