"""The fully convolutional head, with which UperNet's backbone is supervised at stage 3 as well."""

from __future__ import annotations

from torch import Tensor, nn

from experiments.tasks.heads.layers import conv_bn_relu, pixel_classifier


class FCNHead(nn.Module):
    """A 3x3 convolution, batch norm, ReLU, dropout and a 1x1 convolution on one map.

    channels: of the map; width: of the head. Source: mmseg's ``FCNHead`` with one convolution, the auxiliary head of
    its UperNet configurations.
    """

    def __init__(self, channels: int, classes: int, width: int = 256, dropout: float = 0.1):
        super().__init__()
        self.convolution = conv_bn_relu(channels, width, 3)
        self.classifier = pixel_classifier(width, classes, dropout)

    def forward(self, stage: Tensor) -> Tensor:
        """A map [B, channels, H, W] to logits [B, classes, H, W]."""
        logits: Tensor = self.classifier(self.convolution(stage))
        return logits
