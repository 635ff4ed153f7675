"""The cost of checkpoints for training, in time and peak memory, compared with saving inside the loop."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import timm
import torch
from rich.table import Table
from timm.utils import ModelEmaV3

import atm  # noqa: F401  (registers the models)
from benchmarks.processes import in_new_process, peak_mib
from benchmarks.timing import Conditions, add_machine, conditions, turns
from experiments.folder.checkpoint import Saver, save
from experiments.schema import Config
from experiments.training.optimization import build_optimizer

DEFAULT_SECONDS = 60 * Config().machine.checkpoint_minutes


@dataclass(frozen=True)
class CheckpointCost:
    """One model. Times in seconds; a cost is the time that one checkpoint adds to the loop, the median over blocks.

    ``share``: the cost as a share of the default interval between checkpoints. Memory in MiB: the peak of a separate
    process.
    """

    model: str
    image_size: int
    checkpoint_mb: float
    step_s: float
    background_s: float
    blocking_s: float
    share: float
    peak_without_mib: float
    peak_background_mib: float
    peak_blocking_mib: float


@dataclass(frozen=True)
class CheckpointReport(Conditions):
    rows: list[CheckpointCost]


class Loop:
    """A training loop with AdamW and averaged weights on random images. Its state is saved like a run's."""

    def __init__(self, model: str, image_size: int, batch: int, device: str):
        torch.manual_seed(0)
        self.model = timm.create_model(f"atmnet_{model}", num_classes=1000).to(device)
        self.optimizer = build_optimizer(self.model, Config().train)
        self.ema = ModelEmaV3(self.model, decay=0.999)
        self.images = torch.randn(batch, 3, image_size, image_size, device=device)
        self.classes = torch.arange(batch, device=device)
        self.saved = 0

    def steps(self, count: int) -> None:
        for _ in range(count):
            loss = torch.nn.functional.cross_entropy(self.model(self.images), self.classes)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.ema.update(self.model)
            loss.item()

    def state(self) -> tuple[dict[str, Any], str]:
        self.saved += 1
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.saved,
        }
        return state, f"step-{self.saved:09d}"


def blocks(loop: Loop, folder: Path, steps: int) -> dict[str, Callable[[], None]]:
    """A block of steps without a checkpoint, with one saved in the background as in a run, and with one saved first."""
    saver = Saver(folder, kept=3, tolerated=1)

    def background() -> None:
        saver.start(*loop.state(), lasting=False)
        loop.steps(steps)
        saver.settle(wait=True)  # the rest of the writing counts for this block, not for the next

    def blocking() -> None:
        save(folder, *loop.state())
        loop.steps(steps)

    return {"without": lambda: loop.steps(steps), "background": background, "blocking": blocking}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every benchmark on torch."""
    add_machine(parser)


def measure(options: argparse.Namespace) -> CheckpointReport:
    """Measures a small and a large checkpoint, each with blocks of steps long enough for it to be written.

    The three methods take turns, so that other work on the machine slows all of them; the first turn warms up.
    """
    with conditions(options) as (_, machine):
        rows = [_measure_row(*case, options) for case in (("nano", 160, 8, 24), ("xt", 224, 4, 10))]
    return CheckpointReport(**vars(machine), rows=rows)


def _measure_row(model: str, size: int, batch: int, steps: int, options: argparse.Namespace) -> CheckpointCost:
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, options.device)
        methods = blocks(loop, Path(folder), steps)
        times = turns({method: _clocked(block) for method, block in methods.items()}, options.repeats)
        megabytes = max(path.stat().st_size for path in Path(folder).glob("*.pt")) / 1e6
    without = times["without"]
    costs = {
        method: median(saving - plain for saving, plain in zip(times[method].seconds, without.seconds))
        for method in ("background", "blocking")
    }
    arguments = (model, size, batch, steps, options.threads, options.device)
    peaks = {method: in_new_process(_peak, method, *arguments) for method in methods}
    return CheckpointCost(
        model, size, megabytes, without.median / steps, costs["background"], costs["blocking"],
        costs["background"] / DEFAULT_SECONDS, peaks["without"], peaks["background"], peaks["blocking"],
    )  # fmt: skip


def _clocked(block: Callable[[], None]) -> Callable[[], float]:
    def clock() -> float:
        start = perf_counter()
        block()  # every step reads its loss, which waits for the GPU
        return perf_counter() - start

    return clock


def _peak(method: str, model: str, size: int, batch: int, steps: int, threads: int, device: str) -> float:
    """The peak memory in MiB, of the GPU if ``device`` is one, else of this process."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, device)
        block = blocks(loop, Path(folder), steps)[method]
        for _ in range(2):
            block()
    return peak_mib(device)


def table(report: CheckpointReport) -> Table:
    """One column per model."""
    shown = Table(
        title=f"The cost of one checkpoint for training, {report.device}",
        caption=f"Medians of blocks of steps, {report.caption()}",
    )
    shown.add_column("")
    for row in report.rows:
        shown.add_column(f"{row.model}, {row.image_size} px", justify="right")
    lines: dict[str, Callable[[CheckpointCost], str]] = {
        "checkpoint, MB": lambda row: f"{row.checkpoint_mb:.0f}",
        "one step, s": lambda row: f"{row.step_s:.3f}",
        "added to the loop, s": lambda row: f"{row.background_s:.3f}",
        "added if written in the loop, s": lambda row: f"{row.blocking_s:.3f}",
        f"share of the default interval of {DEFAULT_SECONDS:.0f} s": lambda row: f"{100 * row.share:.2f} %",
        "peak memory without checkpoints, MiB": lambda row: f"{row.peak_without_mib:.0f}",
        "peak memory with them, MiB": lambda row: f"{row.peak_background_mib:.0f}",
        "peak memory if written in the loop, MiB": lambda row: f"{row.peak_blocking_mib:.0f}",
    }
    for name, value in lines.items():
        shown.add_row(name, *(value(row) for row in report.rows))
    return shown
