"""Processes of runs that need not import torch, which takes a new one five seconds: forks of one that has imported it.

A fork is a process like any other: it is killed, stopped and waited for. It differs from a new one before the run begins,
and in that all forks hash strings alike.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from experiments.config import ROOT

RUN = [sys.executable, "-m", "experiments"]
PRELOADED = ("experiments.training.loop", "experiments.tasks.detection", "experiments.tasks.segmentation")


class Fork:
    """``python -m experiments WORDS``, with the methods of ``subprocess.Popen``."""

    def __init__(self, words: list[str]):
        self.args = [*RUN, *words]
        self.returncode: int | None = None
        self._said = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 (closed with this)
        self.pid: int = _ask({"start": words, "environment": dict(os.environ)}, [file.fileno() for file in self._said])

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has written to standard output and standard error."""
        self.wait(timeout)
        for file in self._said:
            file.seek(0)
        out, err = (file.read() for file in self._said)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def processor_seconds() -> float:
    """Of all forks that have been waited for."""
    return float(_ask({"seconds": True})) if _server.cache_info().currsize else 0.0


def _ask(question: dict[str, Any], files: list[int] | None = None) -> Any:
    connection = _server()
    socket.send_fds(connection, [json.dumps(question).encode()], files or [])
    return json.loads(connection.recv(1024))


@functools.cache
def _server() -> socket.socket:
    """The connection to the process that has imported torch; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # a process with threads cannot be forked
    server = subprocess.Popen(
        [sys.executable, "-m", __name__, str(theirs.fileno())],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


class _Forking(subprocess.Popen):  # type: ignore[type-arg]
    """Starts a process of a run as a fork of this process; the processes of several devices, too, since it is inherited."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, **options: Any):
        if command[: len(RUN)] == RUN:
            options["preexec_fn"] = functools.partial(_become_a_run, command[len(RUN) :], env or dict(os.environ))
        super().__init__(command, env=env, **options)


def _become_a_run(words: list[str], environment: dict[str, str]) -> None:
    """What ``python -m experiments WORDS`` does; never returns."""
    code: object = 1
    try:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(environment)
        if "RANK" in environment:  # the environment that /proc shows is that of the first process
            Path("/proc/self/comm").write_text(f"RANK={environment['RANK']}")
        random.seed()
        sys.modules["numpy"].random.seed()
        sys.argv[1:] = words
        runpy.run_module("experiments", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _serve(connection: socket.socket) -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    subprocess.Popen = _Forking  # type: ignore[misc]
    processes: dict[int, _Forking] = {}
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 16, 2)
        if not message:
            break
        question = json.loads(message)
        if "start" in question:
            command, environment = [*RUN, *question["start"]], question["environment"]
            process = _Forking(command, environment, stdout=files[0], stderr=files[1])
            processes[process.pid] = process
            answer: Any = process.pid
        elif "poll" in question:
            answer = processes[question["poll"]].poll()
        else:
            answer = sum(os.times()[2:4])
        for file in files:
            os.close(file)
        connection.send(json.dumps(answer).encode())
    for process in processes.values():
        process.kill()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
