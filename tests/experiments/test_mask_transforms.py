"""Augmentation of images and label maps, each step against values computed by hand or pixel by pixel in a loop."""

from __future__ import annotations

import colorsys
import itertools
import math

import numpy as np
import pytest
import torch

from experiments.data.colour_distortion import distort, from_hsv, linear, to_hsv
from experiments.data.mask_layout import IGNORED
from experiments.data.mask_transforms import (
    MaskAugment,
    choose_crop,
    fitted,
    limits,
    normalise,
    resize,
    resize_mask,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def rows(*lines):
    return torch.tensor(lines, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((300, 400), 1.0, (512, 683)),  # 400 · 512 / 300 = 682.67
        ((512, 683), 1.0, (512, 683)),
        ((100, 1000), 1.0, (205, 2048)),  # 100 · 2048 / 1000 = 204.8: the long side decides
        ((300, 400), 0.7, (358, 477)),  # limits 1433 and 358; 400 · 358 / 300 = 477.33
        ((400, 300), 0.7, (477, 358)),
        ((427, 640), 2.0, (1024, 1535)),  # 640 · 1024 / 427 = 1534.8
        ((1, 5000), 0.1, (1, 204)),  # 1 · 204 / 5000 would be no pixel
    ],
)
def test_an_image_is_fitted_between_the_longest_and_the_shortest_side(size, ratio, expected):
    assert fitted(size, limits((2048, 512), ratio)) == expected


def test_images_are_interpolated_between_pixel_centres_without_antialias():
    line = torch.zeros(3, 1, 2, dtype=torch.uint8)
    line[:, :, 1] = 100
    assert resize(line, (1, 4))[0].tolist() == [[0, 25, 75, 100]]
    line = rows([0, 100, 200, 40, 0, 60, 20, 255]).expand(3, 1, 8)
    assert resize(line, (1, 2))[0].tolist() == [[150, 40]], (
        "the two pixels around each centre, 1.5 and 5.5, and no other"
    )


@pytest.mark.parametrize("size", [(13, 9), (5, 31), (40, 40), (17, 11)])
@pytest.mark.parametrize("order", ["channels first", "channels last"])
def test_interpolation_agrees_with_a_loop_over_pixels(size, order):
    image = noise(17, 23)
    if order == "channels last":
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    result = resize(image, size)

    def place(target, old, new):
        at = min(max((target + 0.5) * old / new - 0.5, 0), old - 1)
        return int(at), min(int(at) + 1, old - 1), at - int(at)

    for row, column in itertools.product(range(size[0]), range(size[1])):
        top, bottom, down = place(row, 17, size[0])
        left, right, across = place(column, 23, size[1])
        for channel in range(3):
            values = image[channel].tolist()
            upper = values[top][left] * (1 - across) + values[top][right] * across
            lower = values[bottom][left] * (1 - across) + values[bottom][right] * across
            assert abs(result[channel, row, column].item() - (upper * (1 - down) + lower * down)) < 1.1


def test_masks_take_the_label_at_or_before_each_place():
    assert resize_mask(rows([1, 2, 3]), (1, 5)).tolist() == [[1, 1, 2, 2, 3]]  # places 0, 0.6, 1.2, 1.8, 2.4
    assert resize_mask(rows([1, 2, 3, 4, 5]), (1, 3)).tolist() == [[1, 2, 4]]  # places 0, 1.67, 3.33
    assert resize_mask(rows([7, 255], [0, 1]), (4, 2)).tolist() == [[7, 255], [7, 255], [0, 1], [0, 1]]


