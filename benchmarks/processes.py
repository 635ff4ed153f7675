"""Measurements in a process of their own, and the memory of a process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import torch

from errors import RunFailed

Value = TypeVar("Value")


def alone(function: Callable[..., Value], *arguments: Any) -> Value:
    """What ``function`` returns in a fresh process, whose memory nothing before it has touched.

    Raises RunFailed where that process ends before, as for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            said = ", ".join(map(str, arguments))
            raise RunFailed(f"the process that measures {said} ended before it was through: out of memory?") from None


def peak_mib(device: torch.device | str) -> float:
    """The most memory so far: allocated on the GPU where ``device`` is one, else resident of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # not getrusage: its peak is inherited from the process that started this one
    return _status("VmHWM")


def memory_mib(device: torch.device | str) -> float:
    """The memory now, as ``peak_mib``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    return _status("VmRSS")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 2**10
