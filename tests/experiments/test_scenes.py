"""Scenes are a pure function of their key, and only a bar's mark tells its class."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from errors import ConfigError
from experiments.data import scenes
from experiments.data.order import SampleKey, stream
from experiments.data.scenes import CLASSES, COVERED, MARK, TOKEN, Scenes, draw_classes, draw_layout, render
from experiments.data.token_images import EVAL_SEED, IGNORED

ROOT = Path(__file__).resolve().parents[2]
SIZE = (160, 160)


def digest(dataset: Scenes, keys: list[SampleKey]) -> str:
    parts = [part.numpy().tobytes() for key in keys for part in dataset[key]]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_key_gives_the_same_bits_in_any_order_and_any_process(split):
    keys = [SampleKey(1, index) for index in range(4)]
    data = Scenes(SIZE, 3, 10, split)
    forwards = [data[key] for key in keys]
    np.random.seed(0)
    torch.manual_seed(5)
    backwards = [data[key] for key in reversed(keys)]
    assert all(equal(a, b) for a, b in zip(forwards, reversed(backwards)))

    program = (
        "import numpy as np, torch; np.random.seed(7); torch.manual_seed(7);"
        "from tests.experiments.test_scenes import *;"
        f"print(digest(Scenes({SIZE}, 3, 10, {split!r}), [SampleKey(1, i) for i in range(4)]))"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert other.stdout.strip() == digest(data, keys), other.stderr


def test_drawing_leaves_the_global_random_state_alone():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    Scenes(SIZE, 0, 10, "train")[SampleKey(0, 0)]
    assert np.array_equal(np.random.get_state()[1], before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_training_scenes_follow_seed_epoch_and_index():
    base = Scenes(SIZE, 0, 10, "train")[SampleKey(0, 0)]
    others = [
        Scenes(SIZE, 1, 10, "train")[SampleKey(0, 0)],
        Scenes(SIZE, 0, 10, "train")[SampleKey(1, 0)],
        Scenes(SIZE, 0, 10, "train")[SampleKey(0, 1)],
        Scenes(SIZE, 0, 10, "eval")[SampleKey(0, 0)],
    ]
    assert not any(torch.equal(base[0], other[0]) for other in others)


def test_no_seed_trains_on_the_evaluation_scenes():
    trained, judged = (Scenes(SIZE, EVAL_SEED, 10, split)[SampleKey(0, 0)][0] for split in ("train", "eval"))
    assert not torch.equal(trained, judged)


def test_evaluation_scenes_are_the_same_for_every_seed_and_epoch():
    a, b = Scenes(SIZE, 0, 10, "eval"), Scenes(SIZE, 41, 10, "eval")
    assert equal(a[SampleKey(0, 3)], b[SampleKey(9, 3)])
    assert not torch.equal(a[SampleKey(0, 3)][0], a[SampleKey(0, 4)][0])


def test_only_the_marks_change_with_the_classes():
    for index in range(20):
        layout = draw_layout(stream(1, index), SIZE)
        bars = len(layout.bars)
        one, other = (render(layout, np.full(bars, label)) for label in (0, 3))
        changed = in_the_frame((one.image != other.image).any(axis=2), layout.heading)
        marks = np.zeros_like(changed)
        for start, top, _, thickness in layout.bars:
            marks[top : top + thickness, start : start + MARK] = True
        assert changed.sum() > 0.8 * marks.sum()
        assert not (changed & ~marks).any()
        assert np.array_equal(one.labels == 0, other.labels == 3)
        assert np.array_equal(one.distance, other.distance)


def in_the_frame(image: np.ndarray, heading: int) -> np.ndarray:
    """An image turned back to the frame of its layout, where marks lie to the left."""
    return {"left": image, "right": image[:, ::-1], "up": image.T, "down": image[::-1].T}[scenes.HEADINGS[heading]]


def test_labels_and_distances_agree_with_a_count_by_hand():
    for index in range(6):
        layout = draw_layout(stream(2, index), (96, 160))
        classes = np.arange(len(layout.bars)) % len(CLASSES)
        scene = render(layout, classes)
        across, along = layout.grain.shape
        seen = 0
        for row in range(scene.labels.shape[0]):
            for column in range(scene.labels.shape[1]):
                y, x = {0: (row, column), 1: (row, -1 - column), 2: (column, row), 3: (column, -1 - row)}[
                    layout.heading
                ]
                y, x = y * TOKEN % across, x * TOKEN % along  # the token's corner in the layout's frame
                label, distance = IGNORED, 0.0
                for (start, top, length, thickness), name in zip(layout.bars.tolist(), classes):
                    covered = sum(
                        in_bar(i + 0.5 - start, j + 0.5 - top, length, thickness)
                        for i in range(x, x + TOKEN)
                        for j in range(y, y + TOKEN)
                    )
                    if covered / TOKEN**2 >= COVERED:
                        label, distance = name, max(0.0, x + TOKEN / 2 - start - MARK)
                assert (scene.labels[row, column], scene.distance[row, column]) == (label, distance)
                seen += label != IGNORED
        assert seen > 5 and scene.direction == (layout.heading >= 2)


def in_bar(x: float, y: float, length: float, thickness: float) -> bool:
    """Whether a point, counted from a bar's corner, lies inside its rounded outline."""
    radius = scenes.CORNER
    from_x, from_y = max(radius - x, x - length + radius, 0), max(radius - y, y - thickness + radius, 0)
    return from_x**2 + from_y**2 < radius**2


