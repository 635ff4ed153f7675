"""Everything that a GPU must hold, in one command: results first, then runs, then speed, each in one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import torch
from rich.table import Table

from benchmarks.acceptance import runs, sampling, speed, training
from benchmarks.acceptance.outcomes import Check, CheckedDevice
from benchmarks.acceptance.worker import Worker
from benchmarks.choices import one_of, positive
from benchmarks.timing import open_device

LIMIT_S = {"cuda": 600, "cpu": 3600}  # of all checks together
SLOWER_CPU = 5.0  # a CPU may be busy, so checks may take longer there before they count as hanging
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # for deterministic products, read when CUDA starts
SECTIONS = {
    "sampling": (
        Check("kernels", sampling.kernels),
        Check("tuning", sampling.tuned_block_sizes, limit_s=180.0),
    ),
    "training": (
        Check("autocast", training.autocast),
        Check("channels-last", training.channels_last),
        Check("gradient scaling", training.loss_scaling),
        Check("DDP", training.data_parallel),
        Check("repeated bits", training.repeated),
        Check("compile", training.compiled, limit_s=180.0),
    ),
    "runs": (
        Check("resume after kill -9", runs.killed_and_resumed),
        Check("a minute of tiny", runs.minute_of_tiny),
    ),
    "speed": (
        Check("sampler", speed.sampled),
        Check("mixer", speed.mixed),
        Check("networks", speed.networks, limit_s=240.0),
        Check("memory", speed.memory_of_a_step),
        Check("resolution", speed.resolutions),
    ),
}


@dataclass(frozen=True)
class AcceptanceLine:
    """held: None for a time at tiny shapes, which is not judged. seconds: of the check, on its first line."""

    section: str
    check: str
    what: str
    held: bool | None
    detail: str
    seconds: float | None


@dataclass(frozen=True)
class AcceptanceReport:
    """``exit_code`` is 1 if a line was missed."""

    device: str
    torch: str
    size: str
    seconds: float
    lines: list[AcceptanceLine]

    @property
    def exit_code(self) -> int:
        return int(any(line.held is False for line in self.lines))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, size, sections and the limit of time."""
    parser.set_defaults(repeats=5)
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu", help="cpu, cuda or cuda:1 (default: a GPU)")
    parser.add_argument(
        "--size",
        type=one_of("size", ("tiny", "full")),
        help="tiny: shapes that take seconds, whose speed is not judged (default: tiny on a CPU, full on a GPU)",
    )
    parser.add_argument(
        "--limit", type=positive, help="seconds after which checks are ended (default: 600 on a GPU, 3600 on a CPU)"
    )
    parser.add_argument(
        "--sections", type=lambda text: [one_of("section", SECTIONS)(part) for part in text.split(",")],
        default=list(SECTIONS), help=f"separated by commas (default: {','.join(SECTIONS)})",
    )  # fmt: skip


def measure(options: argparse.Namespace) -> AcceptanceReport:
    """Runs every check; one that fails stops no other, one that does not begin within the limit is a missed line."""
    device = open_device(options.device)
    tiny = (options.size or ("full" if device.type == "cuda" else "tiny")) == "tiny"
    place = CheckedDevice(options.device, tiny, 1 if tiny else options.repeats)
    name = torch.cuda.get_device_name(device) if place.on_gpu else options.device
    started = perf_counter()
    end = started + (options.limit or LIMIT_S[device.type])
    lines = [line for section in options.sections for line in _lines(section, place, end)]
    size = "tiny" if place.tiny else "full"
    return AcceptanceReport(name, torch.__version__, size, perf_counter() - started, lines)


def _lines(section: str, place: CheckedDevice, end: float) -> Iterator[AcceptanceLine]:
    interpreted = {"TRITON_INTERPRET": "1"} if section == "sampling" and not place.on_gpu else {}
    worker = Worker({**ENVIRONMENT, **interpreted})
    try:
        for check in SECTIONS[section]:
            begun = perf_counter()
            if begun >= end:
                yield AcceptanceLine(section, check.name, "", False, "not begun: the time was over", None)
                continue
            limit = check.limit_s * (1 if place.on_gpu else SLOWER_CPU)
            outcomes = worker.run(check, place, min(limit, end - begun))
            seconds: float | None = perf_counter() - begun
            for outcome in outcomes:
                yield AcceptanceLine(section, check.name, outcome.what, outcome.held, outcome.detail, seconds)
                seconds = None
    finally:
        worker.close()


def table(report: AcceptanceReport) -> Table:
    """One line per thing that was checked."""
    missed = sum(line.held is False for line in report.lines)
    shown = Table(
        title=f"Acceptance on {report.device}, {report.size}, torch {report.torch}",
        caption=f"{len(report.lines)} lines, {missed} missed; {report.seconds:.0f} s"
        + ("; speed at tiny shapes is not judged" if report.size == "tiny" else ""),
    )
    for heading in ("", "", "", "", "s"):
        shown.add_column(heading, justify="right" if heading else "left")
    for line in report.lines:
        verdict = {True: "held", False: "missed", None: "measured"}[line.held]
        seconds = "" if line.seconds is None else f"{line.seconds:.1f}"
        shown.add_row(verdict, f"{line.check}", line.what, line.detail, seconds)
    return shown
