"""How long the runs of a plan take on a number of devices: list scheduling over the graph of its runs. No torch."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A run that is left to do. hours: from its start to its end, on ``devices`` devices; parent: the run it waits for,
    None where that is not left to do."""

    hours: float
    devices: int = 1
    parent: str | None = None


def wall_hours(tasks: Mapping[str, Task], devices: int) -> float:
    """Hours from the first start to the last end, where each run starts as soon as its parent is done and devices are
    free, and of the runs that could start the one first that has the longest chain of runs before it.

    tasks: by run id, each parent before its children; a run of more devices than there are takes all of them.
    """
    chains: dict[str, float] = {}
    for run, task in reversed(list(tasks.items())):
        chains[run] = chains.get(run, 0.0) + task.hours
        if task.parent:
            chains[task.parent] = max(chains.get(task.parent, 0.0), chains[run])
    waiting = sorted(tasks, key=lambda run: -chains[run])
    running: list[tuple[float, int, str]] = []
    done: set[str] = set()
    now, free = 0.0, devices
    while waiting or running:
        for run in list(waiting):
            task = tasks[run]
            needed = min(task.devices, devices)
            if needed <= free and (task.parent is None or task.parent in done):
                waiting.remove(run)
                free -= needed
                heapq.heappush(running, (now + task.hours, needed, run))
        now, needed, run = heapq.heappop(running)
        free += needed
        done.add(run)
    return now
