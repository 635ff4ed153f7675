"""Tiny-ImageNet and ImageNet as they are downloaded: the same images as in class folders, or a line that says why not."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from errors import DataError
from experiments.config import resolve
from experiments.data.images import open_images
from experiments.data.layout import data_fingerprint
from experiments.data.registry import check_judged, check_root
from measurements.evaluation_settings import of_file
from tests.conftest import write_images

WNIDS = ("n01443537", "n01629819", "n02002724")  # class0, class1, class2
DEVKIT = "ILSVRC2012_devkit_t12/data"


def config_of(root, **given):
    settings = {
        "data.root": str(root),
        "data.image_size": [32, 32],
        "data.num_classes": None,
        "data.dataset": "imagenet",
    }
    config = resolve("tiny_imagenet", settings, {key.replace("__", "."): value for key, value in given.items()})
    check_root(config)
    return config


def opened(root, **given):
    """The images of both splits, as (name, pixels, class), and the data fingerprint."""
    config = config_of(root, **given)
    both = [open_images(config, training=training) for training in (True, False)]
    images = [
        [(each.name(n), np.asarray(each.read(n)[0]).tobytes(), each.read(n)[1]) for n in range(len(each))]
        for each in both
    ]
    assert data_fingerprint(config) == "-".join(each.fingerprint() for each in both)
    return images, data_fingerprint(config)


@pytest.fixture
def sorted_images(tmp_path):
    """Class folders named as ImageNet's classes, validation images named as ImageNet's."""
    root = write_images(tmp_path / "sorted")
    for split in ("train", "val"):
        for number, wnid in enumerate(WNIDS):
            (root / split / f"class{number}").rename(root / split / wnid)
    order = np.random.default_rng(1).permutation(12)
    files = sorted(file for file in (root / "val").rglob("*.jpg"))
    for number, place in enumerate(order, start=1):
        files[place].rename(files[place].with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    return root


def flat_copy(root, to, val="val"):
    """The images of validation in one folder; returns file name → class."""
    shutil.copytree(root / "train", to / "train")
    (to / val).mkdir(parents=True)
    labels = {}
    for file in sorted((root / "val").rglob("*.JPEG"), key=lambda path: path.name):
        shutil.copy(file, to / val / file.name)
        labels[file.name] = file.parent.name
    return labels


def tiny(root, to):
    labels = flat_copy(root, to, "val/images")
    (to / "test" / "images").mkdir(parents=True)
    shutil.copy(next((to / "val" / "images").iterdir()), to / "test" / "images" / "test_0.JPEG")
    for wnid in WNIDS:
        images = to / "train" / wnid / "images"
        images.mkdir()
        for file in list((to / "train" / wnid).glob("*.jpg")):
            file.rename(images / file.name)
        (to / "train" / wnid / f"{wnid}_boxes.txt").write_text("0.jpg\t0\t0\t39\t39\n")
    lines = [f"{name}\t{wnid}\t0\t0\t39\t39\n" for name, wnid in labels.items()]
    (to / "val" / "val_annotations.txt").write_text("".join(lines))
    return to


def kaggle(root, to):
    labels = flat_copy(root, to / "ILSVRC/Data/CLS-LOC")
    rows = [f"{name[:-5]},{wnid} 1 2 30 31 {wnid} 4 5 8 9 \n" for name, wnid in reversed(labels.items())]
    (to / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    return to


def devkit(root, to):
    labels = flat_copy(root, to)
    (to / DEVKIT).mkdir(parents=True)
    numbers = {"n02002724": 1, "n01443537": 2, "n01629819": 3, "n00001740": 1001}  # in no order, and one of no image
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    table = np.array([(number, wnid, "some words", int(number > 3)) for wnid, number in numbers.items()], dtype=kind)
    savemat(to / DEVKIT / "meta.mat", {"synsets": table[:, None]})
    truth = "".join(f"{numbers[wnid]}\n" for wnid in labels.values())
    (to / DEVKIT / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return to


def packed_devkit(root, to):
    devkit(root, to)
    with tarfile.open(to / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(to / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    shutil.rmtree(to / "ILSVRC2012_devkit_t12")
    return to


def archives(root, to):
    """ImageNet's own archives: one of an archive per class, one of images, and the devkit."""
    packed_devkit(root, to)
    with tarfile.open(to / "ILSVRC2012_img_train.tar", "w") as train:
        for wnid in WNIDS:
            with tarfile.open(to / f"{wnid}.tar", "w") as one:
                for file in sorted((to / "train" / wnid).iterdir()):
                    one.add(file, file.name)
            train.add(to / f"{wnid}.tar", f"{wnid}.tar")
            (to / f"{wnid}.tar").unlink()
    with tarfile.open(to / "ILSVRC2012_img_val.tar", "w") as val:
        for file in sorted((to / "val").iterdir()):
            val.add(file, file.name)
    for split in ("train", "val"):
        shutil.rmtree(to / split)
    return to


