"""Masks of the drawn data sets: the pixels of what was drawn, beside images that are the same bit by bit."""

import hashlib

import numpy as np
import pytest
import torch

from experiments.config import resolve
from experiments.data import scene_masks, scenes
from experiments.data.drawn import DRAWN, normalisation
from experiments.data.masks import IGNORED, LabelledMasks
from experiments.data.matching import Match
from experiments.data.order import SampleKey
from experiments.data.probes import TILE, Diagonal, Pair, Search
from experiments.data.scene_masks import BarMasks, CueMasks, drawn_masks
from experiments.data.scenes import COVERED, MARK, TOKEN, Scenes, draw_classes, draw_layout
from experiments.data.token_images import IGNORED as NOT_ASKED
from tests.experiments.test_scenes import in_bar, in_the_frame

SIZE = (96, 128)
PROBES = (Search, Pair, Diagonal, Match)
KINDS = (Scenes, *PROBES)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
every_probe = pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.plural)


def masks(kind, split="eval", seed=3, size=SIZE):
    return drawn_masks(kind(size, seed, 10, split))


def test_scenes_are_what_they_were():
    """Images, labels, distances and directions of this version, from before scenes had masks."""
    digest = hashlib.sha256()
    for split in ("train", "eval"):
        data = Scenes((96, 160), 3, 10, split)
        for index in range(5):
            for part in data[SampleKey(1, index)]:
                digest.update(part.numpy().tobytes())
    assert (scenes.VERSION, digest.hexdigest()[:16]) == (1, "1f83eb0fc64efa92")


@every_kind
@pytest.mark.parametrize("split", ["train", "eval"])
def test_images_are_those_of_the_drawn_data_set(kind, split):
    drawn, data = kind(SIZE, 3, 10, split), masks(kind, split)
    for index in range(4):
        image, mask = data[SampleKey(2, index)]
        expected = drawn[SampleKey(2, index)][0]
        assert mask.dtype == torch.int64 and mask.shape == SIZE
        if split == "train":
            assert torch.equal(image, expected)
        else:
            assert image.dtype == torch.uint8 and image.shape == (3, *SIZE) and image.is_contiguous()
            assert torch.equal(drawn.labelling.normalise(image.permute(1, 2, 0).numpy()), expected)


@every_kind
def test_mean_and_std_normalise_as_the_drawn_data_set_does(kind):
    image = masks(kind)[SampleKey(0, 0)][0]
    dataset = next(name for name, (drawn, _) in DRAWN.items() if drawn is kind)
    config = resolve("scenes_masks", {"data.dataset": dataset})
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation(config))
    torch.testing.assert_close((image / 255 - mean) / std, kind(SIZE, 3, 10, "eval")[SampleKey(0, 0)][0])


def test_pixels_of_bars_are_those_inside_their_outline():
    headings = set()
    for index in range(8):
        data = Scenes(SIZE, 3, 20, "train")
        random = data.stream(SampleKey(0, index))
        layout = draw_layout(random, SIZE)
        classes = draw_classes(random, len(layout.bars))
        mask = in_the_frame(BarMasks(data)[SampleKey(0, index)][1].numpy(), layout.heading)
        assert mask.shape == layout.grain.shape
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                expected = 4
                for (start, top, length, thickness), name in zip(layout.bars.tolist(), classes):
                    if in_bar(x + 0.5 - start, y + 0.5 - top, length, thickness):
                        expected = name
                assert mask[y, x] == expected, (index, y, x)
        headings.add(layout.heading)
    assert len(headings) > 2


def test_token_labels_are_the_classes_that_cover_enough_of_a_token():
    data = Scenes((160, 160), 0, 20, "eval")
    for index in range(20):
        scene = data.scene(SampleKey(0, index))
        pixels = scene.pixel_labels.reshape(10, TOKEN, 10, TOKEN).swapaxes(1, 2).reshape(10, 10, -1)
        for name in range(4):
            assert np.array_equal(scene.labels == name, (pixels == name).mean(2) >= COVERED)


