"""Probes are a pure function of their key; a cue's look and the tile it names decide its label, and nothing else does."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import ConfigError
from experiments.data import matching, probes
from experiments.data.matching import Match
from experiments.data.order import SampleKey
from experiments.data.probes import (
    AMPLITUDE,
    CUE_BLUE,
    CUES,
    NEUTRAL,
    PALETTE,
    TILE,
    Diagonal,
    Pair,
    PointingProbe,
    Search,
)
from experiments.data.token_images import EVAL_SEED, IGNORED

ROOT = Path(__file__).resolve().parents[2]
SIZE = (128, 128)
POINTING = (Search, Pair, Diagonal)
ALL = (*POINTING, Match)
every_probe = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.plural)
every_pointing = pytest.mark.parametrize("kind", POINTING, ids=lambda kind: kind.plural)


def samples(data, count: int) -> list[tuple]:
    return [data[SampleKey(0, index)] for index in range(count)]


def digest(data, count: int) -> str:
    return hashlib.sha256(b"".join(part.numpy().tobytes() for s in samples(data, count) for part in s)).hexdigest()


def tiles(data, image) -> np.ndarray:
    """The mean colour of each tile of a normalised image, in grey levels. [h, w, 3]"""
    pixels = data.labelling.pixels(image[None])[0].astype(float)
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    return pixels.reshape(rows, TILE, columns, TILE, 3).mean((1, 3))


def nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    return ((colours[..., None, :] - palette.astype(float)) ** 2).sum(-1).argmin(-1)


def read(data, image) -> np.ndarray:
    """The answers that a reader gives who sees the image and knows the rule. [h, w], IGNORED where he sees no cue."""
    colours = tiles(data, image)
    answers = np.full(colours.shape[:2], IGNORED)
    if isinstance(data, Match):
        cues = np.argwhere(colours[..., 2] < 40)
        items = np.argwhere((colours[..., 2] > 70) & (colours.min(-1) < 228))
        assert len(items) == matching.ITEMS
        for y, x in cues:
            here = items[nearest(colours[y, x, :2], colours[tuple(items.T)][:, :2])]
            answers[y, x] = np.abs(matching.LEVELS - colours[here[0], here[1], 2]).argmin()
        return answers
    step = AMPLITUDE // data.max_distance
    for y, x in np.argwhere(colours[..., 2] > (int(PALETTE[:, 2].max()) + CUE_BLUE) / 2):
        red, green = np.rint((colours[y, x, :2] - NEUTRAL) / step).astype(int)
        places = [(y, x + red), (y, x + green)] if isinstance(data, Pair) else [(y + green, x + red)]
        found = [int(nearest(colours[place], PALETTE)) for place in places]
        answers[y, x] = found[0] * len(PALETTE) + found[1] if isinstance(data, Pair) else found[0]
    return answers


@every_probe
@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_key_gives_the_same_bits_in_any_order(kind, split):
    data = kind(SIZE, 3, 10, split)
    keys = [SampleKey(1, index) for index in range(4)]
    forwards = [data[key] for key in keys]
    np.random.seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    backwards = [data[key] for key in reversed(keys)]
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])
    for one, other in zip(forwards, reversed(backwards)):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_another_process_draws_the_same_bits():
    program = (
        "import numpy as np, torch; np.random.seed(7); torch.manual_seed(7);"
        "from tests.experiments.test_probes import *;"
        "print(*(digest(kind(SIZE, 3, 10, split), 3) for kind in ALL for split in ('train', 'eval')))"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert other.stdout.split() == [digest(kind(SIZE, 3, 10, split), 3) for kind in ALL for split in ("train", "eval")]


@every_probe
def test_training_follows_seed_epoch_and_index_and_evaluation_the_index_alone(kind):
    base = kind(SIZE, 0, 10, "train")[SampleKey(0, 0)][0]
    others = [
        kind(SIZE, 1, 10, "train")[SampleKey(0, 0)][0],
        kind(SIZE, 0, 10, "train")[SampleKey(1, 0)][0],
        kind(SIZE, 0, 10, "train")[SampleKey(0, 1)][0],
        kind(SIZE, 0, 10, "eval")[SampleKey(0, 0)][0],
    ]
    assert not any(torch.equal(base, other) for other in others)
    trained, judged = (kind(SIZE, EVAL_SEED, 10, split)[SampleKey(0, 0)][0] for split in ("train", "eval"))
    assert not torch.equal(trained, judged)
    one, other = kind(SIZE, 0, 10, "eval")[SampleKey(0, 3)], kind(SIZE, 41, 10, "eval")[SampleKey(9, 3)]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_probes_are_drawn_from_different_streams():
    labels = [kind(SIZE, 0, 10, "train")[SampleKey(0, 0)][1] >= 0 for kind in ALL]
    assert not any(torch.equal(a, b) for n, a in enumerate(labels) for b in labels[:n])


@every_probe
def test_a_reader_who_knows_the_rule_is_always_right(kind):
    data = kind(SIZE, 0, 20, "eval")
    for image, labels, *_ in samples(data, 20):
        assert np.array_equal(read(data, image), labels.numpy())
        assert 256 // CUES - 3 < (labels != IGNORED).sum() <= 256 // CUES  # few cues could name no place


@every_probe
def test_places_and_distances_are_those_of_the_tiles_that_are_read(kind):
    data = kind(SIZE, 0, 10, "eval")
    for _, labels, distance, direction, places in samples(data, 10):
        asked = labels.numpy() != IGNORED
        assert (places.numpy()[~asked] == -1).all() and (places.numpy()[asked] >= 0).all()
        way = places.numpy()[asked] - np.argwhere(asked)[:, None]
        assert not asked[tuple(places.numpy()[asked].reshape(-1, 2).T)].any(), "no cue names a cue"
        expected = np.sqrt((way**2).sum(-1))[:, 0] if kind is Match else np.abs(way).max((1, 2))
        assert distance.numpy()[asked] == pytest.approx(TILE * expected)
        if kind is Search:
            assert ((way != 0).sum(-1) == 1).all()
            assert np.array_equal(direction.numpy()[asked], way[:, 0, 0] != 0)
        elif kind is Diagonal:
            assert (way != 0).all()
        elif kind is Pair:
            assert (way[..., 0] == 0).all() and (way[..., 1] != 0).all() and (way[:, 0] != way[:, 1]).any(-1).all()


@every_pointing
def test_only_the_tile_that_a_cue_names_says_anything_about_its_label(kind):
    """Of the tiles at any displacement that are not named, one in four has the class that is asked."""
    data = kind(SIZE, 0, 80, "eval")
    parts = zip(*samples(data, 80))
    images, labels, _, _, places = (torch.stack(part) for part in parts)
    classes = np.stack([nearest(tiles(data, image), PALETTE) for image in images])
    image, y, x = np.nonzero(labels.numpy() != IGNORED)
    label = labels.numpy()[image, y, x] // (len(PALETTE) if kind is Pair else 1)
    named = places.numpy()[image, y, x]  # [n, P, 2]
    for move in {tuple(place) for moves in data.displacements.moves.tolist() for place in moves}:
        other = np.stack([y, x], 1) + move
        kept = ((other >= 0) & (other < 16)).all(1) & (other[:, None] != named).any(2).all(1)
        at = image[kept], *other[kept].T
        field = labels.numpy()[at] == IGNORED
        right, count = (classes[at] == label[kept])[field].sum(), field.sum()
        assert count > 1000 and abs(right / count - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / count)


@pytest.mark.parametrize(("kind", "share"), [(Search, 42), (Diagonal, 37), (Pair, 28)])
def test_a_vote_of_the_places_that_cues_can_name(kind, share):
    """docs/probes.md states what the most frequent class among them is worth to a reader who sees no cue's colour."""
    data = kind(SIZE, 0, 128, "eval")
    moves, weights, *_ = data.displacements
    right, worth = [], []
    for image, labels, *_ in samples(data, 128):
        asked = labels.numpy() != IGNORED
        classes = nearest(tiles(data, image), PALETTE)
        targets = np.argwhere(asked)[:, None, None] + moves
        inside = ((targets >= 0) & (targets < 16)).all((2, 3))
        places = np.clip(targets, 0, 15)
        free = inside & ~asked[places[..., 0], places[..., 1]].any(2)
        answers = classes[places[..., 0], places[..., 1]] @ (4 ** np.arange(moves.shape[1])[::-1])
        votes = [((answers == label) & free) @ weights for label in range(len(kind.labelling.class_names))]
        right.extend(np.argmax(votes, axis=0) == labels.numpy()[asked])
        worth.extend(np.max(votes, axis=0) / np.sum(votes, axis=0))
    assert round(100 * np.mean(worth)) == share
    assert abs(np.mean(right) - np.mean(worth)) < 4.5 * np.sqrt(0.25 / len(right))