@pytest.mark.parametrize("download", [kaggle, devkit, packed_devkit, archives])
def test_imagenet_as_downloaded_is_what_it_is_in_class_folders(sorted_images, tmp_path, download):
    assert opened(download(sorted_images, tmp_path / "raw")) == opened(sorted_images)


def test_kaggles_folders_are_found_from_the_inner_root_too(sorted_images, tmp_path):
    assert opened(kaggle(sorted_images, tmp_path / "raw") / "ILSVRC/Data/CLS-LOC") == opened(sorted_images)


def test_tiny_imagenet_as_downloaded_is_judged_on_what_it_is_in_class_folders(sorted_images, tmp_path):
    (train, judged), fingerprint = opened(tiny(sorted_images, tmp_path / "raw"))
    (as_folders, as_judged), of_folders = opened(sorted_images)
    assert judged == as_judged
    assert fingerprint.partition("-")[2] == of_folders.partition("-")[2]
    assert [image[1:] for image in train] == [image[1:] for image in as_folders]


def test_a_part_of_the_images_is_the_same_part(sorted_images, tmp_path):
    raw = devkit(sorted_images, tmp_path / "raw")
    assert opened(raw, data__eval_images=5) == opened(sorted_images, data__eval_images=5)


def test_doctor_counts_the_images_of_a_list(sorted_images, tmp_path, capsys):
    from run import main

    root = tiny(sorted_images, tmp_path / "raw")
    main(["doctor", "experiment=tiny_imagenet", f"data.root={root}", f"runs_dir={tmp_path}", "--json"])
    assert "3 classes, 24 train images, 12 validation images" in capsys.readouterr().out


@pytest.mark.parametrize("download", [kaggle, devkit, tiny])
def test_an_evaluation_needs_the_judged_split_alone(sorted_images, tmp_path, download):
    root = download(sorted_images, tmp_path / "raw")
    shutil.rmtree(next(root.rglob("train")))
    (tmp_path / "weights.pth").write_bytes(b"")
    given = {"experiment": "tiny_imagenet", "data.root": str(root), "data.dataset": "imagenet"}
    config = of_file(str(tmp_path / "weights.pth"), given, {})
    assert (config.data.num_classes, len(open_images(config, training=False))) == (3, 12)
    with pytest.raises(DataError, match="no folder for the train split"):
        check_root(config)


def test_an_evaluation_refuses_another_number_of_classes(sorted_images, tmp_path):
    config = resolve("imagenet", {"data.root": str(kaggle(sorted_images, tmp_path / "raw"))})
    with pytest.raises(DataError, match=r"holds 3 classes, the recipe expects 1000: set data\.num_classes=3"):
        check_judged(config)


def first(folder):
    return min(folder.iterdir())


def edit(path, change):
    path.write_text(change(path.read_text()))


