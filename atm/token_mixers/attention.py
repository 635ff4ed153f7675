"""Mixers that weigh tokens by content: attention in shifted windows, in windows with a halo, and over a reduced map.

Maps of any size are accepted: they are padded with zeros, below and to the right, to whole windows or blocks, and a map
that is smaller than a window is one window. On maps that need no padding each equals its layer in timm.
"""

from typing import TYPE_CHECKING

import torch
from timm.layers import trunc_normal_
from timm.models.pvt_v2 import Attention
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from atm.mixers import MixerOptions


def heads_of(dim: int, head_dim: int) -> int:
    """The number of heads: of the divisors of ``dim`` the one nearest to ``dim / head_dim``, of two the smaller."""
    divisors = [heads for heads in range(1, dim + 1) if dim % heads == 0]
    return min(divisors, key=lambda heads: abs(heads - dim / head_dim))


def padding(size: int, unit: int) -> int:
    """How many tokens are missing to whole units."""
    return -size % unit


class WindowMixer(nn.Module):
    """Attention within windows, which every second block shifts by half a window (Swin, arXiv 2103.14030).

    Heads of about 32 channels, a learned bias for every relative position. As in Swin, tokens of the padding are read
    like any other; a dimension of the map that is no larger than a window is not shifted.
    """

    HEAD_DIM = 32

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.window = options.window
        self.shift = options.window // 2 if options.block % 2 else 0
        self.heads = heads_of(dim, self.HEAD_DIM)
        self.scale = (dim // self.heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        side = 2 * self.window - 1
        self.relative_position_bias_table = nn.Parameter(trunc_normal_(torch.empty(side, side, self.heads), std=0.02))

    def no_weight_decay(self) -> set[str]:
        """The table of relative positions, as in Swin."""
        return {"relative_position_bias_table"}

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        batch, height, width, channels = x.shape
        rows, columns = min(self.window, height), min(self.window, width)
        down = self.shift if height > self.window else 0
        right = self.shift if width > self.window else 0
        x = functional.pad(x, [0, 0, 0, padding(width, columns), 0, padding(height, rows)])
        if down > 0 or right > 0:
            x = x.roll((-down, -right), (1, 2))
        high, wide = x.shape[1] // rows, x.shape[2] // columns
        windows = x.reshape(batch, high, rows, wide, columns, channels).permute(0, 1, 3, 2, 4, 5)
        qkv = self.qkv(windows.reshape(batch, high * wide, rows * columns, channels))
        qkv = qkv.reshape(batch, high * wide, rows * columns, 3, self.heads, channels // self.heads)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # [3, B, windows, heads, tokens, C / heads]
        logits = (qkv[0] * self.scale) @ qkv[1].transpose(-2, -1) + self._bias(rows, columns)
        if down > 0 or right > 0:
            logits = logits + self._mask(x, rows, columns, down, right)
        read = (logits.softmax(dim=-1) @ qkv[2]).transpose(2, 3)
        read = read.reshape(batch, high, wide, rows, columns, channels).permute(0, 1, 3, 2, 4, 5)
        read = read.reshape(batch, high * rows, wide * columns, channels)
        if down > 0 or right > 0:
            read = read.roll((down, right), (1, 2))
        return self.proj(read[:, :height, :width])

    def _bias(self, rows: int, columns: int) -> Tensor:
        """The logits' bias by the position of query relative to key, [heads, tokens, tokens]."""
        table = self.relative_position_bias_table
        y = torch.arange(rows, device=table.device)
        x = torch.arange(columns, device=table.device)
        y = (y.unsqueeze(1) - y.unsqueeze(0) + self.window - 1).reshape(rows, 1, rows, 1)
        x = (x.unsqueeze(1) - x.unsqueeze(0) + self.window - 1).reshape(1, columns, 1, columns)
        return table[y, x].reshape(rows * columns, rows * columns, self.heads).permute(2, 0, 1)

    def _mask(self, x: Tensor, rows: int, columns: int, down: int, right: int) -> Tensor:
        """Keeps tokens apart that the shift has moved into one window, [windows, 1, tokens, tokens]."""
        part = 3 * _parts(x, 1, rows, down).unsqueeze(1) + _parts(x, 2, columns, right).unsqueeze(0)
        part = part.reshape(x.shape[1] // rows, rows, x.shape[2] // columns, columns).permute(0, 2, 1, 3)
        part = part.reshape(-1, rows * columns)
        apart = part.unsqueeze(1) != part.unsqueeze(2)
        return torch.zeros_like(apart, dtype=x.dtype).masked_fill(apart, -100.0).unsqueeze(1)  # Swin's number


def _parts(x: Tensor, dim: int, window: int, shift: int) -> Tensor:
    """For every row or column of a shifted map: 0, 1 in the last window, 2 where it comes from the other end."""
    here = torch.arange(x.shape[dim], device=x.device)
    if shift == 0:
        return torch.zeros_like(here)
    return (here >= x.shape[dim] - window).long() + (here >= x.shape[dim] - shift).long()


class HaloMixer(nn.Module):
    """Attention of every block of tokens over the block and three tokens around it (HaloNet, arXiv 2103.12731).

    Heads of about 32 channels. The logits have a part that depends on query and relative position. Tokens outside the
    map are zeros that are read, too, as in HaloNet. ``proj`` is STM-Evaluation's (arXiv 2211.05781): in HaloNet the
    next convolution mixes the heads.
    """

    HEAD_DIM = 32

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.block = options.window
        self.halo = 3  # tokens
        self.heads = heads_of(dim, self.HEAD_DIM)
        self.scale = (dim // self.heads) ** -0.5
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        side = 2 * (self.block + 2 * self.halo) - 1
        self.height_rel = nn.Parameter(torch.empty(side, dim // self.heads))
        self.width_rel = nn.Parameter(torch.empty(side, dim // self.heads))
        self.init_weights()

    def init_weights(self) -> None:
        """As in timm: queries, keys and values by the fan-in, relative positions by the size of a head."""
        for layer in (self.q, self.kv):
            trunc_normal_(layer.weight, std=layer.in_features**-0.5)
        for table in (self.height_rel, self.width_rel):
            trunc_normal_(table, std=self.scale)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        batch, height, width, channels = x.shape
        rows, columns = min(self.block, height), min(self.block, width)
        below, beside = padding(height, rows), padding(width, columns)
        around = [0, 0, self.halo, self.halo + beside, self.halo, self.halo + below]
        high, wide = (height + below) // rows, (width + beside) // columns

        q = functional.pad(self.q(x), [0, 0, 0, beside, 0, below])
        q = q.reshape(batch, high, rows, wide, columns, self.heads, -1).permute(0, 1, 3, 5, 2, 4, 6)
        q = q.reshape(batch * high * wide * self.heads, rows, columns, channels // self.heads)
        kv = functional.pad(self.kv(x), around)
        kv = kv.unfold(1, rows + 2 * self.halo, rows).unfold(2, columns + 2 * self.halo, columns)
        kv = kv.reshape(q.shape[0], 2 * channels // self.heads, -1)  # rows and columns of keys are one axis

        logits = (q.flatten(1, 2) @ kv[:, : q.shape[3]]) * self.scale
        logits = logits + self._relative(q).reshape(logits.shape)
        read = logits.softmax(dim=-1) @ kv[:, q.shape[3] :].transpose(1, 2)
        read = read.reshape(batch, high, wide, self.heads, rows, columns, -1).permute(0, 1, 4, 2, 5, 3, 6)
        read = read.reshape(batch, high * rows, wide * columns, channels)
        return self.proj(read[:, :height, :width])

    def _relative(self, q: Tensor) -> Tensor:
        """The part of the logits that depends on query and relative position.

        q: [N, rows, columns, C / heads]. Returns [N, rows, columns, rows + 2 * halo, columns + 2 * halo].
        """
        vertical = torch.einsum("nyxc,ykc->nyxk", q, self._at(self.height_rel, q.shape[1]))
        horizontal = torch.einsum("nyxc,xkc->nyxk", q, self._at(self.width_rel, q.shape[2]))
        return vertical.unsqueeze(4) + horizontal.unsqueeze(3)

    def _at(self, table: Tensor, block: int) -> Tensor:
        """The table's rows by the positions of query and key on one axis, [block, block + 2 * halo, C / heads]."""
        query = torch.arange(block, device=table.device)
        key = torch.arange(block + 2 * self.halo, device=table.device)
        return table[key.unsqueeze(0) - query.unsqueeze(1) + self.block + 2 * self.halo - 1]


class GlobalMixer(nn.Module):
    """Attention of every token over the whole map, whose keys and values are reduced (PVT, arXiv 2102.12122).

    The reductions are the published ones, 8, 4, 2 and 1 in stages 1 to 4; heads have about 64 channels. It has no
    positions of its own, and needs the network's PEG.
    """

    needs_peg = True
    HEAD_DIM = 64
    REDUCTIONS = (8, 4, 2, 1)

    def __init__(self, dim: int, options: "MixerOptions") -> None:
        super().__init__()
        self.reduction = self.REDUCTIONS[min(options.stage, len(self.REDUCTIONS) - 1)]
        self.attention = Attention(dim, num_heads=heads_of(dim, self.HEAD_DIM), sr_ratio=self.reduction)

    def forward(self, x: Tensor, offsets: Tensor | None = None) -> Tensor:
        """x: [B, H, W, C]; offsets: ignored. Returns [B, H, W, C]."""
        batch, height, width, channels = x.shape
        x = functional.pad(x, [0, 0, 0, padding(width, self.reduction), 0, padding(height, self.reduction)])
        size = [x.shape[1], x.shape[2]]
        read = self.attention(x.flatten(1, 2), size)
        return read.reshape(batch, size[0], size[1], channels)[:, :height, :width]
