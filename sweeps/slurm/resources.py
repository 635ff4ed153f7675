"""The resources that a run requests: from its config to sbatch parameters, checked against the cluster's limits."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import Any

from errors import ConfigError, unknown
from experiments.schema import Config
from sweeps.slurm.cluster import Limits, SlurmError

# sbatch options that the suite sets, and the setting to use instead
TAKEN = {
    "partition": "slurm.partition",
    "account": "slurm.account",
    "qos": "slurm.qos",
    "constraint": "slurm.constraint",
    "nodes": "slurm.nodes",
    "ntasks-per-node": "machine.devices",
    "gpus-per-node": "slurm.gpus_per_node",
    "cpus-per-task": "slurm.cpus_per_task",
    "mem": "slurm.mem_gb",
    "time": "slurm.time_minutes",
    "signal": "slurm.signal_seconds",
    **dict.fromkeys(("array", "chdir", "dependency", "error", "export", "job-name", "open-mode", "output"), ""),
    **dict.fromkeys(("clusters", "no-requeue", "ntasks", "parsable", "requeue", "test-only", "wait", "wrap"), ""),
    "kill-on-invalid-dep": "",
}
# options of sbatch in their own right, though a name above begins with theirs
NO_ABBREVIATIONS = ("gpus",)


@dataclass(frozen=True)
class Resources:
    """Runs with equal resources may share a job array."""

    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    mem_gb: float | None
    time_minutes: int
    signal_seconds: int
    python: tuple[str, ...]  # words of the command that starts it; empty: the Python of the launch
    setup: tuple[str, ...]
    options: tuple[str, ...]

    @classmethod
    def of(cls, config: Config) -> Resources:
        slurm, machine = config.slurm, config.machine
        tasks = machine.devices // slurm.nodes
        gpus = slurm.gpus_per_node if slurm.gpus_per_node is not None else (0 if machine.device == "cpu" else tasks)
        return cls(
            partition=slurm.partition,
            account=slurm.account,
            qos=slurm.qos,
            constraint=slurm.constraint,
            nodes=slurm.nodes,
            tasks_per_node=tasks,
            gpus_per_node=gpus,
            cpus_per_task=slurm.cpus_per_task or (machine.threads or 1) + config.data.workers,
            mem_gb=slurm.mem_gb,
            time_minutes=slurm.time_minutes,
            signal_seconds=slurm.signal_seconds,
            python=_words(slurm.python or ""),
            setup=tuple(slurm.setup),
            options=tuple(slurm.options),
        )

    def on_one_device(self, minutes: int) -> Resources:
        """Of a short job with one process, which takes at most so long."""
        return replace(
            self,
            nodes=1,
            tasks_per_node=1,
            gpus_per_node=min(1, self.gpus_per_node),
            time_minutes=min(minutes, self.time_minutes),
            signal_seconds=min(30, self.signal_seconds),
        )

    def parameters(self) -> dict[str, Any]:
        """As submitit's SlurmExecutor takes them."""
        return {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus_per_node or None,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{round(1024 * self.mem_gb)}M" if self.mem_gb is not None else None,
            "time": self.time_minutes,
            "signal_delay_s": self.signal_seconds,
            "setup": list(self.setup) or None,
            # since Slurm 22.05, srun does not inherit cpus-per-task from the batch script; when one process of several
            # dies, the others requeue the job
            "srun_args": [f"--cpus-per-task={self.cpus_per_task}", "--export=ALL", "--kill-on-bad-exit=0"],
            "wckey": None,  # submitit's default is refused where work keys are enforced
            "additional_parameters": {
                "requeue": True,
                "signal": f"USR2@{self.signal_seconds}",  # whatever SUBMITIT_PREEMPT_SIGNAL is
                **_options(self.options),
            },
        }

    def check(self, limits: Limits) -> None:
        """Raises SlurmError or ConfigError for resources that the cluster would refuse, or never grant."""
        _options(self.options)
        for name in (self.partition or "").split(",") if self.partition else self._default(limits):
            if name not in limits.partitions:
                raise SlurmError(f"slurm.partition: {unknown('partition', name, limits.partitions)}")
            partition = limits.partitions[name]
            if not partition.up:
                raise SlurmError(f"slurm.partition={name}: the partition is not up")
            most = partition.max_minutes
            if most is not None and self.time_minutes > most:
                raise SlurmError(
                    f"slurm.time_minutes={self.time_minutes}: partition {name} allows {most:.0f}; a run takes as many "
                    "jobs as it needs"
                )

    def _default(self, limits: Limits) -> list[str]:
        names = [partition.name for partition in limits.partitions.values() if partition.default]
        if not names:
            valid = ", ".join(sorted(limits.partitions))
            raise SlurmError(f"the cluster has no default partition: set slurm.partition to one of {valid}")
        return names


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"slurm.python={command}: not a command of a shell: {error}") from None


def _options(options: tuple[str, ...]) -> dict[str, Any]:
    """``--key=value`` or ``--flag`` words as sbatch parameters."""
    parsed: dict[str, Any] = {}
    for option in options:
        match = re.fullmatch(r"--([a-z][a-z-]*)(?:=(.+))?", option)
        if not match:
            raise ConfigError(f"slurm.options: {option!r} is not of the form --option=value or --option")
        # sbatch takes the beginning of a name for the whole
        meant = [
            name
            for name in TAKEN
            if name == match[1] or (name.startswith(match[1]) and match[1] not in NO_ABBREVIATIONS)
        ]
        if meant:
            instead = f"; set {TAKEN[meant[0]]}" if TAKEN[meant[0]] else ""
            raise ConfigError(f"slurm.options: {option!r}: --{meant[0]} is set by the suite itself{instead}")
        parsed[match[1]] = match[2] if match[2] is not None else True
    return parsed
