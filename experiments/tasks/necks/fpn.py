"""The feature pyramid network: maps of a backbone at several strides become maps of one width."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from atm.neck import ATMLayer


class FPN(nn.Module):
    """A 1x1 lateral convolution per map, sums from coarse to fine by nearest upsampling, a 3x3 convolution per map.

    channels: of the maps, finest first; width: channels of every output. All convolutions have a bias and no norm.
    offsets: None, or for ATMFPN the offset mode of the ``ATMLayer`` in the place of each of these convolutions.
    Structure: torchvision's. Initialisation: Xavier uniform, biases 0, as in mmseg's and mmdet's ``FPN``.
    """

    def __init__(self, channels: Sequence[int], width: int = 256, offsets: str | None = None):
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(channels), width)
        for layer in self.pyramid.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if offsets is not None:
            self.pyramid.inner_blocks = nn.ModuleList(ATMLayer(dim, width, offsets) for dim in channels)
            self.pyramid.layer_blocks = nn.ModuleList(ATMLayer(width, width, offsets) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, channels[i], H_i, W_i], finest first, to as many maps [B, width, H_i, W_i]."""
        return list(self.pyramid(OrderedDict((str(i), stage) for i, stage in enumerate(maps))).values())
