"""Block sizes of the Triton kernels: the defaults, or those that were measured to be fastest on a GPU of this name.

``python -m benchmarks acceptance`` measures them and keeps them beside the compiled kernels (``native.cache_folder``).
They change no result: only sizes that give the bits of the defaults are kept.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from atm.sampling.native import cache_folder

GRID = {"tile": (512, 1024, 2048), "tile_channels": (32, 64, 128), "targets": (16, 32, 64)}
"""The sizes that are measured, and the only ones that are read from a file."""
_tried: BlockSizes | None = None


@dataclass(frozen=True)
class BlockSizes:
    """tile: elements of a tile of tokens x channels; tile_channels: its channels at most; targets: tokens of a line
    whose input gradient one program sums, in as many registers of every lane.

    By default 8 elements for each of the 128 threads of 4 warps: enough loads in flight to hide their latency, and few
    enough that a thread's 64-bit addresses stay in registers. 64 channels divide every width of the published models
    (64, 128, 320, 512), and the lanes of a warp still read adjacent channels of one or two tokens.
    """

    tile: int = 1024
    tile_channels: int = 64
    targets: int = 32


def block_sizes(device: torch.device) -> BlockSizes:
    """The sizes to launch kernels with on a device."""
    return _tried or kept(device_name(device))


def device_name(device: torch.device) -> str:
    """The name of a GPU, under which its sizes are kept; "interpreter" for the CPU, where Triton is interpreted."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


@functools.cache
def kept(name: str) -> BlockSizes:
    """The sizes kept for a GPU of this name; the defaults where there are none, or none that the grid has."""
    sizes = _read().get(name)
    if not isinstance(sizes, dict) or sizes.keys() != GRID.keys():
        return BlockSizes()
    return BlockSizes(**sizes) if all(sizes[key] in values for key, values in GRID.items()) else BlockSizes()


def keep(name: str, sizes: BlockSizes) -> Path | None:
    """Keeps the sizes for GPUs of this name, and returns the file; None where there is no folder to keep them in."""
    path = _path()
    kept.cache_clear()
    if path is None:
        return None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = path.with_name(f"{path.name}.new")
        written.write_text(json.dumps(_read() | {name: asdict(sizes)}, indent=1) + "\n")
        written.replace(path)
    except OSError:
        return None
    return path


@contextmanager
def trying(sizes: BlockSizes) -> Iterator[None]:
    """Within this context, all kernels are launched with these sizes."""
    global _tried
    _tried = sizes
    try:
        yield
    finally:
        _tried = None


def _read() -> dict[str, object]:
    path = _path()
    try:
        content = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _path() -> Path | None:
    """The file, whose name has the kernels' checksum: sizes that were measured for other kernels are not read."""
    folder = cache_folder()
    kernels = hashlib.sha256(Path(__file__).with_name("triton_kernels.py").read_bytes()).hexdigest()
    return folder / f"block-sizes-{kernels[:16]}.json" if folder else None
