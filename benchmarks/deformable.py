"""ATMNet on torchvision's deformable convolution, as its authors released it: the peer of our sampling.

Every sampled FC is a deformable convolution with a 1x1 kernel on channels-first maps. Deformable convolution supports
channel groups but not reads along one axis, so the offsets of the other axis are zeros.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from atm import ATMNet
from atm.mixer import ActiveTokenMixer, PooledFusion


def on_deform_conv2d(model: ATMNet) -> ATMNet:
    """A copy of ``model`` with the same weights, under the same names, whose mixers read by ``deform_conv2d``.

    Raises ValueError unless every mixer is an ActiveTokenMixer with the released model's fusion.
    """
    copied = copy.deepcopy(model)
    for stage in copied.stages:
        for block in stage.blocks:
            block.mixer = DeformableMixer(block.mixer)
            block.recomputes = False  # the released code keeps every tensor for the backward pass
    return copied


class DeformableMixer(nn.Module):
    """Computes the same as ``mixer`` with the released model's operations, and takes over the mixer's layers."""

    def __init__(self, mixer: nn.Module):
        super().__init__()
        if not isinstance(mixer, ActiveTokenMixer) or not isinstance(mixer.fusion, PooledFusion):
            raise ValueError("deform_conv2d: the released model has mixer='atm' and fusion='pooled' only")
        self.samples, self.joint = mixer.samples, mixer.joint
        if self.joint:
            self.fc_j = mixer.fc_j
        else:
            self.fc_w, self.fc_h = mixer.fc_w, mixer.fc_h
        self.fc_c, self.fusion, self.proj = mixer.fc_c, mixer.fusion, mixer.proj

    def forward(self, x: Tensor, offsets: Tensor | None) -> Tensor:
        """x: [B, H, W, C]; offsets: [B, H, W, 2 * samples * G] in tokens, horizontal half first.

        Returns [B, H, W, C]. Raises ValueError without offsets.
        """
        if offsets is None:
            raise ValueError("deform_conv2d: the mixer was called without offsets")
        dx, dy = offsets.chunk(2, dim=-1)
        if self.joint:
            branches = [self._sampled(self.fc_j, x, dy, dx), self.fc_c(x)]
        else:
            branches = [self._sampled(self.fc_w, x, None, dx), self._sampled(self.fc_h, x, dy, None), self.fc_c(x)]
        pooled = sum(branches[1:], start=branches[0]).mean(dim=(1, 2))
        scores = self.fusion.fc2(F.gelu(self.fusion.fc1(pooled)))
        weights = scores.reshape(len(x), 1, 1, -1, len(branches)).softmax(dim=-1).unbind(-1)
        mixed = branches[0] * weights[0]
        for branch, weight in zip(branches[1:], weights[1:]):
            mixed = mixed + branch * weight
        return self.proj(mixed)

    def _sampled(self, fc: nn.Linear, x: Tensor, dy: Tensor | None, dx: Tensor | None) -> Tensor:
        """The branch's FC over the tokens it reads: one deformable convolution for each of the samples."""
        downs, rights = (None if o is None else o.chunk(self.samples, dim=-1) for o in (dy, dx))
        total = None
        for i, weight in enumerate(fc.weight.chunk(self.samples, dim=1)):
            down, right = (None if parts is None else parts[i] for parts in (downs, rights))
            branch = deformed_fc(x, down, right, weight, None if i else fc.bias)
            total = branch if total is None else total + branch
        assert total is not None
        return total


def deformed_fc(x: Tensor, dy: Tensor | None, dx: Tensor | None, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of channels that are each read at their own offset, by one ``deform_conv2d``.

    x: [B, H, W, C]; dy, dx: [B, H, W, G] in tokens (down, right), one of them None for reads along the other axis;
    weight: [C_out, C]; bias: [C_out]. Returns [B, H, W, C_out] in ``x``'s dtype. In half precision and under autocast
    it computes in float32, as under torchvision's autocast, because deform_conv2d does not support bfloat16.
    """
    halved = x.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(x.device.type)
    dtype = torch.float32 if halved else x.dtype
    either = dy if dy is not None else dx
    assert either is not None
    zeros = torch.zeros_like(either)
    # (y, x) of the first group, then of the second, and so on
    offsets = torch.stack([zeros if dy is None else dy, zeros if dx is None else dx], dim=-1).flatten(3)
    channels_first = x.permute(0, 3, 1, 2).to(dtype)
    kernel = weight[:, :, None, None].to(dtype)
    offsets = offsets.permute(0, 3, 1, 2).to(dtype)
    read = deform_conv2d(channels_first, offsets, kernel, None if bias is None else bias.to(dtype))
    return read.permute(0, 2, 3, 1).to(x.dtype)
