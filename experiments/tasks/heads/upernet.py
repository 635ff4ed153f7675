"""The UperNet head: pyramid pooling on the coarsest map, a feature pyramid, and all levels fused at the finest one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.tasks.heads.layers import conv_bn_relu, pixel_classifier, resize
from experiments.tasks.heads.pyramid_pooling import PyramidPooling


class UperNetHead(nn.Module):
    """Pyramid pooling and a 3x3 bottleneck give the coarsest level, 1x1 convolutions the others. Sums from coarse to
    fine, a 3x3 convolution on all levels but the coarsest, all levels at the finest stride side by side, a 3x3
    convolution, dropout and a 1x1 convolution. Every convolution but the last has batch norm and ReLU.

    channels: of the backbone's maps, finest first; width: of the head.
    Source: Unified Perceptual Parsing (Xiao et al., 2018), in the form of mmseg's ``UPerHead``.
    """

    def __init__(self, channels: Sequence[int], classes: int, width: int = 512, dropout: float = 0.1):
        super().__init__()
        *finer, coarsest = channels
        self.pooling = PyramidPooling(coarsest, width)
        self.bottleneck = conv_bn_relu(self.pooling.out_channels, width, 3)
        self.laterals = nn.ModuleList(conv_bn_relu(each, width, 1) for each in finer)
        self.outputs = nn.ModuleList(conv_bn_relu(width, width, 3) for _ in finer)
        self.fusion = conv_bn_relu(len(channels) * width, width, 3)
        self.classifier = pixel_classifier(width, classes, dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, channels[i], H_i, W_i], finest first, to logits [B, classes, H_0, W_0]."""
        *finer, coarsest = maps
        levels = [lateral(stage) for lateral, stage in zip(self.laterals, finer)]
        levels.append(self.bottleneck(self.pooling(coarsest)))
        for i in reversed(range(len(finer))):
            levels[i] = levels[i] + resize(levels[i + 1], like=levels[i])
        finest, *others = [*(output(level) for output, level in zip(self.outputs, levels)), levels[-1]]
        fused = self.fusion(torch.cat([finest, *(resize(level, like=finest) for level in others)], dim=1))
        logits: Tensor = self.classifier(fused)
        return logits
