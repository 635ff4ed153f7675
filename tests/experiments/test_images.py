"""Real image files, whole and damaged, through every kind of reader."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from errors import DataError, RunFailed
from experiments.config import resolve
from experiments.data.images import READABLE, open_images, train_transform
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.data.modes import to_rgb
from experiments.data.order import SampleKey
from experiments.data.registry import check_root

TEST = {"data.image_size": [32, 32], "data.workers": 0, "train.batch_size": 6}


def config_of(root, **given):
    config = resolve(
        "tiny_imagenet", TEST, {"data.root": str(root)}, {k.replace("__", "."): v for k, v in given.items()}
    )
    check_root(config)
    return config


def test_a_sample_depends_on_its_key_alone(images):
    config = config_of(images, augment__auto_augment="rand-m9-mstd0.5-inc1", augment__erase=0.5)
    dataset = open_images(config, training=True)
    first = dataset[SampleKey(0, 5)][0]
    torch.rand(7)
    np.random.rand(3)
    assert torch.equal(dataset[SampleKey(0, 5)][0], first)
    assert not torch.equal(dataset[SampleKey(1, 5)][0], first)
    assert not torch.equal(dataset[SampleKey(0, 5, repeat=1)][0], first)


def test_batches_do_not_depend_on_the_number_of_workers(images):
    config = config_of(images)
    epochs = []
    for workers in (0, 2):
        batches = Batches(open_images(config, training=True), 6, 0, True, workers, torch.device("cpu"))
        epochs.append([batch.images for (batch,) in batches.steps(1, first=1)])
    assert len(epochs[0]) == 3
    assert all(torch.equal(one, other) for one, other in zip(*epochs, strict=True))


def test_loader_processes_are_ended_though_they_ignore_signals_and_their_batches_are_still_held(images):
    batches = Batches(open_images(config_of(images), training=True), 6, 0, True, 2, torch.device("cpu"))
    held = batches.steps(0)
    next(held)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        worker.terminate()
        worker.join(0.2)
        assert worker.is_alive()
    batches.close()
    assert multiprocessing.active_children() == []


ODD_IMAGES = {
    "grayscale.jpg": lambda image: image.convert("L"),
    "palette.png": lambda image: image.convert("P"),
    "rgba.png": lambda image: image.convert("RGBA"),
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "bilevel.png": lambda image: image.convert("1"),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_every_colour_mode_is_read_as_rgb(images, name):
    folder = images / "val" / "class0"
    for file in folder.iterdir():
        file.unlink()
    original = Image.fromarray(np.full((40, 40, 3), 128, np.uint8))
    ODD_IMAGES[name](original).save(folder / name)
    image, label, unreadable = open_images(config_of(images), training=False)[SampleKey(0, 0)]
    assert (tuple(image.shape), label, unreadable) == ((3, 32, 32), 0, READABLE)


SIXTEEN = np.linspace(0, 65535, 40 * 40).round().astype(np.uint16).reshape(40, 40)
EIGHT = Image.fromarray((SIXTEEN / 257).round().astype(np.uint8))
CONVERTED = {  # every mode that Pillow knows → an image of it, made from grey levels, or None where it is refused
    "1": lambda: EIGHT.convert("1"),
    "L": lambda: EIGHT,
    "P": lambda: EIGHT.convert("P"),
    "RGB": lambda: EIGHT.convert("RGB"),
    "RGBA": lambda: EIGHT.convert("RGBA"),
    "RGBX": lambda: EIGHT.convert("RGB").convert("RGBX"),
    "RGBa": lambda: EIGHT.convert("RGBA").convert("RGBa"),
    "LA": lambda: EIGHT.convert("LA"),
    "La": lambda: EIGHT.convert("LA").convert("La"),
    "PA": lambda: EIGHT.convert("P").convert("PA"),
    "CMYK": lambda: EIGHT.convert("RGB").convert("CMYK"),
    "YCbCr": lambda: EIGHT.convert("RGB").convert("YCbCr"),
    "HSV": lambda: EIGHT.convert("RGB").convert("HSV"),
    "I;16": lambda: Image.fromarray(SIXTEEN),
    "I;16L": lambda: Image.frombytes("I;16L", (40, 40), SIXTEEN.astype("<u2").tobytes()),
    "I;16B": lambda: Image.frombytes("I;16B", (40, 40), SIXTEEN.astype(">u2").tobytes()),
    "I;16N": lambda: Image.frombytes("I;16N", (40, 40), SIXTEEN.tobytes()),
    "I": None,
    "F": None,
    "LAB": None,
}


def test_the_table_has_every_mode_that_pillow_knows():
    assert set(CONVERTED) >= set(Image.MODES)


@pytest.mark.parametrize("mode", CONVERTED)
def test_every_mode_is_converted_by_its_own_range_or_refused(mode):
    if CONVERTED[mode] is None:
        with pytest.raises(ValueError, match=f"mode {mode} has no range"):
            to_rgb(Image.new(mode, (4, 4)))
        return
    image = CONVERTED[mode]()
    assert image.mode == mode
    levels = np.asarray(to_rgb(image)).astype(int)
    expected = np.asarray(EIGHT).astype(int)
    if mode == "1":  # dithered
        assert abs(levels.mean() - expected.mean()) < 2 and set(np.unique(levels)) == {0, 255}
    else:
        assert abs(levels - expected[..., None]).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_grey_png_of_sixteen_bits_keeps_its_levels(images, suffix):
    path = images / "val" / "class0" / f"0.{suffix}"
    for file in path.parent.iterdir():
        file.unlink()
    Image.fromarray(SIXTEEN).save(path, format="PNG")
    read, _ = open_images(config_of(images), training=False).read(0)
    assert abs(np.asarray(read)[..., 0].astype(int) - np.asarray(EIGHT)).max() <= 1


def damage(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:400])
    elif how == "bomb":
        path.write_bytes(bomb())
    elif how in ("pipe", "folder", "dead link", "link to itself"):
        path.unlink()
        make = {
            "pipe": os.mkfifo,
            "dead link": lambda p: p.symlink_to("nowhere"),
            "link to itself": lambda p: p.symlink_to(p),
        }
        make[how](path)
    else:
        path.write_bytes({"empty": b"", "text": b"this is no image\n", "html": b"<html>404</html>"}[how])


def bomb():
    """A PNG that says it is 100,000 x 100,000 pixels large."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


