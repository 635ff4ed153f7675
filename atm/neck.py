"""The layer of ATMFPN, a feature pyramid whose convolutions are active token mixers (AAAI Sec. 4.4, Table 7)."""

import torch
from torch import Tensor, nn

from atm.backbone import init_weights
from atm.block import normed
from atm.mixer import ActiveTokenMixer
from atm.offsets import PositionalEncodingGenerator, offset_layer
from atm.recompute import recomputation

NECK_OFFSETS = ("axial", "zero", "static")


class ATMLayer(nn.Module):
    """In the place of a convolution: ``mixer(LN(p), offsets(p))`` with ``p = PEG(x)``, from ``dim`` to ``out_dim``.

    offsets: "axial" predicts one offset for every channel and direction (S = 1) by LN and Linear, "static" learns
    constants, "zero" has none; PEG stays in all of them. There is neither an MLP nor a residual connection.
    The papers do not print this construction: it is the one whose FLOPs are those of AAAI Table 7 (inferred).
    Initialisation: the backbone's, but for the layers that its maps pass through, which are Xavier uniform as the
    convolutions of an FPN are: nothing leads around them, and with the backbone's small weights a map would leave a
    pyramid of 256 channels with a thirtieth of the size that it has after convolutions, one of 32 with less than a
    hundredth (standard deviations before training).
    Raises ValueError for another offset mode.
    """

    def __init__(self, dim: int, out_dim: int, offsets: str = "axial") -> None:
        super().__init__()
        if offsets not in NECK_OFFSETS:
            raise ValueError(f"unknown offsets {offsets!r} of a neck (valid: {', '.join(NECK_OFFSETS)})")
        self.peg = PositionalEncodingGenerator(dim)
        self.offsets = None if offsets == "zero" else offset_layer(offsets, dim, groups=dim, samples=1)
        self.norm = nn.LayerNorm(dim)
        self.mixer = ActiveTokenMixer(dim, out_dim, offsets=offsets)
        self.apply(init_weights)
        mixer = self.mixer
        for layer in (mixer.fc_w, mixer.fc_h, mixer.fc_c, mixer.proj):
            nn.init.xavier_uniform_(layer.weight)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """The PEG's parameters, as ``ATMNet.no_weight_decay`` names its own."""
        return {name for name, _ in self.named_parameters() if name.startswith("peg.")}

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, dim, H, W], as maps of a pyramid are. Returns [B, out_dim, H, W]."""
        encoded = self.peg(x.permute(0, 2, 3, 1))
        offsets = None if self.offsets is None else self.offsets(encoded)
        with recomputation():
            mixed = self.mixer(normed(self.norm, encoded), offsets)
        return mixed.permute(0, 3, 1, 2).contiguous()