class Script:
    """Stands for a generator whose whole numbers are given."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def integers(self, below):
        number = self.numbers.pop(0)
        assert 0 <= number < below
        return number


#                 0    1    2    3  4  5  6    7    8  9
SHARES = rows(*[[255, 255, 255, 0, 0, 0, 0, 1, 2, 1], [255, 255, 255, 0, 0, 0, 1, 1, 2, 255]])


@pytest.mark.parametrize(
    ("column", "accepted"),
    [
        (0, False),  # no label
        (2, False),  # one class and two pixels without a label
        (3, False),  # one class
        (5, False),  # 3 of 4 pixels are of class 0: that is not less than 0.75
        (6, False),  # 3 of 4 are of class 1
        (7, True),  # half and half
        (8, True),  # of three labelled pixels, two are of class 2
    ],
)
def test_a_crop_needs_several_classes_and_none_with_too_large_a_share_of_the_labelled_pixels(column, accepted):
    rng = Script(0, column, 0, 1)
    expected = (0, column) if accepted else (0, 1)
    if not accepted:
        rng.numbers += [0, 7]
        expected = (0, 7)
    assert choose_crop(SHARES, (2, 2), 0.75, rng) == expected
    assert len(rng.numbers) == (2 if accepted else 0)


def test_after_ten_crops_the_next_one_is_taken_as_it_is():
    rng = Script(*[0, 3] * 10, 0, 4, 0, 7)
    assert choose_crop(SHARES, (2, 2), 0.75, rng) == (0, 4)
    assert rng.numbers == [0, 7]


def test_a_largest_share_of_1_takes_the_first_crop():
    rng = Script(0, 3)
    assert choose_crop(SHARES, (2, 2), 1.0, rng) == (0, 3)


def test_crops_reach_every_place_and_begin_at_the_edge_of_a_smaller_mask():
    mask = torch.arange(24, dtype=torch.uint8).view(4, 6)
    places = {choose_crop(mask, (3, 4), 0.75, np.random.default_rng(seed)) for seed in range(200)}
    assert places == set(itertools.product(range(2), range(3)))
    assert choose_crop(mask, (9, 6), 0.75, np.random.default_rng(0)) == (0, 0)


def test_colours_are_normalised_by_the_mean_and_the_deviation_of_imagenet():
    image = rows([0, 255]).expand(3, 1, 2)
    for channel, (mean, std) in enumerate(zip(MEAN, STD)):
        expected = [-mean / std, (1 - mean) / std]
        assert normalise(image)[channel, 0].tolist() == pytest.approx(expected, rel=1e-5)


STILL = {"base": (8, 4), "scale": (1.0, 1.0), "distortion": False}  # an image of 4 x 8 px stays as it is


@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_an_image_and_its_mask_are_flipped_together(hflip):
    image, mask = noise(4, 8), torch.arange(32, dtype=torch.uint8).view(4, 8)
    view, labels = MaskAugment(size=(4, 8), hflip=hflip, **STILL)(image, mask, np.random.default_rng(0))
    order = range(7, -1, -1) if hflip else range(8)
    assert labels.tolist() == [[row * 8 + column for column in order] for row in range(4)]
    assert torch.equal(view, normalise(image)[:, :, list(order)])


def test_half_of_the_views_are_flipped():
    augment, mask = MaskAugment(size=(4, 8), **STILL), torch.arange(32, dtype=torch.uint8).view(4, 8)
    rng = np.random.default_rng(0)
    flipped = sum(augment(noise(4, 8), mask, rng)[1][0, 0].item() == 7 for _ in range(400))
    assert abs(flipped - 200) < 4 * math.sqrt(400 / 4)


def test_what_is_smaller_than_the_crop_is_padded_after_it_is_normalised():
    image, mask = noise(4, 8), torch.ones(4, 8, dtype=torch.uint8)
    view, labels = MaskAugment(size=(7, 10), hflip=0.0, **STILL)(image, mask, np.random.default_rng(0))
    assert view.shape == (3, 7, 10) and labels.shape == (7, 10)
    assert torch.equal(view[:, :4, :8], normalise(image)) and (labels[:4, :8] == 1).all()
    assert not view[:, 4:].any() and not view[:, :, 8:].any()
    assert (labels[4:] == IGNORED).all() and (labels[:, 8:] == IGNORED).all()


def test_one_side_may_be_cropped_and_the_other_padded():
    image, mask = noise(4, 8), torch.arange(32, dtype=torch.uint8).view(4, 8)
    rng = np.random.default_rng(1)
    view, labels = MaskAugment(size=(6, 5), hflip=0.0, **STILL)(image, mask, rng)
    left = labels[0, 0].item()
    assert left in range(4) and torch.equal(view[:, :4], normalise(image)[:, :, left : left + 5])
    assert labels[:4].tolist() == mask[:, left : left + 5].tolist() and (labels[4:] == IGNORED).all()


def test_scales_are_drawn_from_the_whole_range():
    augment = MaskAugment(size=(64, 64), base=(64, 16), scale=(0.5, 2.0), distortion=False)
    mask, rng = torch.arange(16 * 16).view(16, 16).remainder(3).byte(), np.random.default_rng(0)
    heights = [int((augment(noise(16, 16), mask, rng)[1][:, 0] != IGNORED).sum()) for _ in range(300)]
    assert min(heights) == 8 and max(heights) == 31, "16 px by factors from 0.5 to just under 2"
    assert abs(np.mean(heights) - (8 + 32) / 2 + 0.5) < 4 * 24 / math.sqrt(12 * 300)


def test_an_image_and_its_mask_stay_together_through_scale_crop_and_flip():
    mask = torch.zeros(60, 90, dtype=torch.uint8)
    mask[20:45, 10:50], mask[5:55, 60:80], mask[50:, :30] = 1, 2, IGNORED
    colours = {0: (10, 200, 30), 1: (250, 20, 90), 2: (90, 60, 240), IGNORED: (128, 128, 128)}
    image = torch.zeros(3, 60, 90, dtype=torch.uint8)
    for label, colour in colours.items():
        image[:, mask == label] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    augment = MaskAugment(size=(40, 48), base=(240, 60), distortion=False)
    seen = set()
    for seed in range(20):
        view, labels = augment(image, mask, np.random.default_rng(seed))
        for label, colour in colours.items():
            at = (labels == label) & (view != 0).any(0)
            if at.sum() > 50:
                levels = (view[:, at].T * torch.tensor(STD) + torch.tensor(MEAN)) * 255
                assert levels.median(0).values.tolist() == pytest.approx(colour, abs=0.01)
                seen.add(label)
    assert seen == set(colours)


def test_levels_are_limited_and_cut_not_rounded():
    levels = rows([0, 10, 100, 101, 250])
    assert linear(levels, offset=0.9).tolist() == [[0, 10, 100, 101, 250]]
    assert linear(levels, offset=-31.5).tolist() == [[0, 0, 68, 69, 218]]
    assert linear(levels, offset=10.0).tolist() == [[10, 20, 110, 111, 255]]
    assert linear(levels, factor=0.5).tolist() == [[0, 5, 50, 50, 125]]
    assert linear(levels, factor=1.5).tolist() == [[0, 15, 150, 151, 255]]


KNOWN = {  # RGB → hue in steps of 2°, saturation, value
    (255, 0, 0): (0, 255, 255),
    (0, 255, 0): (60, 255, 255),
    (0, 0, 255): (120, 255, 255),
    (255, 255, 0): (30, 255, 255),
    (0, 100, 100): (90, 255, 100),
    (128, 64, 64): (0, 128, 128),  # 255 · 64 / 128 = 127.5
    (77, 77, 77): (0, 0, 77),
    (0, 0, 0): (0, 0, 0),
    (200, 100, 101): (0, 127, 200),  # -0.3 steps; 100 · 5222 / 4096 = 127.49, with 5222 for 255 · 4096 / 200
    (200, 100, 110): (177, 127, 200),  # -3 steps
}


def in_whole_numbers(pixel):
    """RGB to HSV as OpenCV computes it from 8 bits."""
    red, green, blue = pixel
    value, chroma = max(pixel), max(pixel) - min(pixel)
    if not chroma:
        return 0, 0, value
    if value == red:
        hue = green - blue
    elif value == green:
        hue = 2 * chroma + blue - red
    else:
        hue = 4 * chroma + red - green
    hue = (hue * round(30 * 4096 / chroma) + 2048) // 4096
    return hue % 180, (chroma * round(255 * 4096 / value) + 2048) // 4096, value


def test_known_colours_have_the_hue_saturation_and_value_of_opencv():
    image = torch.tensor(list(KNOWN), dtype=torch.uint8).T[:, None]
    assert torch.stack(to_hsv(image))[:, 0].T.tolist() == [list(hsv) for hsv in KNOWN.values()]


def test_hue_and_saturation_are_those_of_the_definition_within_rounding_and_so_is_the_way_back():
    image = noise(40, 40, seed=3)
    hue, saturation, value = to_hsv(image)
    assert hue.min() >= 0 and hue.max() < 180 and saturation.max() <= 255
    back = from_hsv(hue, saturation, value)
    for place in itertools.product(range(40), range(40)):
        colour = [image[channel][place].item() for channel in range(3)]
        exact = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
        turn = (hue[place].item() - exact[0] * 180 + 90) % 180 - 90
        # half a step, and what rounded reciprocals add to at most 6 and 1 times 255 levels
        assert (
            abs(turn) <= 0.5 + 6 * 255 / 2**13 and abs(saturation[place].item() - exact[1] * 255) <= 0.5 + 255 / 2**13
        )
        assert value[place].item() == max(colour)
        returned = [back[channel][place].item() for channel in range(3)]
        assert (hue[place], saturation[place], value[place]) == in_whole_numbers(colour)
        assert max(abs(a - b) for a, b in zip(colour, returned)) <= 6  # half a step of hue is 255 / 60 levels


def by_sectors(hue, saturation, value):
    """HSV to RGB as OpenCV states it, by the sixth of a turn that a hue lies in."""
    sixths = hue * np.float32(6 / 180)
    share, level = saturation * np.float32(1 / 255), value * np.float32(1 / 255)
    sector = math.floor(sixths)
    rest, one = np.float32(sixths - sector), np.float32(1)
    full, least = level, level * (one - share)
    falling, rising = level * (one - share * rest), level * (one - share * (one - rest))
    colour = [
        (full, rising, least), (falling, full, least), (least, full, rising),
        (least, falling, full), (rising, least, full), (full, least, falling),
    ][sector]  # fmt: skip
    return [int(np.rint(channel * np.float32(255))) for channel in colour]


def test_colours_of_every_hue_are_those_of_the_sectors():
    grid = list(itertools.product(range(180), (0, 1, 37, 128, 200, 255), (0, 1, 63, 127, 254, 255)))
    result = from_hsv(*torch.tensor(grid, dtype=torch.int32).T[:, None])
    assert result[:, 0].T.tolist() == [by_sectors(*map(np.float32, hsv)) for hsv in grid]


def published(image, rng):
    """mmseg's PhotoMetricDistortion, pixel by pixel. image: a list of (red, green, blue)."""

    def cut(level):
        return int(min(max(level, 0), 255))

    def contrast(image):
        if rng.integers(2):
            factor = np.float32(rng.uniform(0.5, 1.5))
            return [tuple(cut(np.float32(level) * factor) for level in pixel) for pixel in image]
        return image

    if rng.integers(2):
        offset = np.float32(rng.uniform(-32, 32))
        image = [tuple(cut(np.float32(level) + offset) for level in pixel) for pixel in image]
    second = rng.integers(2) == 1
    if second:
        image = contrast(image)
    if rng.integers(2):
        factor = np.float32(rng.uniform(0.5, 1.5))
        planes = map(in_whole_numbers, image)
        image = [tuple(by_sectors(*map(np.float32, (h, cut(np.float32(s) * factor), v)))) for h, s, v in planes]
    if rng.integers(2):
        turn = int(rng.integers(-18, 18))
        image = [
            tuple(by_sectors(*map(np.float32, ((h + turn) % 180, s, v)))) for h, s, v in map(in_whole_numbers, image)
        ]
    return image if second else contrast(image)


