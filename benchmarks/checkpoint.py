"""What checkpoints cost a training: time taken from its loop, and peak memory, beside saving in the loop itself."""

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
from benchmarks.processes import alone, peak_mib
from benchmarks.timing import Circumstances, add_machine, circumstances, turns
from experiments.folder.checkpoint import Saver, save
from experiments.schema import Config
from experiments.training.optimization import build_optimizer

DEFAULT_SECONDS = 60 * Config().machine.checkpoint_minutes


@dataclass(frozen=True)
class Row:
    """One model. Times in seconds; a cost is what one checkpoint adds to the loop, the median over the blocks.

    ``share`` is that of the default interval between checkpoints. Memory in MiB is the peak of a process of its own.
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
class Report(Circumstances):
    rows: list[Row]


class Loop:
    """A training loop with AdamW and averaged weights on random images, whose state is saved as a run's is."""

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
    """A block of steps with no checkpoint, with one as a run makes it, and with one written before the first step."""
    saver = Saver(folder, kept=3, tolerated=1)

    def background() -> None:
        saver.start(*loop.state(), lasting=False)
        loop.steps(steps)
        saver.settle(wait=True)  # what is not written by now counts against this block, not the next

    def blocking() -> None:
        save(folder, *loop.state())
        loop.steps(steps)

    return {"without": lambda: loop.steps(steps), "background": background, "blocking": blocking}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every benchmark on torch takes."""
    add_machine(parser)


def measure(options: argparse.Namespace) -> Report:
    """Measures a small and a large checkpoint, each on blocks of steps long enough for it to be written.

    The three ways take turns, so that a busy moment of the machine slows all; the first turn warms up.
    """
    with circumstances(options) as (_, where):
        rows = [_measure_row(*case, options) for case in (("nano", 160, 8, 24), ("xt", 224, 4, 10))]
    return Report(**vars(where), rows=rows)


def _measure_row(model: str, size: int, batch: int, steps: int, options: argparse.Namespace) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, options.device)
        ways = blocks(loop, Path(folder), steps)
        times = turns({way: _clocked(block) for way, block in ways.items()}, options.repeats)
        megabytes = max(path.stat().st_size for path in Path(folder).glob("*.pt")) / 1e6
    without = times["without"]
    costs = {
        way: median(taken - unsaved for taken, unsaved in zip(times[way].seconds, without.seconds))
        for way in ("background", "blocking")
    }
    peaks = {way: alone(_peak, way, model, size, batch, steps, options.threads, options.device) for way in ways}
    return Row(
        model, size, megabytes, without.median / steps, costs["background"], costs["blocking"],
        costs["background"] / DEFAULT_SECONDS, peaks["without"], peaks["background"], peaks["blocking"],
    )  # fmt: skip


def _clocked(block: Callable[[], None]) -> Callable[[], float]:
    def clock() -> float:
        start = perf_counter()
        block()  # waits for the GPU by itself: every step reads its loss
        return perf_counter() - start

    return clock


def _peak(way: str, model: str, size: int, batch: int, steps: int, threads: int, device: str) -> float:
    """MiB: of the GPU where there is one, else of this process."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, device)
        block = blocks(loop, Path(folder), steps)[way]
        for _ in range(2):
            block()
    return peak_mib(device)


def table(report: Report) -> Table:
    """A column for each model."""
    shown = Table(
        title=f"What one checkpoint takes from training, {report.device}",
        caption=f"Medians of blocks of steps, {report.caption()}",
    )
    shown.add_column("")
    for row in report.rows:
        shown.add_column(f"{row.model}, {row.image_size} px", justify="right")
    lines: dict[str, Callable[[Row], str]] = {
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
