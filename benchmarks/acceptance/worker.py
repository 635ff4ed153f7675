"""A process that runs checks one after the other. One that hangs or dies misses its line; a new process goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection

from benchmarks.acceptance.outcomes import Check, CheckedDevice, CheckResult


class Worker:
    """environment: variables of the process, besides this one's. The process starts with the first check."""

    def __init__(self, environment: Mapping[str, str]):
        self.environment = dict(environment)
        self.process: multiprocessing.process.BaseProcess | None = None

    def run(self, check: Check, place: CheckedDevice, limit_s: float) -> list[CheckResult]:
        """What a check found; one missed line in one sentence if it raises an exception, dies or takes too long."""
        if self.process is None:
            self._start()
        missed = None
        try:
            self.connection.send((check, place))
            if self.connection.poll(limit_s):
                outcomes, missed = self.connection.recv()
            else:
                missed = f"it took longer than {limit_s:.0f} s"
        except (EOFError, OSError):
            missed = "its process died"
        if missed is None:
            return outcomes
        self.close()  # after an error on a GPU, a process can do nothing more
        return [CheckResult("", False, missed)]

    def close(self) -> None:
        """Ends the process and those that it started."""
        if self.process is not None and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()  # if it has no group of its own yet
            self.process.join()
        self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            self.process = context.Process(target=_work, args=(theirs,))
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()


def _work(connection: Connection) -> None:
    os.setsid()
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            check, place = connection.recv()
            try:
                connection.send((check.call(place), None))
            except Exception as error:
                traceback.print_exc()
                message = (str(error).strip().splitlines() or [""])[0]
                connection.send((None, f"{type(error).__name__}: {message}"))