CAUSES = {
    "truncated": "truncated",
    "empty": "the file is empty",
    "text": "cannot be decoded",
    "html": "cannot be decoded",
    "bomb": "decompression bomb",
    "pipe": "not a regular file",
    "dead link": "no such file or directory",
    "link to itself": "too many levels of symbolic links",
}


@pytest.mark.parametrize("how", CAUSES)
def test_training_replaces_an_unreadable_image_and_lists_it_with_the_cause(images, how):
    damage(images / "train" / "class1" / "3.jpg", how)
    dataset = open_images(config_of(images, data__bad_image_tolerance=0.1), training=True)
    batch = dataset.collate([dataset[SampleKey(0, 11)]])
    follower = dataset.read(12)
    assert batch.bad.tolist() == [11]
    assert batch.classes.tolist() == [follower[1]]
    ledger = Ledger(dataset, tolerance=0.1)
    ledger.note(batch)
    assert list(ledger.state()) == [11]
    assert "class1/3.jpg" in ledger.state()[11] and CAUSES[how] in ledger.state()[11].lower()
    assert "\n" not in ledger.state()[11]


def test_a_name_that_is_no_utf_8_can_be_named(images, caplog):
    path = images / "train" / "class1" / "bad\udcff\n.jpg"
    path.write_bytes(b"no image")
    dataset = open_images(config_of(images), training=True)
    index = next(number for number in range(len(dataset)) if "bad" in dataset.name(number))
    assert dataset.problem(index) == "class1/bad\\xff\\n.jpg: unreadable image (cannot be decoded)"
    assert len(dataset.fingerprint()) == 16
    Ledger(dataset, 1.0).note(dataset.collate([dataset[SampleKey(0, index)]]))
    assert "bad\\xff" in caplog.text


def test_too_many_unreadable_images_fail_the_run(images):
    damage(images / "train" / "class1" / "3.jpg", "empty")
    dataset = open_images(config_of(images), training=True)
    ledger = Ledger(dataset, tolerance=0.01)
    new = ledger.note(dataset.collate([dataset[SampleKey(0, 11)]]))
    assert new == 1
    with pytest.raises(RunFailed, match=r"1 of 24 .* class1/3\.jpg"):
        ledger.merge([ledger.state()])


def test_evaluation_never_replaces_an_image(images):
    damage(images / "val" / "class2" / "1.jpg", "truncated")
    dataset = open_images(config_of(images), training=False)
    ledger = Ledger(dataset, tolerance=1.0)
    with pytest.raises(RunFailed, match=r"class2/1\.jpg: unreadable image"):
        for batch in Batches(dataset, 6, 0, False, 0, torch.device("cpu")).evaluation():
            ledger.refuse(dataset, batch)


