"""Segmentation metrics are those of mmsegmentation, every image counts once, and records give the metrics again."""

import pickle

import numpy as np
import pytest
import torch

from errors import DataError
from experiments.data.batch import unreadable
from experiments.data.masks import IGNORED, LabelledMasks
from experiments.tasks.mask_examples import EXAMPLES, LONGEST
from experiments.tasks.segmentation_judge import SegmentationJudge
from experiments.training.evaluation import refuse_other_records
from results.records import pack, read_records
from results.statistics.images import new_images

NAMES = ("wall", "sky", "tree", "lamp", "boat", "whale")
PALETTE = np.arange(18, dtype=np.uint8).reshape(6, 3)
SIZES = ((20, 31), (17, 9), (40, 12), (8, 8), (23, 23), (5, 64), (30, 10))


def predicted_and_true(seed=0, sizes=SIZES):
    """Images of unequal size. Nobody knows ``whale``; ``boat`` is predicted, but is in no mask."""
    random = np.random.default_rng(seed)
    pairs = []
    for size in sizes:
        true = random.integers(0, 4, size)
        true[random.random(size) < 0.2] = IGNORED
        wrong = random.random(size) < 0.4
        pairs.append((np.where(wrong, random.integers(0, 5, size), np.minimum(true, 3)), true))
    return pairs


def batch(pairs):
    masks = tuple(torch.from_numpy(true) for _, true in pairs)
    images = tuple(torch.full((3, *mask.shape), number, dtype=torch.uint8) for number, mask in enumerate(masks))
    return LabelledMasks(images, unreadable(()), masks)


def judged(pairs, per_batch=3):
    judge = SegmentationJudge(NAMES, PALETTE)
    for start in range(0, len(pairs), per_batch):
        part = pairs[start : start + per_batch]
        judge.add([torch.from_numpy(predicted) for predicted, _ in part], batch(part))
    return judge


def by_pixel(pairs):
    """Counts pixel by pixel, as lists of intersections, predicted and true pixels of all images together."""
    right, predicted_pixels, true_pixels = ([0] * len(NAMES) for _ in range(3))
    for predicted, true in pairs:
        for p, t in zip(predicted.ravel().tolist(), true.ravel().tolist()):
            if t == 255:
                continue
            right[t] += p == t
            predicted_pixels[p] += 1
            true_pixels[t] += 1
    return right, predicted_pixels, true_pixels


def test_metrics_are_those_of_a_count_pixel_by_pixel():
    pairs = predicted_and_true()
    right, predicted, true = by_pixel(pairs)
    ious, accuracies = [], []
    for r, p, t in zip(right, predicted, true):
        if p + t:
            ious.append(r / (p + t - r))
        if t:
            accuracies.append(r / t)
    assert (len(ious), len(accuracies)) == (5, 4), "one class is only predicted and one is nowhere"
    metrics = judged(pairs).evaluation().metrics
    assert metrics == pytest.approx(
        {
            "miou": 100 * sum(ious) / 5,
            "pixel_accuracy": 100 * sum(right) / sum(true),
            "class_accuracy": 100 * sum(accuracies) / 4,
        },
        rel=1e-12,
    )


def test_a_class_is_a_row_and_what_does_not_count_has_no_value():
    pairs = predicted_and_true()
    rows = judged(pairs).evaluation().curves["classes"]
    right, predicted, true = by_pixel(pairs)
    assert [row["name"] for row in rows] == list(NAMES)
    for row, r, p, t in zip(rows, right, predicted, true):
        assert (row["intersection"], row["union"], row["pixels"]) == (r, p + t - r, t)
        assert all(isinstance(row[key], int) for key in ("intersection", "union", "pixels"))
        if t:
            assert row["iou"] == pytest.approx(100 * r / (p + t - r)) and row["accuracy"] == pytest.approx(100 * r / t)
    assert (rows[4]["iou"], rows[4]["accuracy"]) == (0.0, None)
    assert (rows[5]["iou"], rows[5]["accuracy"], rows[5]["pixels"]) == (None, None, 0)


def test_a_small_case_by_hand():
    true = np.array([[0, 0, 1], [1, IGNORED, 2]])
    predicted = np.array([[0, 1, 1], [1, 5, 0]])
    metrics = judged([(predicted, true)]).evaluation().metrics
    assert metrics["miou"] == pytest.approx(100 * (1 / 3 + 2 / 3 + 0) / 3)  # the ignored pixel predicts no class 5
    assert metrics["pixel_accuracy"] == pytest.approx(60)
    assert metrics["class_accuracy"] == pytest.approx(100 * (1 / 2 + 1 + 0) / 3)


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_shares_of_processes_together_give_what_one_process_gives(shares):
    pairs = predicted_and_true()
    alone = judged(pairs).evaluation()
    cuts = np.array_split(np.arange(len(pairs)), shares)
    first, *others = (pickle.loads(pickle.dumps(judged([pairs[i] for i in cut], per_batch=2))) for cut in cuts)
    for other in others:
        first.merge(other)
    together = first.evaluation()
    assert together.metrics == alone.metrics and together.curves == alone.curves
    assert all(np.array_equal(together.examples[key], alone.examples[key]) for key in ("labels", "predictions"))
    for name, record in alone.records.items():
        other = together.records[name]
        assert np.array_equal(record.correct, other.correct) and np.array_equal(record.count, other.count)
        assert record.order == other.order


