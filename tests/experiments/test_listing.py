"""Which images a split has, their classes and their order, whatever lies beside them and whoever lists them."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from errors import DataError
from experiments.config import ROOT
from experiments.data import listing
from experiments.data.images import open_images
from experiments.data.layout import listings
from experiments.data.listing import find_split, list_split
from experiments.data.order import SampleKey
from tests.experiments.test_images import config_of


def described(folder):
    listed = list_split(find_split(folder, "train"))
    return [(name, listed.classes[target]) for name, target in zip(listed.names, listed.targets)]


def add(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(path)


def test_the_fingerprint_of_ordinary_class_folders_is_what_timms_reader_gives(images):
    from timm.data import create_dataset

    from experiments.folder.provenance import listing_fingerprint

    reader = create_dataset("", root=str(images), split="train").reader
    names = [reader.filename(number) for number in range(len(reader))]
    ours = open_images(config_of(images), training=True)
    assert [ours.name(number) for number in range(len(ours))] == names
    assert ours.fingerprint() == listing_fingerprint(names) == "c16103a84dc77dd0"
    assert [ours.reader.targets[n] for n in range(len(ours))] == [target for _, target in reader.samples]


def test_the_class_is_the_first_folder_below_the_split(tmp_path):
    for split in ("train", "val"):
        for place in ("cat/indoor", "cat/outdoor", "dog/indoor", "dog/outdoor"):
            add(tmp_path / split / place / "1.png")
    assert {label for _, label in described(tmp_path)} == {"cat", "dog"}
    config = config_of(tmp_path)
    assert config.data.num_classes == 2
    judged = open_images(config, training=False)
    assert [judged[SampleKey(0, number)][1] for number in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "clutter",
    [".ipynb_checkpoints/1.jpg", "__MACOSX/class0/1.jpg", "@eaDir/1.jpg", "class0/._1.jpg", "class0/.hidden/1.jpg",
     "class0/__MACOSX/1.jpg", ".DS_Store/x.jpg", "loose.jpg", "class0/notes.txt"],
)  # fmt: skip
def test_what_systems_leave_in_folders_is_no_class_and_no_image(images, clutter):
    before = described(images)
    add(images / "train" / "class9" / "1.png")  # shows that a real one would be seen
    assert len(described(images)) == len(before) + 1
    (images / "train" / "class9" / "1.png").unlink()
    (images / "train" / "class9").rmdir()
    path = images / "train" / clutter
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"anything")
    assert described(images) == before
    assert config_of(images).data.num_classes == 3


def test_a_folder_that_a_link_reaches_again_is_refused(images):
    (images / "train" / "class0" / "up").symlink_to("..")
    with pytest.raises(DataError, match="through a link; its images would count twice"):
        described(images)


def test_linked_folders_of_images_are_read(images, tmp_path):
    (images / "train" / "class0").rename(tmp_path / "elsewhere")
    (images / "train" / "class0").symlink_to(tmp_path / "elsewhere")
    assert len(described(images)) == 24


def test_a_link_to_nothing_and_a_circle_are_no_folders(images):
    (images / "train" / "class0" / "gone").symlink_to("nowhere")
    (images / "train" / "class0" / "round").symlink_to("round")
    assert len(described(images)) == 24


CROWD = ("a1", "A1", "a01", "B2", "b2", "b10", "É", "é", "日本", "z\udcff")
LIST = """
import json, os, random, sys
from pathlib import Path
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
from experiments.data.registry import check_root
from experiments.data.layout import data_fingerprint, listings
config = resolve("tiny_imagenet", {{"data.root": sys.argv[1]}})
check_root(config)
train, judged = listings(config)
print(json.dumps([train.names, train.targets, train.classes, config.data.num_classes, data_fingerprint(config)]))
"""


@pytest.mark.parametrize("archive", [False, True], ids=["folders", "archive"])
def test_one_order_whatever_the_hash_seed_the_locale_and_the_order_of_the_disk(tmp_path, archive):
    names = list(CROWD)
    random.Random(0).shuffle(names)
    for split in ("train", "val"):
        for name in names:
            for file in ("1.png", "B.PNG", "b.PNG", "10.png", "2.png"):
                add(tmp_path / "data" / split / name / file, colour=100 * (split == "val"))
    root = tmp_path / "data"
    if archive:
        root = tmp_path / "data.tar"
        with tarfile.open(root, "w") as tar:
            tar.add(tmp_path / "data", arcname="data")
    answers = set()
    for seed, locale in (("0", "C"), ("1", "C.UTF-8"), ("2", "POSIX"), ("12345", "C.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "PYTHONUTF8": "1"}
        command = [sys.executable, "-c", LIST.format(root=str(ROOT)), str(root), seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answers.add(done.stdout)
    (answer,) = answers
    listed, targets, classes, number, _ = json.loads(answer)
    assert number == len(CROWD) == len(classes) and len(listed) == 5 * len(CROWD)
    assert [classes[target] for target in targets] == [name.partition("/")[0] for name in listed]
    assert classes[:3] == ["A1", "a01", "a1"], "equal in timm's order, so by their bytes"


def pack(images, path, *, top="", nested=False):
    with tarfile.open(path, "w") as tar:
        if not nested:
            tar.add(images, arcname=top or ".")
            return path
        for folder in sorted(images.iterdir()):
            inner = path.parent / f"{folder.name}.tar"
            with tarfile.open(inner, "w") as child:
                for file in sorted(folder.iterdir()):
                    child.add(file, arcname=file.name)
            tar.add(inner, arcname=inner.name)
            inner.unlink()
    return path


def pixels_of(config, training):
    opened = open_images(config, training=training)
    return [(opened.name(n), np.asarray(opened.read(n)[0]).tobytes(), opened.read(n)[1]) for n in range(len(opened))]


@pytest.mark.parametrize("top", ["", "tiny"])
def test_an_archive_with_both_splits_is_read_as_the_folders_it_was_made_from(images, tmp_path, top):
    archive = pack(images, tmp_path / "data.tar", top=top)
    for training in (True, False):
        assert pixels_of(config_of(archive), training) == pixels_of(config_of(images), training)


@pytest.mark.parametrize("nested", [False, True], ids=["one archive", "an archive per class in it"])
def test_a_folder_with_an_archive_per_split_is_read(images, tmp_path, nested):
    root = tmp_path / "tars"
    root.mkdir()
    for split in ("train", "val"):
        pack(images / split, root / f"{split}.tar", nested=nested)
    for training in (True, False):
        assert pixels_of(config_of(root), training) == pixels_of(config_of(images), training)


def test_an_archive_of_one_split_alone_is_refused(images, tmp_path):
    archive = pack(images / "train", tmp_path / "train.tar")
    with pytest.raises(
        DataError, match=r"no folder for the train split in it; it holds class0, .*train\.tar and val\.tar"
    ):
        config_of(archive)
    (tmp_path / "rubbish.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a tar archive that can be read"):
        config_of(tmp_path / "rubbish.tar")


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard link", "symbolic link"])
def test_images_that_are_links_in_an_archive_are_refused_and_not_left_out(images, tmp_path, link):
    image = next(file for file in sorted((images / "train").rglob("*")) if file.is_file())
    link(image, image.with_name("again" + image.suffix))
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            for name in sorted((images / split).iterdir()):
                tar.add(name, name.name)
    with pytest.raises(
        DataError, match=r"again.* is a link; in an archive, only regular files are read: .*--dereference"
    ):
        list_split(find_split(tmp_path, "train"))


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :]


DAMAGE = {  # of an archive whose last member's header is at a place
    "a damaged header": lambda content, place: flip(content, place + 3),
    "cut in a header": lambda content, place: content[: place + 200],
    "cut between members": lambda content, place: content[:place],
    "another archive behind it": lambda content, place: content + content,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("nested", [False, True], ids=["one archive", "an archive per class in it"])
def test_a_damaged_or_shortened_archive_is_refused_and_loses_no_image_in_silence(images, tmp_path, damage, nested):
    inner = tmp_path / "class.tar"
    files = [file for file in sorted((images / "train").rglob("*")) if file.is_file()]
    with tarfile.open(inner, "w") as tar:
        for file in files:
            tar.add(file, file.name if nested else file.relative_to(images / "train"))
        place = tar.getmembers()[-1].offset
    inner.write_bytes(DAMAGE[damage](inner.read_bytes(), place))
    archive = inner.rename(tmp_path / "train.tar")
    if nested:
        inner = archive.rename(tmp_path / "class.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(inner, "class.tar")
    with pytest.raises(DataError, match=r"damaged or cut off|unexpected end of data|not a tar archive"):
        list_split(find_split(tmp_path, "train"))


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "archive"])
def test_images_in_other_formats_are_refused_and_not_left_out(images, tmp_path, archive):
    (images / "train" / "class0" / "more.webp").write_bytes(b"RIFF")
    (images / "train" / "class0" / "notes.txt").write_text("fine")
    if archive:
        with tarfile.open(tmp_path / "train.tar", "w") as tar:
            tar.add(images / "train", ".")
    with pytest.raises(DataError, match=r"class0/more\.webp would be left out"):
        list_split(find_split(tmp_path if archive else images, "train"))


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard link", "symbolic link"])
def test_an_image_that_counts_twice_is_refused(images, link):
    image = next(file for file in sorted((images / "val").rglob("*")) if file.is_file())
    link(image, images / "val" / "class1" / f"again{image.suffix}")
    with pytest.raises(DataError, match="are one image and would count twice"):
        list_split(find_split(images, "val"))


def test_which_of_two_folders_is_meant_is_asked_and_not_guessed(images):
    shutil.copytree(images / "val", images / "test")
    assert find_split(images, "validation").path.name == "val"
    shutil.copytree(images / "val", images / "validation")
    both = "validation and val may both be the validation split: keep one of them, or choose with data.eval_split=val$"
    with pytest.raises(DataError, match=both):
        find_split(images, "validation")
    assert find_split(images, "val").path.name == "val"
    shutil.copytree(images / "train", images / "training")
    with pytest.raises(DataError, match=r"train and training may both be .* choose with data\.train_split=training$"):
        find_split(images, "train")
    assert find_split(images, "training").path.name == "training"


def test_a_folder_and_an_archive_of_one_name_are_asked_about(images):
    with tarfile.open(images / "train.tar", "w") as tar:
        tar.add(images / "train", ".")
    with pytest.raises(
        DataError, match=r"train may both be the train split, as a folder and as an archive: keep one of them$"
    ):
        find_split(images, "train")


def share_by_copy(images):
    shutil.rmtree(images / "val")
    shutil.copytree(images / "train", images / "val")


def share_by_link(images):
    (images / "val").rename(images / "old")
    (images / "val").symlink_to("train")


def share_a_class(images):
    for file in (images / "val" / "class1").iterdir():
        file.unlink()
    for file in (images / "train" / "class1").iterdir():
        os.link(file, images / "val" / "class1" / f"renamed-{file.name}")


def share_by_links_to_files(images):
    file = images / "val" / "class1" / "linked.jpg"
    file.symlink_to(next((images / "train" / "class1").iterdir()))


def share_one_archive(images):
    for split in ("train", "val"):
        shutil.rmtree(images / split) if split == "val" else pack(images / split, images / "train.tar")
    shutil.rmtree(images / "train")
    os.link(images / "train.tar", images / "val.tar")


def name_one_twice(images):
    return {"data__eval_split": "train"}


@pytest.mark.parametrize(
    "share", [share_by_copy, share_by_link, share_a_class, share_by_links_to_files, share_one_archive, name_one_twice]
)
def test_splits_that_share_an_image_are_refused(images, share):
    given = share(images) or {}
    with pytest.raises(DataError, match="judged on what it was trained on"):
        listings(config_of(images, **given))


@pytest.mark.parametrize("reader", ["wds/any", "hfds/any", "tfds/any"])
def test_any_reader_needs_two_splits(images, reader):
    with pytest.raises(DataError, match="are both train: a model would be judged on what it was trained on"):
        config_of(images, data__reader=reader, data__num_classes=3, data__eval_split="train")


def test_what_cannot_be_listed_is_not_empty(images, monkeypatch):
    def scandir(path):
        if str(path).endswith("class1"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    real = os.scandir
    monkeypatch.setattr(listing.os, "scandir", scandir)
    with pytest.raises(DataError, match=r"class1: cannot be listed \(Permission denied\)"):
        described(images)
