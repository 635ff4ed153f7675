"""The offset predictor, the positional encoding before it, and the rule that says which blocks predict."""

import torch
from torch import Tensor, nn


class OffsetPredictor(nn.Module):
    """Predicts every token's offsets from the token alone: LN, then Linear (released model).

    groups: offsets per direction and sample. The Linear is *not* zero-initialised. Forward hooks on these modules
    (``stages.I.blocks.J.offsets`` in the backbone) see all offsets that a model uses, in tokens.
    """

    def __init__(self, dim: int, groups: int, samples: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.samples = samples
        self.norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, 2 * samples * groups)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C], the raw block input. Returns [B, H, W, 2 * samples * groups] in at least float32.

        The last axis reads as [direction, sample, group]: the first half is horizontal (W), the second vertical (H).
        """
        if torch.jit.is_scripting() or x.is_meta:  # neither has autocast
            return self.proj(self.norm(x))
        # Autocast would round offsets to 8 bits: 1/8 of a token at a distance of 20.
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.proj(self.norm(x.to(self.proj.weight.dtype)))


class PositionalEncodingGenerator(nn.Module):
    """PEG: a 3x3 depthwise convolution with bias plus residual, which lets offsets depend on the position."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, H, W, C]. Returns the same shape."""
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def opens_set(block: int, depth: int, interval: int) -> bool:
    """Whether a stage's ``block`` predicts new offsets: every ``interval``-th one except the last (released model).

    The only block of a stage predicts, since it has no earlier offsets to reuse.
    """
    return block % interval == 0 and (block < depth - 1 or depth == 1)
