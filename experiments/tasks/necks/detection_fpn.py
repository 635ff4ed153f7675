"""The feature pyramid of detectors, which goes on above the coarsest map of the backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.tasks.necks.fpn import FPN


class DetectionFPN(FPN):
    """A feature pyramid with extra coarse levels.

    channels: of the maps, finest first; width: channels of every output. subsampled: whether a level follows the
    coarsest, every second row and column of it. convolved: number of levels that follow, each by a 3x3 convolution of
    stride 2 with bias, the first on the last map of the backbone, the others on the level before, without activation.
    offsets: as in ``FPN``; the extra levels are convolutions in ATMFPN, too, as a token mixer has no stride.
    Source: mmdet's ``FPN``, without and with ``add_extra_convs="on_input"``. torchvision puts a ReLU before P7.
    Initialisation: Xavier uniform, biases 0.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        subsampled: bool = False,
        convolved: int = 0,
        offsets: str | None = None,
    ):
        super().__init__(channels, width, offsets)
        self.subsampled = subsampled
        self.extra = nn.ModuleList(
            nn.Conv2d(width if i else channels[-1], width, 3, stride=2, padding=1) for i in range(convolved)
        )
        for layer in self.extra:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [B, channels[i], H_i, W_i], finest first, to as many maps [B, width, H_i, W_i] and the extra levels."""
        levels = super().forward(maps)
        if self.subsampled:
            # the reference's max pooling of one cell; on CUDA, its backward pass would have no deterministic form
            levels.append(levels[-1][..., ::2, ::2])
        coarsest = maps[-1]
        for layer in self.extra:
            coarsest = _strided(layer, coarsest)
            levels.append(coarsest)
        return levels


def _strided(layer: nn.Module, x: Tensor) -> Tensor:
    """``layer(x)``, in float32 where a map on a CPU has one row or one column.

    There, torch 2.15 takes memory that nobody has written into the weights' gradient of such a convolution in bfloat16.
    """
    if x.device.type != "cpu" or 1 not in x.shape[-2:]:
        return layer(x)  # type: ignore[no-any-return]
    with torch.autocast("cpu", enabled=False):
        return layer(x.float()).to(x.dtype)  # type: ignore[no-any-return]
