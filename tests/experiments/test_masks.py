"""Label maps as they are read: which pixel has which class, what is refused, and that a view is a function of its key."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from errors import DataError, RunFailed
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.data.mask_transforms import MaskAugment
from experiments.data.masks import IGNORED, LabelledMasks, Masks, open_masks
from experiments.data.order import SampleKey, stream
from tests.experiments.mask_folders import config_of, unpacked, write_pair, write_pairs

SMALL = MaskAugment(size=(16, 16), base=(48, 20))


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs")


def judged(root):
    return open_masks(config_of(root), training=False)


def mask_file(root):
    return root / "annotations/validation/1.png"


def test_label_0_is_none_and_the_others_are_classes_from_0_on(pairs):
    stored = np.arange(20 * 24).reshape(20, 24) % 4
    Image.fromarray(stored.astype(np.uint8)).save(mask_file(pairs))
    image, mask, bad = judged(pairs)[SampleKey(0, 1)]
    expected = [[{0: 255, 1: 0, 2: 1, 3: 2}[int(label)] for label in row] for row in stored]
    assert mask.tolist() == expected and mask.dtype == torch.int64 and bad == -1
    with Image.open(pairs / "images/validation/1.jpg") as original:
        assert torch.equal(image, torch.from_numpy(np.array(original)).permute(2, 0, 1)) and image.dtype == torch.uint8


@pytest.mark.parametrize("kind", ["palette", "16 bits"])
def test_masks_of_other_modes_hold_their_labels_as_values(pairs, kind):
    stored = np.arange(20 * 24).reshape(20, 24) % 4
    if kind == "palette":
        image = Image.fromarray(stored.astype(np.uint8)).convert("P")
        image.putdata(stored.flatten().tolist())
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 90, 90, 90])
    else:
        image = Image.fromarray(stored.astype(np.uint16))
    image.save(mask_file(pairs))
    with Image.open(mask_file(pairs)) as written:
        assert written.mode == ("P" if kind == "palette" else "I;16")
    assert judged(pairs)[SampleKey(0, 1)][1].tolist() == np.where(stored == 0, IGNORED, stored - 1).tolist()


def save(array, **options):
    return lambda path: Image.fromarray(array).save(path, **options)


GOOD = np.ones((20, 24), np.uint8)
BAD_MASKS = {
    "label out of range": (save(GOOD * 4), "label 4, but there are 3 classes"),
    "16-bit label out of range": (save(np.full((20, 24), 300, np.uint16)), "label 300, but there are 3 classes"),
    "colours": (save(np.ones((20, 24, 3), np.uint8)), "mode RGB: save labels as grey levels"),
    "grey with alpha": (lambda path: Image.fromarray(GOOD).convert("LA").save(path), "mode LA: save labels"),
    "one bit": (lambda path: Image.fromarray(GOOD * 255).convert("1").save(path), "mode 1: save labels"),
    "JPEG by another name": (save(GOOD, format="JPEG"), "JPEG and not PNG, which keeps every label"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "no image": (lambda path: path.write_bytes(b"no image"), "cannot be decoded"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:100]), "unreadable mask"),
    "link to nothing": (lambda path: path.unlink() or path.symlink_to("nowhere"), "No such file"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_evaluation_refuses_a_mask_that_cannot_be_meant_by_name_and_reason(pairs, kind):
    spoil, says = BAD_MASKS[kind]
    spoil(mask_file(pairs))
    dataset = judged(pairs)
    with pytest.raises(RunFailed) as error:
        for batch in Batches(dataset, 2, 0, False, 0, torch.device("cpu")).evaluation():
            Ledger(dataset, 1.0).refuse(dataset, batch)
    assert "annotations/validation/1.png: unreadable mask (" in str(error.value) and says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_and_a_mask_of_different_sizes_are_no_pair(pairs):
    Image.fromarray(GOOD.T.copy()).save(mask_file(pairs))
    says = "images/validation/1.jpg has 24x20 px, its mask annotations/validation/1.png 20x24"
    with pytest.raises(DataError, match=says):
        judged(pairs).read(1)
    assert judged(pairs).problem(1) == says


def test_training_replaces_a_bad_pair_by_the_next_one_and_lists_it(pairs):
    (pairs / "images/training/2.jpg").write_bytes(b"no image")
    save(GOOD * 9)(pairs / "annotations/training/3.png")
    dataset = open_masks(config_of(pairs), True, SMALL)
    batch = dataset.collate([dataset[SampleKey(0, 2)], dataset[SampleKey(0, 1)]])
    assert batch.bad.tolist() == [2] and batch.size == 2
    ledger = Ledger(dataset, tolerance=0.25)
    assert ledger.note(batch) == 1
    assert ledger.state() == {2: "images/training/2.jpg: unreadable image (cannot be decoded)"}
    other = dataset.collate([dataset[SampleKey(0, 3)]])
    ledger.note(other)
    with pytest.raises(RunFailed, match=r"2 of 4 training images are unreadable"):
        ledger.merge([])
    # pair 0 with the draws of place 2
    expected = SMALL(*dataset.read(0), stream(dataset.seed, 0, 2, 0, purpose="masks"))
    assert torch.equal(batch.images[0], expected[0]) and torch.equal(batch.masks[0], expected[1])


def test_a_split_without_one_readable_pair_says_why(pairs):
    for number in range(4):
        save(GOOD * 9)(pairs / f"annotations/training/{number}.png")
    with pytest.raises(
        DataError, match=r"none of the 4 images .*: annotations/training/0.png: unreadable mask \(label 9"
    ):
        open_masks(config_of(pairs), True, SMALL)[SampleKey(0, 2)]


def test_an_image_without_any_label_is_read_in_training_and_in_evaluation(pairs):
    for split in ("training", "validation"):
        save(GOOD * 0)(pairs / f"annotations/{split}/1.png")
    train = open_masks(config_of(pairs), True, SMALL)[SampleKey(0, 1)]
    for _, mask, bad in (train, judged(pairs)[SampleKey(0, 1)]):
        assert (mask == IGNORED).all() and bad == -1


@pytest.mark.parametrize("mode", ["L", "CMYK", "1", "P", "I;16", "RGBA"])
def test_images_of_every_mode_are_read_as_rgb(pairs, mode):
    (pairs / "images/validation/1.jpg").unlink()
    grey = np.full((20, 24), 255, np.uint8)
    image = (
        Image.fromarray(np.full((20, 24), 65535, np.uint16)) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    )
    image.save(pairs / f"images/validation/1.{'jpg' if mode == 'CMYK' else 'png'}")
    image, _ = judged(pairs).read(1)
    assert image.shape == (3, 20, 24) and (image == 255).all()


def test_a_training_view_is_a_function_of_seed_epoch_index_and_repeat_alone(pairs):
    dataset = open_masks(config_of(pairs), True, SMALL)
    keys = [SampleKey(epoch, index, repeat) for epoch in (0, 1) for index in (0, 1) for repeat in (0, 1)]
    first = {key: dataset[key] for key in keys}
    torch.rand(7)
    np.random.rand(3)
    for key in reversed(keys):
        image, mask, _ = dataset[key]
        assert torch.equal(image, first[key][0]) and torch.equal(mask, first[key][1])
    assert len({first[key][0].numpy().tobytes() for key in keys}) == len(keys)
    other = Masks(dataset.listing, SMALL, seed=dataset.seed + 1)
    assert not torch.equal(other[keys[0]][0], first[keys[0]][0])


def test_batches_do_not_depend_on_the_number_of_workers(pairs):
    def epoch(workers):
        batches = Batches(open_masks(config_of(pairs), True, SMALL), 2, 0, True, workers, torch.device("cpu"))
        content = [(batch.images, batch.masks) for step in batches.steps(1) for batch in step]
        batches.close()
        return content

    alone, helped = epoch(0), epoch(2)
    assert len(alone) == len(helped) == 2
    for one, other in zip(alone, helped):
        assert all(map(torch.equal, one, other))


def test_training_batches_are_of_one_size_and_evaluation_keeps_the_original_ones(pairs):
    write_pair(pairs, "validation", "wide", np.zeros((10, 50, 3)), np.ones((10, 50)))
    config = config_of(pairs)
    train = open_masks(config, True, SMALL)
    batch = train.collate([train[SampleKey(0, index)] for index in range(3)])
    assert isinstance(batch, LabelledMasks)
    assert batch.images.shape == (3, 3, 16, 16) and batch.images.dtype == torch.float32
    assert batch.masks.shape == (3, 16, 16) and batch.masks.dtype == torch.int64
    evaluation = open_masks(config, False)
    batch = evaluation.collate([evaluation[SampleKey(0, index)] for index in (2, 3)]).to(torch.device("cpu"))
    assert [image.shape for image in batch.images] == [(3, 20, 24), (3, 10, 50)]
    assert [mask.shape for mask in batch.masks] == [(20, 24), (10, 50)] and batch.size == 2


@pytest.mark.parametrize(
    ("archive", "dataset", "classes", "lengths"),
    [("ade20k-mini", "ade20k", 150, (2, 3)), ("coco-semantic-ade-layout", "masks", 129, (40, 40)),
     ("camvid-320", "camvid", 11, (367, 101))],
)  # fmt: skip
def test_the_real_samples_are_read(tmp_path, archive, dataset, classes, lengths):
    config = config_of(unpacked(archive, tmp_path), dataset)
    assert config.data.num_classes == classes
    sets = open_masks(config, True, MaskAugment(size=(64, 96))), open_masks(config, False)
    assert tuple(map(len, sets)) == lengths
    labelled = 0
    for dataset in sets:
        for index in range(0, len(dataset), 20):
            image, mask, bad = dataset[SampleKey(0, index)]
            assert image.shape[1:] == mask.shape and bad == -1
            assert ((mask < classes) | (mask == IGNORED)).all() and mask.min() >= 0
            labelled += int((mask != IGNORED).sum())
    assert labelled > 10_000
    assert sets[0][SampleKey(0, 0)][0].shape == (3, 64, 96)
