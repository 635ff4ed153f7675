"""Augmentation of images with boxes and masks: sizes and boxes computed by hand, pixels against torchvision."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as kernels

from experiments.data.box_transforms import MULTI_SCALE, BoxAugment, BoxView, LabelledObjects, canvas_of
from experiments.data.mask_transforms import normalise, resize


def noise(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def objects(*boxes, size=None):
    """Objects of classes 0, 1, …; with a size, each with its box as a mask."""
    masks = None
    if size:
        masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes):
            mask[max(0, top) : bottom, max(0, left) : right] = 1
    return LabelledObjects(torch.tensor(boxes).reshape(-1, 4).double(), torch.arange(len(boxes)), masks)


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),  # 640 · 800 / 480 = 1066.67
        ((427, 640), (800, 1199)),  # 1199.06
        ((640, 427), (1199, 800)),
        ((300, 640), (625, 1333)),  # the long side decides: 300 · 1333 / 640 = 624.84
        ((800, 1333), (800, 1333)),
        ((1600, 1600), (800, 800)),
    ],
)
def test_the_published_size_is_800_px_with_at_most_1333(size, expected):
    assert BoxAugment().view(size, random()).size == expected


def test_several_scales_are_drawn_alike_from_480_to_800_in_steps_of_32():
    augment = BoxAugment(short_sides=MULTI_SCALE.short_sides)
    sides = Counter(augment.view((500, 500), random(seed)).size[0] for seed in range(1100))
    assert sorted(sides) == [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
    assert all(abs(count - 100) < 5 * math.sqrt(100) for count in sides.values())


def test_every_other_image_is_scaled_and_cropped_first():
    cropped, heights, firsts = 0, [], Counter()
    for seed in range(2000):
        view = MULTI_SCALE.view((480, 640), random(seed))
        assert min(view.size) in MULTI_SCALE.short_sides or max(view.size) == 1333
        if view.crop is None:
            assert view.first is None
            continue
        cropped += 1
        firsts[view.first] += 1
        top, left, height, width = view.crop
        assert min(384, view.first[0]) <= height <= min(600, view.first[0])
        assert 384 <= width <= min(600, view.first[1])
        assert 0 <= top <= view.first[0] - height and 0 <= left <= view.first[1] - width
        heights.append(height)
    assert abs(cropped - 1000) < 5 * math.sqrt(500)
    assert set(firsts) == {(400, 533), (500, 667), (600, 800)}, "640 · 400 / 480 = 533.33 and 666.67"
    assert min(heights) == 384 and max(heights) >= 598


def test_a_crop_is_no_larger_than_a_narrow_image():
    augment = BoxAugment(first_sides=(400,), crop=(384, 600))
    for seed in range(50):
        view = augment.view((2000, 200), random(seed))
        if view.crop:
            assert view.first == (1333, 133)  # 200 · 1333 / 2000
            assert view.crop[3] == 133 and 384 <= view.crop[2] <= 600 and view.crop[1] == 0


def test_half_of_the_views_are_flipped_or_none_or_all():
    for probability in (0.0, 0.5, 1.0):
        flips = sum(BoxAugment(hflip=probability).view((480, 640), random(seed)).flip for seed in range(400))
        assert abs(flips - 400 * probability) <= 4 * math.sqrt(400 * probability * (1 - probability))


def test_boxes_are_scaled_by_the_factor_of_each_axis():
    image, boxes = noise(30, 40), objects((4, 6, 20, 12))
    view, scaled = BoxAugment()(image, boxes, BoxView(None, None, (61, 79), False))
    assert torch.equal(view, normalise(resize(image, (61, 79))))
    expected = torch.tensor([[4 * 79 / 40, 6 * 61 / 30, 20 * 79 / 40, 12 * 61 / 30]])
    torch.testing.assert_close(scaled.boxes, expected)
    assert scaled.boxes.dtype == torch.float32 and scaled.classes.tolist() == [0] and scaled.masks is None


def test_images_boxes_and_masks_are_flipped_together():
    image, boxes = noise(30, 40), objects((4, 6, 20, 12), (0, 0, 40, 30), size=(30, 40))
    view, flipped = BoxAugment()(image, boxes, BoxView(None, None, (30, 40), True))
    assert torch.equal(view, normalise(image).flip(2))
    assert flipped.boxes.tolist() == [[20, 6, 36, 12], [0, 0, 40, 30]]
    assert torch.equal(flipped.masks, boxes.masks.flip(2))


def test_boxes_are_cut_off_at_the_edges_and_dropped_where_nothing_is_left():
    boxes = objects((-5, -5, 10, 10), (35, 25, 60, 60), (50, 5, 60, 10), (5, -9, 10, 0), size=(30, 40))
    for flip in (False, True):
        _, kept = BoxAugment()(noise(30, 40), boxes, BoxView(None, None, (60, 80), flip))
        expected = [[0, 0, 20, 20], [70, 50, 80, 60]]
        if flip:
            expected = [[80 - right, top, 80 - left, bottom] for left, top, right, bottom in expected]
        assert kept.boxes.tolist() == expected and kept.classes.tolist() == [0, 1]
        assert kept.masks.sum((1, 2)).tolist() == [20 * 20, 10 * 10]


def test_what_rounding_leaves_nothing_of_is_dropped():
    boxes = LabelledObjects(torch.tensor([[40 - 1e-9, 1, 60, 9]], dtype=torch.float64), torch.tensor([2]), None)
    _, kept = BoxAugment()(noise(30, 40), boxes, BoxView(None, None, (60, 80), False))
    assert kept.boxes.shape == (0, 4) and kept.classes.shape == (0,)


def test_a_crop_moves_boxes_and_masks_and_drops_what_lies_outside():
    image = noise(30, 40)
    boxes = objects((0, 0, 9, 9), (8, 6, 20, 16), (30, 20, 40, 30), size=(30, 40))
    view = BoxView(first=(60, 80), crop=(10, 12, 40, 50), size=(80, 100), flip=False)
    pixels, kept = BoxAugment()(image, boxes, view)
    expected = resize(kernels.crop(resize(image, (60, 80)), 10, 12, 40, 50), (80, 100))
    assert torch.equal(pixels, normalise(expected))
    # twice as large, minus 12 and 10, then twice as large: (0, 0, 18, 18) keeps 6 x 8 px, (60, 40, 80, 60) 2 x 10
    assert kept.boxes.tolist() == [[0, 0, 12, 16], [8, 4, 56, 44], [96, 60, 100, 80]]
    assert kept.masks.shape == (3, 80, 100) and kept.masks.sum((1, 2)).tolist() == [12 * 16, 48 * 40, 4 * 20]
    nothing = view._replace(crop=(10, 20, 2, 2))
    pixels, kept = BoxAugment()(image, objects((30, 20, 40, 30), size=(30, 40)), nothing)
    assert kept.boxes.shape == (0, 4) and kept.masks.shape == (0, 80, 100) and pixels.shape == (3, 80, 100)


def test_an_object_and_its_pixels_stay_together():
    """Seen from the image alone: a bright rectangle on black lies in its box and under its mask after every draw."""
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)
    image[:, 90:180, 120:260] = 255
    augment = BoxAugment(short_sides=(240, 330), longest=600, first_sides=(280,), crop=(160, 260))
    seen = 0
    for seed in range(40):
        view = augment.view((300, 400), random(seed))
        pixels, kept = augment(image, objects((120, 90, 260, 180), size=(300, 400)), view)
        bright = pixels[1] > 0
        if not len(kept.boxes):
            assert not bright.any()
            continue
        rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
        tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (kept.boxes[0] - tight).abs().max() <= 2
        # nearest takes the place at or before, so a mask is up to a pixel of the original off
        assert (kept.masks[0].bool() ^ bright).sum() <= 2 * (kept.masks[0].shape[0] + kept.masks[0].shape[1])
        seen += 1
    assert seen > 30


def test_no_objects_are_no_obstacle():
    pixels, kept = BoxAugment()(noise(30, 40), objects(size=(30, 40)), BoxView(None, None, (60, 80), True))
    assert pixels.shape == (3, 60, 80) and kept.boxes.shape == (0, 4) and kept.masks.shape == (0, 60, 80)
    assert kept.masks.dtype == torch.uint8 and kept.boxes.dtype == torch.float32


def test_a_view_is_made_to_fit_a_canvas_that_was_laid_out_for_another_image():
    augment = BoxAugment()
    free = augment.view((640, 480), random(3))
    fitted = augment.view((640, 480), random(3), within=(800, 1344))
    assert free.size == (1067, 800) and fitted.size == (800, 599) and fitted.flip == free.flip  # 800 · 800 / 1067
    assert augment.view((640, 480), random(3), within=(1088, 800)) == free


def test_a_canvas_has_room_for_all_and_sides_that_are_multiples_of_32():
    assert canvas_of([(800, 1067)]) == (800, 1088)
    assert canvas_of([(800, 1067), (1199, 800), (32, 32)]) == (1216, 1088)


def test_what_was_read_is_left_as_it_is():
    image, boxes = noise(30, 40), objects((-5, 6, 20, 12), size=(30, 40))
    before = image.clone(), boxes.boxes.clone(), boxes.masks.clone()
    BoxAugment()(image, boxes, BoxView(None, None, (30, 40), True))
    BoxAugment()(image, boxes, BoxView((30, 40), (0, 0, 20, 20), (20, 20), False))
    assert all(map(torch.equal, before, (image, boxes.boxes, boxes.masks)))
