"""Signals that ask a run to stop: they set a flag, and the run saves its state at the next step boundary."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
Handler = Callable[[int, FrameType | None], None]


class Interrupted(Exception):
    """The run was asked to stop and has saved its state."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 130 if number == signal.SIGINT else 143


def handle(handler: Handler, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> dict[signal.Signals, Any]:
    """Makes ``handler`` answer the signals that ask for a stop; returns the handlers before, for ``restore``.

    A closed terminal (SIGHUP) is one of them, unless this process was started to outlive it, e.g. by nohup.
    """
    hears = [each for each in signals if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in hears}


def restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Interrupts:
    """While entered, remembers the first signal that asks for a stop; a second Ctrl-C stops at once.

    Within another ``Interrupts``, it starts with the signal that the outer one has received.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> Interrupts:
        self._previous = handle(self._note)
        outer = getattr(self._previous[signal.SIGTERM], "__self__", None)
        if isinstance(outer, Interrupts):
            self.received = self.received or outer.received
        return self

    def __exit__(self, *_: object) -> None:
        restore(self._previous)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number


def ignore_in_worker(_: int = 0) -> None:
    """Makes a loader worker ignore signals: the run receives them, too, and ends its workers when it stops."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
