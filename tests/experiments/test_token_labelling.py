"""The token-labelling task: what it counts, and that depth measures mixing."""

import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from errors import ConfigError
from experiments.config import resolve
from experiments.data.batch import unreadable
from experiments.data.order import EpochOrder, Share, stream
from experiments.data.scenes import CLASSES, LABELLING, TOKEN, draw_layout, normalise, render
from experiments.data.token_images import IGNORED, LabelledTokens
from experiments.tasks.token_labelling import EXAMPLES, TokenLabeller, TokenLabelling

DEEP = LABELLING.deep
CHANCE = 100 / len(CLASSES)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(seed=0, **model):
    settings = {f"model.{switch}": value for switch, value in model.items()}
    return resolve("scenes", settings, {"seed": seed, "data.train_images": 16, "data.eval_images": 40})


def batches(task: TokenLabelling, size: int = 16):
    for keys in EpochOrder(len(task.eval_set), size, 0, shuffle=False):
        yield task.eval_set.collate([task.eval_set[key] for key in keys])


def oracle(task: TokenLabelling, right=lambda labels, distance: torch.ones_like(labels, dtype=torch.bool)):
    """Batches, and a predictor that knows their answers and gives them where ``right`` says so."""
    judged = list(batches(task))

    def predict(batch):
        labels = batch.labels
        shown = torch.where(right(labels, batch.distance), labels, labels + 1) % len(CLASSES)
        return 20.0 * torch.nn.functional.one_hot(shown, len(CLASSES)).permute(0, 3, 1, 2)

    return predict, judged


def scenes(labels) -> LabelledTokens:
    return LabelledTokens(torch.empty(len(labels), 0), unreadable(()), labels)


def assert_same_records(one, other) -> None:
    assert one.records.keys() == other.records.keys() == {"token_accuracy", "token_accuracy_deep"}
    for name, record in one.records.items():
        assert np.array_equal(record.correct, other.records[name].correct), name
        assert np.array_equal(record.count, other.records[name].count), name
        assert record.order == other.records[name].order != 0


def evaluate(task: TokenLabelling, predict, judged):
    judge = task.judge()
    with torch.no_grad():
        for batch in judged:
            judge.add(predict(batch), batch)
    return judge.evaluation()


def judge_of(task: TokenLabelling, predict, rank: int, devices: int, size: int):
    """The judge of one of several devices."""
    judge = task.judge()
    for keys in EpochOrder(len(task.eval_set), size, 0, shuffle=False, share=Share(rank, devices)):
        batch = task.eval_set.collate([task.eval_set[key] for key in keys])
        judge.add(predict(batch), batch)
    return judge


def test_an_oracle_scores_a_hundred():
    task = TokenLabelling(config())
    metrics = evaluate(task, *oracle(task)).metrics
    assert metrics["token_accuracy"] == metrics["token_accuracy_deep"] == 100.0
    assert 0 <= metrics["loss"] < 1e-6


def test_accuracy_and_reach_count_what_they_say():
    task = TokenLabelling(config())
    evaluation = evaluate(task, *oracle(task, lambda labels, distance: distance < 56))
    scenes = [task.eval_set[key] for keys in EpochOrder(40, 40, 0, shuffle=False) for key in keys]
    labels, distance, direction = (torch.stack([scene[part] for scene in scenes]).numpy() for part in (1, 2, 3))
    known = labels != IGNORED
    right = known & (distance < 56)
    assert evaluation.metrics["token_accuracy"] == pytest.approx(100 * right.sum() / known.sum())
    deep = known & (distance >= DEEP)
    assert evaluation.metrics["token_accuracy_deep"] == pytest.approx(100 * (right & deep).sum() / deep.sum())
    for name, chosen in (("token_accuracy", known), ("token_accuracy_deep", deep)):
        record = evaluation.records[name]
        assert record.count[:, 0].tolist() == chosen.sum((1, 2)).tolist(), "of every scene, in order"
        assert record.correct[:, 0].tolist() == (right & chosen).sum((1, 2)).tolist()
        assert record.value() == evaluation.metrics[name]

    rows = evaluation.curves["reach"]
    assert {row["direction"] for row in rows} == {"horizontal", "vertical"}
    for row in rows:
        here = known & (direction == ["horizontal", "vertical"].index(row["direction"]))
        here &= (distance >= row["distance"] - TOKEN / 2) & (distance < row["distance"] + TOKEN / 2)
        assert (row["correct"], row["count"]) == ((right & here).sum(), here.sum()) and row["count"] > 0
    assert sum(row["count"] for row in rows) == known.sum()


