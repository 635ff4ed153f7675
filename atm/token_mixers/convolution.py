"""Mixers that weigh neighbours in the same way everywhere: pooling and depth-wise convolution."""

from typing import TYPE_CHECKING

from timm.layers import trunc_normal_
from timm.models.metaformer import Pooling
from torch import Tensor, nn

if TYPE_CHECKING:
    from atm.mixers import MixerOptions


class PoolMixer(nn.Module):
    """The mean of the 3 x 3 neighbours that lie on the map, minus the token itself (PoolFormer, arXiv 2111.11418)."""

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.pooling = Pooling(pool_size=3)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        return self.pooling(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class DepthwiseMixer(nn.Module):
    """``fc_out(depthwise(fc_in(x)))``: a depth-wise convolution between two pointwise layers, all with bias.

    ConvNeXt's (arXiv 2201.03545) in the form that STM-Evaluation (arXiv 2211.05781) gives it: with a projection on
    either side, as the attention of a transformer has, and without an activation. kernel: side of the kernel in tokens.
    """

    def __init__(self, dim: int, options: "MixerOptions", kernel: int) -> None:
        super().__init__()
        self.fc_in = nn.Linear(dim, dim)
        self.depthwise = nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.fc_out = nn.Linear(dim, dim)

    def init_weights(self) -> None:
        """Trunc-normal 0.02 for the convolution, too (ConvNeXt)."""
        trunc_normal_(self.depthwise.weight, std=0.02)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        return self.fc_out(self.depthwise(self.fc_in(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
