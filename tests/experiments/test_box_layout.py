"""Which images and objects a split of COCO's layout has, what training leaves out, and what is refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from errors import DataError
from experiments.config import ROOT
from experiments.data import coco_file
from experiments.data.box_layout import _find, box_fingerprint, box_listings
from experiments.data.boxes import open_boxes
from experiments.data.coco_file import read_annotations
from experiments.data.outlines import run_lengths
from experiments.data.registry import dataset_entry
from tests.experiments.box_folders import annotations, config_of, edit, write_annotations, write_boxes
from tests.experiments.mask_folders import unpacked


@pytest.fixture
def root(tmp_path):
    return write_boxes(tmp_path / "boxes")


def listed(root, **given):
    return box_listings(config_of(root, **given))


def add(root, split="train", image=1000, **given):
    """One more annotation, id 9000, of the first image: a box of 10 x 10 px with its outline."""
    x, y, w, h = box = given.pop("bbox", [5, 5, 10, 10])
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    record = {"id": 9000, "image_id": image, "category_id": 3, "bbox": box, "area": w * h, "iscrowd": 0}
    record |= {"segmentation": [corners]} | given
    edit(root, split, lambda document: document["annotations"].append(record))


def usable_ids(root, split=0):
    listing = listed(root)[split]
    objects = listing.file.objects
    return {int(objects.ids[n]) for row in listing.rows for n in objects.of(row) if objects.usable[n]}


def test_images_are_in_the_order_of_their_names_with_their_own_objects(root):
    train, judged = listed(root)
    assert train.images.names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg") and judged.images.names[0] == "50.jpg"
    assert train.classes == ("cat", "dog", "kite") and train.has_masks
    assert train.sizes.tolist() == [[40, 64], [48, 40], [36, 50], [64, 33]]
    objects = judged.file.objects
    own = objects.of(judged.rows[1])
    assert objects.ids[own].tolist() == [5101, 5102]
    assert objects.boxes[own].tolist() == [[4, 6, 10, 8], [20.5, 2.5, 10, 20]]
    assert objects.classes[own].tolist() == [1, 2], "ids 7 and 90 of 3, 7, 90"
    assert objects.areas[own].tolist() == [80, 100]


def test_objects_belong_to_their_image_in_whatever_order_the_file_has_them(root):
    before = box_fingerprint(config_of(root))

    def turn(document):
        document["images"].reverse()
        document["categories"].reverse()
        document["annotations"].sort(key=lambda record: (record["id"] % 100, -record["id"]))

    edit(root, "train", turn)
    train, _ = listed(root)
    objects = train.file.objects
    assert [objects.ids[objects.of(row)].tolist() for row in train.rows] == [[1, 2], [101, 102], [201, 202], [301, 302]]
    assert train.classes == ("cat", "dog", "kite")
    assert box_fingerprint(config_of(root)) == before, "the same data"


@pytest.mark.parametrize(
    ("folders", "split", "found"),
    [
        (["train2017"], "train", "train2017"),
        (["train", "train2017"], "train", "train"),
        (["train2017", "train2014"], "train2014", "train2014"),
        (["training"], "train", "training"),
        (["val2017", "test2017"], "validation", "val2017"),
        (["val2017", "valid"], "val", "val2017"),
        (["test2017"], "validation", "test2017"),
    ],
)
def test_a_split_is_found_by_its_name_with_a_year_or_by_a_synonym(tmp_path, folders, split, found):
    (tmp_path / "annotations").mkdir()
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / f"annotations/instances_{name}.json").touch()
    assert _find(tmp_path, split) == (tmp_path / found, tmp_path / f"annotations/instances_{found}.json")


def test_folder_and_file_may_have_the_year_or_not(root):
    annotations(root, "train").rename(root / "annotations/instances_train.json")
    (root / "val2017").rename(root / "val")
    assert [len(listing) for listing in listed(root)] == [4, 3]
    assert [len(listing) for listing in listed(root, eval_split="val")] == [4, 3]


def test_two_synonyms_are_asked_about(root):
    shutil.copytree(root / "val2017", root / "valid")
    with pytest.raises(
        DataError, match=r"valid and val2017 may both be the validation split: .*data.eval_split=val2017"
    ):
        config_of(root)
    assert config_of(root, eval_split="val2017").data.num_classes == 3


def test_the_data_decide_the_number_of_classes_or_confirm_it(root):
    assert config_of(root).data.num_classes == 3
    with pytest.raises(DataError, match=r"holds 3 classes, the recipe expects 80: set data.num_classes=3"):
        config_of(root, num_classes=80)


@pytest.mark.parametrize(
    ("given", "is_usable", "area"),
    [
        ({}, True, 100),
        ({"bbox": [60, 35, 10, 10]}, True, 100),  # past the corner of 64 x 40 px
        ({"bbox": [-5, -5, 10, 10]}, True, 100),
        ({"bbox": [5, 5, 1, 1]}, True, 1),
        ({"bbox": [5, 5, 0, 10]}, False, 0),
        ({"bbox": [5, 5, 0.9, 10]}, False, 9),
        ({"bbox": [64, 5, 10, 10]}, False, 100),  # wholly outside
        ({"bbox": [5, -10, 10, 10]}, False, 100),
        ({"area": 0}, False, 0),
        ({"area": None}, True, 100),  # that of the box
        ({"iscrowd": 1}, False, 100),
        ({"ignore": 1}, False, 100),
    ],
)
def test_training_learns_from_objects_that_can_be_seen_and_evaluation_keeps_all(root, given, is_usable, area):
    add(root, **given)
    assert (9000 in usable_ids(root)) is is_usable
    add(root, "val", image=1050, **given)
    truth = open_boxes(config_of(root), training=False).truth(0)
    assert len(truth.boxes) == 3 and truth.boxes[2].tolist() == given.get("bbox", [5, 5, 10, 10])
    assert truth.crowd.tolist() == [False, False, given.get("iscrowd") == 1]
    assert truth.areas.tolist() == [80, 100, area]


def test_training_drops_images_without_objects_and_small_ones_and_evaluation_keeps_them(root):
    def spoil(document):
        """Leaves the first image without objects, the second one with crowds alone; the last one is 31 px wide."""
        first, second, *_, last = document["images"]
        document["annotations"] = [each for each in document["annotations"] if each["image_id"] != first["id"]]
        for each in document["annotations"]:
            each["iscrowd"] |= each["image_id"] == second["id"]
        last |= {"width": 31, "height": 80}

    for split in ("train", "val"):
        edit(root, split, spoil)
    train, judged = listed(root)
    assert train.images.names == ("2.jpg",) and judged.images.names == ("50.jpg", "51.jpg", "52.jpg")
    assert open_boxes(config_of(root), training=False).truth(0).boxes.shape == (0, 4)


def test_a_split_that_nothing_can_be_learned_from_is_refused(root):
    edit(root, "train", lambda document: document.update(annotations=[]))
    with pytest.raises(
        DataError, match=r"instances_train2017.json: none of its 4 images has 32 px a side and an object"
    ):
        listed(root)


def record(kind, number, **change):
    return lambda document: document[kind][number].update(change)


def without(kind, number, key):
    return lambda document: document[kind][number].pop(key)


RLE = {"size": [40, 64], "counts": [0, 40 * 64]}
BAD = {
    "box is missing": (without("annotations", 1, "bbox"), "annotation 2: bbox is missing"),
    "box of three": (record("annotations", 1, bbox=[1, 2, 3]), r"annotation 2: bbox is [1, 2, 3], not x, y, width"),
    "box of words": (record("annotations", 1, bbox=[1, 2, 3, "4"]), "annotation 2: bbox is [1, 2, 3, '4'], which is not finite numbers"),
    "box with NaN": (record("annotations", 1, bbox=[1, 2, float("nan"), 4]), "annotation 2: bbox is [1, 2, nan, 4]"),
    "endless box": (record("annotations", 1, bbox=[1, 2, float("inf"), 4]), "annotation 2: bbox is [1, 2, inf, 4]"),
    "huge box": (record("annotations", 1, bbox=[1, 2, 10**400, 4]), "annotation 2: bbox is [1, 2, 1000"),
    "negative width": (record("annotations", 2, bbox=[1, 2, -3, 4]), "annotation 101: bbox is [1, 2, -3, 4], with a negative"),
    "area with NaN": (record("annotations", 0, area=float("nan")), "annotation 1: area is nan, which is not"),
    "negative area": (record("annotations", 0, area=-1), "annotation 1: area is -1, which is negative"),
    "area is text": (record("annotations", 0, area="1"), "annotation 1: area is '1', which is not"),
    "crowd of 2": (record("annotations", 0, iscrowd=2), "annotation 1: iscrowd is 2, neither 0 nor 1"),
    "no image": (record("annotations", 0, image_id=5), "annotation 1: image_id is 5, but no image has this id"),
    "no category": (record("annotations", 0, category_id=4), "annotation 1: category_id is 4, but no category has"),
    "image by name": (record("annotations", 0, image_id="1000"), "annotation 1: image_id is '1000', not a whole number"),
    "annotation twice": (record("annotations", 3, id=1), "2 annotations have the id 1"),
    "image twice": (record("images", 3, id=1000), "2 images have the id 1000"),
    "file twice": (record("images", 3, file_name="0.jpg"), "2 images have the file_name '0.jpg'"),
    "category twice": (record("categories", 2, id=3), "2 categories have the id 3"),
    "name twice": (record("categories", 2, name="cat"), "2 categories have the name 'cat'"),
    "name on two lines": (record("categories", 2, name="ki\nte"), "category 90: its name has control characters"),
    "no id": (without("annotations", 1, "id"), "annotations[1]: id is missing"),
    "huge id": (record("annotations", 1, id=2**70), "id is 1180591620717411303424, too large"),
    "no width": (without("images", 1, "width"), "image 1001: width is missing"),
    "width 0": (record("images", 1, width=0), "image 1001: width is 0, not 1 or more"),
    "half a pixel": (record("images", 1, width=40.5), "image 1001: width is 40.5, not a whole number"),
    "true": (record("images", 1, width=True), "image 1001: width is True, not a whole number"),
    "no name": (record("images", 1, file_name=""), "image 1001: file_name is '', not a name"),
    "half a letter": (record("images", 1, file_name="\ud800.jpg"), "image 1001: file_name is '\\ud800.jpg', not a text"),
    "elsewhere": (record("images", 1, file_name="../val2017/50.jpg"), "image 1001: file_name '../val2017/50.jpg' leads out"),
    "absolute": (record("images", 1, file_name="/etc/passwd"), "image 1001: file_name '/etc/passwd' leads out"),
    "missing file": (record("images", 1, file_name="9.jpg"), "1 of the 4 images of instances_train2017.json are not in it, e.g. 9.jpg"),
    "no categories": (lambda document: document.update(categories=[]), "names no category"),
    "no images": (lambda document: document.update(images=[], annotations=[]), "names no image"),
    "a list lacks": (lambda document: document.pop("annotations"), "no list 'annotations' in it"),
    "no record": (lambda document: document["images"].insert(2, 7), "images[2] is 7, not a record"),
    "other categories": (record("categories", 2, name="car"), "name different categories, e.g. car, kite"),
    "swapped categories": (lambda document: [document["categories"][n].update(name=name) for n, name in ((0, "dog"), (1, "cat"))],
        "name different categories, in another order"),
    "some masks": (without("annotations", 2, "segmentation"), "annotation 101: has no mask, others of the file have one"),
    "odd polygon": (record("annotations", 1, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 2: a polygon has 7 numbers"),
    "flat polygon": (record("annotations", 1, segmentation=[1, 2, 3, 4, 5, 6]), "annotation 2: segmentation holds a polygon that is no"),
    "polygon with NaN": (record("annotations", 2, segmentation=[[1, 2, 3, float("nan"), 5, 6]]), "annotation 101: a polygon has a point that is no number"),
    "polygon far away": (record("annotations", 1, segmentation=[[1, 2, 3, 129, 5, 6]]), "annotation 2: a polygon has a point farther"),
    "mask is text": (record("annotations", 1, segmentation="0 1"), "annotation 2: segmentation is '0 1'; expected polygons"),
    "mask of another size": (record("annotations", 1, segmentation=RLE | {"size": [64, 40]}), "annotation 2: its mask has 40x64 px, its image 64x40"),
    "mask without size": (record("annotations", 1, segmentation={"counts": [2560]}), "annotation 2: its mask states no size"),
    "runs too long": (record("annotations", 1, segmentation=RLE | {"counts": [0, 2561]}), "annotation 2: the runs of its mask have 2561 px together, its image 2560"),
    "negative run": (record("annotations", 1, segmentation=RLE | {"counts": [-1, 2561]}), "annotation 2: counts holds something else"),
    "no runs": (record("annotations", 1, segmentation=RLE | {"counts": None}), "annotation 2: counts is neither a list"),
    "runs cut off": (record("annotations", 1, segmentation=RLE | {"counts": "0o"}), "annotation 2: counts is cut off"),
    "foreign characters": (record("annotations", 1, segmentation=RLE | {"counts": "0\x00"}), "annotation 2: counts has characters"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_annotations_that_cannot_be_meant_are_refused_by_file_and_id(root, kind):
    spoil, says = BAD[kind]
    edit(root, "train", spoil)
    with pytest.raises(DataError, match="train2017") as error:
        listed(root)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "expected an object with the lists images, annotations and categories"),
        ("", ":1: torn or not JSON"),
        ('{"images": [],\n "annot', ":2: torn or not JSON"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_files_that_hold_no_annotations_are_refused(root, content, says):
    write_annotations(root, "val", content)
    with pytest.raises(DataError, match=r"instances_val2017\.json") as error:
        config_of(root)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_file_beyond_all_measure_or_that_is_no_file_is_refused(root, monkeypatch):
    monkeypatch.setattr(coco_file, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match=r"instances_train2017.json: longer than 1,000 bytes"):
        config_of(root)
    annotations(root, "train").unlink()
    os.mkfifo(annotations(root, "train"))
    with pytest.raises(DataError, match="not a regular file"):
        config_of(root)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"train_split": "val"}, "val and validation are the same images"),
        ({"eval_split": "testing"}, "no folder testing or testing2017; it holds annotations, train2017, val2017"),
        ({"reader": "wds/x"}, "data.reader=wds/x: images with boxes are read from folders"),
        ({"root": None}, "needs images: set data.root=PATH"),
        ({"root": "/nowhere"}, "data.root=/nowhere: no such file or folder"),
    ],
)
def test_a_config_that_does_not_fit_the_layout_is_refused(root, given, says):
    with pytest.raises(DataError, match=says):
        config_of(root, **given)


def test_a_root_above_or_below_the_layout_is_answered_with_the_right_one(root):
    for wrong in (root.parent, root / "train2017", root / "annotations"):
        with pytest.raises(DataError, match=rf"no folder 'annotations' in it; .* did you mean data.root={root}\?"):
            config_of(wrong)
    with pytest.raises(DataError, match="not a folder; unpack"):
        config_of(annotations(root, "val"))


def test_annotations_that_lack_are_named_with_what_is_there(root):
    annotations(root, "val").rename(root / "annotations/person_keypoints_val2017.json")
    with pytest.raises(
        DataError,
        match=r"no instances_val2017.json, the annotations of val2017; it holds instances_train2017.json, person_",
    ):
        config_of(root)


def test_annotations_of_another_split_are_recognised(root):
    shutil.copy(annotations(root, "train"), annotations(root, "val"))
    with pytest.raises(
        DataError, match=r"4 of the 4 images of instances_val2017.json are not in it, e.g. 0.jpg: does the file belong"
    ):
        listed(root)


def test_splits_that_share_an_image_and_an_image_by_two_names_are_refused(root):
    (root / "val2017/52.jpg").unlink()
    os.link(root / "train2017/2.jpg", root / "val2017/52.jpg")
    with pytest.raises(DataError, match="share images: a model would be judged on"):
        listed(root)
    (root / "val2017/52.jpg").unlink()
    os.link(root / "val2017/51.jpg", root / "val2017/52.jpg")
    with pytest.raises(DataError, match=r"51.jpg and 52.jpg are one image"):
        listed(root)


def test_a_link_to_the_other_split_is_refused(root):
    shutil.rmtree(root / "val2017")
    (root / "val2017").symlink_to(root / "train2017")
    with pytest.raises(DataError, match="are the same images"):
        config_of(root)


def test_images_that_no_annotation_file_names_and_clutter_are_not_part_of_the_data(root):
    for name in ("99.jpg", ".DS_Store", "notes.txt"):
        (root / "train2017" / name).write_bytes(b"anything")
    assert len(listed(root)[0]) == 4
    (root / "train2017/7.webp").write_bytes(b"x")
    with pytest.raises(DataError, match=r"7.webp would be left out.*convert it"):
        listed(root)


def test_images_may_lie_in_folders_of_the_split(root):
    (root / "train2017/a").mkdir()
    (root / "train2017/1.jpg").rename(root / "train2017/a/1.jpg")
    edit(root, "train", record("images", 1, file_name="a/1.jpg"))
    assert listed(root)[0].images.names == ("0.jpg", "2.jpg", "3.jpg", "a/1.jpg")


CHANGES = {
    "a box": (record("annotations", 3, bbox=[20.5, 2.5, 10, 19]), True),
    "a class": (record("annotations", 3, category_id=3), True),
    "an area": (record("annotations", 3, area=5), True),
    "a crowd": (record("annotations", 3, iscrowd=1), True),
    "an ignored one": (record("annotations", 3, ignore=1), True),
    "a polygon": (record("annotations", 3, segmentation=[[20.5, 2.5, 30.5, 2.5, 30.5, 22]]), True),
    "points in other polygons": (record("annotations", 2, segmentation=[[4, 6, 14, 6, 14, 14], [4, 14, 14, 6, 4, 6]]), True),
    "run lengths": (record("annotations", 3, segmentation={"size": [48, 40], "counts": [1, 1919]}), True),
    "a category": (record("categories", 0, name="lion"), True),
    "a size": (record("images", 1, width=41), True),
    "ids": (lambda document: [each.update(id=each["id"] + 5) for each in document["annotations"]], False),
    "a licence": (record("images", 1, license=4), False),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_the_fingerprint_follows_what_is_annotated(root, kind):
    change, moves = CHANGES[kind]
    before = box_fingerprint(config_of(root))
    for split in ("train", "val"):  # which have to have the same categories
        if split == "train" or kind == "a category":
            edit(root, split, change)
    after = box_fingerprint(config_of(root))
    assert (before.split("-")[0] != after.split("-")[0]) is moves
    assert (before.split("-")[1] != after.split("-")[1]) is (kind == "a category")


def test_the_fingerprint_names_the_images_that_are_used(root):
    config = config_of(root, train_images=2)
    train, judged = box_listings(config)
    assert box_fingerprint(config) == f"{train.fingerprint([0, 3])}-{judged.fingerprint([0, 1, 2])}"
    assert train.fingerprint([0, 3]) != train.fingerprint([0, 2]) != train.fingerprint([0])
    sets = open_boxes(config, True), open_boxes(config, False)
    assert box_fingerprint(config) == "-".join(dataset.fingerprint() for dataset in sets)
    edit(root, "train", record("annotations", 3, category_id=3))  # of image 1
    assert box_fingerprint(config_of(root, train_images=2)) == box_fingerprint(config)


def test_a_file_that_was_changed_is_read_again(root):
    config = config_of(root)
    before = box_fingerprint(config)
    path = annotations(root, "train")
    path.write_text(path.read_text().replace("[4, 6, 10, 8]", "[4, 6, 10, 9]"))
    os.utime(path, ns=(1, 1))
    assert box_fingerprint(config) != before
    assert read_annotations(path) is read_annotations(path)


@pytest.mark.parametrize("form", ["polygons", "list", "text"])
def test_masks_are_those_of_pycocotools(root, form):
    random = np.random.default_rng(0)
    if form == "polygons":
        stated = [random.uniform(-20, 80, 14).round(2).tolist(), random.uniform(0, 60, 6).tolist(), [1, 2, 3, 4]]
        expected = coco_masks.merge(coco_masks.frPyObjects(stated[:2], 40, 64))
    else:
        bitmap = np.asfortranarray(random.random((40, 64)) < 0.3, np.uint8)
        bitmap[:, 10:60] = 0  # runs of hundreds
        expected = coco_masks.encode(bitmap)
        flat = np.concatenate([[0], bitmap.ravel(order="F"), [2]])
        edges = np.flatnonzero(np.diff(flat))
        runs = np.diff(np.concatenate([[0], edges])).tolist()
        text = expected["counts"].decode()
        assert run_lengths(expected["counts"]).tolist() == runs
        stated = {"size": [40, 64], "counts": text if form == "text" else runs}
    edit(root, "train", record("annotations", 1, segmentation=stated))
    train, _ = listed(root)
    outlines = train.file.objects.outlines
    assert outlines.encoded(1, (40, 64)) == expected
    assert outlines.encoded(0, (40, 64)) == coco_masks.frPyObjects([[4, 6, 14, 6, 14, 14, 4, 14]], 40, 64)[0]


def test_an_outline_of_two_points_is_an_empty_mask(root):
    edit(root, "train", record("annotations", 1, segmentation=[[1, 2, 3, 4]]))
    outlines = listed(root)[0].file.objects.outlines
    assert coco_masks.area(outlines.encoded(1, (40, 64))) == 0
    assert coco_masks.decode(outlines.encoded(1, (40, 64))).shape == (40, 64)


def test_data_without_masks_have_none(tmp_path):
    root = write_boxes(tmp_path / "boxes", masks=False)
    edit(root, "val", lambda document: [each.update(segmentation=[]) for each in document["annotations"]])
    assert [listing.has_masks for listing in listed(root)] == [False, False]


@pytest.mark.parametrize("name", ["coco", "bccd", "boxes"])
def test_the_data_sets_are_registered_for_detection(name):
    assert dataset_entry(name).tasks == ("detection",)
    assert "detection" in dataset_entry("scenes").tasks and "detection" not in dataset_entry("search").tasks


@pytest.mark.parametrize(
    ("archive", "classes", "lengths", "objects"),
    [("coco-mini", 80, (64, 64), (534, 609)), ("bccd", 3, (292, 72), (3943, 945))],
)
def test_the_real_samples_are_listed(tmp_path, archive, classes, lengths, objects):
    config = config_of(unpacked(archive, tmp_path), train_split="train", eval_split="val")
    both = box_listings(config)
    assert config.data.num_classes == classes and tuple(map(len, both)) == lengths
    assert tuple(len(listing.file.objects.ids) for listing in both) == objects
    unused = [int((~listing.file.objects.usable).sum()) for listing in both]
    assert unused == ([5, 7] if archive == "coco-mini" else [2, 0]), "crowds; two boxes without area"


def test_checking_and_listing_do_not_import_torch(root):
    code = (
        "import sys\nfrom tests.experiments.box_folders import config_of\n"
        "from experiments.data.registry import data_fingerprint\n"
        "print(data_fingerprint(config_of(sys.argv[1])), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"{box_fingerprint(config_of(root))} False\n", done.stderr