@every_pointing
def test_near_places_are_more_frequent_in_proportion_to_their_nearness(kind):
    data = kind((512, 512), 0, 20, "eval")  # far from the border all places can be named
    counts = np.zeros(data.reach + 1)
    for _, labels, _, _, places in samples(data, 20):
        for y, x in np.argwhere(labels.numpy()[8:-8, 8:-8] != IGNORED) + 8:
            np.add.at(counts, np.abs(places[y, x].numpy() - (y, x)).ravel(), 1)
    found = counts[1:]
    if kind is Pair:  # its second place is another one than the first, so near ones are a little less frequent
        assert (np.diff(found) < 0).all()
        return
    expected = 1 / np.arange(1, data.reach + 1)
    expected *= found.sum() / expected.sum()
    assert (np.abs(found - expected) < 4.5 * np.sqrt(expected)).all()


@every_probe
def test_classes_are_equally_frequent(kind):
    labels = np.concatenate([s[1].numpy()[s[1].numpy() != IGNORED] for s in samples(kind(SIZE, 0, 200, "train"), 200)])
    count = len(kind.labelling.class_names)
    shares = np.bincount(labels, minlength=count) / len(labels)
    assert np.abs(shares - 1 / count).max() < 5 * np.sqrt(1 / count / len(labels))


