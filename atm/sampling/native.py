"""The CPU backend: native.cpp, compiled when first used, kept in the user's cache folder, called through ctypes."""

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from atm.sampling.patterns import PATTERNS, groups_per_read, reads_per_token, wide_dtype

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
WARNINGS = ("-Wno-psabi", "-Wno-ignored-attributes")  # GCC warns of vector arguments, which no exported function has
WORKSHOP = "compile-"  # begins the names of folders that are compiled in
TIMEOUT_S = 300.0  # a compiler that takes longer has hung
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
_DIGEST_BYTES = hashlib.sha256().digest_size  # a kept library ends with its checksum
LARGEST_IMAGE = 2**31 - 1  # elements: distances within an image are 32-bit integers


class Unavailable(RuntimeError):
    """The kernels cannot be compiled or loaded on this machine; the message is one line with the reason."""


@dataclass(frozen=True)
class Library:
    """The compiled kernels by name (``forward_float32`` …), and the version of the compiler that built them."""

    function: Callable[[str], Callable[..., None]]
    built_with: str


class _Call(ctypes.Structure):
    """The struct ``Call`` of native.cpp."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("batch", "height", "width", "groups", "share", "samples")),
        *((n, ctypes.c_int64) for n in ("pattern", "keep", "threads", "tile_height", "tile_width")),
        *((n, ctypes.c_int64 * 3) for n in ("x", "offsets", "out")),
    ]


def unavailable() -> str | None:
    """The reason why this machine cannot run the kernels, or None if it can. The first call may compile them."""
    try:
        load()
    except Unavailable as error:
        return str(error)
    return None


def supports(x: Tensor) -> bool:
    """Whether the kernels can sample ``x``. They cannot sample float16 and images of 2^31 or more elements."""
    return x.dtype in DTYPES and x.shape[1] * x.shape[2] * x.shape[3] <= LARGEST_IMAGE


def forward(x: Tensor, offsets: Tensor, pattern: str, samples: int, keep: bool) -> tuple[Tensor, Tensor]:
    """``torch.ops.atm.read`` (see operator.py)."""
    # The tokens of a slice, or of images stored next to each other, extend over more memory than they have elements.
    extent = sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:]))
    x, offsets = x.contiguous() if extent > LARGEST_IMAGE else _adjacent(x), _adjacent(offsets.to(wide_dtype(x)))
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
    """Loads the kernels, compiling them if the cache has no library of this source, compiler and processor.

    The environment variable CXX chooses the compiler and may contain arguments ("ccache g++").
    Raises Unavailable if there is no C++ compiler, or with the first error of one that fails.
    """
    command = _compiler()
    try:
        version = (_run([*command, "--version"]).splitlines() or command)[0]
        # One home folder may serve several kinds of processors, which need different libraries.
        openmp = [Path(path).name for path in _torch_openmp()]
        key = [version, *command[1:], *FLAGS, *openmp, _processor(), SOURCE.read_text("utf-8")]
        name = f"sampler-{hashlib.sha256(chr(0).join(key).encode()).hexdigest()[:24]}.so"
        folder = cache_folder()
        library = _cached(folder / name) if folder else None
        if library is None:
            library = _compile(command, name, folder)
            if folder is None or not (folder.is_dir() and _is_trusted(folder) and (folder / name).exists()):
                version += f", recompiled in every process: {folder or 'no home folder'} cannot keep it"
    except OSError as error:
        raise Unavailable(f"the compiled sampler could not be made or loaded: {error}") from error
    return Library(functools.cache(lambda name: _typed(library, name)), version)


def cache_folder() -> Path | None:
    """The folder of compiled kernels: ATM_CACHE_DIR, else ``atm`` in the user's cache folder. None without a home."""
    if folder := os.environ.get("ATM_CACHE_DIR"):
        return Path(folder).expanduser().absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atm"
    except RuntimeError:  # a container's user may have a number but no home
        return None


