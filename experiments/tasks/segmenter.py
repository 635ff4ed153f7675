"""A backbone with a segmentation head: images to logits of every pixel."""

from __future__ import annotations

from torch import Tensor, nn

from errors import ConfigError, unknown
from experiments.dense_schema import SEGMENTATION_HEADS
from experiments.tasks.heads.fcn import FCNHead
from experiments.tasks.heads.layers import resize
from experiments.tasks.heads.semantic_fpn import SemanticFPNHead
from experiments.tasks.heads.upernet import UperNetHead
from experiments.tasks.necks.fpn import FPN

STRIDES = (4, 8, 16, 32)  # px, of the backbone's maps
AUXILIARY_STAGE = 2  # index of the map that UperNet's auxiliary head reads: stage 3


class Segmenter(nn.Module):
    """backbone: gives maps at STRIDES, as ``network.dense_backbone`` makes it; head: of SEGMENTATION_HEADS.

    width: of the head; neck_width: of Semantic FPN's neck; None for the published ones. neck_offsets: None for FPN, or
    the offset mode of ATMFPN, for Semantic FPN alone. auxiliary: whether UperNet has a head on stage 3 in training, of
    auxiliary_width channels.
    Raises ConfigError for an unknown head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: str,
        classes: int,
        width: int | None = None,
        neck_width: int | None = None,
        neck_offsets: str | None = None,
        auxiliary: bool = True,
        auxiliary_width: int = 256,
        dropout: float = 0.1,
    ):
        super().__init__()
        if head not in SEGMENTATION_HEADS:
            raise ConfigError(unknown("segmentation head", head, SEGMENTATION_HEADS))
        published = SEGMENTATION_HEADS[head]
        channels: list[int] = backbone.feature_info.channels()  # type: ignore[union-attr, operator]
        width = published["width"] if width is None else width
        self.backbone = backbone
        self.neck: nn.Module = nn.Identity()
        self.auxiliary: nn.Module | None = None
        if head == "semantic_fpn":
            neck_width = published["neck_width"] if neck_width is None else neck_width
            self.neck = FPN(channels, neck_width, neck_offsets)
            self.head: nn.Module = SemanticFPNHead(STRIDES, classes, neck_width, width, dropout)
        else:
            self.head = UperNetHead(channels, classes, width, dropout)
            if auxiliary:
                self.auxiliary = FCNHead(channels[AUXILIARY_STAGE], classes, auxiliary_width, dropout)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor | None]:
        """Images [B, 3, H, W] to logits [B, classes, H, W]; in training also those of the auxiliary head, or None."""
        maps = self.backbone(images)
        logits = resize(self.head(self.neck(maps)), like=images)
        if not self.training:
            return logits
        return logits, None if self.auxiliary is None else resize(self.auxiliary(maps[AUXILIARY_STAGE]), like=images)
