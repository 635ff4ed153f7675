"""Processor, memory and limits, GPUs, and what samples on them."""

from __future__ import annotations

import os
import resource
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from ask_program import ask
from doctor.finding import ABSENT, OK, PROBLEM, TO_INSTALL, WARNING, Asked, Finding, size

LEAST_MEMORY, LEAST_SHARED_MEMORY, LEAST_OPEN_FILES = 2 * 10**9, 10**9, 1024


def machine(asked: Asked) -> Iterator[Finding]:
    yield Finding("cores", OK, f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} usable by this process")
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(memory[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    shm = os.statvfs("/dev/shm")  # noqa: S108 (where loader processes put their batches)
    shared = shm.f_bavail * shm.f_frsize
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    for name, enough, found, advice in (
        ("memory", available >= LEAST_MEMORY, f"{size(available)} of {size(total)} available",
         "end other programs, or take a smaller train.batch_size and fewer data.workers"),
        ("shared memory", shared >= LEAST_SHARED_MEMORY, f"{size(shared)} free in /dev/shm",
         "give the container more, e.g. docker run --shm-size=2g, or set data.workers=0"),
        ("open files", files >= LEAST_OPEN_FILES, f"{files:,} at a time",
         f"ulimit -n {4 * LEAST_OPEN_FILES} before starting runs: loader processes share batches as files"),
    ):  # fmt: skip
        yield Finding(name, OK if enough else WARNING, found, advice)


def gpu(asked: Asked) -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError and others as well
        advice = TO_INSTALL if isinstance(error, ModuleNotFoundError) else "pip install --force-reinstall torch"
        yield Finding("gpu", PROBLEM, f"torch cannot be imported: {error}", advice)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    warned = f"; torch warns: {caught[0].message}" if caught else ""
    build = f"torch {torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'}"
    if not seen:
        yield _no_gpu(build, torch.version.cuda is not None, warned)
    else:
        advice = "update the driver, or take another torch build"
        yield Finding("gpu", WARNING if warned else OK, f"{seen}; {build}{warned}", advice)
        yield from map(_device, range(seen))
    yield _distributed(seen)


def sampler(asked: Asked) -> Iterator[Finding]:
    """Whether sampling has its fast form here; the first time, its kernels are compiled."""
    try:
        import torch

        from atm import sampling
    except Exception:  # which the check of the GPU has told
        return
    advices = {"cpu": "install g++, or name another C++ compiler in CXX: sampling is several times slower without"}
    if torch.cuda.is_available():
        advices["cuda"] = "take a torch build that brings Triton: sampling is several times slower without"
    for device, advice in advices.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = sampling.describe(device)
        slow = sampling.backend_for(device) == "eager" or caught
        yield Finding(f"sampler, {device}", WARNING if slow else OK, found, advice)


def _no_gpu(build: str, with_cuda: bool, warned: str) -> Finding:
    """Why torch sees no GPU: there is none, or there is one and something is in its way."""
    worked, said = ask("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")
    if not worked or not said:
        verdict, why = (WARNING, f"; nvidia-smi: {said}") if shutil.which("nvidia-smi") else (ABSENT, "")
        advice = "nothing, unless this machine has one: then see to its driver"
        return Finding("gpu", verdict, f"none: runs go on the CPU; {build}{why}", advice)
    if not with_cuda:
        advice = "install a torch build with CUDA (pytorch.org, Get started)"
    elif not warned and "CUDA_VISIBLE_DEVICES" in os.environ:
        advice = "unset CUDA_VISIBLE_DEVICES"
    else:
        advice = "update the driver, or take a torch build for an older CUDA; in a container, start it with its GPUs"
    return Finding("gpu", PROBLEM, f"nvidia-smi shows {said}; {build} sees none{warned}", advice)


def _device(index: int) -> Finding:
    """One GPU, after it has computed something."""
    import torch

    try:
        with torch.cuda.device(index):
            properties = torch.cuda.get_device_properties(index)
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            torch.ones(8, device="cuda").sum().item()
    except RuntimeError as error:
        advice = "nvidia-smi says whether another process has it; else take a torch build made for this GPU"
        return Finding(f"gpu {index}", PROBLEM, f"cannot compute: {str(error).splitlines()[0]}", advice)
    found = f"{properties.name}, {size(properties.total_memory)}, {'' if bfloat16 else 'no '}bfloat16"
    return Finding(f"gpu {index}", OK if bfloat16 else WARNING, found, "set train.precision=float16, or float32")


def _distributed(gpus: int) -> Finding:
    """Whether ``devices=N``, several processes per run, can be used."""
    import torch.distributed as dist

    here = [backend for backend in ("gloo", "nccl") if dist.is_available() and dist.is_backend_available(backend)]
    if lacking := {"gloo", "nccl" if gpus > 1 else "gloo"} - set(here):
        found = f"this torch has no {' and no '.join(sorted(lacking))}, which devices=N needs"
        return Finding("distributed", WARNING, found, "install another torch build, or keep to devices=1")
    where = f"on GPUs up to devices={gpus}" if gpus else "on the CPU"
    return Finding("distributed", OK, f"{' and '.join(here)}: devices=N can be used, {where}")
