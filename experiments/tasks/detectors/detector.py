"""A backbone with a detection head: images to losses or to what is found in them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from errors import ConfigError, unknown
from experiments.tasks.detectors.detections import RawDetections
from experiments.tasks.detectors.options import PUBLISHED, DetectorOptions
from experiments.tasks.detectors.proposals import ProposalNetwork
from experiments.tasks.detectors.regions import RegionHeads
from experiments.tasks.detectors.retinanet import DenseHead
from experiments.tasks.detectors.targets import Targets
from experiments.tasks.necks.detection_fpn import DetectionFPN

STRIDES = (4, 8, 16, 32)  # px, of the backbone's maps
DENSE_START = 1  # index of the first map that RetinaNet reads
DENSE_STRIDES = (8, 16, 32, 64, 128)
REGION_STRIDES = (4, 8, 16, 32, 64)


class Detector(nn.Module):
    """A backbone, a feature pyramid, and heads, which a subclass has.

    backbone: gives maps at STRIDES, as ``network.dense_backbone`` makes it; start: index of the first map that the neck
    reads. The norm of a map that it does not read is a parameter nonetheless, as in the published configurations.
    """

    def __init__(self, backbone: nn.Module, neck: DetectionFPN, start: int = 0):
        super().__init__()
        self.backbone, self.neck, self.start = backbone, neck, start

    def forward(
        self, images: Tensor, sizes: Tensor, targets: Targets | None = None
    ) -> dict[str, Tensor] | list[RawDetections]:
        """Images [B, 3, H, W] to losses (scalars by name) in training, to what is found in each in evaluation.

        H and W: multiples of 32; sizes: int64 [B, 2], height and width of each image before it was padded; targets: in
        training. Every parameter has a gradient, also where there is no object.
        """
        maps = self.backbone(images)
        levels = self.neck(maps[self.start :])
        shapes: list[list[int]] = sizes.tolist()
        if not self.training:
            return self.detect(levels, shapes)
        if targets is None:
            raise TypeError("a detector in training needs targets")
        losses = self.losses(levels, shapes, targets)
        for unread in maps[: self.start]:
            name = next(iter(losses))
            losses[name] = losses[name] + unread[..., :0].sum()  # nothing, with a gradient of 0
        return losses

    def compute(self, images: Tensor) -> None:
        """Images [B, 3, H, W] through every network, as much for each image whatever there is in it: to count FLOPs.

        Heads on regions see as many of them as an image has proposals and detections at most.
        """
        self.run_heads(self.neck(self.backbone(images)[self.start :]))

    def run_heads(self, levels: Sequence[Tensor]) -> None:
        raise NotImplementedError

    def losses(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets) -> dict[str, Tensor]:
        raise NotImplementedError

    def detect(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[RawDetections]:
        raise NotImplementedError


class RetinaNet(Detector):
    """RetinaNet (Lin et al., 2017): maps from stride 8 on, P6 and P7 by convolutions on the backbone's last map."""

    def __init__(self, backbone: nn.Module, classes: int, options: DetectorOptions):
        neck = DetectionFPN(
            _channels(backbone)[DENSE_START:], options.width, convolved=2, offsets=options.neck_offsets
        )
        super().__init__(backbone, neck, DENSE_START)
        self.head = DenseHead(DENSE_STRIDES, classes, options)

    def run_heads(self, levels: Sequence[Tensor]) -> None:
        self.head.predict(levels)

    def losses(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets) -> dict[str, Tensor]:
        return self.head.losses(levels, sizes, targets)

    def detect(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[RawDetections]:
        return self.head.detect(levels, sizes)


class RegionDetector(Detector):
    """Faster, Mask or Cascade Mask R-CNN: proposals, and heads on regions of the maps at STRIDES.

    masks: whether there is a mask branch.
    """

    def __init__(self, backbone: nn.Module, classes: int, options: DetectorOptions, masks: bool):
        neck = DetectionFPN(_channels(backbone), options.width, subsampled=True, offsets=options.neck_offsets)
        super().__init__(backbone, neck)
        self.proposals = ProposalNetwork(REGION_STRIDES, options)
        self.regions = RegionHeads(STRIDES, classes, options, masks)

    def run_heads(self, levels: Sequence[Tensor]) -> None:
        self.proposals.head(levels)
        self.regions.run_networks(levels[0])

    def losses(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]], targets: Targets) -> dict[str, Tensor]:
        proposals, losses = self.proposals(levels, sizes, targets)
        return {**losses, **self.regions.losses(levels, proposals, sizes, targets)}

    def detect(self, levels: Sequence[Tensor], sizes: Sequence[Sequence[int]]) -> list[RawDetections]:
        proposals, _ = self.proposals(levels, sizes)
        return self.regions.detect(levels, proposals, sizes)


def build_detector(
    backbone: nn.Module, head: str, classes: int, options: DetectorOptions | None = None
) -> RetinaNet | RegionDetector:
    """backbone: gives maps at STRIDES; head: of PUBLISHED; options: None for the published ones of this head.

    Raises ConfigError for an unknown head.
    """
    if head not in PUBLISHED:
        raise ConfigError(unknown("detection head", head, PUBLISHED))
    options = PUBLISHED[head] if options is None else options
    if head == "retinanet":
        return RetinaNet(backbone, classes, options)
    return RegionDetector(backbone, classes, options, masks=head != "faster_rcnn")


def _channels(backbone: nn.Module) -> list[int]:
    channels: list[int] = backbone.feature_info.channels()  # type: ignore[union-attr, operator]
    return channels
