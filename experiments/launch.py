"""Starts the processes of a run that uses several devices, and ends them together. Must not import torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import NoReturn

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import handle, restore
from experiments.schema import Config

POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0  # for processes to notice that another has ended, and again to end after SIGTERM


def is_launched() -> bool:
    """Whether torchrun, Slurm or this module started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    return int(os.environ.get("RANK", "0")) if is_launched() else 0


def leave(code: int) -> NoReturn:
    """Ends this process. One of several skips torch's clean-up, which can crash when other processes have ended."""
    if is_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def command(folder: RunFolder, other_code: str | None = None, console: bool = False) -> list[str]:
    """The command that trains the frozen run of a folder. other_code: as for ``training.loop.run``."""
    options = [f"--{other_code}"] * bool(other_code) + ["--console"] * console
    return [sys.executable, "-m", "experiments", str(folder.path), *options]


def threads_each(config: Config) -> int | None:
    """CPU threads of every process: ``machine.threads``, or an equal part of the cores for several processes."""
    if config.machine.threads or config.machine.devices == 1:
        return config.machine.threads
    return max(1, len(os.sched_getaffinity(0)) // config.machine.devices)


def environment(config: Config) -> dict[str, str]:
    """This process's environment, with the threads that each process of a run may use."""
    threads = threads_each(config)
    return {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else dict(os.environ)


def train(folder: RunFolder, config: Config, other_code: str | None, console: bool) -> int:
    """Runs ``machine.devices`` processes on this machine and returns the exit code of the run.

    Signals that ask for a stop are passed on. When a process dies, the remaining ones end as soon as they notice; those
    that do not are ended.
    """
    devices = config.machine.devices
    common = {
        **environment(config),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(devices),
    }
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    previous = handle(pass_on)
    try:
        for number in range(devices):
            own = {**common, "RANK": str(number), "LOCAL_RANK": str(number)}
            # in a session of its own, so that Ctrl-C on a terminal reaches it once, through this process
            processes.append(
                subprocess.Popen(command(folder, other_code, console), cwd=ROOT, env=own, start_new_session=True)
            )
        _end_together(processes)
    finally:
        for process in processes:
            process.kill()
        restore(previous)
    codes = [process.returncode for process in processes]
    for number, code in enumerate(codes):
        if code < 0:
            print(f"{folder.id}: process {number} was ended by {signal.Signals(-code).name}", file=sys.stderr)
    return next((code for code in codes if code > 0), 1 if any(codes) else 0)


def _end_together(processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits for all processes. After the first failure, the others get GRACE_SECONDS, then SIGTERM, then SIGKILL."""
    failed_at: float | None = None
    stage = 0
    while None in (codes := [process.poll() for process in processes]):
        now = time.monotonic()
        if failed_at is None and any(codes):
            failed_at = now
        if failed_at is not None and now - failed_at > GRACE_SECONDS * (stage + 1):
            for process in processes:
                process.send_signal(signal.SIGKILL if stage else signal.SIGTERM)
            stage += 1
        time.sleep(POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
