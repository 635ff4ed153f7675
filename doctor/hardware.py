"""Checks the processor, memory and limits, the GPUs, and the sampling code that they can execute."""

from __future__ import annotations

import os
import resource
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from ask_program import ask
from doctor.finding import ABSENT, OK, PROBLEM, TO_INSTALL, WARNING, CheckInputs, Finding, gigabytes

LEAST_MEMORY, LEAST_SHARED_MEMORY, LEAST_OPEN_FILES = 2 * 10**9, 10**9, 1024


def machine(inputs: CheckInputs) -> Iterator[Finding]:
    yield Finding("cores", OK, f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable by this process")
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(memory[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    shm = os.statvfs("/dev/shm")  # noqa: S108 (loader processes put their batches there)
    shared = shm.f_bavail * shm.f_frsize
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name, sufficient, message, advice in (
        ("memory", available >= LEAST_MEMORY, f"{gigabytes(available)} of {gigabytes(total)} available",
         "end other programs, or take a smaller train.batch_size and fewer data.workers"),
        ("shared memory", shared >= LEAST_SHARED_MEMORY, f"{gigabytes(shared)} free in /dev/shm",
         "give the container more, e.g. docker run --shm-size=2g, or set data.workers=0"),
        ("open files", files >= LEAST_OPEN_FILES, f"{files:,} at a time",
         f"ulimit -n {4 * LEAST_OPEN_FILES} before starting runs: loader processes share batches as files"),
    ):  # fmt: skip
        yield Finding(name, OK if sufficient else WARNING, message, advice)


def gpu(inputs: CheckInputs) -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation also raises OSError and others
        advice = TO_INSTALL if isinstance(error, ModuleNotFoundError) else "pip install --force-reinstall torch"
        yield Finding("gpu", PROBLEM, f"torch cannot be imported: {error}", advice)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    warned = f"; torch warns: {caught[0].message}" if caught else ""
    build = f"torch {torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"
    if not count:
        yield _no_gpu(build, torch.version.cuda is not None, warned)
    else:
        advice = "update the driver, or take another torch build"
        yield Finding("gpu", WARNING if warned else OK, f"{count}; {build}{warned}", advice)
        yield from map(_device, range(count))
    yield _distributed(count)


def sampler(inputs: CheckInputs) -> Iterator[Finding]:
    """Whether the fast sampling code works on this machine. Its kernels are compiled at the first call."""
    try:
        import torch

        from atm import sampling
    except Exception:  # reported by the check of the GPU
        return
    advices = {"cpu": "install g++, or name another C++ compiler in CXX: sampling is several times slower without one"}
    if torch.cuda.is_available():
        advices["cuda"] = "take a torch build that includes Triton: sampling is several times slower without it"
    for device, advice in advices.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            message = sampling.describe(device)
        slow = sampling.backend_for(device) == "eager" or caught
        yield Finding(f"sampler, {device}", WARNING if slow else OK, message, advice)


def _no_gpu(build: str, with_cuda: bool, warned: str) -> Finding:
    """Why torch sees no GPU: there is none, or something prevents its use."""
    succeeded, answer = ask("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
    if not succeeded or not answer:
        verdict, why = (WARNING, f"; nvidia-smi: {answer}") if shutil.which("nvidia-smi") else (ABSENT, "")
        advice = "nothing, unless this machine has one: then check its driver"
        return Finding("gpu", verdict, f"none: runs go on the CPU; {build}{why}", advice)
    if not with_cuda:
        advice = "install a torch build with CUDA (pytorch.org, Get started)"
    elif not warned and "CUDA_VISIBLE_DEVICES" in os.environ:
        advice = "unset CUDA_VISIBLE_DEVICES"
    else:
        advice = "update the driver, or take a torch build for an older CUDA; in a container, start it with its GPUs"
    return Finding("gpu", PROBLEM, f"nvidia-smi shows {answer}; {build} sees none{warned}", advice)


def _device(index: int) -> Finding:
    """Checks one GPU with a small computation."""
    import torch

    try:
        with torch.cuda.device(index):
            properties = torch.cuda.get_device_properties(index)
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            torch.ones(8, device="cuda").sum().item()
    except RuntimeError as error:
        advice = "see in nvidia-smi whether another process uses it; else take a torch build made for this GPU"
        return Finding(f"gpu {index}", PROBLEM, f"cannot compute: {str(error).splitlines()[0]}", advice)
    message = f"{properties.name}, {gigabytes(properties.total_memory)}, {'' if bfloat16 else 'no '}bfloat16"
    return Finding(f"gpu {index}", OK if bfloat16 else WARNING, message, "set train.precision=float16, or float32")


def _distributed(gpus: int) -> Finding:
    """Whether ``devices=N``, several processes per run, can be used."""
    import torch.distributed as dist

    available = [backend for backend in ("gloo", "nccl") if dist.is_available() and dist.is_backend_available(backend)]
    if missing := {"gloo", "nccl" if gpus > 1 else "gloo"} - set(available):
        message = f"this torch has no {' and no '.join(sorted(missing))}, which devices=N needs"
        return Finding("distributed", WARNING, message, "install another torch build, or keep to devices=1")
    where = f"on GPUs up to devices={gpus}" if gpus else "on the CPU"
    return Finding("distributed", OK, f"{' and '.join(available)}: devices=N can be used, {where}")