def _compiler() -> list[str]:
    """The compiler's command without the arguments added here. Raises Unavailable if there is none."""
    try:
        command = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise Unavailable(f"CXX={os.environ['CXX']!r} is not a command: {error}") from error
    command = command or [c for c in ("g++", "clang++", "c++") if shutil.which(c)][:1]
    if not command or shutil.which(command[0]) is None:
        raise Unavailable(f"no C++ compiler ({command[0] if command else 'g++, clang++'}) was found")
    return command


def _cached(path: Path) -> ctypes.CDLL | None:
    """A library compiled earlier, or None if it is missing, damaged or not trusted."""
    try:
        if not _is_trusted(path):
            return None
        content = path.read_bytes()
        # Loading an incomplete library may succeed and crash the process later.
        if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
            return None
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _is_trusted(path: Path) -> bool:
    """Whether only this user (or root) can have written to the path, or put another in place of a folder above it.

    Everybody may write to root's ``/tmp``, but nobody may replace what others have there (it is sticky).
    """
    if os.name != "posix":
        return True
    place = path.resolve(strict=True)
    for each in (place, *place.parents):
        status = each.stat()
        shared = bool(status.st_mode & 0o022) and not (
            each != place and status.st_uid == 0 and status.st_mode & stat.S_ISVTX
        )
        if status.st_uid not in (os.getuid(), 0) or shared:
            return False
    return True


def _workshop(stack: ExitStack, folder: Path | None) -> tuple[Path, bool]:
    """A private folder to compile in, and whether it lies in ``folder``, which then can keep the library.

    Raises Unavailable where there is none that nobody else could exchange.
    """
    if folder is not None:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_trusted(folder):
                _remove_stale(folder)
                return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=WORKSHOP, dir=folder))), True
    # for this process only; a loaded library needs its file no longer
    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atm-")))
    if not _is_trusted(temporary):
        raise Unavailable(f"others may write to {temporary.parent}, where it would be compiled")
    return temporary, False


def _remove_stale(folder: Path) -> None:
    """Removes what a compilation left that was killed."""
    for left in folder.glob(f"{WORKSHOP}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 2 * TIMEOUT_S:
                shutil.rmtree(left, ignore_errors=True)


def _compile(command: list[str], name: str, folder: Path | None) -> ctypes.CDLL:
    """Compiles and loads the library, and keeps it in ``folder`` if that is writable, and by nobody else."""
    with ExitStack() as stack:
        workshop, keeps = _workshop(stack, folder)
        built = workshop / name
        _run([*command, *FLAGS, *WARNINGS, str(SOURCE), *_torch_openmp(), "-o", str(built)])
        with built.open("ab") as file:
            file.write(hashlib.sha256(built.read_bytes()).digest())
        library = ctypes.CDLL(str(built))
        if keeps and folder is not None:
            with suppress(OSError):  # the library is loaded already
                built.replace(folder / name)  # atomic, also if other processes compile at the same time
    return library


def _run(command: list[str]) -> str:
    """Runs a program and returns its output. Raises Unavailable with its first error line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{command[0]} took longer than {TIMEOUT_S:.0f} s") from error
    if done.returncode:
        messages = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        errors = [line for line in messages if "error" in line] or messages
        raise Unavailable(f"{command[0]} failed: {errors[0]}")
    return done.stdout


def _processor() -> str:
    """A description of everything that ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    keys = ("model name", "flags", "Features")
    return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0] in keys))


def _torch_openmp() -> list[str]:
    """The OpenMP library of PyTorch. Linking against it makes both share one set of threads."""
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
    """The rows and columns that a thread reads at a time. Reads along the offsets' axis share tokens in the cache."""
    return (1, max(1, x.shape[2])) if pattern == "row" else (max(1, x.shape[1]), 4)


def _adjacent(tensor: Tensor) -> Tensor:
    """The tensor, copied unless its channels are adjacent."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
