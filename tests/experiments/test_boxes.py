"""Images with objects as they are read: what a sample is a function of, how batches are padded, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from errors import DataError, RunFailed
from experiments.data.box_transforms import MULTI_SCALE, BoxAugment, LabelledObjects
from experiments.data.boxes import Boxes, open_boxes
from experiments.data.labelled_boxes import LabelledBoxes
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.data.mask_transforms import normalise
from experiments.data.order import SampleKey, Share, stream
from tests.experiments.box_folders import annotations, config_of, edit, write_boxes
from tests.experiments.mask_folders import unpacked

SMALL = BoxAugment(short_sides=(40, 56), longest=90, first_sides=(36,), crop=(24, 40))
CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    return write_boxes(tmp_path / "boxes")


def training(root, augment=SMALL, with_masks=True):
    return open_boxes(config_of(root), True, augment, with_masks)


def judged(root, with_masks=True):
    return open_boxes(config_of(root), False, with_masks=with_masks)


def jpeg(path):
    with Image.open(path) as opened:
        return torch.from_numpy(np.array(opened)).permute(2, 0, 1)


def test_evaluation_gives_the_image_as_it_is_with_everything_annotated(root):
    def spoil(document):
        document["annotations"][3] |= {"iscrowd": 1, "segmentation": {"size": [64, 33], "counts": [12, 100, 2000]}}
        del document["annotations"][2]["area"]

    edit(root, "val", spoil)
    sample = judged(root)[SampleKey(0, 1)]
    assert torch.equal(sample.image, jpeg(root / "val2017/51.jpg")) and sample.image.dtype == torch.uint8
    assert sample.size == sample.truth.size == (64, 33) and sample.objects is None and sample.bad == -1
    truth = sample.truth
    assert truth.number == 1051 and truth.boxes.dtype == np.float64
    assert truth.boxes.tolist() == [[4, 6, 10, 8], [20.5, 2.5, 10, 20]] and truth.classes.tolist() == [1, 2]
    assert truth.crowd.tolist() == [False, True]
    assert truth.areas.tolist() == [80, 100], "of the mask where none is stated; as stated"
    assert coco_masks.area(list(truth.masks)).tolist() == [80, 100]
    assert coco_masks.decode(truth.masks[1]).T.ravel()[10:114].tolist() == [0] * 2 + [1] * 100 + [0] * 2


def test_areas_that_are_not_stated_are_those_of_the_mask_or_of_the_box(root):
    edit(root, "val", lambda document: [each.pop("area") for each in document["annotations"]])
    assert judged(root).truth(0).areas.tolist()[0] == 80
    triangle = judged(root).truth(0).areas[1]
    assert abs(triangle - 100) < 12 and triangle == int(triangle), "half of 10 x 20 px, in whole pixels"
    assert judged(root, with_masks=False).truth(0).areas.tolist() == [80, 200]
    assert judged(root, with_masks=False).truth(0).masks is None


def test_training_objects_are_those_that_can_be_learned_from(root):
    edit(root, "train", lambda document: document["annotations"][2].update(iscrowd=1))
    dataset = training(root)
    objects = dataset.objects(1)
    assert objects.boxes.tolist() == [[20.5, 2.5, 30.5, 22.5]] and objects.classes.tolist() == [2]
    assert objects.masks.shape == (1, 48, 40) and objects.masks.dtype == torch.uint8
    assert dataset.objects(0).masks[0].nonzero().tolist() == [[y, x] for y in range(6, 14) for x in range(4, 14)]
    assert training(root, with_masks=False).objects(0).masks is None


def test_a_training_view_is_the_augmentation_of_what_was_read_padded_with_zeros(root):
    dataset, key = training(root), SampleKey(1, 2, 1)
    sample = dataset[key]
    view = SMALL.view((36, 50), stream(dataset.seed, 1, 2, 1, purpose="boxes"))
    assert dataset.size_of(key) == view.size == sample.size
    image, objects = SMALL(jpeg(root / "train2017/2.jpg"), dataset.objects(2), view)
    height, width = view.size
    assert torch.equal(sample.image[:, :height, :width], image)
    assert not sample.image[:, height:].any() and not sample.image[:, :, width:].any()
    assert torch.equal(sample.objects.boxes, objects.boxes) and torch.equal(sample.objects.classes, objects.classes)
    assert torch.equal(sample.objects.masks[:, :height, :width], objects.masks)
    assert not sample.objects.masks[:, height:].any() and not sample.objects.masks[:, :, width:].any()
    assert sample.image.shape[1:] == sample.objects.masks.shape[1:] == (-(-height // 32) * 32, -(-width // 32) * 32)
    wide = dataset[key._replace(canvas=(96, 128))]
    assert wide.image.shape == (3, 96, 128) and wide.objects.masks.shape[1:] == (96, 128)
    assert torch.equal(wide.image[:, :height, :width], image)


def test_a_training_view_is_a_function_of_seed_epoch_index_and_repeat_alone(root):
    augment = BoxAugment(short_sides=tuple(range(40, 90)), longest=200)
    dataset = training(root, augment)
    keys = [SampleKey(epoch, index, repeat) for epoch in (0, 1) for index in (0, 1) for repeat in (0, 1)]
    first = {key: dataset[key] for key in keys}
    torch.rand(7)
    np.random.rand(3)
    for key in reversed(keys):
        again = dataset[key]
        assert torch.equal(again.image, first[key].image)
        assert all(map(torch.equal, again.objects, first[key].objects))
    assert len({first[key].image.numpy().tobytes() for key in keys}) == len(keys)
    other = Boxes(dataset.listing, augment, seed=dataset.seed + 1)
    assert any(other.size_of(key) != dataset.size_of(key) for key in keys)


@pytest.mark.parametrize("augment", [SMALL, BoxAugment(), MULTI_SCALE], ids=["small", "800", "several"])
def test_the_size_of_a_view_is_known_before_it_is_read(root, augment):
    dataset = training(root, augment, with_masks=False)
    for key in (SampleKey(epoch, index) for epoch in range(3 if augment is SMALL else 1) for index in range(4)):
        assert dataset[key].size == dataset.size_of(key)


def test_batches_are_padded_to_the_largest_view_of_the_whole_batch_on_any_number_of_devices(root):
    def batches(share=None, workers=0):
        loaded = Batches(training(root), 4, 0, True, workers, CPU, share=share)
        steps = [batch for epoch in range(3) for step in loaded.steps(epoch) for batch in step]
        loaded.close()
        return steps

    together = batches()
    assert len(together) == 3
    order = Batches(training(root), 4, 0, True, 0, CPU).order
    for epoch, batch in enumerate(together):
        assert isinstance(batch, LabelledBoxes) and batch.size == 4 and batch.truths == []
        (keys,) = list(order.at(epoch))
        sizes = [training(root).size_of(key) for key in keys]
        assert batch.sizes.tolist() == [list(size) for size in sizes]
        canvas = [-(-max(sides) // 32) * 32 for sides in zip(*sizes)]
        assert list(batch.images.shape) == [4, 3, *canvas] and list(keys[0].canvas) == canvas
        assert all(list(masks.shape[1:]) == canvas for masks in batch.masks)
    halves = [batches(Share(rank, 2, mixed_parts=0)) for rank in (0, 1)]
    for number, whole in enumerate(together):
        parts = [half[number] for half in halves]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.sizes for part in parts]), whole.sizes)
        for name in ("boxes", "classes", "masks"):
            dealt = [tensor for part in parts for tensor in getattr(part, name)]
            assert all(map(torch.equal, dealt, getattr(whole, name))) and len(dealt) == 4
    for one, other in zip(together, batches(workers=2)):
        assert torch.equal(one.images, other.images) and all(map(torch.equal, one.boxes, other.boxes))


def test_batches_are_of_images_that_are_all_wide_or_all_high(tmp_path):
    dataset = training(write_boxes(tmp_path / "many", train=12), with_masks=False)
    assert dataset.batch_groups().tolist() == [1, 0, 1, 0] * 3, "64 x 40, 40 x 48, 50 x 36, 33 x 64 px"
    for epoch in range(3):
        batches = list(Batches(dataset, 3, 0, True, 0, CPU).order.at(epoch))
        assert [len({key.index % 2 for key in keys}) for keys in batches] == [1] * 4
    assert judged(tmp_path / "many").batch_groups() is None


def test_samples_without_a_canvas_are_padded_to_the_largest_of_them(root):
    dataset = training(root)
    samples = [dataset[SampleKey(0, index)] for index in range(4)]
    assert len({sample.image.shape for sample in samples}) > 1
    batch = dataset.collate(samples)
    assert list(batch.images.shape[2:]) == [max(sample.image.shape[axis] for sample in samples) for axis in (1, 2)]
    assert {masks.shape[1:] for masks in batch.masks} == {batch.images.shape[2:]}


def test_evaluation_batches_keep_the_original_sizes(root):
    dataset = judged(root)
    batch = dataset.collate([dataset[SampleKey(0, index)] for index in (1, 2)]).to(CPU)
    assert [image.shape for image in batch.images] == [(3, 64, 33), (3, 40, 64)]
    assert batch.sizes.tolist() == [[64, 33], [40, 64]] and [truth.number for truth in batch.truths] == [1051, 1052]
    assert batch.boxes == batch.classes == batch.masks == () and batch.size == 2


def test_batches_without_masks_have_an_empty_tuple(root):
    dataset = training(root, with_masks=False)
    batch = dataset.collate([dataset[SampleKey(0, index)] for index in range(2)])
    assert batch.masks == () and len(batch.boxes) == 2 and dataset.has_masks is False


def test_masks_of_data_that_have_none_are_refused(tmp_path):
    root = write_boxes(tmp_path / "boxes", masks=False)
    with pytest.raises(DataError, match=r"instances_train2017.json: boxes without masks: choose a detector of boxes"):
        training(root)
    assert training(root, with_masks=False)[SampleKey(0, 0)].objects.masks is None


BAD = {
    "no image": (lambda path: path.write_bytes(b"no image"), "51.jpg: unreadable image (cannot be decoded)"),
    "empty": (lambda path: path.write_bytes(b""), "51.jpg: unreadable image (the file is empty)"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:700]), "51.jpg: unreadable image ("),
    "another size": (lambda path: Image.new("RGB", (64, 32)).save(path), "51.jpg has 64x32 px, instances_val2017.json says 33x64"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_evaluation_refuses_an_image_by_name_and_reason(root, kind):
    spoil, says = BAD[kind]
    spoil(root / "val2017/51.jpg")
    dataset = judged(root)
    with pytest.raises(RunFailed) as error:
        for batch in Batches(dataset, 2, 0, False, 0, CPU).evaluation():
            Ledger(dataset, 1.0).refuse(dataset, batch)
    assert f"val2017/{says}" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"val2017/51.jpg"):
        dataset.read(1)


def test_training_replaces_a_bad_image_by_the_next_one_and_makes_it_fit(root):
    (root / "train2017/2.jpg").write_bytes(b"no image")
    dataset = training(root, BoxAugment(short_sides=(64,), longest=200, hflip=0.0))
    key = SampleKey(0, 2, canvas=(64, 96))  # for 36 x 50 px scaled to 64 x 89; 64 x 33 px come in their place
    sample = dataset[key]
    assert sample.bad == 2 and sample.image.shape == (3, 64, 96)
    assert sample.size == (64, 33), "124 x 64 px, by 64 / 124: again what was read"
    height, width = sample.size
    assert torch.equal(sample.image[:, :height, :width], normalise(jpeg(root / "train2017/3.jpg")))
    assert sample.objects.boxes.tolist() == dataset.objects(3).boxes.tolist()
    assert dataset[key._replace(canvas=None)].image.shape == (3, 64, 96), "that of the image it replaces"
    ledger = Ledger(dataset, tolerance=0.25)
    assert ledger.note(dataset.collate([sample, dataset[SampleKey(0, 1, canvas=(64, 96))]])) == 1
    assert ledger.state() == {2: "train2017/2.jpg: unreadable image (cannot be decoded)"}


def test_a_split_without_one_readable_image_says_why(root):
    for number in range(4):
        (root / f"train2017/{number}.jpg").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"none of the 4 images of the train split can be read: train2017/0.jpg: unread"
    ):
        training(root)[SampleKey(0, 2)]


def test_fewer_images_are_spread_over_the_split(root):
    config = config_of(root, train_images=2, eval_images=2)
    assert [open_boxes(config, True).name(index) for index in range(2)] == ["train2017/0.jpg", "train2017/3.jpg"]
    dataset = open_boxes(config, False)
    assert [dataset.truth(index).number for index in range(len(dataset))] == [1050, 1052]
    assert open_boxes(config, True).batch_groups().tolist() == [1, 0]


def test_classes_have_names_and_colours(root):
    dataset = judged(root)
    assert dataset.class_names == ("cat", "dog", "kite") and dataset.palette.shape == (3, 3)


def test_an_image_whose_crop_shows_no_object_is_trained_on(root):
    augment = BoxAugment(short_sides=(32,), longest=64, first_sides=(32,), crop=(4, 4))
    dataset = training(root, augment)
    samples = [dataset[SampleKey(epoch, 3)] for epoch in range(30)]
    without = [sample for sample in samples if not len(sample.objects.boxes)]
    assert without and without[0].objects.masks.shape == (0, *without[0].image.shape[1:])
    batch = dataset.collate(without[:2])
    assert [boxes.shape for boxes in batch.boxes] == [(0, 4)] * 2 and batch.masks[0].dtype == torch.uint8


@pytest.mark.parametrize("archive", ["coco-mini", "bccd"])
def test_the_real_samples_agree_with_pycocotools(tmp_path, archive):
    root = unpacked(archive, tmp_path)
    config = config_of(root, "coco", train_split="train", eval_split="val")
    with_masks = archive == "coco-mini"
    dataset = open_boxes(config, False, with_masks=with_masks)
    coco = COCO(annotations(root, "val"))
    categories = sorted(coco.getCatIds())
    assert [dataset.truth(index).number for index in range(len(dataset))] == sorted(coco.getImgIds())
    for index in range(0, len(dataset), 3):
        sample = dataset[SampleKey(0, index)]
        expected = coco.loadAnns(coco.getAnnIds([sample.truth.number]))
        assert sample.truth.boxes.tolist() == [each["bbox"] for each in expected]
        assert sample.truth.classes.tolist() == [categories.index(each["category_id"]) for each in expected]
        assert sample.truth.areas.tolist() == [each["area"] for each in expected]
        assert sample.truth.crowd.tolist() == [each["iscrowd"] == 1 for each in expected]
        if with_masks:
            assert list(sample.truth.masks) == [coco.annToRLE(each) for each in expected]
    trained = open_boxes(config, True, BoxAugment(short_sides=(160,), longest=320), with_masks)
    distances = []
    for index in range(0, len(trained), 9):
        sample = trained[SampleKey(0, index)]
        assert isinstance(sample.objects, LabelledObjects) and len(sample.objects.boxes)
        height, width = sample.size
        boxes = sample.objects.boxes
        assert (boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= 0).all()
        assert (boxes <= torch.tensor([width, height, width, height])).all()
        for box, mask in zip(boxes, sample.objects.masks if with_masks else ()):
            rows, columns = mask.nonzero().unbind(1)
            if len(rows):
                tight = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                distances.append(float((tight - box).abs().max()))
    assert not with_masks or np.quantile(distances, 0.9) <= 2, "masks fill their boxes"
