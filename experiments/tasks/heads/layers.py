"""The layers that segmentation heads consist of, initialised as in mmseg."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation


def conv_bn_relu(channels: int, width: int, kernel: int) -> nn.Module:
    """A convolution without bias, batch norm and ReLU; the size of the map stays.

    Initialisation: that of mmcv's ``ConvModule``, normal with std sqrt(2 / fan-out), batch norm 1 and 0.
    """
    layer: nn.Module = Conv2dNormActivation(channels, width, kernel)
    nn.init.kaiming_normal_(layer.get_parameter("0.weight"), mode="fan_out", nonlinearity="relu")
    return layer


def pixel_classifier(width: int, classes: int, dropout: float) -> nn.Module:
    """Dropout of whole channels and a 1x1 convolution to logits.

    Initialisation: that of ``conv_seg`` in mmseg's ``BaseDecodeHead``, normal with std 0.01, bias 0.
    """
    layer = nn.Conv2d(width, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), layer)


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation of x [B, C, h, w] to the height and width of ``like`` [..., H, W], corners not aligned."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
