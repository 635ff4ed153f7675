"""Which images a split of label maps has, which mask belongs to which, and what is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from errors import DataError
from experiments.config import ROOT
from experiments.data import listing
from experiments.data.mask_layout import class_names, mask_fingerprint, mask_listings
from experiments.data.masks import open_masks
from experiments.data.registry import dataset_entry
from tests.experiments.mask_folders import CLASSES, config_of, write_pair, write_pairs


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs")


def train_names(root):
    return mask_listings(config_of(root))[0].images.names


def test_images_and_masks_of_one_name_are_pairs_in_the_order_of_their_numbers(pairs):
    for number in (10, 100, 20):
        write_pair(pairs, "training", str(number), np.zeros((20, 24, 3)), np.ones((20, 24)))
    train, judged = mask_listings(config_of(pairs))
    assert train.images.names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "10.jpg", "20.jpg", "100.jpg")
    assert train.masks.names == ("0.png", "1.png", "2.png", "3.png", "10.png", "20.png", "100.png")
    assert judged.images.names == ("0.jpg", "1.jpg", "2.jpg")
    assert train.classes == judged.classes == CLASSES


def test_a_split_may_have_folders_of_its_own(pairs):
    write_pair(pairs, "training", "town/a", np.zeros((20, 24, 3)), np.ones((20, 24)))
    train, _ = mask_listings(config_of(pairs))
    assert train.images.names[-1] == "town/a.jpg" and train.masks.names[-1] == "town/a.png"


def test_any_split_may_be_judged(pairs):
    write_pair(pairs, "testing", "t", np.zeros((20, 24, 3)), np.ones((20, 24)))
    assert mask_listings(config_of(pairs, eval_split="testing"))[1].images.names == ("t.jpg",)


def test_the_data_decide_the_number_of_classes_or_confirm_it(pairs):
    assert config_of(pairs).data.num_classes == 3
    with pytest.raises(DataError, match=r"holds 3 classes, the recipe expects 150: set data.num_classes=3"):
        config_of(pairs, num_classes=150)


def test_ade20k_has_its_150_classes_without_a_list_of_its_own(pairs):
    (pairs / "classes.txt").unlink()
    assert config_of(pairs, "ade20k").data.num_classes == 150
    names = class_names(pairs, "ade20k")
    # the beginning, middle and end of objectInfo150.txt
    assert names[:5] == ("wall", "building", "sky", "floor", "tree") and names[-2:] == ("clock", "flag")
    assert (names[12], names[74], names[89], names[130]) == ("person", "computer", "television", "screen")
    assert len(set(names)) == 150
    with pytest.raises(DataError, match=r"no classes.txt in it, which names the classes"):
        config_of(pairs, "camvid")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "names no class"),
        (b" \n\n", "names no class"),
        (b"sky\ntree\nsky\n", "'sky' stands on line 1 and on line 3"),
        (b"sky\n\ntree\n", "line 2 is empty, and the labels of all that follow would shift"),
        (b"sk\xffy\ntree\n", "not UTF-8"),
        (b"sky\ntr\x1b[31mee\n", "line 2 has control characters"),
        (b"\n".join(b"class %d" % n for n in range(256)), "names 256 classes; a label map of 8 bits has room for 255"),
        (b"x" * 70_000, "longer than 65,536 bytes"),
    ],
)
def test_a_list_of_classes_that_cannot_be_meant_is_refused(pairs, content, says):
    (pairs / "classes.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"classes\.txt: ") as error:
        config_of(pairs)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_list_of_classes_from_elsewhere_is_read(pairs):
    (pairs / "classes.txt").write_bytes(b"\xef\xbb\xbf1\t7\ttraffic light\r\n2\t8\tb\xc3\xa4r\r\n\r\n")
    assert class_names(pairs, "masks") == ("traffic light", "bär")


def test_a_list_of_classes_that_is_a_pipe_is_refused_and_not_waited_for(pairs):
    (pairs / "classes.txt").unlink()
    os.mkfifo(pairs / "classes.txt")
    with pytest.raises(DataError, match="not a regular file"):
        config_of(pairs)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "annotations/training/2.png").unlink(), r"1 of 4 images of training without a mask .* e.g. 2.jpg"),
        (lambda root: (root / "images/validation/1.jpg").unlink(), r"1 of 3 masks of validation without an image .* e.g. 1.png"),
        (lambda root: (root / "annotations/training/2.png").rename(root / "annotations/training/2.jpg"), "2.jpg is no PNG"),
        (lambda root: (root / "images/training/2.png").write_bytes(b"x"), "2.jpg and 2.png differ in their suffix only"),
        (lambda root: (root / "images/training/2.webp").write_bytes(b"x"), r"2.webp would be left out.*convert it"),
        (lambda root: os.link(root / "images/training/2.jpg", root / "images/training/9.jpg")
            or (root / "annotations/training/9.png").write_bytes(b"x"), "2.jpg and 9.jpg are one image"),
        (lambda root: os.link(root / "images/training/2.jpg", root / "images/validation/9.jpg")
            or (root / "annotations/validation/9.png").write_bytes(b"x"), "share images: a model would be judged on"),
    ],
    ids=["no mask", "no image", "jpeg mask", "two images", "other format", "one image twice", "splits share an image"],
)  # fmt: skip
def test_pairs_that_cannot_be_trusted_are_refused_when_they_are_listed(pairs, spoil, says):
    spoil(pairs)
    with pytest.raises(DataError, match=says) as error:
        open_masks(config_of(pairs), training=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train_split": "validation"}, "validation and validation are the same images"),
        ({"eval_split": "testing"}, "no folder for the testing split; it holds training, validation"),
        ({"reader": "wds/x"}, "data.reader=wds/x: images with masks are read from folders"),
        ({"root": None}, "needs images: set data.root=PATH"),
        ({"root": "/nowhere"}, "data.root=/nowhere: no such file or folder"),
    ],
)
def test_a_config_that_does_not_fit_the_layout_is_refused(pairs, given, says):
    with pytest.raises(DataError, match=says):
        config_of(pairs, **given)


def test_a_root_above_or_beside_the_layout_is_answered_with_the_right_one(pairs):
    with pytest.raises(DataError, match=rf"no folder 'images' in it; .* did you mean data.root={pairs}\?"):
        config_of(pairs.parent)
    with pytest.raises(DataError, match="not a folder; unpack"):
        config_of(pairs / "classes.txt")


def test_masks_of_another_split_name_are_refused(pairs):
    (pairs / "annotations/validation").rename(pairs / "annotations/val")
    with pytest.raises(DataError, match="annotations/validation is not a folder"):
        config_of(pairs)


def test_copies_of_a_split_are_refused(pairs):
    import shutil

    for side in ("images", "annotations"):
        shutil.rmtree(pairs / side / "validation")
        shutil.copytree(pairs / side / "training", pairs / side / "validation")
    with pytest.raises(DataError, match="are copies: a model would be judged"):
        mask_listings(config_of(pairs))


def test_links_are_followed_once_and_a_circle_is_refused(pairs, tmp_path):
    (pairs / "images/training").rename(tmp_path / "elsewhere")
    (pairs / "images/training").symlink_to(tmp_path / "elsewhere")
    assert train_names(pairs) == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    (tmp_path / "elsewhere/again").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="through a link; its images would count twice"):
        train_names(pairs)


@pytest.mark.parametrize("clutter", [".DS_Store", "._1.jpg", "notes.txt", "@eaDir/1.jpg", ".hidden/1.jpg"])
def test_what_systems_leave_in_folders_is_no_image_and_no_mask(pairs, clutter):
    before = train_names(pairs)
    for side in ("images", "annotations"):
        path = pairs / side / "training" / clutter
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"anything")
    assert train_names(pairs) == before


def test_what_cannot_be_listed_is_not_empty(pairs, monkeypatch):
    config, scandir = config_of(pairs), os.scandir

    def refuse(path):
        if str(path).endswith("annotations/training"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"annotations/training: cannot be listed \(Permission denied\)"):
        mask_listings(config)


def test_the_fingerprint_names_the_images_and_masks_that_are_used(pairs):
    def digest(*names):
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    config = config_of(pairs, train_images=2)
    expected = digest("0.jpg", "3.jpg", "0.png", "3.png"), digest("0.jpg", "1.jpg", "2.jpg", "0.png", "1.png", "2.png")
    assert mask_fingerprint(config) == "-".join(expected)
    assert (open_masks(config, True).fingerprint(), open_masks(config, False).fingerprint()) == expected


@pytest.mark.parametrize("name", ["ade20k", "camvid", "masks"])
def test_the_data_sets_are_registered_for_segmentation(name):
    assert dataset_entry(name).tasks == ("segmentation",)


LIST = """
import json, os, random, sys
sys.path.insert(0, {root!r})
scandir, shuffled = os.scandir, random.Random(int(sys.argv[2]))
class Shuffled:
    def __init__(self, path):
        with scandir(path) as entries: self.entries = list(entries)
        shuffled.shuffle(self.entries)
    def __enter__(self): return iter(self.entries)
    def __exit__(self, *_): pass
    def __iter__(self): return iter(self.entries)
