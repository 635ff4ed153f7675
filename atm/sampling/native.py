"""The CPU backend: native.cpp, compiled when first used, kept in the user's cache and called through ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
QUIET = ("-Wno-psabi", "-Wno-ignored-attributes")  # GCC's notes on passing vectors, which nothing here exports
SECONDS = 300.0  # a compiler that takes longer hangs
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
PATTERNS = ("row", "column", "cross", "joint")
LARGEST = 2**31 - 1  # elements of one image: distances within it are 32 bits wide


class Unavailable(RuntimeError):
    """The kernels cannot be compiled or loaded on this machine; the message says why in one line."""


@dataclass(frozen=True)
class Library:
    """The compiled kernels by name (``forward_float32`` …), and the compiler they were built with."""

    function: Callable[[str], Callable[..., None]]
    built_with: str


_NUMBERS = ("batch", "height", "width", "groups", "share", "samples", "pattern", "keep", "threads")


class _Call(ctypes.Structure):
    """``Call`` in native.cpp."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in _NUMBERS),
        *((n, ctypes.c_int64 * 3) for n in ("x", "offsets", "out")),
    ]


def unavailable() -> str | None:
    """Why this machine cannot run the kernels, None where it can. The first call may compile them."""
    try:
        load()
    except Unavailable as error:
        return str(error)
    return None


def takes(x: Tensor) -> bool:
    """Whether the kernels can sample ``x``: float16, and images beyond 2^31 elements, go to another backend."""
    return x.dtype in DTYPES and x.shape[1] * x.shape[2] * x.shape[3] <= LARGEST


def forward(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    """``torch.ops.atm.read`` (see operator.py)."""
    x, offsets = _adjacent(x), _adjacent(offsets.to(_wide(x)))
    batch, height, width, channels = x.shape
    reads = samples * (2 if pattern == "cross" else 1) + keep
    tokens = x.new_empty(batch, height, width, reads * channels)
    sums = x.new_empty((batch, height, reads * channels) if keep else 0, dtype=_wide(x))
    call = _call(x, offsets, tokens, pattern, samples, keep)
    load().function(f"forward_{_name(x)}")(_at(x), _at(offsets), _at(tokens), _at(sums if keep else None), call)
    return tokens, sums.sum(1) / (height * width) if keep else sums


def backward(
    grad: Tensor, grad_mean: Tensor | None, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """``torch.ops.atm.read_backward`` (see operator.py)."""
    wide = _wide(x)
    grad, x, wide_offsets = _adjacent(grad), x.contiguous(), _adjacent(offsets.to(wide))
    grad_mean = None if grad_mean is None else (grad_mean.to(wide) / (x.shape[1] * x.shape[2])).contiguous()
    grad_x = torch.empty(x.shape, dtype=wide)
    grad_offsets = torch.empty(offsets.shape, dtype=wide)
    call = _call(x, wide_offsets, grad, pattern, samples, keep)
    load().function(f"backward_{_name(x)}")(
        *(_at(t) for t in (grad, grad_mean, x, wide_offsets, grad_x, grad_offsets)), call
    )
    return grad_x.to(x.dtype), grad_offsets.to(offsets.dtype)


@functools.cache
def load() -> Library:
    """The kernels, compiled if this compiler has not yet compiled this source for this processor.

    Raises Unavailable without a C++ compiler, or with the first error of one that fails.
    """
    compiler = os.environ.get("CXX") or next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None or shutil.which(compiler) is None:
        raise Unavailable(f"no C++ compiler ({compiler or 'g++, clang++'}) was found")
    try:
        path, version = _compiled(compiler)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"the compiled sampler could not be made or loaded: {error}") from error
    return Library(functools.cache(lambda name: _typed(library, name)), version)


def cache_folder() -> Path:
    """Where compiled kernels are kept: ATM_CACHE_DIR, else ``atm`` in the user's cache folder."""
    given = os.environ.get("ATM_CACHE_DIR")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atm"


def _compiled(compiler: str) -> tuple[Path, str]:
    """The shared library and its compiler's version; compiled into the cache folder where it is not there yet."""
    version = _run([compiler, "--version"]).splitlines()[0]
    # A cluster's home folder serves several kinds of processors, and each needs a library of its own.
    what = [version, *FLAGS, _processor(), SOURCE.read_text("utf-8")]
    name = f"sampler-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:24]}.so"
    folder = cache_folder()
    path = folder / name
    if not path.exists():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = tempfile.mkdtemp(dir=folder)
        except OSError:  # no home, or one that cannot be written to: compile for this process alone
            made = tempfile.mkdtemp(prefix="atm-")
            path = Path(made) / name
        built = Path(made) / f"{name}.new"
        try:
            _run([compiler, *FLAGS, *QUIET, *_same_openmp(), str(SOURCE), "-o", str(built)])
            built.replace(path)  # whole or not at all, whoever else compiles at the same time
        finally:
            if path.parent != Path(made):
                shutil.rmtree(made, ignore_errors=True)
    return path, version


def _run(command: list[str]) -> str:
    """What a program prints. Raises Unavailable with its first error line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took longer than {SECONDS:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
        raise Unavailable(f"{command[0]} failed: {lines[0]}")
    return done.stdout


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features")
    return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0] in kept))


def _same_openmp() -> list[str]:
    """Links against the OpenMP library PyTorch brings, so that both share one set of threads."""
    folder = Path(torch.__file__).parent / "lib"
    return [str(path) for path in sorted(folder.glob("libgomp*.so*"))[:1]]


def _typed(library: ctypes.CDLL, name: str) -> Callable[..., None]:
    function = getattr(library, name)
    function.restype = None
    pointers = 6 if name.startswith("backward") else 4
    function.argtypes = [*[ctypes.c_void_p] * pointers, ctypes.POINTER(_Call)]
    return function


def _call(x: Tensor, offsets: Tensor, out: Tensor, pattern: str, samples: int, keep: bool) -> _Call:
    batch, height, width, channels = x.shape
    groups = offsets.shape[-1] // (samples * (1 if pattern in ("row", "column") else 2))
    strides = [(ctypes.c_int64 * 3)(*t.stride()[:3]) for t in (x, offsets, out)]
    return _Call(
        batch, height, width, groups, channels // groups, samples, PATTERNS.index(pattern), keep,
        torch.get_num_threads(), *strides,
    )  # fmt: skip


def _adjacent(tensor: Tensor) -> Tensor:
    """The tensor, copied unless its channels are adjacent."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
