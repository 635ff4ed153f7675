"""How long the runs of a plan take on a number of devices: list scheduling over the graph of its runs. No torch."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LeftRun:
    """A run that is left to do. hours: from its start to its end, on ``devices`` devices; parent: the run it waits for,
    None where that is not left to do."""

    hours: float
    devices: int = 1
    parent: str | None = None


def wall_hours(runs: Mapping[str, LeftRun], devices: int) -> float:
    """Hours from the first start to the last end, where each run starts as soon as its parent is done and devices are
    free, and of the runs that could start the one first on which the longest chain of runs waits.

    runs: by run id, each parent before its children; a run of more devices than there are takes all of them.
    """
    chains: dict[str, float] = {}
    for run, left in reversed(list(runs.items())):
        chains[run] = chains.get(run, 0.0) + left.hours
        if left.parent:
            chains[left.parent] = max(chains.get(left.parent, 0.0), chains[run])
    waiting = sorted(runs, key=lambda run: -chains[run])
    running: list[tuple[float, int, str]] = []
    done: set[str] = set()
    now, free = 0.0, devices
    while waiting or running:
        for run in list(waiting):
            left = runs[run]
            needed = min(left.devices, devices)
            if needed <= free and (left.parent is None or left.parent in done):
                waiting.remove(run)
                free -= needed
                heapq.heappush(running, (now + left.hours, needed, run))
        now, needed, run = heapq.heappop(running)
        free += needed
        done.add(run)
    return now
