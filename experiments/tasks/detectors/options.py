"""The settings of detectors and their published values. Must not import torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BoxStage:
    """One stage of box heads, of which Mask R-CNN has one and Cascade R-CNN three.

    overlap: IoU from which a region is an object's; best: IoU from which an object's best region is its own even if
    the region overlaps another object more, None for never; scales: by which the four numbers of a box's offset to its
    region are multiplied in training, 1 / standard deviation; weight: of all losses of the stage.
    """

    overlap: float = 0.5
    best: float | None = None
    scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    weight: float = 1.0


CASCADE_STAGES = (
    BoxStage(),
    BoxStage(0.6, scales=(20.0, 20.0, 10.0, 10.0), weight=0.5),
    BoxStage(0.7, scales=(1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067), weight=0.25),
)


@dataclass(frozen=True)
class DetectorOptions:
    """What can be set of a detector. The defaults are Faster R-CNN's; PUBLISHED has those of every head.

    Networks: width: channels of neck and heads; neck_offsets: None for FPN, or the offset mode of ATMFPN; fc_width: of the fully connected layers on regions; convs: 3x3
    convolutions of RetinaNet's towers, of mask heads, and of Cascade's box heads; anchor_scale: side of a square anchor
    over the stride of its level (RetinaNet: of the smallest of three).

    Proposals: candidates: boxes of a level before suppression, in training and in evaluation (RetinaNet: detections of
    a level, in evaluation); proposals: boxes of an image after it; anchors_per_image: on which their loss is computed;
    anchor_border: px by which anchors of the loss may cross the edge of the image, None for any; anchor_beta: of the
    smooth L1 loss, 0 for L1.

    Regions: rois_per_image: on which the losses of the region heads are computed; stages: of the box heads; box_loss:
    "l1" of offsets, or "giou" of boxes; box_weight: of that loss; sampling_ratio: samples per cell and axis of
    RoIAlign, 0 for as many as there are px. On CUDA, deterministic training needs 2: with 0, RoIAlign's deterministic
    form needs far too much memory.

    Results: detections: at most, per image; score_threshold: which scores are above.
    """

    width: int = 256
    neck_offsets: str | None = None
    fc_width: int = 1024
    convs: int = 4
    anchor_scale: float = 8.0
    candidates_training: int = 2000
    candidates_evaluation: int = 1000
    proposals_training: int = 1000
    proposals_evaluation: int = 1000
    anchors_per_image: int = 256
    anchor_border: int | None = None
    anchor_beta: float = 0.0
    rois_per_image: int = 512
    stages: tuple[BoxStage, ...] = (BoxStage(),)
    box_loss: str = "l1"
    box_weight: float = 1.0
    sampling_ratio: int = 0
    detections: int = 100
    score_threshold: float = 0.05


# head → its settings in PVT's configurations (RetinaNet, Mask R-CNN) and in Swin's (Cascade Mask R-CNN). They build on
# mmdet's, of which only Mask R-CNN's has match_low_quality=True in its region head.
PUBLISHED = {
    "retinanet": DetectorOptions(anchor_scale=4.0),
    "faster_rcnn": DetectorOptions(),
    "mask_rcnn": DetectorOptions(stages=(BoxStage(best=0.5),)),
    "cascade_mask_rcnn": DetectorOptions(
        proposals_training=2000,
        anchor_border=0,
        anchor_beta=1 / 9,
        stages=CASCADE_STAGES,
        box_loss="giou",
        box_weight=10.0,
    ),
}
