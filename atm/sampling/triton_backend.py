"""The CUDA backend: sampling as Triton kernels, forward and backward.

The backward pass computes positions again, so nothing is saved for it. There are no atomic additions: every sum has one
owner and one order, so the same inputs give the same bits. Tensors may be strided, such as slices of wider tensors.
Importing this module imports Triton, which not every build of torch includes.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from atm.sampling import triton_kernels
from atm.sampling.block_sizes import block_sizes

# Channels of a program that loops over tokens: one for each lane of its only warp.
LANES = 32
# Fused multiply-adds are enabled explicitly, because bits would change with the default of Triton's version.
TILE_LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
LANE_LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}


def unavailable(device: torch.device | str) -> str | None:
    """The reason why the kernels cannot run on ``device``, or None if they can (always under TRITON_INTERPRET=1)."""
    device = torch.device(device)
    if not isinstance(triton_kernels.axis_forward_kernel, triton.JITFunction):  # interpreted
        return None
    if device.type != "cuda":
        return f"the Triton kernels run on CUDA, not on {device.type}"
    if torch.version.hip:
        return "the Triton kernels were written for NVIDIA GPUs, this is ROCm"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"Triton supports compute capability 8.0 and above, not that of {torch.cuda.get_device_name(device)}"
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # Triton first compiles a part of itself, which needs a C compiler
        return f"Triton does not start: {error}"
    return None


def axis_forward(x: Tensor, offsets: Tensor, dim: int, out: Tensor) -> None:
    """Writes the result of ``sample_axis`` into ``out``.

    x, out: [B, H, W, C] in any float dtype; offsets: [B, H, W, G]; dim: 1 for vertical, 2 for horizontal.
    """
    x, offsets, out = _lines(dim, x, offsets, out)
    lines, size, channels = x.shape[1:]
    tile = _tile(x, size)
    with _device(x):
        triton_kernels.axis_forward_kernel[_grid(x, tile["TOKENS"], tile["CHANNELS"])](
            *(x, *x.stride()),
            *(offsets, *offsets.stride()),
            *(out, *out.stride()),
            *(lines, size, channels),
            COMPUTE=_compute_dtype(x, offsets),
            SHARING=channels // offsets.shape[3],
            **tile,
            **TILE_LAUNCH,
        )


def axis_backward(
    grad: Tensor,
    x: Tensor,
    offsets: Tensor,
    dim: int,
    grad_x: Tensor,
    grad_offsets: Tensor,
    grad_mean: Tensor | None = None,
) -> None:
    """Adds the gradient with respect to ``x`` to ``grad_x`` and writes that of the offsets into ``grad_offsets``.

    grad, x: [B, H, W, C]; offsets, grad_offsets: [B, H, W, G]; dim as in ``axis_forward``.
    grad_x: [B, H, W, C] initialised by the caller, in float32 (float64 for float64), because it sums several branches.
    grad_mean: [B, C] is added to the gradient of every token of its image.
    """
    grad, x, offsets, grad_x, grad_offsets = _lines(dim, grad, x, offsets, grad_x, grad_offsets)
    lines, size, channels = x.shape[1:]
    sharing = channels // offsets.shape[3]
    tile = _group_tile(x, size, sharing)
    compute = _compute_dtype(x, offsets)
    targets = min(block_sizes(x.device).targets, triton.next_power_of_2(size))
    with _device(x):
        triton_kernels.axis_offset_gradient_kernel[_grid(x, tile["TOKENS"], tile["GROUPS"] * sharing)](
            *(x, *x.stride()),
            *(offsets, *offsets.stride()),
            *(grad, *grad.stride()),
            *_mean(grad, grad_mean),
            *(grad_offsets, *grad_offsets.stride()),
            *(lines, size, channels),
            COMPUTE=compute,
            SHARING=sharing,
            **tile,
            **TILE_LAUNCH,
        )
        triton_kernels.axis_input_gradient_kernel[_grid(x, targets, LANES)](
            *(offsets, *offsets.stride()),
            *(grad, *grad.stride()),
            *_mean(grad, grad_mean),
            *(grad_x, *grad_x.stride()),
            *(lines, size, channels),
            COMPUTE=compute,
            SHARING=sharing,
            TARGETS=targets,
            CHANNELS=LANES,
            **LANE_LAUNCH,
        )


def joint_forward(x: Tensor, dy: Tensor, dx: Tensor, out: Tensor) -> None:
    """Writes the result of ``sample_joint`` into ``out``.

    x, out: [B, H, W, C] in any float dtype; dy, dx: [B, H, W, G].
    """
    height, width, channels = x.shape[1:]
    tile = _tile(x, width)
    with _device(x):
        triton_kernels.joint_forward_kernel[_grid(x, tile["TOKENS"], tile["CHANNELS"])](
            *(x, *x.stride()),
            *(dy, *dy.stride()),
            *(dx, *dx.stride()),
            *(out, *out.stride()),
            *(height, width, channels),
            COMPUTE=_compute_dtype(x, dy, dx),
            SHARING=channels // dy.shape[3],
            **tile,
            **TILE_LAUNCH,
        )


def joint_backward(
    grad: Tensor,
    x: Tensor,
    dy: Tensor,
    dx: Tensor,
    grad_x: Tensor,
    grad_dy: Tensor,
    grad_dx: Tensor,
    grad_mean: Tensor | None = None,
) -> None:
    """Adds the gradient with respect to ``x`` to ``grad_x`` and writes those of the offsets.

    grad, x: [B, H, W, C]; dy, dx, grad_dy, grad_dx: [B, H, W, G]; grad_x and grad_mean as in ``axis_backward``.
    """
    batch, height, width, channels = x.shape
    sharing = channels // dy.shape[3]
    tile = _group_tile(x, width, sharing)
    compute = _compute_dtype(x, dy, dx)
    with _device(x):
        triton_kernels.joint_offset_gradient_kernel[_grid(x, tile["TOKENS"], tile["GROUPS"] * sharing)](
            *(x, *x.stride()),
            *(dy, *dy.stride()),
            *(dx, *dx.stride()),
            *(grad, *grad.stride()),
            *_mean(grad, grad_mean),
            *(grad_dy, *grad_dy.stride()),
            *(grad_dx, *grad_dx.stride()),
            *(height, width, channels),
            COMPUTE=compute,
            SHARING=sharing,
            **tile,
            **TILE_LAUNCH,
        )
        triton_kernels.joint_input_gradient_kernel[(batch, triton.cdiv(channels, LANES))](
            *(dy, *dy.stride()),
            *(dx, *dx.stride()),
            *(grad, *grad.stride()),
            *_mean(grad, grad_mean),
            *(grad_x, *grad_x.stride()),
            *(height, width, channels),
            COMPUTE=compute,
            SHARING=sharing,
            CHANNELS=LANES,
            **LANE_LAUNCH,
        )


def _lines(dim: int, *maps: Tensor) -> tuple[Tensor, ...]:
    """The maps with the axis of the offsets as the third, so that the kernels only handle lines of tokens."""
    return tuple(m.transpose(1, 2) for m in maps) if dim == 1 else maps


def _compute_dtype(*tensors: Tensor) -> tl.dtype:
    return tl.float64 if any(t.dtype == torch.float64 for t in tensors) else tl.float32


def _mean(grad: Tensor, grad_mean: Tensor | None) -> tuple[Tensor, int, int, bool]:
    """The kernels' arguments for the mean's gradient; without one, ``grad`` is passed as a pointer that is not used."""
    return (grad, 0, 0, False) if grad_mean is None else (grad_mean, *grad_mean.stride(), True)


def _tile(x: Tensor, size: int) -> dict[str, int]:
    """The size of a tile of tokens x channels on a line of ``size`` tokens of ``x``."""
    sizes = block_sizes(x.device)
    block = min(sizes.tile_channels, triton.next_power_of_2(x.shape[3]))
    return {"TOKENS": min(sizes.tile // block, triton.next_power_of_2(size)), "CHANNELS": block}


def _group_tile(x: Tensor, size: int, sharing: int) -> dict[str, int]:
    """The size of a tile whose channels are summed by group: groups are whole and padded to a power of two."""
    sizes = block_sizes(x.device)
    padded = triton.next_power_of_2(sharing)
    groups = min(triton.next_power_of_2(x.shape[3] // sharing), max(1, sizes.tile_channels // padded))
    tokens = min(max(1, sizes.tile // (groups * padded)), triton.next_power_of_2(size))
    return {"TOKENS": tokens, "GROUPS": groups, "PADDED": padded}


def _grid(x: Tensor, tokens: int, channels: int) -> tuple[int, int, int]:
    """The programs that cover x [B, lines, size, C]. Lines are first, since only that axis may exceed 65535."""
    return x.shape[0] * x.shape[1], triton.cdiv(x.shape[2], tokens), triton.cdiv(x.shape[3], channels)


def _device(x: Tensor) -> AbstractContextManager[object]:
    """Makes the device of ``x`` current, because Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