def test_the_mark_of_a_bar_has_the_colour_of_its_class():
    """Seen from the image alone: well inside a mark, the palette's colour lies under pixels of that class."""
    checked = 0
    for index in range(10):
        data = Scenes(SIZE, 3, 20, "train")
        layout = draw_layout(data.stream(SampleKey(0, index)), SIZE)
        masked = BarMasks(data)
        image, mask = (in_the_frame(part, layout.heading) for part in _planes(*masked.sample(SampleKey(0, index))))
        for start, top, _, thickness in layout.bars.tolist():
            y, x = top + thickness // 2, start + MARK // 2
            assert np.abs(image[y, x] - masked.palette[mask[y, x]].astype(int)).max() <= 4  # grain
            checked += 1
    assert checked > 15


def _planes(image, mask):
    """The image as an array of vectors, so that a transposition leaves its channels alone."""
    vectors = np.empty(image.shape[:2], object)
    for place in np.ndindex(*image.shape[:2]):
        vectors[place] = image[place].astype(int)
    return vectors, mask


@every_probe
def test_all_pixels_of_a_cue_have_its_class_and_no_other_pixel_has_one(kind):
    drawn, data = kind(SIZE, 3, 10, "eval"), masks(kind)
    for index in range(3):
        labels, mask = drawn[SampleKey(0, index)][1], data[SampleKey(0, index)][1]
        assert (labels != NOT_ASKED).any() and mask.max() == IGNORED
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                label = int(labels[y // TILE, x // TILE])
                assert int(mask[y, x]) == (255 if label == -1 else label)


@every_kind
def test_classes_have_names_and_different_colours(kind):
    data = masks(kind)
    classes = len(data.class_names)
    assert classes == {"scenes": 5, "pair": 16}.get(kind.plural, 4)
    assert data.palette.shape == (classes, 3) and data.palette.dtype == np.uint8
    assert len(np.unique(data.palette, axis=0)) == classes
    seen = np.unique(np.concatenate([data[SampleKey(0, i)][1].numpy().ravel() for i in range(10)]))
    assert set(seen) - {IGNORED} == set(range(classes))
    assert (IGNORED in seen) == (kind is not Scenes)


def test_training_images_are_stacked_and_those_of_evaluation_are_not():
    for split in ("train", "eval"):
        data = masks(Scenes, split)
        samples = [data[SampleKey(0, index)] for index in range(3)]
        batch = data.collate(samples)
        assert isinstance(batch, LabelledMasks) and batch.size == 3 and batch.bad.numel() == 0
        if split == "train":
            assert batch.images.shape == (3, 3, *SIZE) and batch.masks.shape == (3, *SIZE)
        else:
            assert isinstance(batch.images, tuple) and isinstance(batch.masks, tuple)
        for number, (image, mask) in enumerate(samples):
            assert torch.equal(batch.images[number], image) and torch.equal(batch.masks[number], mask)


@every_kind
def test_samples_follow_seed_epoch_and_index_in_training_and_the_index_alone_in_evaluation(kind):
    def pair(split, seed, epoch, index):
        return masks(kind, split, seed)[SampleKey(epoch, index)]

    def same(one, other):
        return all(torch.equal(a, b) for a, b in zip(one, other))

    first = pair("train", 0, 0, 0)
    assert same(first, pair("train", 0, 0, 0))
    for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(first[0], pair("train", *other)[0])
    assert same(pair("eval", 0, 0, 3), pair("eval", 41, 9, 3))
    assert not torch.equal(pair("eval", 0, 0, 3)[0], pair("eval", 0, 0, 4)[0])


@every_kind
def test_the_fingerprint_is_of_images_and_masks_but_not_of_the_seed(kind, monkeypatch):
    fingerprint = masks(kind).fingerprint()
    assert fingerprint == masks(kind, seed=1).fingerprint() != kind(SIZE, 3, 10, "eval").fingerprint()
    others = {masks(kind, "train").fingerprint(), masks(kind, size=(64, 64)).fingerprint()}
    monkeypatch.setattr(scene_masks, "VERSION", 2)
    others.add(masks(kind).fingerprint())
    assert fingerprint not in others and len(others) == 3


def test_masks_name_their_samples():
    data = masks(Search)
    assert isinstance(data, CueMasks) and len(data) == 10
    assert data.name(4) == "eval search 4" and "generated" in data.problem(4)
