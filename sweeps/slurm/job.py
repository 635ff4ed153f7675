"""What a Slurm job does: trains its run, and when it is asked to stop, saves, finds out why, and has itself requeued.

submitit starts it, on every process of the run, from the snapshot of the code. submitit's own handling of signals is
replaced: it takes every job of up to ten minutes for timed out, and would requeue before the state is saved.
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

    cwd: where the launch was, which relative paths in a config are meant from. force: go on with checkpoints of other
    code.
    """

    def __init__(self, folder: Path, cwd: Path, force: bool = False):
        self.folder, self.cwd, self.force = str(folder), str(cwd), force

    def __call__(self) -> None:
        with suppress(OSError):
            os.chdir(self.cwd)
        folder = RunFolder(Path(self.folder))
        job = JobEnvironment()
        with Interrupts() as interrupts:  # a signal that comes before the engine listens is kept for it
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
                return  # where Slurm kills a job for a process that ends badly, the first one must still act
        if code:
            sys.exit(code)

    def _train(self, folder: RunFolder, config: Config, job: JobEnvironment, interrupts: Interrupts) -> tuple[str, int]:
        """How the run, or this attempt at it, ended, and the exit code that says so."""
        from experiments.training.devices import LostContact
        from experiments.training.loop import run

        try:
            if job.global_rank == 0:
                wait_for_stale_claim(folder, interrupts)
            run(folder, force=self.force)
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


def why_interrupted(signal: str, found: Situation | None, restarts: int, signal_seconds: float) -> str:
    """What stands behind a signal: preemption, the time limit, or a person.

    found: what Slurm says of the job, None where it does not answer. restarts: of the job, as this attempt began.
    """
    if found is not None and found.restarts > restarts:
        return attempts.RESTARTED  # Slurm has put it back into the queue by itself
    if found is not None and found.preempted:
        return attempts.PREEMPTED
    if signal not in ("SIGUSR1", "SIGUSR2"):
        return CANCELLED
    far = found is not None and found.seconds_left is not None and found.seconds_left > signal_seconds + SLACK_SECONDS
    return attempts.PREEMPTED if far else attempts.TIMED_OUT  # where it is not known, what has a cap


def wait_for_stale_claim(folder: RunFolder, interrupts: Interrupts) -> None:
    """Waits until a claim of another machine can have expired: this run's last job may have been killed there.

    Raises Interrupted.
    """
    deadline = time.monotonic() + 1.5 * EXPIRES_SECONDS
    while folder.holder() and time.monotonic() < deadline:
        if interrupts.received:
            raise Interrupted(interrupts.received)
        time.sleep(1.0)


def _first_is_gone(job: JobEnvironment) -> bool:
    """Whether nobody has the job queued again, which would end this process; asked of one process after the other."""
    time.sleep(GRACE_SECONDS + ASK_AGAIN_SECONDS * job.global_rank)
    found = situation(job.job_id)
    return found is None or found.restarts == _restarts()


def _go_on(folder: RunFolder, config: Config, job: str, how: str) -> None:
    """Has the job queued again, unless it has reached its limit too often; asks on while the controller is away."""
    spent = attempts.read(folder, job).counts
    times = spent[attempts.TIMED_OUT] + spent[attempts.LOST_CONTACT]
    if how != attempts.PREEMPTED and times > config.slurm.max_timeouts:
        with suppress(SuiteError):
            folder.set_state(INTERRUPTED, cause=f"{how}: job {job} has been requeued {times - 1} times for that")
        return
    for _ in range(ASK_TIMES):
        worked, complaint = requeue(job)
        found = situation(job)
        if worked or (found is not None and found.restarts > _restarts()):
            return
        print(f"cannot requeue: {complaint}", file=sys.stderr, flush=True)
        time.sleep(ASK_AGAIN_SECONDS)


def _set_environment(config: Config, job: JobEnvironment) -> None:
    """What the engine reads from the environment: the process group, and threads."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):  # of the shell that submitted
        os.environ.pop(name, None)
    if job.num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    given = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if threads := config.machine.threads or max(0, given - config.data.workers):
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))
