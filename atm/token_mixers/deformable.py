"""A mixer that reads nine points around every token, moved by predicted offsets: deformable convolution."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from atm.sampling import sample_joint
from atm.token_mixers.attention import heads_of

if TYPE_CHECKING:
    from atm.mixers import MixerOptions


class DeformMixer(nn.Module):
    """``fc_out`` of a weighted sum of nine reads of ``fc_in(x)`` (DCNv3 of InternImage, arXiv 2211.05778).

    Every group of about 16 channels has its own points, a 3 x 3 grid plus predicted two-dimensional offsets, and its
    own weights, a softmax over the points. Both are linear in a 3 x 3 depth-wise convolution of the input, which
    LayerNorm and GELU follow. Before training all offsets are zero and all weights 1/9.
    """

    GROUP_DIM = 16

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.groups = heads_of(dim, self.GROUP_DIM)
        self.reads = 9
        self.fc_in = nn.Linear(dim, dim)
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.act = nn.GELU()
        self.points = nn.Linear(dim, 2 * self.reads * self.groups)
        self.weights = nn.Linear(dim, self.reads * self.groups)
        self.fc_out = nn.Linear(dim, dim)
        # by rows; not a parameter, and no part of a checkpoint
        y, x = torch.meshgrid(torch.arange(-1.0, 2.0), torch.arange(-1.0, 2.0), indexing="ij")
        self.register_buffer("grid", torch.stack([x.flatten(), y.flatten()]).unsqueeze(-1), persistent=False)

    def init_weights(self) -> None:
        """As released: projections Xavier uniform, offsets and weights from zero, the convolution PyTorch's default."""
        self.depthwise.reset_parameters()
        for layer in (self.fc_in, self.fc_out):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.points, self.weights):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        batch, height, width, channels = x.shape
        guide = self.act(self.norm(self.depthwise(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)))
        weights = self.weights(guide).reshape(batch, height, width, self.reads, self.groups).softmax(dim=3)
        moves = self._moves(guide).reshape(batch, height, width, 2, self.reads, self.groups) + self.grid
        moves = moves.flatten(4)
        read = sample_joint(self.fc_in(x), moves[:, :, :, 1], moves[:, :, :, 0], samples=self.reads)
        read = read.reshape(batch, height, width, self.reads, self.groups, channels // self.groups)
        if x.is_meta:  # so that the weighted sum is counted, as that of attention is
            mixed = weights.permute(0, 1, 2, 4, 3).unsqueeze(4) @ read.permute(0, 1, 2, 4, 3, 5)
        else:
            mixed = (read * weights.unsqueeze(5)).sum(dim=3)
        return self.fc_out(mixed.reshape(batch, height, width, channels))

    def _moves(self, guide: Tensor) -> Tensor:
        """The predicted offsets [B, H, W, 2 * reads * groups] in tokens, the horizontal half first."""
        if torch.jit.is_scripting() or guide.is_meta:
            return self.points(guide)
        else:
            # Autocast would round offsets to 8 bits.
            with torch.autocast(device_type=guide.device.type, enabled=False):
                return self.points(guide.to(self.points.weight.dtype))
