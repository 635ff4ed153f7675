"""The progress bar of a run on a terminal, and the rate that ``status=`` shows."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import output

log = logging.getLogger("experiments")


class Progress:
    """Measures images per second and estimates the time left; shows both in a bar where ``bar`` is set."""

    def __init__(self, steps: int, batch_size: int, bar: bool):
        self.steps, self.batch_size = steps, batch_size
        self._bar: Any = None
        self._task: Any = None
        self._rate = 0.0
        if bar:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps{task.fields[measured]}"),
                console=output.console(),
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=steps, measured="")

    def __enter__(self) -> Progress:
        self._last = time.monotonic()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: int, where: str, loss: float) -> None:
        """Records that ``step`` steps are done. where: text before the bar; loss: mean of the current row."""
        now = time.monotonic()
        rate = self.batch_size / max(now - self._last, 1e-9)
        self._rate = rate if self._rate == 0.0 else 0.95 * self._rate + 0.05 * rate
        self._last = now
        if self._bar:
            left = timedelta(seconds=round(self.left(step) or 0))
            measured = f", loss {loss:.3f}, {self._rate:.0f} img/s, {left} left"
            self._bar.update(self._task, completed=step, description=where, measured=measured)

    def skip(self) -> None:
        """Excludes the time since the last step from the rate, e.g. after an evaluation or a checkpoint."""
        self._last = time.monotonic()

    @property
    def rate(self) -> float:
        return round(self._rate, 1)

    def left(self, step: int) -> float | None:
        """Seconds of training left, without evaluations."""
        return round((self.steps - step) * self.batch_size / self._rate, 1) if self._rate else None


@contextmanager
def image_bar(description: str, images: int) -> Iterator[Callable[[int], None]]:
    """A progress bar over ``images`` on standard error if that is a terminal; yields a function that advances it."""
    from rich.progress import Progress as Bar

    with Bar(console=output.console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(description, total=images)
        yield lambda done: bar.advance(task, done)
