"""The processes that train a run together, one per device, and how they agree. A single one communicates nothing."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from atm import sampling
from atm.sampling.backends import unavailable
from errors import ConfigError, RunFailed, SuiteError
from experiments.launch import is_launched
from experiments.schema import Config
from experiments.training.batch_norm import synchronise

Value = TypeVar("Value")
log = logging.getLogger("experiments")
FAILURE = "failure"  # key of the shared store under which a process says why it ends


class LostContact(RunFailed):
    """Another process of the run died or hangs; the run can be started again from its last checkpoint."""


class Group:
    """The processes of a run, numbered by rank; rank 0 writes the run folder.

    Small decisions (losses, signals) travel over gloo on the CPU, gradients over NCCL where the devices are GPUs.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0):
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, values: list[float]) -> NDArray[np.float64]:
        """[size, len(values)], the values of every process, the same on all of them."""
        if self.size == 1:
            return np.array([values])
        own = torch.tensor(values, dtype=torch.float64)
        everyones = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(everyones, own)
        return torch.stack(everyones).numpy()

    def gather_objects(self, value: Value) -> list[Value]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        everyones: list[Any] = [None] * self.size
        dist.all_gather_object(everyones, value)
        return everyones

    def first_does(self, action: Callable[[], Value]) -> Value:
        """Runs ``action`` on rank 0 only. Every process returns its value, or raises the SuiteError that it raised."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = action()
            except SuiteError as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]  # type: ignore[no-any-return]

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """``model`` with its gradients averaged over all processes during backward."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    def share_statistics(self, model: nn.Module) -> None:
        """Lets every batch norm of ``model`` see the whole batch; its weights keep their names."""
        if self.size > 1:
            synchronise(model)

    def report_failure(self, cause: str) -> None:
        """Records why this process ends, for the others, which only notice that it is gone."""
        if self.size > 1 and dist.is_initialized():
            with suppress(RuntimeError):
                dist.distributed_c10d._get_default_store().set(FAILURE, cause)

    def lost_contact(self, error: Exception) -> bool:
        """Whether torch raised ``error`` because another process is gone or does not answer."""
        return (
            self.size > 1
            and isinstance(error, RuntimeError)
            and (isinstance(error, dist.DistError) or "gloo" in str(error) or "pair closure" in str(error))
        )

    def reported_failure(self) -> str | None:
        """Why another process ended, where it recorded that."""
        if self.size > 1 and dist.is_initialized():
            with suppress(RuntimeError):
                store = dist.distributed_c10d._get_default_store()
                if store.check([FAILURE]):
                    return store.get(FAILURE).decode()  # type: ignore[no-any-return]
        return None


class Alone(Group):
    """The first of ``size`` processes without the others, to time its share; it takes its own values for theirs."""

    def __init__(self, size: int):
        super().__init__(0, size)

    def gather(self, values: list[float]) -> NDArray[np.float64]:
        return np.array([values] * self.size)

    def gather_objects(self, value: Value) -> list[Value]:
        return [value] * self.size

    def first_does(self, action: Callable[[], Value]) -> Value:
        return action()

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        return model

    def share_statistics(self, model: nn.Module) -> None:
        pass


@contextmanager
def joined(config: Config) -> Iterator[Group]:
    """Joins the process group where torchrun, Slurm or ``experiments.launch`` started several processes.

    The others notice a process that dies at once, and one that hangs after ``machine.timeout_minutes``.
    Raises LostContact where not all of them join in time.
    """
    if not is_launched():
        yield Group()
        return
    group = Group(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    gpus = config.machine.device != "cpu" and torch.cuda.is_available()
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            rank=group.rank,
            world_size=group.size,
            timeout=timedelta(minutes=config.machine.timeout_minutes),
        )
    except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
        raise LostContact(f"the {group.size} processes did not meet: {str(error).splitlines()[0]}") from None
    try:
        yield group
    finally:
        dist.destroy_process_group()


def prepare(config: Config, group: Group) -> torch.device:
    """Sets torch up as the config says and returns this process's device.

    Raises ConfigError where the device does not exist, where there are fewer devices than processes, or where the
    configured sampler does not run on it.
    """
    machine = config.machine
    if machine.threads:
        torch.set_num_threads(machine.threads)
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if config.train.precision != "float32":
        torch.set_float32_matmul_precision("high")  # float32 operations may use tensor cores, too
    name = machine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if group.size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise ConfigError(f"machine.device={name} is one device, and there are {group.size} processes: give cuda")
        if group.local_rank >= torch.cuda.device_count():
            raise ConfigError(f"{group.size} processes, but {torch.cuda.device_count()} GPUs on this machine")
        name = f"cuda:{group.local_rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"machine.device={machine.device}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _choose_sampler(machine.sampler, device)
    return device


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """In which a model computes with this precision (``train.precision``)."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, getattr(torch, precision))


def _choose_sampler(name: str, device: torch.device) -> None:
    """Selects the sampling backend of this process. Several processes may compile its kernels here at once.

    Warnings about what ``auto`` had to do without become lines of the log.
    """
    if reason := unavailable(name, device.type):
        raise ConfigError(f"machine.sampler={name} cannot run here: {reason.splitlines()[0]}")
    sampling.use(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampling.backend_for(device.type)
    for warning in caught:
        log.warning(str(warning.message))
