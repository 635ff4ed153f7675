"""Callables that take turns, so that a busy moment of the machine slows all of them, and what they ran on."""

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
LEAST_S, MOST_CALLS = 0.01, 50  # of one turn: what is shorter is called several times in a row
SCRATCH_BYTES = 2**28  # more than any GPU's cache holds


class Disagreement(SuiteError, RuntimeError):
    """Operators that do not compute the same: their times are not compared. Exit code 1."""

    exit_code = 1


@dataclass(frozen=True)
class Circumstances:
    """What every report on torch says of its machine; ``load_average`` is the machine's, before the start."""

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
    """Seconds of one call, a value for each counted turn."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)

    def over(self, peer: Times) -> float:
        """This median over the peer's."""
        return self.median / peer.median

    def fastest_over(self, peer: Times) -> float:
        """The fastest turn over the peer's fastest: the figure to trust when the machine was busy."""
        return self.fastest / peer.fastest


def turns(clocks: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Times]:
    """Calls each in turn, ``repeats`` times and once before to warm up; a call returns the seconds that count.

    Every turn begins with another, so that none always follows the same.
    """
    found: dict[str, list[float]] = {name: [] for name in clocks}
    names = list(clocks)
    for turn in range(repeats + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            seconds = clocks[name]()
            if turn:
                found[name].append(seconds)
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def interleave(calls: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, Times]:
    """Times each call in turn, ``repeats`` times; a first turn warms up and is not counted.

    On a GPU with its own events, each call with cold caches, as it would find them inside a large network.
    """
    return turns({name: Stopwatch(call, device) for name, call in calls.items()}, repeats)


class Stopwatch:
    """Seconds of one call, as the mean of as many as fill ``LEAST_S``. The first use warms up, and counts how many."""

    def __init__(self, call: Callable[[], object], device: torch.device):
        self.call, self.calls = call, 0
        self.measure = self._on_cuda if device.type == "cuda" else self._on_cpu
        self.device = device

    def __call__(self) -> float:
        if self.calls:
            return self.measure(self.calls)
        first = self.measure(1)
        # a call that is compiled or loaded the first time says nothing of the next
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
            # clears the caches, and keeps the GPU busy while the call's first kernels are launched
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
    """``--batch``, ``--image`` and ``--dtype``. batch, least: its default and least; dtype: what has that type."""
    parser.add_argument("--batch", type=at_least(least), default=batch, help="images at a time")
    parser.add_argument("--image", type=at_least(32), default=224, help="height and width in pixels")
    parser.add_argument("--dtype", type=one_of("dtype", DTYPES), default="float32", help=dtype)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """The options that ``circumstances`` reads."""
    parser.add_argument("--threads", type=positive, default=2, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")


@contextmanager
def circumstances(options: argparse.Namespace) -> Iterator[tuple[torch.device, Circumstances]]:
    """Sets torch up as the options say, and puts it back afterwards.

    options: ``repeats``, ``threads``, ``device`` and, where there is one, ``dtype``: beside a half precision, float32
    products may use a GPU's tensor cores, as in training. Raises ConfigError for a device that is not there.
    """
    device = open_device(options.device)
    load_average = os.getloadavg()[0]
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(options.threads)
    if getattr(options, "dtype", "float32") != "float32":
        torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else options.device
    try:
        yield device, Circumstances(options.repeats, options.threads, name, torch.__version__, load_average)
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def open_device(name: str) -> torch.device:
    """The device of that name, which becomes torch's current one. Raises ConfigError where there is none."""
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


def require_same(what: str, one: Tensor, other: Tensor, tolerance: float) -> None:
    """Raises Disagreement where two results of equal shape differ by more than ``tolerance``, or either is not finite.

    The tolerance is absolute for values below 1, and relative to the largest value otherwise.
    """
    one, other = one.detach().float(), other.detach().float()
    largest = max(1.0, float(other.abs().max())) if other.numel() else 1.0
    distance = float((one - other).abs().max()) if other.numel() else 0.0
    if not distance <= tolerance * largest:
        raise Disagreement(f"{what} (by {distance:.2g}, largest value {largest:.2g})")
