"""A Slurm job: it trains its run and, when it is asked to stop, saves the state, determines why, and requeues itself.

submitit starts it in every process of the run, from the run's copy of the code. submitit's own handling of signals is
replaced: it counts every job of up to ten minutes as timed out, and would requeue before the state is saved.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import Checkpointable, TorchDistributedEnvironment

from errors import SuiteError
from experiments.config import from_dict, read_yaml
from experiments.folder.claim import EXPIRES_SECONDS
from experiments.folder.run_folder import RunFolder
from experiments.interrupts import Interrupted, Interrupts
from experiments.schema import Config
from run_format import CANCELLED, DONE, FAILED, INTERRUPTED
from sweeps.slurm import attempts
from sweeps.slurm.cluster import Situation, requeue, situation

GRACE_SECONDS = 15.0  # for the first process of several to act
SLACK_SECONDS = 90.0  # Slurm's signal may come a minute early
ASK_AGAIN_SECONDS = 5.0
ASK_TIMES = 60


class TrainRun(Checkpointable):  # type: ignore[misc]
    """Trains the frozen run of a folder within a job.

    cwd: working directory of the launch, which relative paths in a config refer to. other_code: as for
    ``experiments.training.loop.run``.

    A launch pickles it for the run's copy of the code, which may be older: attributes are added, but never renamed.
    """

    def __init__(self, folder: Path, cwd: Path, other_code: str | None = None):
        self.folder, self.cwd, self.other_code = str(folder), str(cwd), other_code

    def __call__(self) -> None:
        with suppress(OSError):
            os.chdir(self.cwd)
        folder = RunFolder(Path(self.folder))
        job = JobEnvironment()
        with Interrupts() as interrupts:  # a signal that comes before training handles it is kept
            config = folder.config()
            _set_environment(config, job)
            if job.global_rank == 0:
                attempts.started(folder, job.job_id, _restarts(), job.hostname)
            how, code = self._train(folder, config, job, interrupts)
            if job.global_rank == 0 or (how == attempts.LOST_CONTACT and _first_is_gone(job)):
                attempts.ended(folder, job.job_id, how)
                if how in (attempts.PREEMPTED, attempts.TIMED_OUT, attempts.LOST_CONTACT):
                    _go_on(folder, config, job.job_id, how)
            elif how != FAILED:
                return  # Slurm may kill a job when a process fails, but the first process must still act
        if code:
            sys.exit(code)

    def _train(self, folder: RunFolder, config: Config, job: JobEnvironment, interrupts: Interrupts) -> tuple[str, int]:
        """How the run, or this attempt at it, ended, and the exit code that says so."""
        from experiments.training.devices import LostContact
        from experiments.training.loop import run

        try:
            if job.global_rank == 0:
                wait_for_stale_claim(folder, interrupts)
            run(folder, other_code=self.other_code)
        except Interrupted as asked:
            why = why_interrupted(str(asked), situation(job.job_id), _restarts(), config.slurm.signal_seconds)
            return why, asked.exit_code
        except LostContact as error:
            print(error, file=sys.stderr, flush=True)
            return attempts.LOST_CONTACT, error.exit_code
        except SuiteError as error:
            print(error, file=sys.stderr, flush=True)
            return FAILED, error.exit_code
        return DONE, 0


class TimeRun(Checkpointable):  # type: ignore[misc]
    """Times the set-up of a frozen config within a job and writes the rate (``sweeps.probe``)."""

    def __init__(self, config: Path, out: Path, cwd: Path):
        self.config, self.out, self.cwd = str(config), str(out), str(cwd)

    def __call__(self) -> None:
        with suppress(OSError):
            os.chdir(self.cwd)
        _set_environment(from_dict(read_yaml(Path(self.config))), JobEnvironment())
        from sweeps.probe import main

        if code := main([self.config, self.out]):
            sys.exit(code)


def why_interrupted(signal: str, circumstances: Situation | None, restarts: int, signal_seconds: float) -> str:
    """The cause of a signal: preemption, the time limit, or a person.

    circumstances: of the job, None where Slurm does not answer. restarts: of the job when this attempt began.
    """
    if circumstances is not None and circumstances.restarts > restarts:
        return attempts.RESTARTED  # Slurm has requeued it by itself
    if circumstances is not None and circumstances.preempted:
        return attempts.PREEMPTED
    if signal not in ("SIGUSR1", "SIGUSR2"):
        return CANCELLED
    left = circumstances.seconds_left if circumstances is not None else None
    far = left is not None and left > signal_seconds + SLACK_SECONDS
    return attempts.PREEMPTED if far else attempts.TIMED_OUT  # where unknown, the one whose number is limited


def wait_for_stale_claim(folder: RunFolder, interrupts: Interrupts) -> None:
    """Waits until a claim of another machine has expired, since the last job of this run may have been killed there.

    Raises Interrupted.
    """
    deadline = time.monotonic() + 1.5 * EXPIRES_SECONDS
    while folder.holder() and time.monotonic() < deadline:
        if interrupts.received:
            raise Interrupted(interrupts.received)
        time.sleep(1.0)


def _first_is_gone(job: JobEnvironment) -> bool:
    """Whether no other process has requeued the job, which would end this process; the processes ask in turn."""
    time.sleep(GRACE_SECONDS + ASK_AGAIN_SECONDS * job.global_rank)
    now = situation(job.job_id)
    return now is None or now.restarts == _restarts()


def _go_on(folder: RunFolder, config: Config, job: str, how: str) -> None:
    """Requeues the job unless it has reached its limit too often; repeats the request while the controller is away."""
    spent = attempts.read(folder, job).counts
    times = spent[attempts.TIMED_OUT] + spent[attempts.LOST_CONTACT]
    if how != attempts.PREEMPTED and times > config.slurm.max_timeouts:
        with suppress(SuiteError):
            folder.set_state(INTERRUPTED, cause=f"{how}: job {job} has been requeued {times - 1} times for that")
        return
    for _ in range(ASK_TIMES):
        worked, complaint = requeue(job)
        now = situation(job)
        if worked or (now is not None and now.restarts > _restarts()):
            return
        print(f"cannot requeue: {complaint}", file=sys.stderr, flush=True)
        time.sleep(ASK_AGAIN_SECONDS)


def _set_environment(config: Config, job: JobEnvironment) -> None:
    """Sets the variables that training reads: those of the process group, and the number of threads."""
    for name in (
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
    ):  # of the shell that submitted the job
        os.environ.pop(name, None)
    if job.num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    given = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if threads := config.machine.threads or max(0, given - config.data.workers):
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
