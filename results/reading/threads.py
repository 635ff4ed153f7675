"""Work in threads: reading, hashing, parsing and copying leave Python's lock, so threads share both work and memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

MOST = 8  # beyond, Python's lock is what they wait for
Given = TypeVar("Given")
Made = TypeVar("Made")


def workers() -> int:
    """Processors that this process may use, MOST at most."""
    try:
        return min(MOST, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on Linux
        return min(MOST, os.cpu_count() or 1)


def in_threads(work: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
    """What ``work`` makes of each, in order."""
    if len(given) < 2 or workers() < 2:
        return [work(one) for one in given]
    with ThreadPoolExecutor(min(workers(), len(given))) as threads:
        return list(threads.map(work, given))
