"""Timing of callables in turns, so that other work on the machine slows all of them, and the conditions of a run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.choices import at_least, one_of, positive
from errors import ConfigError, SuiteError, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LEAST_S, MOST_CALLS = 0.01, 50  # a short call is repeated within its turn, at most this often, to fill LEAST_S
SCRATCH_BYTES = 2**28  # larger than any GPU's cache


class Disagreement(SuiteError, RuntimeError):
    """Operators with different results, whose times are not compared. Exit code 1."""

    exit_code = 1


@dataclass(frozen=True)
class Conditions:
    """The machine and settings of a benchmark on torch; ``load_average`` is the machine's before the start."""

    repeats: int
    threads: int
    device: str
    torch: str
    load_average: float

    def caption(self) -> str:
        """``7 interleaved turns, 2 threads, torch 2.15, load average before 0.10``."""
        return (
            f"{self.repeats} interleaved turns, {self.threads} threads, torch {self.torch}, "
            f"load average before {self.load_average:.2f}"
        )


@dataclass(frozen=True)
class Times:
    """Seconds of one call, one value per counted turn."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)

    def over(self, peer: Times) -> float:
        """The ratio of this median to the peer's."""
        return self.median / peer.median

    def fastest_over(self, peer: Times) -> float:
        """The ratio of the fastest turn to the peer's fastest, which is more reliable on a busy machine."""
        return self.fastest / peer.fastest


def turns(clocks: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Times]:
    """Calls each clock in turn, once to warm up and then ``repeats`` times. A clock returns the seconds it measured.

    The order rotates from turn to turn, so that no clock always follows the same other one.
    """
    measured: dict[str, list[float]] = {name: [] for name in clocks}
    names = list(clocks)
    for turn in range(repeats + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds = clocks[name]()
            if turn:
                measured[name].append(seconds)
    return {name: Times(tuple(seconds)) for name, seconds in measured.items()}


def interleave(calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, Times]:
    """Times each call in turn, ``repeats`` times. A first turn warms up and is not counted.

    A GPU is timed by its own events, and every call starts with cold caches, as inside a large network.
    """
    return turns({name: Stopwatch(call, device) for name, call in calls.items()}, repeats)


class Stopwatch:
    """Seconds of one call, the mean of enough calls to fill ``LEAST_S``. The first use sets their number."""

    def __init__(self, call: Callable[[], object], device: torch.device):
        self.call, self.calls = call, 0
        self.measure = self._on_cuda if device.type == "cuda" else self._on_cpu
        self.device = device

    def __call__(self) -> float:
        if self.calls:
            return self.measure(self.calls)
        first = self.measure(1)
        # The first call may include compiling or loading, so a second one is timed.
        again = self.measure(1) if self.device.type == "cuda" or first < 1 else first
        self.calls = min(MOST_CALLS, max(1, ceil(LEAST_S / again)))
        return again

    def _on_cpu(self, calls: int) -> float:
        start = perf_counter()
        for _ in range(calls):
            self.call()
        return (perf_counter() - start) / calls

    def _on_cuda(self, calls: int) -> float:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(calls)]
        torch.cuda.synchronize(self.device)
        for start, end in pairs:
            # Clears the caches, and keeps the GPU busy while the first kernels of the call are launched.
            _scratch(self.device).zero_()
            start.record()
            self.call()
            end.record()
        torch.cuda.synchronize(self.device)
        return sum(start.elapsed_time(end) for start, end in pairs) / 1e3 / calls


@cache
def _scratch(device: torch.device) -> Tensor:
    return torch.empty(SCRATCH_BYTES, dtype=torch.int8, device=device)


def add_inputs(parser: argparse.ArgumentParser, batch: int = 8, least: int = 2, dtype: str = "of autocast") -> None:
    """``--batch`` (with its default and least value), ``--image`` and ``--dtype`` (with its help text)."""
    parser.add_argument("--batch", type=at_least(least), default=batch, help="images at a time")
    parser.add_argument("--image", type=at_least(32), default=224, help="height and width in pixels")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help=dtype)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """``--threads`` and ``--device``, which ``conditions`` reads."""
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")


@contextmanager
def conditions(options: argparse.Namespace) -> Iterator[tuple[torch.device, Conditions]]:
    """Sets torch's threads, device and precision by the options, and restores them afterwards.

    options: ``repeats``, ``threads``, ``device`` and, if the benchmark has it, ``dtype``. With half precision, float32
    products may use a GPU's tensor cores, as in training. Raises ConfigError for a device that does not exist.
    """
    device = open_device(options.device)
    load_average = os.getloadavg()[0]
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(options.threads)
    if getattr(options, "dtype", "float32") != "float32":
        torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else options.device
    try:
        yield device, Conditions(options.repeats, options.threads, name, torch.__version__, load_average)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def open_device(name: str) -> torch.device:
    """Makes a device torch's current device and returns it. Raises ConfigError if it does not exist."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    valid = ["cpu", *(["cuda", *gpus] if gpus else [])]
    if name not in valid:
        if name.partition(":")[0] == "cuda":
            raise ConfigError(f"no device {name!r} on this machine (valid: {', '.join(valid)})")
        raise ConfigError(unknown("device", name, valid))
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def require_same(description: str, result: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raises Disagreement if two results of equal shape differ by more than ``tolerance``, or one is not finite.

    The tolerance is absolute if all values are below 1, else relative to the largest value.
    """
    result, expected = result.detach().float(), expected.detach().float()
    largest = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    distance = float((result - expected).abs().max()) if expected.numel() else 0.0
    if not distance <= tolerance * largest:
        raise Disagreement(f"{description} (by {distance:.2g}, largest value {largest:.2g})")
