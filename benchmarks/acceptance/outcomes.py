"""What a check of the acceptance is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CheckedDevice:
    """Where and how large: ``tiny`` shapes take seconds on a CPU and say nothing about speed. repeats: timed turns."""

    device_name: str
    tiny: bool
    repeats: int = 1

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


@dataclass(frozen=True)
class CheckResult:
    """One thing that a check found. held: None for a time at tiny shapes, which is not judged."""

    what: str
    held: bool | None
    detail: str


@dataclass(frozen=True)
class Check:
    """``call`` returns what it found; any exception is a missed line, and so is a call of more than ``limit_s``."""

    name: str
    call: Callable[[CheckedDevice], list[CheckResult]]
    limit_s: float = 120.0


def within(what: str, results: list[Tensor], expected: list[Tensor], tolerance: float) -> CheckResult:
    """Whether each result differs from the expected one by at most ``tolerance`` of the largest value (or of 1)."""
    worst = max(distance(a, b) for a, b in zip(results, expected, strict=True))
    return CheckResult(what, worst <= tolerance, f"largest difference {worst:.1e}, at most {tolerance:.1e}")


def distance(result: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value if that is above 1; infinite if a result is not finite."""
    result, expected = result.detach().cpu().double(), expected.detach().cpu().double()
    if not expected.numel():
        return 0.0
    difference = (result - expected).abs().max() / expected.abs().max().clamp(min=1)
    return float(difference.nan_to_num(float("inf")))


def same_bits(what: str, repeats: list[list[Tensor]]) -> CheckResult:
    """Whether all repeats have the same bits."""
    differing = sum(not all(map(torch.equal, repeat, repeats[0])) for repeat in repeats[1:])
    return CheckResult(what, not differing, f"{differing} of {len(repeats) - 1} repeats differ")
