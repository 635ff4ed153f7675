"""Settings of segmentation: what a null stands for, what goes together, and where the section does not belong."""

from __future__ import annotations

import pytest

from errors import ConfigError
from experiments.config import resolve
from experiments.data.mask_transforms import MaskAugment
from experiments.tasks.segmentation import augment_of
from sweeps import plan

DRAWN = {"task": "segmentation", "data.num_classes": 5}
PHOTOGRAPHS = {"task": "segmentation", "data.dataset": "ade20k", "data.num_classes": 150}


def test_nulls_stand_for_the_published_values():
    fpn, uper = (
        resolve("scenes", PHOTOGRAPHS | {"segment.head": head}).segment for head in ("semantic_fpn", "upernet")
    )
    assert (fpn.width, fpn.neck_width, fpn.auxiliary, fpn.dropout) == (128, 256, None, 0.1)
    assert (uper.width, uper.neck_width, uper.auxiliary, uper.dropout) == (512, None, 0.4, 0.1)
    assert (fpn.resize, fpn.scale, fpn.max_share, fpn.hflip, fpn.distortion) == (
        [512, 2048],
        [0.5, 2.0],
        0.75,
        0.5,
        True,
    )


def test_the_published_augmentation_is_that_of_the_transforms():
    assert augment_of(resolve("ade20k_upernet", {"init": "parent"})) == MaskAugment()


def test_drawn_data_are_not_augmented():
    segment = resolve("scenes", DRAWN).segment
    assert (segment.resize, segment.scale, segment.max_share, segment.hflip, segment.distortion) == (None,) * 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DRAWN | {"segment.hflip": 0.5}, "segment.hflip: scenes are drawn, not augmented"),
        (DRAWN | {"segment.test_window": 64}, "segment.test_window: scenes are drawn"),
        (DRAWN | {"segment.head": "uper"}, "unknown value for segment.head 'uper'; did you mean 'upernet'"),
        (DRAWN | {"segment.auxiliary": 0.4}, "segment.auxiliary=0.4: segment.head=semantic_fpn has no such part"),
        (DRAWN | {"segment.head": "upernet", "segment.neck_width": 64}, "segment.head=upernet has no such part"),
        (
            DRAWN | {"segment.head": "upernet", "segment.neck": "atmfpn"},
            "segment.head=upernet has a pyramid of its own",
        ),
        (DRAWN | {"segment.neck_offsets": "zero"}, "segment.neck=fpn has no offsets (valid with: atmfpn)"),
        (DRAWN | {"segment.neck": "atm"}, "unknown value for segment.neck 'atm'; did you mean 'atmfpn'"),
        (DRAWN | {"segment.head": "upernet", "train.batch_size": 1}, "train.batch_size=1: segment.head=upernet"),
        (DRAWN | {"segment.test_scales": []}, "give at least one scale"),
        (PHOTOGRAPHS | {"segment.resize": [2048, 512]}, "give a smaller and a larger number"),
        (PHOTOGRAPHS | {"segment.scale": [0.5]}, "segment.scale=[0.5]"),
        (PHOTOGRAPHS | {"segment.test_stride": 9}, "set segment.test_window, too"),
        (PHOTOGRAPHS | {"segment.test_window": 64, "segment.test_stride": 65}, "would have no answer"),
        ({"segment.head": "upernet"}, "segment.head: not a setting of task=token_labelling"),
        (PHOTOGRAPHS | {"augment.hflip": 0.1}, "augment.hflip: not a setting of task=segmentation"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError) as refused:
        resolve("scenes", settings)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_windows_overlap_by_a_third_unless_told_otherwise():
    segment = resolve("scenes", PHOTOGRAPHS | {"segment.test_window": 96}).segment
    assert segment.test_stride == 64


@pytest.mark.parametrize(
    ("variant", "rates"),
    [("xt", (0.1, 0.1)), ("t", (0.1, 0.1)), ("s", (0.2, 0.2)), ("b", (0.3, 0.2)), ("l", (0.3, 0.2))],
)
def test_drop_path_is_the_one_published_for_the_task(variant, rates):
    free = {"model": variant, "model.drop_path": None}
    assert resolve("imagenet", free).model.drop_path == rates[0]
    assert resolve("scenes", PHOTOGRAPHS | free).model.drop_path == rates[1]


def test_settings_of_one_task_of_a_sweep_leave_its_other_tasks_alone(tmp_path):
    sweep = tmp_path / "both.yaml"
    arms = "arms: {plain: {model.offsets: zero}}"
    sweep.write_text(
        f"recipes: {{smoke: scenes}}\nseeds: [0]\nbaseline: plain\n{arms}\ndownstream: {{masks: {{smoke: scenes_masks}}}}\n"
    )
    own, masks = plan.load(str(sweep), "smoke", {"segment.width": 16}).runs
    assert (own.task, masks.task) == ("token_labelling", "masks")
    assert masks.config.segment.width == 16 and masks.config.init == own.id
    assert own.id == plan.load(str(sweep), "smoke").runs[0].id
    with pytest.raises(ConfigError, match=r"segment\.width: not a setting of task=token_labelling"):
        plan.load("reach", "smoke", {"segment.width": 16})


def test_augmentation_of_images_leaves_segmentation_alone():
    own, *dense = plan.load("variants", "paper", {"augment.hflip": 0.1}, seeds=[0], arms=["xt"]).runs
    assert own.config.augment.hflip == 0.1 and [run.task for run in dense][:2] == ["semantic_fpn", "upernet"]
    assert len(dense) == 9 and all(run.config.augment.hflip == 0.5 for run in dense)
    assert resolve("scenes", PHOTOGRAPHS | {"augment.repeats": 2}).augment.repeats == 2