BROKEN = {  # of Tiny-ImageNet
    "no list": (
        lambda r: (r / "val/val_annotations.txt").unlink(),
        r"images in one folder, and no list .*val_annotations",
    ),
    "an image too many": (
        lambda r: shutil.copy(first(r / "val/images"), r / "val/images/val_99.JPEG"),
        r"val_annotations\.txt does not say the class of val_99\.JPEG; remove",
    ),
    "an image too few": (
        lambda r: first(r / "val/images").unlink(),
        r"lacks ILSVRC2012_val_00000001\.JPEG of val_annotations\.txt: unpack",
    ),
    "a line twice": (
        lambda r: edit(r / "val/val_annotations.txt", lambda text: text + text.splitlines()[0]),
        r"line 13 names ILSVRC2012_val_00000001\.JPEG a second time",
    ),
    "a line without a class": (
        lambda r: edit(r / "val/val_annotations.txt", lambda text: "val_0.JPEG\n" + text),
        "line 1 does not name an image and its class",
    ),
    "an empty list": (lambda r: (r / "val/val_annotations.txt").write_text(""), r"val_annotations\.txt: is empty"),
    "a class that is not trained": (
        lambda r: edit(r / "val/val_annotations.txt", lambda text: text.replace("n02002724", "n09999999")),
        "hold different classes: 2 are in one only, e.g. n02002724, n09999999",
    ),
    "half sorted": (
        lambda r: (r / "val/n01443537").mkdir(),
        "images lie both in images and in folders such as n01443537; keep them all",
    ),
    "sorted, and the empty folder left": (
        lambda r: (shutil.rmtree(r / "val/images"), (r / "val/images").mkdir(), (r / "val/n01443537").mkdir()),
        "holds no images beside the class folders .*: remove it",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_only_like_tiny_imagenet_is_refused_with_what_to_do(sorted_images, tmp_path, name):
    damage, message = BROKEN[name]
    root = tiny(sorted_images, tmp_path / "raw")
    damage(root)
    with pytest.raises(DataError, match=message):
        config_of(root)


def test_the_unlabelled_test_images_cannot_be_judged_on(sorted_images, tmp_path):
    with pytest.raises(DataError, match="test/images: images in one folder, and no list"):
        config_of(tiny(sorted_images, tmp_path / "raw"), data__eval_split="test")


BROKEN_DEVKIT = {
    "no list": (lambda r: shutil.rmtree(r / "ILSVRC2012_devkit_t12"), "images in one folder, and no list .*devkit"),
    "no synsets": (lambda r: (r / DEVKIT / "meta.mat").unlink(), r"needs meta\.mat of the devkit beside it"),
    "synsets of something else": (
        lambda r: (r / DEVKIT / "meta.mat").write_bytes(b"?"), r"meta\.mat: not the meta\.mat of ImageNet's devkit"
    ),
    "a number of no class": (
        lambda r: edit(r / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", lambda text: "77\n" + text[2:]),
        "line 1 does not name an image and its class",
    ),
    "a shorter truth": (
        lambda r: edit(r / DEVKIT / "ILSVRC2012_validation_ground_truth.txt", lambda text: text[:-2]),
        r"does not say the class of ILSVRC2012_val_00000012\.JPEG",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_DEVKIT)
def test_what_is_only_like_imagenet_is_refused_with_what_to_do(sorted_images, tmp_path, name):
    damage, message = BROKEN_DEVKIT[name]
    root = devkit(sorted_images, tmp_path / "raw")
    damage(root)
    with pytest.raises(DataError, match=message):
        config_of(root)


def test_a_damaged_packed_devkit_is_refused(sorted_images, tmp_path):
    root = packed_devkit(sorted_images, tmp_path / "raw")
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"not an archive that can be read .*: download it again"):
        config_of(root)


def test_the_folder_that_an_archive_was_unpacked_into_is_pointed_to(sorted_images, tmp_path):
    tiny(sorted_images, tmp_path / "data" / "tiny-imagenet-200")
    with pytest.raises(DataError, match=r"it holds tiny-imagenet-200; did you mean data\.root=.*/tiny-imagenet-200\?"):
        config_of(tmp_path / "data")


def test_an_archive_that_is_not_unpacked_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny-imagenet-200.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"it holds no folders, only tiny-imagenet-200\.zip; unpack archives"):
        config_of(tmp_path / "data")
    with pytest.raises(DataError, match=r"not a tar archive that can be read .*; unpack it"):
        config_of(tmp_path / "data" / "tiny-imagenet-200.zip")


def test_tiny_imagenet_in_an_archive_is_to_be_unpacked(sorted_images, tmp_path):
    with tarfile.open(tmp_path / "tiny.tar", "w") as archive:
        archive.add(tiny(sorted_images, tmp_path / "raw"), "tiny-imagenet-200")
    with pytest.raises(DataError, match=r"lies in one folder, images, .*: unpack the archive"):
        config_of(tmp_path / "tiny.tar")
