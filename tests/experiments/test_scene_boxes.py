"""Objects of the drawn scenes: bars with their boxes and masks, beside images that are the same bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks

from errors import ConfigError
from experiments.data import scene_boxes
from experiments.data.labelled_boxes import LabelledBoxes
from experiments.data.matching import Match
from experiments.data.order import SampleKey
from experiments.data.probes import Diagonal, Pair, Search
from experiments.data.scene_boxes import drawn_boxes
from experiments.data.scene_masks import BarMasks
from experiments.data.scenes import CLASSES, Scenes, draw_classes, draw_layout

SIZE = (96, 160)


def boxes(split="train", seed=3, size=SIZE, with_masks=True):
    return drawn_boxes(Scenes(size, seed, 12, split), with_masks)


def in_the_image(bar, heading):
    """x1, y1, x2, y2 of a bar whose layout has its marks at the low end of x."""
    start, top, length, thickness = bar
    along, across = (start, start + length), (top, top + thickness)
    if heading in (1, 3):  # right and down: the other way round
        full = SIZE[1] if heading == 1 else SIZE[0]
        along = (full - along[1], full - along[0])
    (x1, x2), (y1, y2) = (along, across) if heading < 2 else (across, along)
    return [x1, y1, x2, y2]


def test_boxes_are_those_of_the_bars_that_were_drawn():
    data, headings = boxes(), set()
    for index in range(12):
        random = data.scenes.stream(SampleKey(1, index))
        layout = draw_layout(random, SIZE)
        classes = draw_classes(random, len(layout.bars))
        objects = data[SampleKey(1, index)].objects
        assert objects.boxes.tolist() == [in_the_image(bar, layout.heading) for bar in layout.bars.tolist()]
        assert objects.classes.tolist() == classes.tolist() and objects.classes.dtype == torch.int64
        headings.add(layout.heading)
    assert headings == {0, 1, 2, 3}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_images_are_those_of_the_drawn_data_set(split):
    data, drawn = boxes(split), Scenes(SIZE, 3, 12, split)
    for index in range(4):
        sample, expected = data[SampleKey(2, index)], drawn[SampleKey(2, index)][0]
        assert sample.size == SIZE and sample.bad == -1
        if split == "train":
            assert torch.equal(sample.image, expected) and sample.truth is None
        else:
            assert sample.image.dtype == torch.uint8 and sample.image.shape == (3, *SIZE) and sample.objects is None
            assert torch.equal(drawn.labelling.normalise(sample.image.permute(1, 2, 0).numpy()), expected)


def test_masks_divide_the_pixels_of_the_segmentation_masks_among_objects():
    data = boxes()
    pixels = BarMasks(data.scenes)
    for index in range(6):
        objects, expected = data[SampleKey(0, index)].objects, pixels[SampleKey(0, index)][1]
        assert objects.masks.dtype == torch.uint8 and objects.masks.sum(0).max() == 1
        painted = torch.full(SIZE, len(CLASSES))
        for mask, name in zip(objects.masks.bool(), objects.classes):
            painted[mask] = name
        assert torch.equal(painted, expected)


def test_evaluation_has_boxes_areas_and_run_lengths_of_the_same_objects():
    train, judged = boxes("train"), boxes("eval")
    for index in range(4):
        truth = judged[SampleKey(0, index)].truth
        scene = judged.scenes.scene(SampleKey(0, index))
        assert truth.number == index and truth.size == SIZE and not truth.crowd.any()
        assert truth.classes.tolist() == scene.classes.tolist()
        bitmaps = np.stack([scene.pixel_bars == number for number in range(len(scene.classes))])
        assert np.array_equal(coco_masks.decode(list(truth.masks)).transpose(2, 0, 1), bitmaps)
        assert truth.areas.tolist() == bitmaps.sum((1, 2)).tolist() and truth.areas.dtype == np.float64
        assert truth.boxes.tolist() == coco_masks.toBbox(list(truth.masks)).tolist()
    assert train.class_names == judged.class_names == CLASSES and judged.palette.shape == (4, 3)


def test_batches_are_labelled_boxes():
    data = boxes()
    samples = [data[SampleKey(0, index)] for index in range(3)]
    batch = data.collate(samples)
    assert isinstance(batch, LabelledBoxes) and batch.size == 3 and batch.bad.numel() == 0 and batch.truths == []
    assert batch.images.shape == (3, 3, *SIZE) and batch.sizes.tolist() == [list(SIZE)] * 3
    assert all(torch.equal(one, sample.objects.boxes) for one, sample in zip(batch.boxes, samples))
    assert all(torch.equal(one, sample.objects.masks) for one, sample in zip(batch.masks, samples))
    data = boxes("eval")
    batch = data.collate([data[SampleKey(0, index)] for index in range(3)])
    assert isinstance(batch.images, tuple) and [truth.number for truth in batch.truths] == [0, 1, 2]
    assert batch.boxes == batch.classes == batch.masks == () and batch.sizes.tolist() == [list(SIZE)] * 3


def test_masks_are_left_out_where_they_are_not_asked_for():
    train, judged = boxes(with_masks=False), boxes("eval", with_masks=False)
    sample = train[SampleKey(0, 0)]
    assert sample.objects.masks is None and train.collate([sample]).masks == ()
    truth, full = judged[SampleKey(0, 0)].truth, boxes("eval")[SampleKey(0, 0)].truth
    assert truth.masks is None and truth.areas.tolist() == full.areas.tolist()


def test_samples_follow_seed_epoch_and_index_in_training_and_the_index_alone_in_evaluation():
    def image(split, seed, epoch, index):
        return boxes(split, seed)[SampleKey(epoch, index)].image

    first = image("train", 0, 0, 0)
    assert torch.equal(first, image("train", 0, 0, 0))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(first, image("train", *other))
    assert torch.equal(image("eval", 0, 0, 3), image("eval", 41, 9, 3))


def test_the_fingerprint_is_of_images_and_objects_but_not_of_the_seed(monkeypatch):
    fingerprint = boxes("eval").fingerprint()
    assert fingerprint == boxes("eval", seed=1).fingerprint() != Scenes(SIZE, 3, 12, "eval").fingerprint()
    others = {boxes().fingerprint(), boxes("eval", size=(64, 64)).fingerprint()}
    monkeypatch.setattr(scene_boxes, "VERSION", 2)
    others.add(boxes("eval").fingerprint())
    assert fingerprint not in others and len(others) == 3


def test_objects_name_their_samples():
    data = boxes("eval")
    assert len(data) == 12 and data.name(4) == "eval scenes 4" and "generated" in data.problem(4)


@pytest.mark.parametrize("kind", [Search, Pair, Diagonal, Match], ids=lambda kind: kind.plural)
def test_probes_have_no_boxes(kind):
    with pytest.raises(ConfigError, match=f"{kind.plural} have no boxes: .*data.dataset=scenes") as error:
        drawn_boxes(kind(SIZE, 0, 4, "train"))
    assert "\n" not in str(error.value)
