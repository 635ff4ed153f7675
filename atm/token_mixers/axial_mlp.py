"""A mixer with a weight for every pair of places on an axis, for maps of one size."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from atm.mixers import MixerOptions


class AxialMlpMixer(nn.Module):
    """``fuse([x, fc_h(x), fc_w(x)])``: one Linear along the columns, one along the rows (sMLPNet, arXiv 2109.05422).

    Their weights are shared by all channels, and ``fuse`` maps 3 C to C channels without bias. The norm is the block's,
    in place of the BatchNorm and GELU of sMLPNet. Only maps of the network's ``img_size`` fit.
    """

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.height, self.width = options.size
        self.fc_h = nn.Linear(self.height, self.height)
        self.fc_w = nn.Linear(self.width, self.width)
        self.fuse = nn.Linear(3 * dim, dim, bias=False)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]. Raises ValueError for a map of another size."""
        if x.shape[1] != self.height or x.shape[2] != self.width:
            raise ValueError(
                f"mixer 'mlp' was built for maps of {self.height} x {self.width} tokens, not {x.shape[1]} x "
                f"{x.shape[2]}: give the network img_size=(height, width)"
            )
        down = self.fc_h(x.transpose(1, 3)).transpose(1, 3)
        along = self.fc_w(x.transpose(2, 3)).transpose(2, 3)
        return self.fuse(torch.cat([x, down, along], dim=-1))