def test_reach_rows_add_up_to_the_accuracy():
    task = TokenLabelling(config())
    torch.manual_seed(0)
    model = task.build_model().eval()
    evaluation = evaluate(task, partial(task.predict, model), batches(task))
    rows = evaluation.curves["reach"]
    total = 100 * sum(row["correct"] for row in rows) / sum(row["count"] for row in rows)
    assert evaluation.metrics["token_accuracy"] == pytest.approx(total)
    assert 0 < total < 60 and evaluation.metrics["loss"] > 1.0  # untrained


def test_the_size_of_the_batches_changes_nothing():
    task = TokenLabelling(config())
    torch.manual_seed(0)
    model = task.build_model().eval()
    one, other = (evaluate(task, partial(task.predict, model), batches(task, size)) for size in (4, 40))
    assert one.curves == other.curves
    assert one.metrics == pytest.approx(other.metrics, rel=1e-5)
    assert_same_records(one, other)
    assert all(np.array_equal(one.examples[name], other.examples[name]) for name in one.examples)


def test_examples_hold_all_that_a_picture_needs():
    task = TokenLabelling(config())
    examples = evaluate(task, *oracle(task)).examples
    assert examples["images"].shape == (EXAMPLES, 160, 160, 3) and examples["images"].dtype == np.uint8
    assert examples["labels"].shape == examples["predictions"].shape == (EXAMPLES, 10, 10)
    assert examples["labels"].dtype == examples["predictions"].dtype == np.int8
    assert examples["palette"].shape == (len(CLASSES), 3) and examples["palette"].dtype == np.uint8
    assert examples["class_names"].tolist() == list(CLASSES)
    known = examples["labels"] != IGNORED
    assert known.any() and (examples["predictions"][known] == examples["labels"][known]).all()
    directions = {int(task.eval_set[key][3][0, 0]) for key in next(iter(EpochOrder(EXAMPLES, EXAMPLES, 0, False)))}
    assert directions == {0, 1}


@pytest.mark.parametrize(("devices", "size"), [(2, 16), (3, 7), (5, 1), (41, 8)])
def test_judges_of_several_devices_merge_into_that_of_one(devices, size):
    """In the order of the evaluation set, also where the devices have unequal shares, or none."""
    task = TokenLabelling(config())
    predict, judged = oracle(task, lambda labels, distance: distance < 56)
    one = evaluate(task, predict, judged)
    first, *others = (
        pickle.loads(pickle.dumps(judge_of(task, predict, rank, devices, size))) for rank in range(devices)
    )
    for judge in others:
        first.merge(judge)
    other = first.evaluation()
    assert one.curves == other.curves
    assert one.metrics == pytest.approx(other.metrics, rel=1e-12)
    assert_same_records(one, other)
    assert all(np.array_equal(one.examples[name], other.examples[name]) for name in one.examples)


def test_a_batch_without_a_bar_teaches_nothing():
    task = TokenLabelling(config())
    logits = torch.randn(1, len(CLASSES), 2, 2, requires_grad=True)
    batch = scenes(torch.full((1, 2, 2), IGNORED))
    task.loss(lambda images: logits, batch).backward()
    assert task.weight(batch) == 0
    assert logits.grad.abs().sum() == 0


