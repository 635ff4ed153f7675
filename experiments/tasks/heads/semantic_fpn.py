"""The Semantic FPN head: all maps of the neck are brought to the finest stride and summed."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from torch import Tensor, nn

from experiments.tasks.heads.layers import conv_bn_relu, pixel_classifier, resize


class SemanticFPNHead(nn.Module):
    """Per level max(1, log2(stride / finest stride)) times 3x3 convolution, batch norm, ReLU and, on all levels but the
    finest, bilinear x2; then the sum of the levels, dropout and a 1x1 convolution.

    strides: of the maps, finest first, powers of 2 apart; in_width: their channels; width: of the head.
    Source: Panoptic Feature Pyramid Networks (Kirillov et al., 2019), in the form of mmseg's ``FPNHead``, which also
    resizes the levels that have the size already (AAAI Table 2 counts it).
    """

    def __init__(
        self, strides: Sequence[int], classes: int, in_width: int = 256, width: int = 128, dropout: float = 0.1
    ):
        super().__init__()
        self.levels = nn.ModuleList(_level(round(log2(stride / strides[0])), in_width, width) for stride in strides)
        self.classifier = pixel_classifier(width, classes, dropout)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps [B, in_width, H_i, W_i], finest first, to logits [B, classes, H_0, W_0]."""
        total: Tensor
        total, *coarser = (level(stage) for level, stage in zip(self.levels, maps))
        for level in coarser:
            total = total + resize(level, like=total)
        logits: Tensor = self.classifier(total)
        return logits


def _level(doublings: int, in_width: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(max(1, doublings)):
        layers.append(conv_bn_relu(width if i else in_width, width, 3))
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
