"""Detection metrics are pycocotools' own, every image counts once, and records say what each image does to them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from errors import DataError
from experiments.data.batch import unreadable
from experiments.data.labelled_boxes import Detections, ImageTruth, LabelledBoxes
from experiments.tasks.box_examples import LEAST, MOST, NOTHING, matches
from experiments.tasks.coco_evaluation import METRICS, evaluate
from experiments.tasks.detection_judge import DetectionJudge
from experiments.tasks.leave_one_out import precision_without
from experiments.training.evaluation import refuse_other_records
from results.records import pack, read_records

NAMES = ("person", "tie", "sheep", "whale", "kite")  # nobody has a whale, and a kite is only found
IMAGES = 24
SIDE = 160
Pair = tuple[ImageTruth, Detections]


def mask_of(box, size=(SIDE, SIDE)):
    """bool: the ellipse in a box x, y, width, height."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    x, y, width, height = box
    return ((columns - x - width / 2) / (width / 2)) ** 2 + ((rows - y - height / 2) / (height / 2)) ** 2 <= 1


def pairs(seed=0, images=IMAGES, masks=True) -> list[Pair]:
    """Images of objects and detections, with crowds, ties, images without objects and such without detections.

    Boxes have whole pixels and scores one digit, so that float32 holds what JSON says.
    """
    random = np.random.default_rng(seed)
    made = []
    for place in range(images):
        count = 0 if place % 7 == 3 else int(random.integers(1, 6))
        corner, side = random.integers(0, 70, (count, 2)), np.exp(random.uniform(1.7, 4.4, (count, 2))).round()
        boxes = np.concatenate([corner, side], axis=1).astype(float).reshape(-1, 4)
        classes = random.integers(0, 3, count)
        shapes = [mask_of(box) for box in boxes]
        encoded = tuple(rle.encode(np.asfortranarray(shape, np.uint8)) for shape in shapes)
        areas = np.array([shape.sum() for shape in shapes], float)
        numbers = 1000 - 3 * place  # neither ascending nor next to one another
        truth = ImageTruth(
            numbers, (SIDE, SIDE), boxes, classes, areas, random.random(count) < 0.2, encoded if masks else None
        )
        found = [box + random.integers(-3, 4, 4) for box in boxes for _ in range(random.integers(0, 3))]
        found += [[*random.integers(0, 80, 2), *random.integers(5, 70, 2)] for _ in range(random.integers(0, 4))]
        kinds = [kind for kind in classes for _ in range(2)][: len(found)]
        kinds = np.array([*kinds, *random.integers(0, 5, len(found) - len(kinds))], int)
        kinds[kinds == 3] = 4
        array = np.array(found, float).reshape(-1, 4)
        array[:, 2:] = np.maximum(array[:, 2:], 2)
        if place % 5 == 1:
            array, kinds = array[:0], kinds[:0]
        scores = np.sort(random.integers(1, 10, len(array)) / 10)[::-1].copy()
        made.append((truth, detections(array, scores, kinds, masks)))
    return made