def test_in_match_the_image_as_a_whole_says_nothing_about_a_cue():
    for image, labels, *_ in samples(Match(SIZE, 0, 20, "train"), 20):
        counts = np.bincount(labels[labels != IGNORED], minlength=4)
        assert counts.max() - counts.min() <= 2
        colours = tiles(Match(SIZE, 0, 20, "train"), image)
        items = colours[(colours[..., 2] > 70) & (colours.min(-1) < 228)]
        classes = np.abs(items[:, 2, None] - matching.LEVELS).argmin(1)
        assert (np.bincount(classes) == 2).all()
        apart = np.abs(items[:, None, :2] - items[None, :, :2]).max(-1) + 255 * np.eye(len(items))
        assert apart.min() > matching.SPACING - 8  # the mean of the grain


@every_probe
@pytest.mark.parametrize("shuffled", probes.SHUFFLES)
def test_shuffling_breaks_what_leads_from_a_cue_to_its_label_and_nothing_else(kind, shuffled):
    plain, attacked = kind(SIZE, 0, 40, "eval"), kind(SIZE, 0, 40, "eval", shuffled=shuffled)
    right = total = 0
    for before, after in zip(samples(plain, 40), samples(attacked, 40)):
        labels = after[1].numpy()
        asked = labels != IGNORED
        assert np.array_equal(asked, before[1].numpy() != IGNORED) and torch.equal(after[4], before[4])
        if shuffled == "classes":
            answers = read(attacked, after[0])
            assert torch.equal(after[0], before[0])
        else:
            answers, labels = before[1].numpy(), follow(attacked, after[0], labels, asked)
        right, total = right + (answers == labels)[asked].sum(), total + asked.sum()
    chance = 1 / len(kind.labelling.class_names)
    # a cue may by chance show what it showed before
    again = 0.0 if shuffled == "classes" else 0.15
    assert chance - 0.03 < right / total < chance + again + 0.03


def follow(data, image, labels, asked) -> np.ndarray:
    """What a reader finds at the places that shuffled cues show, which may lie outside the image or on a cue."""
    if isinstance(data, Match):
        return read(data, image)
    colours = np.pad(tiles(data, image), ((8, 8), (8, 8), (0, 0)))
    found = np.full(labels.shape, IGNORED)
    step = AMPLITUDE // data.max_distance
    for y, x in np.argwhere(asked) + 8:
        red, green = np.rint((colours[y, x, :2] - NEUTRAL) / step).astype(int)
        places = [(y, x + red), (y, x + green)] if isinstance(data, Pair) else [(y + green, x + red)]
        classes = [int(nearest(colours[place], PALETTE)) for place in places]
        found[y - 8, x - 8] = classes[0] * 4 + classes[1] if isinstance(data, Pair) else classes[0]
    return found


