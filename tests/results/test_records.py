"""Per-image records: what they say, how they are kept, and that nothing else is taken for them."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from errors import SuiteError
from reports.content.images import ImageComparisons
from results import archive
from results.collect import CollectError, collect
from results.records import ImageRecord, InfluenceRecord, order_of, pack, read_records
from run_format import RECORDS
from tests.results.synthetic import edit_json, make_plan, make_run, run_id

ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}


@st.composite
def records(draw, images: int | None = None) -> ImageRecord:
    """Any counts that an evaluation can give, columns and images without any included."""
    shape = (images or draw(st.integers(1, 20)), draw(st.integers(1, 4)))
    count = draw(arrays.arrays(np.int64, shape, elements=st.integers(0, draw(st.sampled_from([1, 9, 10**6])))))
    count[:, draw(arrays.arrays(bool, shape[1]))] = 0
    assume(count.any())
    share = draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 1)))
    return ImageRecord((share * count).astype(np.int64), count, order=5)


@st.composite
def influences(draw, images: int | None = None) -> InfluenceRecord:
    size = images or draw(st.integers(1, 20))
    moved = draw(arrays.arrays(np.float32, size, elements=st.floats(-(2.0**20), 2.0**20, width=32)))
    return InfluenceRecord(moved, draw(st.floats(0, 100)), order=5)


@given(influences() | records())
def test_contributions_are_one_number_per_image_with_the_metric_as_mean(record):
    contributions = record.contributions()
    assert contributions.shape == (record.images,) and contributions.dtype == np.float64
    assert contributions.mean() == pytest.approx(record.value(), rel=1e-9, abs=1e-9)


@given(records(), st.integers(0, 3))
def test_a_column_in_which_nothing_counts_is_left_out(record, place):
    empty = [np.insert(part, min(place, part.shape[1]), 0, axis=1) for part in (record.correct, record.count)]
    wider = ImageRecord(*empty)
    counted = record.count.any(axis=0)
    narrower = ImageRecord(record.correct[:, counted], record.count[:, counted])
    by_hand = np.mean([100 * c.sum() / n.sum() for c, n in zip(record.correct.T, record.count.T) if n.any()])
    for other in (wider, narrower):
        assert other.value() == pytest.approx(by_hand, rel=1e-12)
        np.testing.assert_allclose(other.contributions(), record.contributions(), rtol=1e-9, atol=1e-9)


@given(arrays.arrays(bool, st.integers(1, 40)))
def test_where_an_image_counts_once_its_contribution_is_a_hundred_or_nothing(hits):
    record = ImageRecord.of(hits)
    np.testing.assert_allclose(record.contributions(), 100.0 * hits, atol=1e-9)
    assert record.value() == 100.0 * hits.sum() / len(hits)


def test_contributions_are_the_change_that_an_image_makes():
    """Their definition: the derivative of the metric by the weight of an image, times the number of images."""
    random = np.random.default_rng(1)
    count = random.integers(0, 50, (30, 3))
    record = ImageRecord(random.integers(0, count + 1), count)

    def weighted(weights: np.ndarray) -> float:
        return 100 * np.mean((weights @ record.correct) / (weights @ record.count))

    step = 1e-6
    for image in range(30):
        up, down = (np.ones(30) + sign * step * (np.arange(30) == image) for sign in (1, -1))
        influence = 30 * (weighted(up) - weighted(down)) / (2 * step)
        assert record.contributions()[image] == pytest.approx(record.value() + influence, abs=1e-4)


def test_their_spread_is_the_error_of_the_metric_over_images():
    """Over many draws of the images, the metric spreads as the contributions of one draw say."""
    random = np.random.default_rng(2)
    count = random.integers(1, 60, (5000, 1))
    correct = random.binomial(count, random.beta(4, 1, (5000, 1)))
    draws = random.integers(0, 5000, (2000, 400))
    values = [ImageRecord(correct[draw], count[draw]).value() for draw in draws]
    stated = [ImageRecord(correct[draw], count[draw]).contributions().std(ddof=1) / 400**0.5 for draw in draws[:100]]
    assert np.mean(stated) == pytest.approx(np.std(values), rel=0.08)


def test_the_jackknife_of_a_mean_gives_each_images_own_value():
    """For a mean, pseudo-values are the averaged numbers themselves."""
    values = np.random.default_rng(4).normal(40, 9, 50)
    without = (values.sum() - values) / 49
    record = InfluenceRecord.jackknife(values.mean(), without, order=3)
    np.testing.assert_allclose(record.contributions(), values, atol=1e-4)
    assert (record.images, record.order, record.value()) == (50, 3, values.mean())
    alone = InfluenceRecord.jackknife(12.5, np.array([0.0]))
    assert alone.contributions().tolist() == [12.5], "an image without others has no influence"


def test_records_of_images_in_another_order():
    places = np.array([2, 0, 1])
    for record in (InfluenceRecord(np.array([1, 2, 6], np.float32), 9.0, 7), ImageRecord.of(np.array([1, 0, 1]))):
        assert record.rearranged(places).contributions().tolist() == record.contributions()[places].tolist()
        assert record.rearranged(places).order == 0


@pytest.mark.parametrize("influence, metric", [
    (np.zeros(0, np.float32), 1.0), (np.zeros((2, 1), np.float32), 1.0), (np.zeros(2), 1.0),
    (np.zeros(2, np.float32), float("nan")), (np.array([0, np.inf], np.float32), 1.0),
    (np.array([0, np.nan], np.float32), 1.0),
])  # fmt: skip
def test_influences_that_no_evaluation_gives_are_refused(influence, metric):
    with pytest.raises(ValueError):
        InfluenceRecord(influence, metric)


def written(path, content: bytes):
    path.write_bytes(content)
    return path


def equal(one: ImageRecord | InfluenceRecord, other: ImageRecord | InfluenceRecord) -> bool:
    if isinstance(one, InfluenceRecord) or isinstance(other, InfluenceRecord):
        same = type(one) is type(other) and (one.order, one.metric) == (other.order, other.metric)
        return same and np.array_equal(one.influence, other.influence)
    parts = [(one.correct, other.correct), (one.count, other.count)]
    return one.order == other.order and all(np.array_equal(a, b) and a.dtype == b.dtype == np.int64 for a, b in parts)


@settings(deadline=None)
@given(st.data())
def test_a_file_gives_back_what_was_packed(tmp_path_factory, data):
    images = data.draw(st.integers(1, 20))
    names = data.draw(st.lists(st.sampled_from(["eval/top1", "eval_ema/top1", "eval/iou.5"]), min_size=1, unique=True))
    kept = {name: data.draw(records(images) | influences(images)) for name in names}
    path = written(tmp_path_factory.mktemp("records") / "records.npz", pack(kept))
    back = read_records(path)
    assert list(back) == list(kept) and all(equal(back[name], kept[name]) for name in names)
    assert pack(read_records(path)) == path.read_bytes()


def test_fifty_thousand_images_take_little():
    random = np.random.default_rng(0)
    hits = {f"{weights}/top{k}": ImageRecord.of(random.random(50_000) < right, order=order_of(np.arange(50_000)))
            for weights in ("eval", "eval_ema") for k, right in ((1, 0.8), (5, 0.95))}  # fmt: skip
    top1 = {name: record for name, record in hits.items() if name.endswith("1")}
    assert len(pack(top1)) < 12_000 and len(pack(hits)) < 20_000  # bytes


def test_records_of_other_images_are_told_apart(tmp_path):
    labels = np.array([[3, 1], [2, 2]], np.int16)
    assert order_of(labels) == order_of(labels.astype(np.int64))
    assert len({order_of(labels), order_of(labels[::-1]), order_of(labels[:1])}) == 3
    one, two = ImageRecord.of(np.ones(2), order=1), ImageRecord.of(np.ones(3), order=1)
    for other in (two, ImageRecord.of(np.ones(2), order=2)):
        with pytest.raises(ValueError, match="eval_ema/top1 is of other images than eval/top1"):
            pack({"eval/top1": one, "eval_ema/top1": other})


@pytest.mark.parametrize("correct, count", [
    ([[-1]], [[2]]), ([[3]], [[2]]), ([[0], [0]], [[0], [0]]), ([[1, 1]], [[1], [1]]), ([1], [1]), (np.ones((0, 1)),) * 2,
])  # fmt: skip
def test_counts_that_no_evaluation_gives_are_refused(correct, count):
    with pytest.raises(ValueError):
        ImageRecord(np.array(correct, np.int64), np.array(count, np.int64))


def archive_of(**members) -> bytes:
    content = io.BytesIO()
    np.savez(content, **members)
    return content.getvalue()


HEAD = {"images": np.uint32(9), "order": np.uint32(0)}
HITS = np.full((2, 1), 255, np.uint8)
TEN = np.full((9, 1), 10, np.uint16)
MOVED = np.arange(9, dtype=np.float32)
WRONG = {
    "an empty file": b"",
    "a text": b"correct,count\n1,1\n",
    "a single array": (lambda stream: (np.save(stream, HITS), stream.getvalue())[1])(io.BytesIO()),
    "a pickle": pickle.dumps({"eval/top1": [1]}),
    "pickled objects": archive_of(**HEAD, **{"eval/top1.hits": np.array([[{}]], object)}),
    "no metric": archive_of(**HEAD),
    "no number of images": archive_of(order=np.uint32(0), **{"eval/top1.hits": HITS}),
    "no order": archive_of(images=np.uint32(9), **{"eval/top1.hits": HITS}),
    "several numbers of images": archive_of(**{**HEAD, "images": np.array([9, 9], np.uint32), "eval/top1.hits": HITS}),
    "too few bits": archive_of(**HEAD, **{"eval/top1.hits": HITS[:1]}),
    "too many bits": archive_of(**HEAD, **{"eval/top1.hits": np.full((3, 1), 255, np.uint8)}),
    "bits without columns": archive_of(**HEAD, **{"eval/top1.hits": HITS[:, 0]}),
    "negative counts": archive_of(**HEAD, **{"eval/a.correct": -TEN.astype(np.int16), "eval/a.count": TEN}),
    "fractions": archive_of(**HEAD, **{"eval/a.correct": TEN / 2, "eval/a.count": TEN}),
    "more right than counted": archive_of(**HEAD, **{"eval/a.correct": TEN, "eval/a.count": TEN - np.uint16(1)}),
    "counts beyond 64 bits": archive_of(
        **HEAD, **{"eval/a.correct": TEN.astype(np.uint64), "eval/a.count": np.full((9, 1), 2**63, np.uint64)}
    ),
    "no counts": archive_of(**HEAD, **{"eval/a.correct": TEN}),
    "counts alone": archive_of(**HEAD, **{"eval/a.count": TEN}),
    "of fewer images": archive_of(**HEAD, **{"eval/a.correct": TEN[:8], "eval/a.count": TEN[:8]}),
    "nothing counted": archive_of(**HEAD, **{"eval/a.correct": TEN * 0, "eval/a.count": TEN * 0}),
    "an influence without a value": archive_of(**HEAD, **{"eval/ap.influence": MOVED}),
    "a value alone": archive_of(**HEAD, **{"eval/ap.value": np.float64(1)}),
    "an influence of double width": archive_of(**HEAD, **{"eval/ap.influence": MOVED * 1.0, "eval/ap.value": TEN[0]}),
    "several values": archive_of(**HEAD, **{"eval/ap.influence": MOVED, "eval/ap.value": np.ones(9)}),
    "a value that is no number": archive_of(**HEAD, **{"eval/ap.influence": MOVED, "eval/ap.value": np.float64("nan")}),
    "an endless influence": archive_of(
        **HEAD, **{"eval/ap.influence": np.full(9, np.inf, np.float32), "eval/ap.value": np.float64(1)}
    ),
    "influences of fewer images": archive_of(
        **HEAD, **{"eval/ap.influence": MOVED[:8], "eval/ap.value": np.float64(1)}
    ),
    "a metric of two kinds": archive_of(
        **HEAD, **{"eval/ap.hits": HITS, "eval/ap.influence": MOVED, "eval/ap.value": np.float64(1)}
    ),
    "a metric of two kinds, the other way round": archive_of(
        **HEAD, **{"eval/ap.influence": MOVED, "eval/ap.value": np.float64(1), "eval/ap.hits": HITS}
    ),
    "an array of another kind": archive_of(**HEAD, **{"eval/top1.hits": HITS, "palette": HITS}),
    "a metric without a set of weights": archive_of(**HEAD, **{"top1.hits": HITS}),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path, case):
    (tmp_path / "run").mkdir()
    with pytest.raises(CollectError) as refused:
        read_records(written(tmp_path / "run" / "records.npz", WRONG[case]))
    message = str(refused.value)
    assert message.startswith("run/records.npz: ") and "\n" not in message and len(message) > 40, message


def test_only_regular_files_are_read(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CollectError, match=r"no such file|not a regular file"):
            read_records(path)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait forever
    with pytest.raises(CollectError, match="not a regular file"):
        read_records(tmp_path / "pipe")


def test_a_damaged_file_gives_no_other_counts(tmp_path):
    random = np.random.default_rng(3)
    count = random.integers(0, 50, (60, 2))
    kept = {
        "eval/top1": ImageRecord.of(random.random(60) < 0.5),
        "eval/a": ImageRecord(random.integers(0, count + 1), count),
        "eval/ap": InfluenceRecord(random.normal(0, 9, 60).astype(np.float32), 31.25),
    }
    content, path, refused = pack(kept), tmp_path / "records.npz", 0
    for _ in range(1500):
        damaged = bytearray(content)
        if random.random() < 0.2:
            damaged = damaged[: random.integers(len(damaged))]
        else:
            damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        try:
            back = read_records(written(path, bytes(damaged)))
        except SuiteError:
            refused += 1
            continue
        for record in back.values():  # a damaged directory of the zip may lose or rename a member
            assert any(equal(record, other) for other in kept.values())
    assert refused > 1000


def test_a_renamed_member_is_not_taken_for_another(tmp_path):
    """A checksum of zip covers content, not names."""
    content = pack({"eval/top1": ImageRecord.of(np.ones(9))})
    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as renamed:
        for name in source.namelist():
            renamed.writestr(name.replace(".hits", ".misses"), source.read(name))
    with pytest.raises(CollectError, match=r"eval/top1\.misses does not belong to a metric"):
        read_records(written(tmp_path / "records.npz", target.getvalue()))


def test_files_from_before_influences_are_read_as_they_were(tmp_path):
    """The members that the first version of the format had, written by hand."""
    content = archive_of(**HEAD, **{
        "eval/top1.hits": np.packbits(np.arange(9) % 2 == 0)[:, None], "eval/a.correct": TEN // 2, "eval/a.count": TEN,
    })  # fmt: skip
    back = read_records(written(tmp_path / "records.npz", content))
    assert back["eval/top1"].contributions().tolist() == [100.0, 0.0] * 4 + [100.0]
    assert back["eval/a"].value() == 50.0 and list(back) == ["eval/top1", "eval/a"]


METRIC = "eval/token_accuracy"


@pytest.fixture
def sweep(tmp_path):
    """A plan, and the folder of its runs, which are finished but for one; all but the last have per-image records."""
    plan, runs_dir = make_plan(ARMS), tmp_path / "runs"
    for number, entry in enumerate(plan["runs"]):
        folder = make_run(runs_dir, plan, entry, *ARMS[entry["arm"]], examples=False)
        record = ImageRecord.of(np.random.default_rng(number).binomial(9, 0.8, 50), 9)
        edit_json(folder / "summary.json", metrics={METRIC: record.value()})
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1200, METRIC: record.value()}) + "\n")
        if entry is not plan["runs"][-1]:
            (folder / RECORDS).write_bytes(pack({METRIC: record}))
    (runs_dir / run_id("zero", 2) / "summary.json").unlink()
    edit_json(runs_dir / run_id("zero", 2) / "state.json", state="running")
    return plan, runs_dir


def test_records_of_finished_runs_are_collected_committed_and_read_back(sweep, tmp_path):
    plan, runs_dir = sweep
    collected, label = collect(plan, runs_dir), tmp_path / "label"
    expected = {entry["run"] for entry in plan["runs"][:-1]} - {run_id("zero", 2)}
    assert collected.records == {run: runs_dir / run / RECORDS for run in expected}
    files = archive.write(collected, label, plan, title="t", date="d")
    assert {path for path in files if path.suffix == ".npz"} == set((label / "records").iterdir())
    back = archive.read(label)
    assert back.records == {run: label / "records" / f"{run}.npz" for run in expected}
    finals = back.finals(METRIC).set_index("run")["value"]
    for run, path in back.records.items():
        assert path.read_bytes() == (runs_dir / run / RECORDS).read_bytes()
        assert read_records(path)[METRIC].value() == pytest.approx(finals[run], rel=1e-5)


def test_writing_a_label_again_from_itself_keeps_its_records_and_removes_those_of_other_runs(sweep, tmp_path):
    plan, runs_dir = sweep
    label = tmp_path / "label"
    archive.write(collect(plan, runs_dir), label, plan, title="t", date="d")
    contents = {path.name: path.read_bytes() for path in (label / "records").iterdir()}
    (label / "records" / "scenes-nano-s9-00000000.npz").write_bytes(b"of a run that the plan no longer has")
    back = archive.read(label)
    assert "scenes-nano-s9-00000000" not in back.records
    archive.write(back, label, plan, title="t", date="d")
    assert {path.name: path.read_bytes() for path in (label / "records").iterdir()} == contents
    dropped = back.records.popitem()[0]
    archive.write(back, label, plan, title="t", date="d")
    assert {path.name for path in (label / "records").iterdir()} == contents.keys() - {f"{dropped}.npz"}


@pytest.mark.parametrize(("content", "why"), [
    (b"PK", "no per-image records"),
    (pack({METRIC: ImageRecord.of(np.full(50, 1), 9)}), f"{METRIC} is 11.1111 by its images, but"),
    (pack({"eval/top1": ImageRecord.of(np.ones(50))}), "eval/top1 is 100 by its images, but not in the run's summary"),
])  # fmt: skip
def test_records_that_contradict_the_run_are_not_committed(sweep, tmp_path, content, why):
    plan, runs_dir = sweep
    (runs_dir / run_id("axial", 0) / RECORDS).write_bytes(content)
    collected = collect(plan, runs_dir)
    with pytest.raises(CollectError, match=rf"{run_id('axial', 0)}/records\.npz: {why}.*; remove the file"):
        archive.write(collected, tmp_path / "label", plan, title="t", date="d")
    assert not (tmp_path / "label").exists(), "nothing is written of a collection that is refused"


def test_labels_without_records_stay_valid(sweep, tmp_path):
    plan, runs_dir = sweep
    archive.write(collect(plan, runs_dir), tmp_path / "label", plan, title="t", date="d")
    shutil.rmtree(tmp_path / "label" / "records")
    assert archive.read(tmp_path / "label").records == {}


def test_a_report_takes_no_records_of_another_run(sweep):
    plan, runs_dir = sweep
    first, second = (runs_dir / run_id("axial", seed) / RECORDS for seed in (0, 1))
    comparisons = ImageComparisons(collect(plan, runs_dir), METRIC)
    assert comparisons.interval("axial", "zero") is not None
    first.write_bytes(second.read_bytes())
    with pytest.raises(CollectError, match=rf"{run_id('axial', 0)}/records\.npz: {METRIC} is .* by its images, but "):
        ImageComparisons(collect(plan, runs_dir), METRIC).interval("axial", "zero")


def test_differences_of_a_metric_that_is_no_mean_have_intervals_over_images(sweep):
    """Two pairs of runs with influences: the spread over images counts, and there is no test of right and wrong."""
    plan, runs_dir = sweep
    random = np.random.default_rng(8)
    for arm, value in (("zero", 30.0), ("axial", 34.0)):
        for seed in (0, 1):
            folder, moved = runs_dir / run_id(arm, seed), random.normal(0, 20, 50).astype(np.float32)
            edit_json(folder / "summary.json", metrics={METRIC: value + seed})
            (folder / "metrics.jsonl").write_text(json.dumps({"step": 1200, METRIC: value + seed}) + "\n")
            (folder / RECORDS).write_bytes(pack({METRIC: InfluenceRecord(moved, value + seed)}))
    for folder in (runs_dir / run_id(arm, 2) for arm in ARMS):
        shutil.rmtree(folder, ignore_errors=True)
    comparisons = ImageComparisons(collect(plan, runs_dir), METRIC)
    interval = comparisons.interval("axial", "zero")
    assert interval is not None and (interval.images, interval.seeds) == (50, 2)
    assert interval.mean == pytest.approx(4.0) and interval.low < 4.0 < interval.high
    shutil.rmtree(runs_dir / run_id("axial", 1))
    assert ImageComparisons(collect(plan, runs_dir), METRIC).mcnemar("axial", "zero") is None
