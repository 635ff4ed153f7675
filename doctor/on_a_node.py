"""The same checks on a node of the cluster, which may have other packages, disks and devices than a login node."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

from doctor.examination import parse_inputs
from doctor.finding import ROOT
from experiments.config import merge, resolve, site_settings
from sweeps.slurm.batches import python_command
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.resources import Resources

MINUTES = 10  # time limit of a job that takes less than one


def examine_on_a_node(words: Sequence[str], *, as_json: bool) -> int:
    """Runs the doctor in a job as the runs of this site are: its partition, set-up lines, Python and one device.

    Waits in the queue; what the node's doctor says comes to this terminal. words: of the command line. Returns the exit
    code: that of the node's doctor, or of an srun that is refused. Raises ConfigError or SlurmError before.
    """
    command = job(words, as_json=as_json)
    print(f"run.py: on a node, once one is free: {shlex.join(command[:-1])} …", file=sys.stderr, flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SBATCH_", "SLURM_JOB"))}
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode


def job(words: Sequence[str], *, as_json: bool) -> list[str]:
    """The call of srun. Raises ConfigError or SlurmError for what the cluster would refuse."""
    inputs = parse_inputs(list(words))
    config = (
        resolve(inputs.experiment, inputs.overrides, site=inputs.site)
        if inputs.experiment
        else merge(site_settings(inputs.site, ""), {"data.workers": 0})
    )
    resources = Resources.of(config).on_one_device(MINUTES)
    resources.check(Cluster().limits())
    doctor = shlex.join([str(ROOT / "run.py"), "doctor", *words, *(["--json"] if as_json else [])])
    return [
        "srun",
        *_options(resources),
        "bash",
        "-c",
        "\n".join([*resources.setup, f"exec {python_command(resources.python)} {doctor}"]),
    ]


def _options(resources: Resources) -> Iterator[str]:
    given = resources.parameters()
    values = {
        "job-name": "doctor",
        "nodes": 1,
        "ntasks": 1,
        "time": resources.time_minutes,
        "cpus-per-task": resources.cpus_per_task,
        **{name: given[name] for name in ("partition", "account", "qos", "constraint", "mem")},
        "gpus-per-node": given["gpus_per_node"],
        **{name: value for name, value in given["additional_parameters"].items() if name not in ("requeue", "signal")},
    }
    for name, value in values.items():
        if value is not None:
            yield f"--{name}" if value is True else f"--{name}={value}"