@every_pointing
def test_the_farthest_displacement_can_be_set(kind):
    data = kind(SIZE, 0, 5, "eval", max_distance=1)
    for image, labels, distance, *_ in samples(data, 5):
        assert np.array_equal(read(data, image), labels.numpy())
        assert (distance[labels != IGNORED] == TILE).all()
    for wrong in (0, probes.FARTHEST + 1):
        with pytest.raises(ConfigError, match="from 1 to 20"):
            kind(SIZE, 0, 5, "eval", max_distance=wrong)
    far = kind((256, 256), 0, 5, "eval", max_distance=probes.FARTHEST)
    assert max(s[2].max() for s in samples(far, 5)) > TILE * kind.reach
    assert (np.diff(np.cumsum(far.displacements.weights)) > 0).all(), "whole numbers that do not overflow"


@every_probe
@pytest.mark.parametrize("size", [(64, 64), (64, 256), (224, 160)])
def test_any_size(kind, size):
    for image, labels, distance, direction, places in samples(kind(size, 0, 5, "eval"), 5):
        assert image.shape == (3, *size) and image.dtype == torch.float32 and image.abs().max() < 3
        assert (
            labels.shape == (size[0] // TILE, size[1] // TILE) == distance.shape == direction.shape == places.shape[:2]
        )
        assert (labels.dtype, distance.dtype, direction.dtype) == (torch.int64, torch.float32, torch.int64)
        assert 0.9 * (labels.numel() // CUES) < (labels != IGNORED).sum() <= labels.numel() // CUES
    with pytest.raises(ConfigError, match=f"{kind.plural} of 100x128 px: both sides must be multiples of 32"):
        kind((100, 128), 0, 1, "train")


@every_probe
def test_an_unknown_split_or_shuffle_is_refused(kind):
    with pytest.raises(ConfigError, match="valid: eval, train"):
        kind(SIZE, 0, 1, "test")
    with pytest.raises(ConfigError, match="'cues'"):
        kind(SIZE, 0, 1, "train", shuffled="cue")


def test_a_cue_that_can_name_no_place_is_a_tile_of_the_field(monkeypatch):
    monkeypatch.setattr(probes, "CUES", 1)  # every tile is to be a cue
    for _, labels, *_ in samples(Search(SIZE, 0, 2, "train"), 2):
        assert (labels == IGNORED).all()


@every_probe
def test_the_fingerprint_knows_all_that_is_drawn_but_not_the_seed(kind, monkeypatch):
    first = kind(SIZE, 0, 10, "train").fingerprint()
    assert first == kind(SIZE, 1, 10, "train").fingerprint()
    others = [kind((64, 64), 0, 10, "train"), kind(SIZE, 0, 10, "eval"), kind(SIZE, 0, 10, "train", shuffled="cues")]
    if issubclass(kind, PointingProbe):
        assert first == kind(SIZE, 0, 10, "train", max_distance=kind.reach).fingerprint()
        others.append(kind(SIZE, 0, 10, "train", max_distance=2))
    others += [other(SIZE, 0, 10, "train") for other in ALL if other is not kind]
    found = {data.fingerprint() for data in others}
    monkeypatch.setattr(probes, "VERSION", probes.VERSION + 1)
    found.add(kind(SIZE, 0, 10, "train").fingerprint())
    assert first not in found and len(found) == len(others) + 1


def test_palettes_are_readable_in_grey():
    for palette in (PALETTE, matching.PALETTE):
        assert (np.diff(palette @ np.array([0.2126, 0.7152, 0.0722])) > 25).all()


BITS = {
    "search": "d15a8f884028a1c1",
    "pair": "83e5ecbdbe7f21b3",
    "diagonal": "bd3bb4a263ff9a21",
    "match": "03c03e351d59b153",
}


@every_probe
def test_the_generator_has_not_changed_without_a_new_version(kind):
    """These bits stand for VERSION: a change here must raise it."""
    assert probes.VERSION == 1
    assert digest(kind(SIZE, 0, 3, "eval"), 3)[:16] == BITS[kind.plural]