def test_the_loss_leaves_out_all_but_the_bars():
    task = TokenLabelling(config())
    logits = torch.randn(1, len(CLASSES), 2, 2)
    labels = torch.tensor([[[1, IGNORED], [IGNORED, 3]]])
    by_hand = -(logits.log_softmax(1)[0, 1, 0, 0] + logits.log_softmax(1)[0, 3, 1, 1]) / 2
    assert task.loss(lambda images: logits, scenes(labels)).item() == pytest.approx(by_hand.item())


def test_preparing_changes_nothing():
    batch = scenes(torch.zeros(2, 1, 1))
    assert TokenLabelling(config()).prepare(batch, 7, np.arange(2)) is batch


ARMS = [
    {},
    {"offsets": "zero"},
    {"offsets": "zero", "fusion": "mean"},
    {"offsets": "token"},
    {"offsets": "joint", "offset_sharing": 1},
    {"offset_sharing": 1},
    {"samples": 3, "offset_sharing": 1},
]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: "-".join(map(str, arm.values())) or "axial")
def test_every_arm_labels_tokens_and_every_parameter_learns(arm):
    task = TokenLabelling(config(**arm))
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.train_set.collate([task.train_set[key] for key in next(iter(EpochOrder(16, 4, 0, shuffle=True)))])
    assert task.predict(model, batch).shape == (4, len(CLASSES), 10, 10)
    task.loss(model, batch).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_evaluation_scenes_do_not_depend_on_the_seed_but_training_ones_do():
    one, other = TokenLabelling(config(seed=0)), TokenLabelling(config(seed=1))
    key = next(iter(EpochOrder(16, 1, 0, shuffle=False)))[0]
    assert torch.equal(one.eval_set[key][0], other.eval_set[key][0])
    assert not torch.equal(one.train_set[key][0], other.train_set[key][0])


@pytest.mark.parametrize("offsets, sees", [("zero", False), ("axial", True)])
def test_a_bars_own_mark_reaches_its_deep_tokens_only_by_offsets(offsets, sees):
    """With zero offsets and mean fusion the mark of a bar cannot change its deep tokens; offsets carry it there."""
    torch.manual_seed(0)
    model = TokenLabelling(config(offsets=offsets, fusion="mean")).build_model().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("offsets.proj.bias"):
            torch.nn.init.normal_(parameter, std=4.0)  # tokens: as learned offsets come to be
    moved = {"near": 0.0, "deep": 0.0}
    for index in range(4):
        layout = draw_layout(stream(9, index), (160, 160))
        classes = np.zeros(len(layout.bars), np.int64)
        for bar in np.eye(len(classes), dtype=np.int64):
            before, after = render(layout, classes), render(layout, classes + 3 * bar)
            with torch.no_grad():
                outputs = model(torch.stack([normalise(before.image), normalise(after.image)]))
            change = (outputs[1] - outputs[0]).abs().amax(0).numpy()
            own = after.labels == 3
            for name, chosen in (("near", own & (after.distance < 16)), ("deep", own & (after.distance >= DEEP))):
                moved[name] = max(moved[name], float(change[chosen].max(initial=0.0)))
    assert moved["near"] > 1e-2
    assert (moved["deep"] > 1e-3) is sees


PROBES = ("search", "pair", "diagonal", "match")


