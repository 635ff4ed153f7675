"""Batch norm over the whole batch of a run, however many processes share it.

``torch.nn.SyncBatchNorm`` does so on GPUs only. This one sums over processes with whatever backend they have joined
with, and is the same on every device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from errors import ConfigError

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


class WholeBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of the images of all processes together.

    Same parameters, buffers and formula as ``nn.BatchNorm1d`` to ``3d``: the variance that normalises is biased, the
    running one is not. Processes may have different numbers of images. ``drop`` and ``act`` follow where it stands for
    timm's ``BatchNormAct2d``.
    """

    drop: nn.Module
    act: nn.Module

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least 2 dimensions, got {x.ndim}")

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, …]"""
        return self.act(self.drop(self._normalised(x)))  # type: ignore[no-any-return]

    def _normalised(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training:
            return super().forward(x)  # type: ignore[no-any-return]
        values = x.float()
        others = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        number = torch.tensor([float(x.numel() // x.shape[1])], device=x.device)
        dist.all_reduce(number)
        mean = _summed(values.sum(others)) / number
        centred = values - mean.view(shape)
        variance = _summed(centred.square().sum(others)) / number
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._track(mean.detach(), variance.detach() * (number / (number - 1).clamp(min=1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def _summed(part: Tensor) -> Tensor:
    """The sum over processes, through which gradients flow back to all of them."""
    total: Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _summed(gradient)


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def synchronise(model: nn.Module) -> None:
    """Replaces every batch norm of a model by a ``WholeBatchNorm`` with the same parameters and buffers.

    Raises ConfigError for a kind of batch norm that is not known here.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, WholeBatchNorm):
                setattr(parent, name, _whole(child))


def _whole(norm: _BatchNorm) -> WholeBatchNorm:
    if type(norm) not in KINDS:
        raise ConfigError(f"batch norm of kind {type(norm).__name__} cannot be shared by processes: use one device")
    whole = WholeBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    whole._parameters, whole._buffers = norm._parameters, norm._buffers  # the very same, which an optimizer may know
    whole.drop, whole.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
    whole.training = norm.training
    return whole
