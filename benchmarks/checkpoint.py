"""What checkpoints cost a training: time taken from its loop, and peak memory, beside saving in the loop itself."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import timm
import torch
from timm.utils import ModelEmaV3

import atm  # noqa: F401  (registers the models)
from experiments.checkpoint import Saver, save
from experiments.optimization import build_optimizer
from experiments.schema import Config

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
class Report:
    repeats: int
    threads: int
    device: str
    torch: str
    load_average: float
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


def measure(repeats: int = 7, threads: int = 2, device: str = "cpu") -> Report:
    """Measures a small and a large checkpoint, each on blocks of steps long enough for it to be written.

    The three ways take turns, so that a busy moment of the machine slows all; the first turn warms up.
    """
    load_average = os.getloadavg()[0]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = [_measure_row(*case, repeats, threads, device) for case in (("nano", 160, 8, 24), ("xt", 224, 4, 10))]
    finally:
        torch.set_num_threads(before)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else device
    return Report(repeats, threads, name, torch.__version__, load_average, rows)


def _measure_row(model: str, size: int, batch: int, steps: int, repeats: int, threads: int, device: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, device)
        ways = blocks(loop, Path(folder), steps)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(repeats + 1):
            for way, block in ways.items():
                start = perf_counter()
                block()
                if turn:
                    seconds[way].append(perf_counter() - start)
        megabytes = max(path.stat().st_size for path in Path(folder).glob("*.pt")) / 1e6
    costs = {
        way: median(taken - alone for taken, alone in zip(seconds[way], seconds["without"]))
        for way in ("background", "blocking")
    }
    peaks = {way: _peak_of_a_process(way, model, size, batch, steps, threads, device) for way in ways}
    return Row(
        model, size, megabytes, median(seconds["without"]) / steps, costs["background"], costs["blocking"],
        costs["background"] / DEFAULT_SECONDS, peaks["without"], peaks["background"], peaks["blocking"],
    )  # fmt: skip


def _peak_of_a_process(*arguments: Any) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, arguments)


def _peak(way: str, model: str, size: int, batch: int, steps: int, threads: int, device: str) -> float:
    """MiB: of the GPU where there is one, else of this process."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, size, batch, device)
        block = blocks(loop, Path(folder), steps)[way]
        for _ in range(2):
            block()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    # not getrusage: its peak is inherited from the process that started this one
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 2**10