os.scandir = Shuffled
from experiments.config import resolve
from experiments.data.registry import check_root, data_fingerprint
from experiments.data.mask_layout import mask_listings
config = resolve("tiny_imagenet", {{"data.root": sys.argv[1]}})
config.data.dataset = "masks"
check_root(config)
train, judged = mask_listings(config)
assert "torch" not in sys.modules
print(json.dumps([train.images.names, train.masks.names, train.classes, data_fingerprint(config)]))
"""


def test_one_order_whatever_the_hash_seed_the_locale_and_the_order_of_the_disk(tmp_path):
    names = ["a1", "A1", "a01", "B2", "b2", "b10", "É", "é", "日本", "z\udcff"]
    random.Random(0).shuffle(names)
    for split, colour in (("training", 0), ("validation", 200)):
        for name in names:
            write_pair(tmp_path, split, name, np.full((8, 8, 3), colour), np.ones((8, 8)))
    (tmp_path / "classes.txt").write_text("thing\n")
    answers = set()
    for seed, locale in (("0", "C"), ("1", "C.UTF-8"), ("12345", "POSIX")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONUTF8": "1"}
        command = [sys.executable, "-c", LIST.format(root=str(ROOT)), str(tmp_path), seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    (answer,) = answers
    images, masks, _, _ = json.loads(answer)
    assert images[:5] == ["A1.jpg", "a01.jpg", "a1.jpg", "B2.jpg", "b2.jpg"]
    assert [name.removesuffix(".png") for name in masks] == [name.removesuffix(".jpg") for name in images]