@pytest.mark.parametrize("seed", range(40))
def test_distortion_agrees_with_the_published_one_pixel_by_pixel(seed):
    image = noise(4, 5, seed)
    pixels = [tuple(pixel) for pixel in image.flatten(1).T.tolist()]
    expected = published(pixels, np.random.default_rng(seed))
    result = distort(image, np.random.default_rng(seed))
    assert [tuple(pixel) for pixel in result.flatten(1).T.tolist()] == expected


def test_each_change_of_colours_comes_with_probability_one_half():
    grey = torch.full((3, 1, 1), 100, dtype=torch.uint8)
    rng = np.random.default_rng(0)
    same = sum(torch.equal(distort(grey, rng), grey) for _ in range(2000))
    # a grey pixel shows brightness and contrast alone; a change of less than a level shows in few of the rest
    assert abs(same / 2000 - 0.25) < 0.06


def test_a_view_is_drawn_from_its_generator_alone():
    augment, image = MaskAugment(size=(32, 32), base=(128, 32)), noise(40, 60)
    mask = torch.arange(2400).view(40, 60).remainder(5).byte()
    before = image.clone(), mask.clone()
    first = augment(image, mask, np.random.default_rng(7))
    torch.manual_seed(1)
    np.random.seed(1)
    again = augment(image, mask, np.random.default_rng(7))
    assert all(map(torch.equal, first, again))
    assert torch.equal(image, before[0]) and torch.equal(mask, before[1]), "what was read is left as it is"
    assert not torch.equal(first[0], augment(image, mask, np.random.default_rng(8))[0])