def test_records_give_the_metric_and_come_back_from_their_file(tmp_path):
    pairs = predicted_and_true()
    evaluation = judged(pairs).evaluation()
    assert set(evaluation.records) == {"miou", "pixel_accuracy"}
    refuse_other_records(evaluation, len(pairs))
    path = tmp_path / "records.npz"
    path.write_bytes(pack({f"eval/{name}": record for name, record in evaluation.records.items()}))
    back = read_records(path)
    for name, record in evaluation.records.items():
        assert np.array_equal(back[f"eval/{name}"].contributions(), record.contributions())
        assert record.contributions().mean() == pytest.approx(evaluation.metrics[name], rel=1e-12)
    for image, (predicted, true) in enumerate(pairs):
        right, guessed, labelled = by_pixel([(predicted, true)])
        assert evaluation.records["miou"].correct[image].tolist() == right
        unions = [g + t - r for r, g, t in zip(right, guessed, labelled)]
        assert evaluation.records["miou"].count[image].tolist() == unions


def test_the_order_tells_other_masks_apart():
    pairs = predicted_and_true()
    order = judged(pairs).evaluation().records["miou"].order
    worse = [(np.zeros_like(predicted), true) for predicted, true in pairs]
    assert judged(worse).evaluation().records["miou"].order == order, "it is of what there is to predict"
    assert judged(pairs[::-1]).evaluation().records["miou"].order != order


def test_the_interval_over_images_covers_the_spread_of_the_metric_over_images():
    """mIoU is a mean of ratios: over draws of images it spreads as the images' contributions say."""
    population = predicted_and_true(1, sizes=((12, 12),) * 400)
    judge = judged(population)
    whole = judge.evaluation().records["miou"]
    random = np.random.default_rng(2)
    values, stated = [], []
    for _ in range(600):
        draw = random.integers(0, 400, 100)
        part = type(whole)(whole.correct[draw], whole.count[draw])
        values.append(part.value())
        stated.append(part.contributions().std(ddof=1) / 10)
    assert np.mean(stated) == pytest.approx(np.std(values), rel=0.1)


def test_a_difference_of_miou_has_an_interval_over_new_seeds_and_images():
    rows = []
    for seed in range(3):
        pairs = predicted_and_true(7, sizes=SIZES * 4)
        random = np.random.default_rng(seed)
        better = [(np.where(random.random(true.shape) < 0.3, np.minimum(true, 3), p), true) for p, true in pairs]
        ours, theirs = (judged(each).evaluation().records["miou"] for each in (better, pairs))
        rows.append(ours.contributions() - theirs.contributions())
        assert rows[-1].mean() == pytest.approx(ours.value() - theirs.value())
    interval = new_images(np.stack(rows))
    assert interval is not None and interval.images == 28 and interval.seeds == 3
    assert 0 < interval.low < interval.mean < interval.high


def test_examples_are_the_first_images_padded_to_the_largest():
    pairs = predicted_and_true()
    arrays = judged(pairs).evaluation().examples
    assert len(pairs) > EXAMPLES
    assert arrays["images"].shape == (EXAMPLES, 40, 64, 3) and arrays["images"].dtype == np.uint8
    assert arrays["labels"].shape == arrays["predictions"].shape == (EXAMPLES, 40, 64)
    for number, (predicted, true) in enumerate(pairs[:EXAMPLES]):
        height, width = true.shape
        assert np.array_equal(arrays["labels"][number, :height, :width], true)
        assert np.array_equal(arrays["predictions"][number, :height, :width], predicted)
        assert (arrays["images"][number, :height, :width] == number % 3).all()  # batches of three
        for name in ("labels", "predictions"):
            assert (arrays[name][number, height:] == IGNORED).all() and (arrays[name][number, :, width:] == 255).all()
    assert arrays["palette"].tolist() == PALETTE.tolist() and arrays["class_names"].tolist() == list(NAMES)


def test_a_large_example_is_kept_small():
    true = np.repeat(np.repeat(np.arange(4).reshape(2, 2), 400, axis=0), 700, axis=1)
    arrays = judged([(true, true)]).evaluation().examples
    height, width = arrays["labels"].shape[1:]
    assert (height, width) == (293, LONGEST)  # 512 · 800 / 1400 = 292.6
    assert arrays["labels"][0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 1, 2, 3]
    assert set(np.unique(arrays["labels"])) == {0, 1, 2, 3}, "classes are never averaged"


@pytest.mark.parametrize("wrong", [6, 254, -1])
def test_a_class_that_does_not_exist_is_refused(wrong):
    true = np.array([[0, wrong]])
    with pytest.raises(DataError, match=rf"class {wrong}: valid are 0 to 5 and 255"):
        judged([(np.zeros((1, 2), np.int64), true)])


def test_a_prediction_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\] px has a prediction of \[3, 2\]"):
        judged([(np.zeros((3, 2), np.int64), np.zeros((2, 3), np.int64))])


def test_where_every_pixel_is_ignored_there_is_no_metric():
    evaluation = judged([(np.zeros((4, 4), np.int64), np.full((4, 4), IGNORED))]).evaluation()
    assert evaluation.metrics == {} and evaluation.records == {}