def detections(boxes, scores, classes, masks=True) -> Detections:
    """boxes: [n, 4] as x, y, width, height."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    shapes = np.stack([mask_of(box) for box in boxes]) if len(boxes) else np.zeros((0, SIDE, SIDE), bool)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return Detections(
        torch.tensor(corners, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32),
        torch.tensor(classes, dtype=torch.int64), torch.from_numpy(shapes) if masks else None,
    )  # fmt: skip


def batch(truths) -> LabelledBoxes:
    images = tuple(torch.full((3, *truth.size), truth.number % 256, dtype=torch.uint8) for truth in truths)
    sizes = torch.tensor([truth.size for truth in truths])
    return LabelledBoxes(images, unreadable(()), sizes, (), (), (), list(truths))


def judged(made, per_batch=3) -> DetectionJudge:
    judge = DetectionJudge(NAMES)
    for start in range(0, len(made), per_batch):
        part = made[start : start + per_batch]
        judge.add([found for _, found in part], batch([truth for truth, _ in part]))
    return judge


def by_json(made, folder, kind) -> COCOeval:
    """pycocotools run on files, as anybody else would run it."""
    annotations, results = [], []
    for truth, found in made:
        for place, box in enumerate(truth.boxes):
            annotation = {"id": len(annotations) + 1, "image_id": truth.number, "bbox": box.tolist(),
                          "category_id": int(truth.classes[place]) + 10, "area": truth.areas[place],
                          "iscrowd": int(truth.crowd[place])}  # fmt: skip
            if kind == "segm":
                annotation["segmentation"] = text(truth.masks[place])
            annotations.append(annotation)
        for place in range(len(found.scores)):
            x1, y1, x2, y2 = found.boxes[place].tolist()
            result = {"image_id": truth.number, "category_id": int(found.classes[place]) + 10,
                      "score": found.scores[place].item()}  # fmt: skip
            if kind == "segm":
                mask = rle.encode(np.asfortranarray(found.masks[place].numpy(), np.uint8))
                results.append(result | {"segmentation": text(mask)})
            else:
                results.append(result | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    content = {
        "info": {},
        "images": [{"id": truth.number, "height": truth.size[0], "width": truth.size[1]} for truth, _ in made],
        "categories": [{"id": number + 10, "name": name} for number, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation


def text(mask):
    return {"size": list(mask["size"]), "counts": mask["counts"].decode()}


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_pycocotools_on_files(tmp_path, seed):
    made = pairs(seed)
    assert any(truth.crowd.any() for truth, _ in made) and any(not len(truth.boxes) for truth, _ in made)
    evaluation = judged(made).evaluation()
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        stats = by_json(made, tmp_path, kind).stats
        expected = {f"{name}_{metric}": 100 * value for metric, value in zip(METRICS, stats) if value > -1}
        ours = {key: value for key, value in evaluation.metrics.items() if key.startswith(name)}
        assert ours == expected and 1 < ours[f"{name}_ap"] < 99


def test_a_class_is_a_row_and_without_objects_it_has_no_value(tmp_path):
    made = pairs()
    rows = judged(made).evaluation().curves["classes"]
    assert [row["name"] for row in rows] == list(NAMES)
    for number, row in enumerate(rows):
        assert row["objects"] == sum(int((truth.classes[~truth.crowd] == number).sum()) for truth, _ in made)
        if row["objects"]:
            precision = by_json(made, tmp_path, "segm").eval["precision"][:, :, number, 0, 2]
            assert row["mask_ap"] == pytest.approx(100 * precision.mean(), rel=1e-12)
            assert row["mask_ap50"] == pytest.approx(100 * precision[0].mean(), rel=1e-12)
    assert [(row["objects"], row["box_ap"], row["mask_ap50"]) for row in rows[3:]] == [(0, None, None)] * 2
    assert json.loads(json.dumps(rows)) == rows


def one(boxes, classes, crowd, number=1):
    boxes = np.array(boxes, float).reshape(-1, 4)
    areas = boxes[:, 2] * boxes[:, 3]
    return ImageTruth(number, (SIDE, SIDE), boxes, np.array(classes, int), areas, np.array(crowd, bool), None)


def test_a_small_case_by_hand():
    """Two objects; the best detection hits nothing, the next one hits one of them at IoU 0.8, one lies in a crowd."""
    truth = one([[0, 0, 10, 10], [50, 50, 10, 10], [100, 100, 40, 40]], [0, 0, 0], [False, False, True])
    found = detections([[80, 0, 10, 10], [0, 0, 10, 8], [110, 110, 9, 9]], [0.9, 0.8, 0.7], [0, 0, 0], masks=False)
    metrics = judged([(truth, found)]).evaluation().metrics
    # precision 1/2 up to recall 1/2, which are 51 of 101 recalls, at IoU 0.5 … 0.8, which are 7 of 10
    assert metrics["box_ap50"] == pytest.approx(100 * 51 / 101 / 2) == metrics["box_ap75"]
    assert metrics["box_ap"] == pytest.approx(100 * 51 / 101 / 2 * 7 / 10) and "mask_ap" not in metrics
    assert metrics["box_ap_small"] == metrics["box_ap"]
    assert not {"box_ap_medium", "box_ap_large"} & set(metrics), "there are no such objects"


def test_no_detection_at_all_is_nothing_right_and_no_object_at_all_no_metric():
    none = [(truth, detections([], [], [])) for truth, _ in pairs()]
    evaluation = judged(none).evaluation()
    assert evaluation.metrics["box_ap"] == evaluation.metrics["mask_ap50"] == 0.0
    assert evaluation.records["box_ap"].contributions().tolist() == [0.0] * IMAGES
    assert len(evaluation.examples["prediction_scores"]) == 0
    empty = judged([(one([], [], [], number), pair[1]) for number, pair in enumerate(pairs(masks=False))]).evaluation()
    assert empty.metrics == {} and empty.records == {} and empty.curves["classes"][0]["box_ap"] is None
    crowds = judged([(one([[0, 0, 9, 9]], [0], [True]), detections([], [], [], masks=False))]).evaluation()
    assert crowds.metrics == {} and crowds.records == {}
    assert DetectionJudge(NAMES).evaluation().metrics == {}


def test_only_the_best_hundred_of_an_image_count():
    truth = one([[0, 0, 10, 10]], [0], [False])
    boxes, scores = [[60, 60, 9, 9]] * 100 + [[0, 0, 10, 10]], np.linspace(0.9, 0.1, 101)
    assert (
        judged([(truth, detections(boxes, scores, [1] * 100 + [0], masks=False))]).evaluation().metrics["box_ap"] == 0
    )
    found = detections(boxes, scores[::-1].copy(), [1] * 100 + [0], masks=False)
    assert judged([(truth, found)]).evaluation().metrics["box_ap"] == pytest.approx(100), "whatever their order"


@pytest.mark.parametrize("shares", [2, 3])
def test_shares_of_processes_together_give_what_one_process_gives(shares):
    made = pairs()
    alone = judged(made).evaluation()
    cuts = np.array_split(np.arange(len(made)), shares)
    first, *others = (pickle.loads(pickle.dumps(judged([made[i] for i in cut], per_batch=2))) for cut in cuts)
    for other in others:
        first.merge(other)
    together = first.evaluation()
    assert together.metrics == alone.metrics and together.curves == alone.curves
    assert together.examples.keys() == alone.examples.keys()
    assert all(np.array_equal(together.examples[key], alone.examples[key]) for key in alone.examples)
    for name, record in alone.records.items():
        assert np.array_equal(together.records[name].influence, record.influence)
        assert together.records[name].order == record.order


def test_ties_do_not_depend_on_which_device_judged_an_image():
    made = pairs(4)
    mixed = judged([*made[1::2], *made[::2]]).evaluation()
    alone = judged(made).evaluation()
    assert mixed.metrics == alone.metrics
    back = np.argsort([*range(1, IMAGES, 2), *range(0, IMAGES, 2)])
    for name, record in alone.records.items():
        assert np.array_equal(mixed.records[name].rearranged(back).influence, record.influence), "in the order judged"
        assert mixed.records[name].order != record.order


def test_an_image_counts_once():
    made = pairs()
    judge = judged(made[:3])
    with pytest.raises(DataError, match="image 997 is judged twice"):
        judge.add([made[1][1]], batch([made[1][0]]))
    with pytest.raises(DataError, match="image 994 is judged twice"):
        judge.merge(judged(made[2:4]))


def test_the_order_tells_other_objects_apart():
    made = pairs()
    order = judged(made).evaluation().records["box_ap"].order
    assert judged([(truth, detections([], [], [])) for truth, _ in made]).evaluation().records["mask_ap"].order == order
    for change in ({"number": 5}, {"boxes": made[0][0].boxes + 1}, {"classes": (made[0][0].classes + 1) % 3}):
        other = copy.copy(made[0][0])
        for name, value in change.items():
            object.__setattr__(other, name, value)
        assert judged([(other, made[0][1]), *made[1:]]).evaluation().records["box_ap"].order != order


@pytest.mark.parametrize("seed", range(4))
def test_precision_without_an_image_is_that_of_the_other_images(seed):
    made = pairs(seed, images=12)
    kept = list(judged(made).judged.values())
    for kind in ("box", "mask"):
        without = precision_without(evaluate(kept, NAMES, kind))
        by_number = sorted(kept, key=lambda pair: pair[0].number)
        again = [
            100 * evaluate(by_number[:place] + by_number[place + 1 :], NAMES, kind).stats[0] for place in range(12)
        ]
        np.testing.assert_allclose(without, again, rtol=0, atol=1e-11)
        assert np.ptp(without) > 1


def test_a_class_whose_objects_are_in_one_image_does_not_count_without_it():
    first = one([[0, 0, 10, 10]], [1], [False], number=2), detections([[0, 0, 10, 10]], [0.5], [1], masks=False)
    second = one([[0, 0, 10, 10]], [0], [False], number=7), detections([], [], [], masks=False)
    record = judged([first, second]).evaluation().records["box_ap"]
    assert record.value() == pytest.approx(50)
    assert record.contributions().tolist() == pytest.approx([100, 0])  # 2 · 50 - 0 and 2 · 50 - 100
    assert judged([first]).evaluation().records["box_ap"].contributions().tolist() == pytest.approx([100])


def test_records_give_the_metric_and_come_back_from_their_file(tmp_path):
    evaluation = judged(pairs()).evaluation()
    assert set(evaluation.records) == {"box_ap", "mask_ap"}
    refuse_other_records(evaluation, IMAGES)
    path = tmp_path / "records.npz"
    path.write_bytes(pack({f"eval/{name}": record for name, record in evaluation.records.items()}))
    back = read_records(path)
    for name, record in evaluation.records.items():
        assert np.array_equal(back[f"eval/{name}"].contributions(), record.contributions())
        assert back[f"eval/{name}"].value() == evaluation.metrics[name]
        assert record.contributions().mean() == pytest.approx(evaluation.metrics[name], rel=1e-12)


@pytest.mark.slow
def test_the_error_over_images_is_that_of_a_bootstrap():
    """Average precision of images that are drawn anew spreads as the influences of the images say."""
    kept = list(judged(pairs(6, images=150, masks=False)).judged.values())
    whole = evaluate(kept, NAMES, "box")
    without = precision_without(whole)
    stated = np.sqrt(149 / 150 * ((without - without.mean()) ** 2).sum())
    random, values = np.random.default_rng(0), []
    for _ in range(60):
        draw = [kept[place] for place in random.integers(0, 150, 150)]
        drawn = [(copy.copy(truth), found) for truth, found in draw]
        for number, (truth, _) in enumerate(drawn):
            object.__setattr__(truth, "number", number)
        values.append(100 * evaluate(drawn, NAMES, "box").stats[0])
    record = judged(pairs(6, images=150, masks=False)).evaluation().records["box_ap"]
    assert record.contributions().std(ddof=1) / np.sqrt(150) == pytest.approx(stated, rel=1e-5)
    assert stated == pytest.approx(np.std(values, ddof=1), rel=0.25)


def test_examples_are_the_first_images_with_what_was_found_in_them():
    made = pairs()
    arrays = judged(made).evaluation().examples
    assert arrays["images"].shape == (6, SIDE, SIDE, 3) and arrays["sizes"].tolist() == [[SIDE, SIDE]] * 6
    types = {name: array.dtype for name, array in arrays.items() if name != "class_names"}
    assert types == {
        "images": np.uint8, "sizes": np.int32, "truth_images": np.int32, "truth_classes": np.int32,
        "truth_boxes": np.float32, "truth_crowd": np.bool_, "truth_masks": np.uint8, "prediction_images": np.int32,
        "prediction_classes": np.int32, "prediction_boxes": np.float32, "prediction_scores": np.float32,
        "prediction_truths": np.int32, "prediction_masks": np.uint8,
    }  # fmt: skip
    for place, (truth, found) in enumerate(made[:6]):
        assert (arrays["images"][place] == truth.number % 256).all()
        mine, theirs = arrays["truth_images"] == place, arrays["prediction_images"] == place
        corners = np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + truth.boxes[:, 2:]], axis=1)
        assert np.array_equal(arrays["truth_boxes"][mine], corners.astype(np.float32))
        assert np.array_equal(arrays["truth_classes"][mine], truth.classes)
        assert np.array_equal(arrays["truth_crowd"][mine], truth.crowd)
        assert np.array_equal(arrays["prediction_boxes"][theirs], found.boxes.numpy())
        assert np.array_equal(arrays["prediction_scores"][theirs], found.scores.numpy())
        numbers = arrays["prediction_masks"][place]
        seen = np.zeros((SIDE, SIDE), np.uint8)
        for number in range(len(found.scores), 0, -1):
            seen[found.masks[number - 1].numpy()] = number
        assert np.array_equal(numbers, seen), "the best lie on top"
        for row, chosen in zip(np.flatnonzero(theirs), arrays["prediction_truths"][theirs]):
            assert chosen == NOTHING or mine[chosen]
            assert chosen == NOTHING or arrays["truth_classes"][chosen] == arrays["prediction_classes"][row]


@pytest.mark.parametrize("seed", range(3))
def test_matches_of_examples_are_those_that_coco_counts(seed):
    kept = list(judged(pairs(seed)).judged.values())
    evaluation = evaluate(kept, NAMES, "box")
    numbers = {}  # of pycocotools' annotations, which it counts from 1 on
    for truth, _ in sorted(kept, key=lambda pair: pair[0].number):
        for place in range(len(truth.boxes)):
            numbers[len(numbers) + 1] = (truth.number, place)
    entries = {(entry["image_id"], entry["category_id"]): entry
               for entry in evaluation.evalImgs if entry and entry["aRng"][0] == 0 and entry["aRng"][1] > 1e9}  # fmt: skip
    seen = 0
    for truth, found in kept:
        ours = matches(truth, found.boxes, found.classes)
        for kind in range(5):
            mine = ours[found.classes == kind]
            if not len(mine):
                continue
            theirs = [numbers[int(number)] if number else (truth.number, NOTHING)
                      for number in entries[truth.number, kind]["dtMatches"][0]]  # fmt: skip
            assert [(truth.number, int(place)) for place in mine] == theirs
            seen += len(mine)
    assert seen > 50


def test_large_examples_are_kept_small_and_faint_objects_left_out():
    boxes = np.array([[100, 50, 400, 200], [0, 0, 1024, 768]], float)
    truth = ImageTruth(1, (768, 1024), boxes, np.array([1, 2]), boxes[:, 2] * boxes[:, 3], np.zeros(2, bool), None)
    scores = [0.9, 0.8, *np.linspace(0.7, LEAST - 0.01, 70)]
    found = detections([*boxes, *[[5, 5, 9, 9]] * 70], scores, [1, 0, *[3] * 70], masks=False)
    arrays = judged([(truth, found)]).evaluation().examples
    assert arrays["images"].shape == (1, 384, 512, 3)
    assert arrays["truth_boxes"].tolist() == [[50, 25, 250, 125], [0, 0, 512, 384]]
    assert len(arrays["prediction_scores"]) == MOST and arrays["prediction_boxes"][0].tolist() == [50, 25, 250, 125]
    assert arrays["prediction_truths"][:3].tolist() == [0, NOTHING, NOTHING]
    few = judged([(truth, detections(boxes, [LEAST, LEAST - 0.001], [1, 2], masks=False))]).evaluation().examples
    assert few["prediction_scores"].tolist() == pytest.approx([LEAST])


def test_what_does_not_fit_is_refused():
    truth, found = pairs()[0]
    with pytest.raises(DataError, match=r"image 1000 has class 5: valid are 0 to 4"):
        judged([(one([[0, 0, 9, 9]], [5], [False], 1000), found)])
    with pytest.raises(ValueError, match="class 9 was found: there are 5"):
        judged([(truth, detections([[0, 0, 9, 9]], [0.5], [9]))])
    with pytest.raises(ValueError, match=r"\[160, 160\] px has masks of \[160, 20\] px"):
        judged([(truth, Detections(found.boxes, found.scores, found.classes, found.masks[:, :, :20]))])
    with pytest.raises(DataError, match="image 1 has no masks"):
        judged([(one([], [], []), found)])
    mixed = judged([(truth, found), (one([], [], []), detections([], [], [], masks=False))])
    with pytest.raises(ValueError, match="in others boxes alone"):
        mixed.evaluation()


def test_pycocotools_prints_nothing(capsys):
    judged(pairs()).evaluation()
    assert capsys.readouterr() == ("", "")
