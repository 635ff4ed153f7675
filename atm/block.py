"""A block of token mixer and MLP, and a stage of blocks that share their positional encoding and offsets."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from timm.layers import DropPath
from timm.models import checkpoint
from torch import Tensor, fx, nn
from torch.nn import functional

from atm.mixers import MixerOptions, TokenMixer
from atm.mlp import Mlp
from atm.offsets import OffsetLayer, PositionalEncodingGenerator, channels_first, opens_set
from atm.recompute import recomputable, recomputation
from atm.shortcuts import is_plain, recorded

fx.wrap("channels_first")  # which looks at the type of its tokens; torch.fx wants this in every module that calls it


class Block(nn.Module):
    """``x + mixer(LN(x), offsets)``, then ``x + MLP(LN(x))`` (AAAI Eq. 5, 6).

    offsets: the block's own layer of offsets, or None. The stage calls it, because later blocks reuse its offsets.
    """

    def __init__(
        self, dim: int, mlp_ratio: float, mixer: TokenMixer, offsets: OffsetLayer | None, drop_path: float
    ) -> None:
        super().__init__()
        self.recomputes = True  # cheap tensors in the backward pass, in place of keeping them
        self.predicts = offsets is not None
        self.offsets = nn.Identity() if offsets is None else offsets
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = mixer
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, offsets: Tensor | None) -> Tensor:
        """x: [B, H, W, C]; offsets: [B, H, W, O] in tokens, None without. Returns [B, H, W, C]."""
        if torch.jit.is_scripting() or not self.recomputes or recorded(x):
            x = x + self.drop_path1(self.mixer(self.norm1(x), offsets))
            return x + self.drop_path2(self.mlp(self.norm2(x)))
        else:
            return self._forward_with_recomputation(x, offsets)

    @torch.jit.unused
    def _forward_with_recomputation(self, x: Tensor, offsets: Tensor | None) -> Tensor:
        with recomputation():
            x = x + self.drop_path1(self.mixer(normed(self.norm1, x), offsets))
            return x + self.drop_path2(self.mlp(normed(self.norm2, x)))


def normed(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """``norm(x)``. The output of a plain LayerNorm is recomputed in the backward pass from the tensors used here."""
    normed = norm(x)
    if is_plain(norm, nn.LayerNorm):
        recomputable(normed, functional.layer_norm, x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return normed


class Stage(nn.Module):
    """An optional downsampling convolution, then blocks that share one PEG and pass their offsets on.

    offsets: called with ``dim`` for each block that has its own offsets; None without. interval: blocks from one set
    of offsets to the next. peg: whether PEG precedes these blocks; with "predictor" only their offsets see its output.
    mixer: called with ``dim`` and ``options`` for each block, see ``atm.mixers.MIXERS``.
    """

    def __init__(
        self,
        in_dim: int,
        dim: int,
        depth: int,
        mlp_ratio: float,
        drop_paths: Sequence[float],
        interval: int,
        offsets: Callable[[int], OffsetLayer] | None,
        peg: bool | str,
        mixer: Callable[[int, MixerOptions], TokenMixer],
        options: MixerOptions,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        # The released model has this convolution in the previous stage's last block. Here a stage ends before the next
        # downsampling, where dense prediction takes its output.
        self.downsample = nn.Identity() if in_dim == 0 else nn.Conv2d(in_dim, dim, 3, stride=2, padding=1)
        self.opens_set = [opens_set(j, depth, interval) for j in range(depth)]
        self.peg = PositionalEncodingGenerator(dim) if peg else nn.Identity()
        self.peg_feeds_blocks = peg != "predictor"
        blocks = []
        for j in range(depth):
            own = offsets(dim) if offsets is not None and self.opens_set[j] else None
            blocks.append(Block(dim, mlp_ratio, mixer(dim, replace(options, block=j)), own, drop_paths[j]))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C_in]. Returns [B, H', W', C], H' = ceil(H / 2) where the stage downsamples."""
        x = self.downsample(channels_first(x)).permute(0, 2, 3, 1).contiguous()
        offsets: Tensor | None = None
        for j, block in enumerate(self.blocks):
            if self.opens_set[j]:
                encoded = self.peg(x)
                if block.predicts:
                    offsets = block.offsets(encoded)
                if self.peg_feeds_blocks:
                    x = encoded
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(block, x, offsets)
            else:
                x = block(x, offsets)
        return x