def probe(name, **settings):
    return TokenLabelling(resolve(name, {"data.train_images": 16, "data.eval_images": 20, **settings}))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_labelled_tile_by_tile_and_every_parameter_learns(name):
    task = probe(name)
    torch.manual_seed(0)
    model = task.build_model()
    batch = task.train_set.collate([task.train_set[key] for key in next(iter(EpochOrder(16, 4, 0, shuffle=True)))])
    assert task.predict(model, batch).shape == (4, len(task.labelling.class_names), 16, 16)
    assert task.example().labels.shape == (2, 16, 16)
    task.loss(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", PROBES)
def test_an_oracle_scores_a_hundred_on_a_probe_and_its_distances_are_whole_tiles(name):
    task = probe(name)
    judged = list(batches(task))
    answers = task.labelling.class_names

    def predict(batch):
        near = batch.distance < 2.5 * task.labelling.token
        shown = torch.where(near, batch.labels, batch.labels + 1) % len(answers)
        return 20.0 * torch.nn.functional.one_hot(shown, len(answers)).permute(0, 3, 1, 2)

    evaluation = evaluate(task, predict, judged)
    rows = evaluation.curves["reach"]
    for row in rows:
        assert row["direction"] in task.labelling.directions and row["distance"] % 8 == 0 and row["count"] > 0
        assert row["correct"] == (row["count"] if row["distance"] < 20 else 0)
    right, count = (sum(row[key] for row in rows) for key in ("correct", "count"))
    assert count == sum(int((batch.labels != IGNORED).sum()) for batch in judged)
    assert evaluation.metrics["token_accuracy"] == pytest.approx(100 * right / count)
    assert evaluation.metrics.get("token_accuracy_deep") == (0.0 if name in ("search", "match") else None)
    for metric, record in evaluation.records.items():
        assert record.value() == pytest.approx(evaluation.metrics[metric]) and len(record.count) == 20


@pytest.mark.parametrize("name", PROBES)
def test_examples_of_a_probe_say_where_each_cue_points(name):
    task = probe(name)
    examples = evaluate(task, *oracle(task)).examples if name != "pair" else evaluate_pair(task)
    parts = 2 if name == "pair" else 1
    assert examples["places"].shape == (EXAMPLES, 16, 16, parts, 2) and examples["places"].dtype == np.int8
    assert len(examples["palette"]) == len(examples["class_names"]) == 4**parts
    assert examples["palette"].shape[1:] == ((2, 3) if name == "pair" else (3,))
    asked = examples["labels"] != IGNORED
    assert (examples["places"][asked] >= 0).all() and (examples["places"][~asked] == -1).all()


def evaluate_pair(task):
    return evaluate(task, lambda batch: torch.zeros(len(batch.labels), 16, 16, 16), list(batches(task))).examples


@pytest.mark.parametrize(("strides", "token"), [((16, 32), 16), ((4, 8, 16, 32), 8)])
def test_the_head_moves_nothing_between_the_tokens_that_a_place_of_a_map_covers(strides, token):
    """A token's answer follows the places of the maps that overlap it, and no others."""

    class Maps(torch.nn.Module):
        feature_info = SimpleNamespace(channels=lambda: [3] * len(strides))

        def forward(self, maps):
            return maps

    torch.manual_seed(0)
    model = TokenLabeller(Maps(), 5, strides, token)
    maps = [torch.randn(1, 3, 64 // stride, 64 // stride) for stride in strides]
    with torch.no_grad():
        before = model(maps)
        assert before.shape == (1, 5, 64 // token, 64 // token)
        for level, stride in enumerate(strides):
            changed = [part.clone() for part in maps]
            y, x = 64 // stride - 1, 0
            changed[level][:, :, y, x] += 1.0
            moved = (model(changed) - before).abs().amax((0, 1)) > 1e-6
            first, last = y * stride // token, ((y + 1) * stride - 1) // token
            expected = torch.zeros_like(moved)
            expected[first : last + 1, : -(-stride // token)] = True
            assert torch.equal(moved, expected)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("scenes", {"data.shuffled": "cues"}, "data.shuffled: not a setting of scenes.*search, pair, diagonal, match"),
        ("match", {"data.max_distance": 2}, "data.max_distance: not a setting of match.*search, pair, diagonal"),
        ("search", {"data.max_distance": 21}, "from 1 to 20 tiles"),
        ("search", {"data.dataset": "serach"}, "did you mean 'search'|valid: "),
        ("search", {"data.train_images": None}, "data.train_images: search"),
    ],
)
def test_settings_that_a_data_set_does_not_take_are_refused(name, settings, says):
    with pytest.raises(ConfigError, match=says):
        probe(name, **settings)
