"""How far a launch on this machine is, and when it will be through: for a terminal, and for a file of its output."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from experiments.folder.run_folder import RunFolder
from sweeps.launches import Launch
from sweeps.status import span, state_of

FIRST_SECONDS, LOG_SECONDS = 20.0, 60.0  # until the first line in a file, and between two of them
LEAST_SECONDS = 5.0  # of work that a time left is estimated from


@dataclass
class LaunchProgress:
    """Called with the ids of the running runs at every poll of a launcher; shows a line on the whole launch, then one
    on each of them.

    seconds: between two showings; 0 shows at every poll. clock: seconds of a clock that only goes forward.
    """

    launch: Launch
    show: Callable[[list[str]], None]
    seconds: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _begun: dict[str, float] = field(default_factory=dict)  # run id → share of its steps when it was first seen
    _start: float | None = None
    _next: float = 0.0

    def __call__(self, running: list[str]) -> None:
        now = self.clock()
        states = {}
        for run in running:
            if run not in self._begun or now >= self._next:
                states[run] = state_of(RunFolder(self.launch.runs_dir / run))
                self._begun.setdefault(run, states[run][2])
        if self._start is None:
            self._start, self._next = now, now + min(self.seconds, FIRST_SECONDS)
        if now < self._next:
            return
        self._next = now + self.seconds
        shares = {run: share for run, (_, _, share) in states.items()}
        self.show([self._line(shares, now - self._start), *(f"{run}: {state[1]}" for run, state in states.items())])

    def _line(self, shares: dict[str, float], elapsed: float) -> str:
        """shares: of the running runs, of their steps; elapsed: seconds since the launch began."""
        total = len(self.launch.runs)
        ended = len(self._begun.keys() - shares.keys())
        worked = ended + sum(shares.values()) - sum(self._begun.values())
        text = f"{self.launch.sweep}: {ended} of {total} runs ended, {len(shares)} running"
        if worked <= 0 or elapsed < LEAST_SECONDS:
            return f"{text}, {span(elapsed)} so far"
        left = (total - ended - sum(shares.values())) * elapsed / worked
        return f"{text}, {span(elapsed)} so far, about {span(left)} left"
