"""The CPU backend: native.cpp, compiled when first used, kept in the user's cache and called through ctypes."""

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from atm.sampling.patterns import PATTERNS, groups_per_read, reads_per_token, wide_dtype

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
QUIET = ("-Wno-psabi", "-Wno-ignored-attributes")  # GCC's notes on passing vectors, which nothing here exports
SECONDS = 300.0  # a compiler that takes longer hangs
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_SEAL = hashlib.sha256().digest_size  # bytes at a kept library's end that tell whether it is whole
LARGEST = 2**31 - 1  # elements of one image: distances within it are 32 bits wide


class Unavailable(RuntimeError):
    """The kernels cannot be compiled or loaded on this machine; the message says why in one line."""


@dataclass(frozen=True)
class Library:
    """The compiled kernels by name (``forward_float32`` …), and the compiler they were built with."""

    function: Callable[[str], Callable[..., None]]
    built_with: str


class _Call(ctypes.Structure):
    """``Call`` in native.cpp."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("batch", "height", "width", "groups", "share", "samples")),
        *((n, ctypes.c_int64) for n in ("pattern", "keep", "threads", "tile_height", "tile_width")),
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
    # Tokens of one image may be further apart than they are many: in a slice, or with images side by side.
    spread = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:]))
    x, offsets = x.contiguous() if spread > LARGEST else _adjacent(x), _adjacent(offsets.to(wide_dtype(x)))
    batch, height, width, channels = x.shape
    reads = reads_per_token(pattern, samples, keep)
    tokens = x.new_empty(batch, height, width, reads * channels)
    tile = _tile(x, pattern)
    tiles = math.ceil(height / tile[0]) * math.ceil(width / tile[1])
    sums = x.new_empty((batch, tiles, reads * channels) if keep else 0, dtype=wide_dtype(x))
    call = _call(x, offsets, tokens, pattern, samples, keep)
    load().function(f"forward_{_name(x)}")(_at(x), _at(offsets), _at(tokens), _at(sums if keep else None), call)
    return tokens, sums.sum(1) / (height * width) if keep else sums


def backward(
    grad: Tensor, grad_mean: Tensor | None, x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """``torch.ops.atm.read_backward`` (see operator.py)."""
    wide = wide_dtype(x)
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

    CXX names another compiler than the usual ones, and may hold arguments ("ccache g++").
    Raises Unavailable without a C++ compiler, or with the first error of one that fails.
    """
    command = _compiler()
    try:
        version = (_run([*command, "--version"]).splitlines() or command)[0]
        # A cluster's home folder serves several kinds of processors, and each needs a library of its own.
        openmp = [Path(path).name for path in _same_openmp()]
        what = [version, *command[1:], *FLAGS, *openmp, _processor(), SOURCE.read_text("utf-8")]
        name = f"sampler-{hashlib.sha256(chr(0).join(what).encode()).hexdigest()[:24]}.so"
        folder = cache_folder()
        library = _kept(folder / name) if folder else None
        if library is None:
            library = _compiled(command, name, folder)
            if folder is None or not (folder.is_dir() and _ours(folder) and (folder / name).exists()):
                version += f", compiled by every process anew: {folder or 'no home folder'} cannot keep it"
    except OSError as error:
        raise Unavailable(f"the compiled sampler could not be made or loaded: {error}") from error
    return Library(functools.cache(lambda name: _typed(library, name)), version)


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: ATM_CACHE_DIR, else ``atm`` in the user's cache folder, if there is a home."""
    if given := os.environ.get("ATM_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atm"
    except RuntimeError:  # a container's user may be a bare number
        return None


def _compiler() -> list[str]:
    """The command that compiles, without its last arguments. Raises Unavailable where there is none."""
    try:
        command = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise Unavailable(f"CXX={os.environ['CXX']!r} is not a command: {error}") from error
    command = command or [c for c in ("g++", "clang++", "c++") if shutil.which(c)][:1]
    if not command or shutil.which(command[0]) is None:
        raise Unavailable(f"no C++ compiler ({command[0] if command else 'g++, clang++'}) was found")
    return command


def _kept(path: Path) -> ctypes.CDLL | None:
    """A library compiled earlier, None where it is missing or damaged."""
    try:
        if not (_ours(path) and _ours(path.parent)):
            return None
        content = path.read_bytes()
        # Loading half a library may succeed, and kill the process later.
        if hashlib.sha256(content[:-_SEAL]).digest() != content[-_SEAL:]:
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _ours(path: Path) -> bool:
    """Whether nobody else can have put code there."""
    stat = path.stat()
    return os.name != "posix" or (stat.st_uid in (os.getuid(), 0) and not stat.st_mode & 0o022)


def _compiled(command: list[str], name: str, folder: Path | None) -> ctypes.CDLL:
    """The library compiled now, and kept in ``folder`` if that can be written to."""
    with ExitStack() as stack:
        try:
            if folder is None:
                raise FileNotFoundError("no home folder")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        except OSError:  # compile for this process alone, which keeps what it has loaded
            folder, made = None, stack.enter_context(tempfile.TemporaryDirectory(prefix="atm-"))
        built = Path(made) / name
        _run([*command, *FLAGS, *QUIET, str(SOURCE), *_same_openmp(), "-o", str(built)])
        with built.open("ab") as file:
            file.write(hashlib.sha256(built.read_bytes()).digest())
        library = ctypes.CDLL(str(built))
        if folder is not None:
            with suppress(OSError):  # what is loaded serves this process
                built.replace(folder / name)  # whole or not at all, whoever else compiles at the same time
    return library


def _run(command: list[str]) -> str:
    """What a program prints. Raises Unavailable with its first error line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took longer than {SECONDS:.0f} s") from error
    if done.returncode:
        said = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        lines = [line for line in said if "error" in line] or said
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
    groups = groups_per_read(offsets, pattern, samples)
    strides = [(ctypes.c_int64 * 3)(*t.stride()[:3]) for t in (x, offsets, out)]
    return _Call(
        batch, height, width, groups, channels // groups, samples, PATTERNS.index(pattern), keep,
        torch.get_num_threads(), *_tile(x, pattern), *strides,
    )  # fmt: skip


def _tile(x: Tensor, pattern: str) -> tuple[int, int]:
    """How many rows and columns a thread reads at a time: as it goes along the offsets, it comes by the same tokens."""
    return (1, max(1, x.shape[2])) if pattern == "row" else (max(1, x.shape[1]), 4)


def _adjacent(tensor: Tensor) -> Tensor:
    """The tensor, copied unless its channels are adjacent."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
