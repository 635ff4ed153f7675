"""Settings of detection: what a null stands for, what goes together, and where the section does not belong."""

from __future__ import annotations

import pytest

from errors import ConfigError
from experiments.config import resolve
from experiments.data.box_transforms import MULTI_SCALE, BoxAugment
from experiments.detect_completion import LONGEST_BEFORE_CROP
from experiments.tasks.detection import augment_of, detector_options
from experiments.tasks.detectors.options import PUBLISHED

DRAWN = {"task": "detection", "data.num_classes": 4}
PHOTOGRAPHS = {"task": "detection", "data.dataset": "coco", "data.num_classes": 80}
COCO = ("coco_retinanet", "coco_mask_rcnn", "coco_cascade")


def test_nulls_stand_for_the_published_values():
    retinanet, mask_rcnn, cascade = (resolve(name, {"init": "parent"}).detect for name in COCO)
    assert (retinanet.anchor_scale, mask_rcnn.anchor_scale, cascade.anchor_scale) == (4, 8, 8)
    assert (retinanet.rois, mask_rcnn.rois, cascade.rois) == (None, 512, 512)
    assert (retinanet.proposals, mask_rcnn.proposals, cascade.proposals) == (None, 1000, 2000)
    assert (retinanet.test_proposals, mask_rcnn.test_proposals, cascade.test_proposals) == (None, 1000, 1000)
    assert (retinanet.resize, retinanet.short_sides, retinanet.crop, retinanet.hflip) == (
        [800, 1333],
        [800],
        False,
        0.5,
    )
    assert cascade.short_sides == list(range(480, 801, 32)) and cascade.crop


@pytest.mark.parametrize("head", PUBLISHED)
def test_the_published_structure_is_that_of_the_options(head):
    assert detector_options(resolve("scenes", DRAWN | {"detect.head": head})) == PUBLISHED[head]


def test_the_published_augmentation_is_that_of_the_transforms():
    assert augment_of(resolve("coco_retinanet", {"init": "parent"})) == BoxAugment()
    assert augment_of(resolve("coco_retinanet_3x", {"init": "parent"})) == MULTI_SCALE


def test_a_crop_begins_on_an_image_within_the_long_side():
    assert max(MULTI_SCALE.first_sides) == LONGEST_BEFORE_CROP


def test_drawn_data_are_not_augmented():
    detect = resolve("scenes", DRAWN).detect
    assert (detect.resize, detect.short_sides, detect.crop, detect.hflip) == (None,) * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DRAWN | {"detect.hflip": 0.5}, "detect.hflip: scenes are drawn, not augmented"),
        (DRAWN | {"detect.short_sides": [64]}, "detect.short_sides: scenes are drawn, not augmented"),
        (DRAWN | {"detect.head": "retina"}, "unknown value for detect.head 'retina'; did you mean 'retinanet'"),
        (DRAWN | {"detect.head": "retinanet", "detect.rois": 64}, "detect.rois=64: detect.head=retinanet has no such"),
        (DRAWN | {"detect.head": "retinanet", "detect.test_proposals": 9}, "detect.head=retinanet has no such part"),
        (DRAWN | {"detect.neck_offsets": "static"}, "detect.neck=fpn has no offsets (valid with: atmfpn)"),
        (PHOTOGRAPHS | {"detect.resize": [1333, 800]}, "give the short and the long side"),
        (PHOTOGRAPHS | {"detect.resize": [240, 320], "detect.crop": True}, "the long side must be at least 600"),
        (PHOTOGRAPHS | {"detect.detections": 300}, "detect.detections=300: must be in [1, 100]"),
        (PHOTOGRAPHS | {"detect.short_sides": []}, "give at least one side"),
        (PHOTOGRAPHS | {"detect.short_sides": [480, 2000]}, "none longer than the long side"),
        ({"detect.head": "retinanet"}, "detect.head: not a setting of task=token_labelling"),
        (PHOTOGRAPHS | {"augment.hflip": 0.1}, "augment.hflip: not a setting of task=detection"),
        (PHOTOGRAPHS | {"segment.hflip": 0.1}, "segment.hflip: not a setting of task=detection"),
        (DRAWN | {"machine.batch_per_device": 1}, "machine.batch_per_device=1: pairs of images share"),
        (DRAWN | {"train.batch_size": 4, "machine.devices": 4}, "at most 2 devices"),
        (
            DRAWN | {"detect.head": "cascade_mask_rcnn", "train.batch_size": 8, "machine.batch_per_device": 4},
            "machine.batch_per_device=4: the box heads of detect.head=cascade_mask_rcnn have batch norm",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as refused:
        resolve("scenes", settings)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_single_images_may_be_dealt_out_where_no_pair_shares_a_normaliser():
    alone = DRAWN | {"detect.images_per_loss": 1, "train.batch_size": 4, "machine.devices": 4}
    assert resolve("scenes", alone).machine.devices == 4


@pytest.mark.parametrize(("variant", "rate"), [("xt", 0.1), ("t", 0.1), ("s", 0.3), ("b", 0.5), ("l", 0.6)])
def test_drop_path_is_the_one_published_for_the_task(variant, rate):
    assert resolve("coco_retinanet", {"init": "parent", "model": variant}).model.drop_path == rate