def test_a_part_of_a_split_holds_every_class(images):
    dataset = open_images(config_of(images, data__eval_images=3), training=False)
    assert [dataset[SampleKey(0, i)][1] for i in range(len(dataset))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: None, r"no such file or folder.*scenes"),
        (lambda root: root.mkdir(), "it is empty"),
        (lambda root: (root / "train" / "a").mkdir(parents=True), "no folder for the validation split"),
        (lambda root: [(root / s).mkdir(parents=True) for s in ("train", "val")], "no class folders"),
        (
            lambda root: [(root / s).mkdir(parents=True) for s in ("train/a", "train/b", "val/a", "val/c")],
            "different classes: 2 are in one only, e.g. b, c",
        ),
    ],
)
def test_an_unusable_data_root_is_refused(tmp_path, spoil, says):
    root = tmp_path / "root"
    spoil(root)
    with pytest.raises(DataError, match=says) as caught:
        config_of(root)
    assert "\n" not in str(caught.value)


def test_class_folders_without_images_are_refused(tmp_path):
    for folder in ("train/a", "val/a"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match="no images"):
        open_images(config_of(tmp_path), training=True)


def test_a_class_without_images_is_refused(images):
    for file in (images / "val" / "class2").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"classes without an image in the validation split: class2 \(1 in all\)"):
        open_images(config_of(images), training=False)


def test_the_strongest_posterize_of_the_published_policy_is_black(images):
    config = config_of(images, augment__auto_augment="rand-m9-mstd0.5-inc1")
    operations = {op.name: op for op in train_transform(config).transforms[2].ops}
    strongest = operations["PosterizeIncreasing"]
    strongest.prob, strongest.magnitude, strongest.magnitude_std = 1.0, 10, 0
    assert np.asarray(strongest(Image.new("RGB", (4, 4), "white"))).max() == 0
    strongest.magnitude = 5
    assert set(np.unique(strongest(Image.new("RGB", (4, 4), (255, 129, 7))))) == {192, 128, 0}


def test_no_data_root_says_what_to_set():
    with pytest.raises(DataError, match=r"data\.root=PATH.*site\.yaml.*experiment=scenes and protocol=smoke"):
        check_root(resolve("imagenet"))


def test_another_number_of_classes_than_the_recipe_is_refused(images):
    with pytest.raises(DataError, match=r"holds 3 classes.*data\.num_classes=3"):
        config_of(images, data__num_classes=1000)


def test_tar_files_are_read_as_timm_spells_them(images, tmp_path):
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            tar.add(images / split, arcname=".")
    assert_same_images(open_images(config_of(tmp_path), training=True), open_images(config_of(images), training=True))


def test_webdataset_shards_are_read_and_judged_completely(images, tmp_path):
    pytest.importorskip("webdataset")
    root = tmp_path / "shards"
    root.mkdir()
    splits = {}
    for split, folder in (("train", "train"), ("validation", "val")):
        files = sorted((images / folder).rglob("*.jpg"))
        with tarfile.open(root / f"{split}-0000.tar", "w") as tar:
            for number, file in enumerate(files):
                for suffix, content in (("jpg", file.read_bytes()), ("cls", str(int(file.parent.name[-1])).encode())):
                    entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        splits[split] = {
            "name": split,
            "num_samples": len(files),
            "filenames": [f"{split}-0000.tar"],
            "shard_lengths": [len(files)],
        }
    (root / "_info.json").write_text(json.dumps({"splits": splits}))
    config = config_of(root, data__num_classes=3, data__reader="wds/any")
    judged = Batches(open_images(config, training=False), 5, 0, False, 0, torch.device("cpu"))
    classes = torch.cat([batch.classes for batch in judged.evaluation()])
    assert sorted(classes.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    for workers in (0, 1):
        trained = Batches(open_images(config, training=True), 6, 0, True, workers, torch.device("cpu"))
        epochs = [torch.cat([batch.images for (batch,) in trained.steps(number)]) for number in (0, 0, 1)]
        assert len(epochs[0]) == 24
        assert torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], epochs[2])


def test_hugging_face_data_sets_are_read(images, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = config_of(images, data__num_classes=3)
    config.data.reader, config.data.root = f"hfds/{images}", None
    assert_same_images(open_images(config, training=True), open_images(config_of(images), training=True))


def assert_same_images(dataset, reference):
    def described(d):
        return sorted((label, np.asarray(image).tobytes()) for image, label in map(d.read, range(len(d))))

    assert len(dataset) == 24
    assert described(dataset) == described(reference)
