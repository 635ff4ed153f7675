"""The sections of the schema for segmentation and detection, with the published settings of their heads. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.setting import setting
from experiments.tasks.detectors.options import PUBLISHED

SEGMENTATION_HEADS: dict[str, dict[str, Any]] = {  # head → its settings as published (AAAI Tables 2 and 3)
    "semantic_fpn": {"width": 128, "neck_width": 256},
    "upernet": {"width": 512, "auxiliary": 0.4},
}
NECKS = ("fpn", "atmfpn")
NECK_OFFSETS = ("axial", "zero", "static")  # of atm.neck, which would import torch


@dataclass
class Segment:
    """Semantic segmentation: the head, how image and mask are augmented together, and how images are tested.

    Drawn data sets have no augmentation: for them ``resize`` to ``distortion`` are null.
    """

    head: str = setting("semantic_fpn", "what stands on the backbone", choices=tuple(SEGMENTATION_HEADS))
    width: int | None = setting(
        None, "channels of the head; null = 128 for semantic_fpn, 512 for upernet", within="[1, inf)"
    )
    neck_width: int | None = setting(
        None, "channels of the feature pyramid below semantic_fpn; null = 256 there", within="[1, inf)"
    )
    neck: str = setting(
        "fpn", "layers of the feature pyramid below semantic_fpn: convolutions, or active token mixers", choices=NECKS,
        neutral="fpn",
    )  # fmt: skip
    neck_offsets: str | None = setting(
        None, "offset mode of neck=atmfpn; null = axial there", choices=NECK_OFFSETS, neutral=None
    )
    dropout: float = setting(0.1, "share of channels dropped before the last layer", within="[0, 1)")
    auxiliary: float | None = setting(
        None, "weight of the loss of upernet's auxiliary head on stage 3, 0 = no such head; null = 0.4 there",
        within="[0, inf)",
    )  # fmt: skip
    resize: list[int] | None = setting(
        None, "short and long side in pixels that images are fitted within; null = [512, 2048]", within="[1, inf)"
    )
    scale: list[float] | None = setting(
        None, "training: range of the factor on that size; null = [0.5, 2]", within="(0, inf)"
    )
    max_share: float | None = setting(
        None, "training: largest share of one class in a random crop, tried ten times; null = 0.75", within="(0, 1]"
    )
    hflip: float | None = setting(None, "probability of a horizontal flip; null = 0.5", within="[0, 1]")
    distortion: bool | None = setting(None, "brightness, contrast, saturation, hue at random; null = true")
    test_multiple: int = setting(1, "sides of a test image are rounded up to multiples of it", within="[1, inf)")
    test_window: int | None = setting(
        None, "side in pixels of square windows that test images are cut into; null = whole images", within="[1, inf)"
    )
    test_stride: int | None = setting(
        None, "pixels from one window to the next; null = two thirds of a window", within="[1, inf)"
    )
    test_scales: list[float] = setting([1.0], "sizes at which each image is tested, averaged", within="(0, inf)")
    test_flip: bool = setting(False, "also test mirrored images")


WITH_MASKS = ("mask_rcnn", "cascade_mask_rcnn")  # detectors that also predict a mask of each object
# settings of the section detect → what DetectorOptions calls them
DETECTOR_OPTIONS = {
    "width": "width",
    "neck_offsets": "neck_offsets",
    "fc_width": "fc_width",
    "anchor_scale": "anchor_scale",
    "rois": "rois_per_image",
    "proposals": "proposals_training",
    "test_proposals": "proposals_evaluation",
    "sampling_ratio": "sampling_ratio",
    "detections": "detections",
    "score_threshold": "score_threshold",
}
OF_REGIONS = ("fc_width", "rois", "proposals", "test_proposals", "sampling_ratio")  # settings that retinanet lacks


@dataclass
class Detect:
    """Object detection: the detector, how images and their objects are augmented together, and how images are tested.

    Drawn data sets have no augmentation: for them ``resize`` to ``hflip`` are null.
    """

    head: str = setting("mask_rcnn", "detector that stands on the backbone", choices=tuple(PUBLISHED))
    width: int = setting(256, "channels of the feature pyramid and of the convolutions of heads", within="[1, inf)")
    neck: str = setting(
        "fpn", "layers of the feature pyramid: convolutions, or active token mixers (extra levels stay convolutions)",
        choices=NECKS, neutral="fpn",
    )  # fmt: skip
    neck_offsets: str | None = setting(
        None, "offset mode of neck=atmfpn; null = axial there", choices=NECK_OFFSETS, neutral=None
    )
    fc_width: int | None = setting(
        None, "width of the box head's linear layers; null = 1024, without meaning for retinanet", within="[1, inf)"
    )
    anchor_scale: float | None = setting(
        None, "side of the smallest square anchor in strides of its map; null = 4 for retinanet, 8 for all others",
        within="(0, inf)",
    )  # fmt: skip
    rois: int | None = setting(
        None, "training: regions per image that the box head learns from; null = 512, not of retinanet",
        within="[1, inf)",
    )  # fmt: skip
    proposals: int | None = setting(
        None, "training: regions per image that the proposal network hands on; null = 1000, 2000 for cascades",
        within="[1, inf)",
    )  # fmt: skip
    test_proposals: int | None = setting(
        None, "regions per image that the proposal network hands on in a test; null = 1000, not of retinanet",
        within="[1, inf)",
    )  # fmt: skip
    sampling_ratio: int | None = setting(
        None, "samples per cell and axis of a pooled region, 0 = one per pixel; train.deterministic on a GPU needs 2; "
        "null = 0, not of retinanet",
        within="[0, inf)",
    )  # fmt: skip
    detections: int = setting(100, "objects per image at most; COCO's AP counts no more than 100", within="[1, 100]")
    score_threshold: float = setting(0.05, "score that a detection must exceed", within="[0, 1)")
    images_per_loss: int = setting(
        2,
        "images whose losses share a normaliser, as those of one GPU; the middle one of an odd batch has its own",
        within="[1, 2]",
    )
    resize: list[int] | None = setting(
        None, "short and long side in pixels that images are fitted within; null = [800, 1333]", within="[1, inf)"
    )
    short_sides: list[int] | None = setting(
        None, "training: short sides to choose from; null = that of resize", within="[1, inf)"
    )
    crop: bool | None = setting(
        None, "training: every other image is cropped between two resizings, as in Swin's recipe; null = false"
    )
    hflip: float | None = setting(None, "probability of a horizontal flip; null = 0.5", within="[0, 1]")
