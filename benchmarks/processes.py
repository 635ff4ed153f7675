"""Calls in a new process, and the memory of a process."""

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


def in_new_process(function: Callable[..., Value], *arguments: Any) -> Value:
    """Calls ``function`` in a new process, so that nothing else has used its memory, and returns the result.

    Raises RunFailed if that process dies, for example because memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            described = ", ".join(map(str, arguments))
            raise RunFailed(f"the process that measures {described} died: out of memory?") from None


def peak_mib(device: torch.device | str) -> float:
    """The peak memory so far: allocated on the GPU if ``device`` is one, else resident memory of this process."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # getrusage is not used, because its peak includes that of the process that started this one.
    return _status("VmHWM")


def memory_mib(device: torch.device | str) -> float:
    """The memory in use now, of the same kind as ``peak_mib``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    return _status("VmRSS")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 2**10