def test_classes_directions_and_headings_are_balanced():
    data = Scenes(SIZE, 0, 400, "train")
    drawn = [data.scene(SampleKey(0, index)) for index in range(400)]
    labels = np.concatenate([scene.labels[scene.labels != IGNORED] for scene in drawn])
    shares = np.bincount(labels, minlength=len(CLASSES)) / len(labels)
    assert np.abs(shares - 0.25).max() < 0.02
    assert abs(np.mean([scene.direction for scene in drawn]) - 0.5) < 0.1
    headings = [draw_layout(stream(0, index), SIZE).heading for index in range(400)]
    assert np.bincount(headings, minlength=4).min() > 60


def test_every_image_holds_every_class_equally_often():
    for lanes in (2, 4, 6, 8):
        counts = np.bincount(draw_classes(stream(lanes), lanes), minlength=len(CLASSES))
        assert counts.max() - counts.min() <= 1 and counts.sum() == lanes
    data = Scenes(SIZE, 0, 20, "eval")
    assert all(set(np.unique(data.scene(SampleKey(0, i)).labels)) == {-1, 0, 1, 2, 3} for i in range(20))


def test_class_is_independent_of_lane_length_and_place():
    lanes, classes, lengths, starts = [], [], [], []
    for index in range(600):
        random = stream(5, index)
        layout = draw_layout(random, SIZE)
        classes.extend(draw_classes(random, 4))
        lanes.extend(range(4))
        lengths.extend(layout.bars[:, 2])
        starts.extend(layout.bars[:, 0])
    table = np.zeros((4, 4))
    np.add.at(table, (lanes, classes), 1)
    assert np.abs(table / 600 - 0.25).max() < 0.07  # 4 standard deviations
    for trait in (np.array(lengths), np.array(starts)):
        means = [trait[np.array(classes) == k].mean() for k in range(4)]
        assert np.ptp(means) < 0.3 * trait.std()


@pytest.mark.parametrize("size", [(64, 64), (64, 256), (128, 256), (256, 96), (224, 224), (512, 384)])
def test_any_size(size):
    data = Scenes(size, 0, 10, "eval")
    for index in range(10):
        image, labels, distance, direction = data[SampleKey(0, index)]
        assert image.shape == (3, *size) and image.dtype == torch.float32 and image.abs().max() < 6
        assert labels.shape == (size[0] // TOKEN, size[1] // TOKEN) == distance.shape == direction.shape
        assert labels.dtype == direction.dtype == torch.int64
        assert len(labels.unique()) >= 3  # background and two bars
        along = size[1] if direction[0, 0] == 0 else size[0]
        assert distance.min() >= 0 and distance.max() > 0.1 * along


@pytest.mark.parametrize("size", [(100, 128), (128, 144), (32, 64), (0, 0)])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(ConfigError, match="multiples of 32"):
        Scenes(size, 0, 1, "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="valid: eval, train"):
        Scenes(SIZE, 0, 1, "test")


def test_normalising_loses_nothing():
    data = Scenes(SIZE, 0, 8, "eval")
    keys = [SampleKey(0, index) for index in range(8)]
    images = torch.stack([data[key][0] for key in keys])
    assert np.array_equal(scenes.pixels(images), np.stack([data.scene(key).image for key in keys]))
    assert abs(images.mean()) < 0.25 and 0.5 < images.std() < 1.5


def test_the_palette_is_readable_in_grey():
    luminance = scenes.PALETTE @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) < -25).all()


def test_the_fingerprint_knows_the_recipe_but_not_the_seed(monkeypatch):
    fingerprint = Scenes(SIZE, 0, 10, "train").fingerprint()
    assert fingerprint == Scenes(SIZE, 1, 10, "train").fingerprint()
    others = {Scenes((64, 64), 0, 10, "train").fingerprint(), Scenes(SIZE, 0, 10, "eval").fingerprint()}
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    others.add(Scenes(SIZE, 0, 10, "train").fingerprint())
    assert fingerprint not in others and len(others) == 3


def test_the_generator_has_not_changed_without_a_new_version():
    """These bits stand for VERSION: a change here must raise it."""
    keys = [SampleKey(0, index) for index in range(3)]
    assert scenes.VERSION == 1
    assert digest(Scenes(SIZE, 0, 3, "eval"), keys)[:16] == "6bd84c67ea52f1f6"
