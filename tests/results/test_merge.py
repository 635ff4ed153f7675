"""Results that were collected in parts are those that were collected in one piece; excluded runs are left out."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml

import atomic_file
from results import archive, fill, label
from results.collect import CollectError, collect
from results.exclusion import sentences
from results.plan_union import interleaved
from tests.results.synthetic import OFFSETS, edit_json, make_plan, make_run, make_runs, run_id

METRIC = "eval/token_accuracy"
ARMS = {arm: OFFSETS[arm] for arm in ("zero", "axial", "token")}


@pytest.fixture(autouse=True)
def measured(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MEASURED", tmp_path / "measured")
    return tmp_path / "measured"


def part_of(tmp_path: Path, plan, name: str = "runs", **options) -> Path:
    """Finished folders of a plan's runs, and of no other runs."""
    make_runs(tmp_path / name, plan, OFFSETS, examples=False, **options)
    return tmp_path / name


def collected_into(name: str, runs_dir: Path, plan, date: str = "2031-05-04", note: str = "") -> list[Path]:
    return label.into_label(collect(plan, runs_dir), plan, name, title="Scenes", date=date, note=note)


def contents(folder: Path, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in without}


def of_table(name: str) -> dict[tuple[str, str, int], tuple[str, float]]:
    """(arm, task, seed) → (run, final value) of measured results."""
    finals = archive.read(archive.folder(name)).finals(METRIC)
    rows = finals[["arm", "task", "seed", "run", "value"]].itertuples(index=False)
    return {(arm, task, seed): (run, value) for arm, task, seed, run, value in rows}


def repeat(runs_dir: Path, run: str, finished: str, value: float | None = None, device: str = "cpu") -> None:
    """Makes a folder a later measurement of its run."""
    summary = json.loads((runs_dir / run / "summary.json").read_text())
    if value is not None:
        summary["metrics"][METRIC] = value
        rows = [json.loads(line) for line in (runs_dir / run / "metrics.jsonl").read_text().splitlines()]
        rows[-1][METRIC] = value
        (runs_dir / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit_json(runs_dir / run / "summary.json", metrics=summary["metrics"], finished=finished, device=device)


PARTS = {
    "seeds": (make_plan(ARMS, (0, 1)), make_plan(ARMS, (2, 3))),
    "interleaved seeds": (make_plan(ARMS, (0, 2)), make_plan(ARMS, (1, 3))),
    "arms": (
        {**make_plan({arm: ARMS[arm] for arm in ("zero", "axial")}, (0, 1, 2, 3)), "left_out": ["token"]},
        {**make_plan({arm: ARMS[arm] for arm in ("zero", "token")}, (0, 1, 2, 3)), "left_out": ["axial"]},
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_in_either_order_are_the_whole(name, tmp_path, measured):
    whole, parts = make_plan(ARMS, (0, 1, 2, 3)), PARTS[name]
    whole["runs"].sort(key=lambda entry: entry["seed"])  # as sweeps plan: seed by seed
    parts = [{**part, "runs": sorted(part["runs"], key=lambda entry: entry["seed"])} for part in parts]
    runs_dir = part_of(tmp_path, whole)
    for order, label_name in ((parts, "forth"), (parts[::-1], "back")):
        for part in order:
            assert collected_into(label_name, runs_dir, part)
    collected_into("whole", runs_dir, whole)
    assert contents(measured / "forth") == contents(measured / "back")
    assert contents(measured / "forth", ("about.yaml",)) == contents(measured / "whole", ("about.yaml",))
    plans = [archive.plan_of(archive.read(measured / each)) for each in ("forth", "whole")]
    assert plans[0]["runs"] == plans[1]["runs"] and plans[0]["arms"] == plans[1]["arms"]
    assert plans[0]["left_out"] == []


@pytest.mark.parametrize("name", PARTS)
def test_collecting_again_changes_no_byte(name, tmp_path, measured):
    runs_dir = part_of(tmp_path, make_plan(ARMS, (0, 1, 2, 3)))
    for part in PARTS[name]:
        collected_into("m", runs_dir, part)
    before = contents(measured / "m")
    for part in (*PARTS[name], *PARTS[name]):
        assert collected_into("m", runs_dir, part, date="2032-01-01") == []
    assert contents(measured / "m") == before


def test_runs_stay_that_have_no_folder_any_more(tmp_path, measured):
    plan = make_plan(ARMS, (0, 1))
    half = {**plan, "runs": [entry for entry in plan["runs"] if entry["seed"] == 0]}
    runs_dir = part_of(tmp_path, half)
    collected_into("m", runs_dir, plan)
    assert len(of_table("m")) == 3
    shutil.rmtree(runs_dir)
    part_of(tmp_path, {**plan, "runs": [entry for entry in plan["runs"] if entry["seed"] == 1]})
    collected_into("m", runs_dir, plan)
    shutil.rmtree(runs_dir)
    part_of(tmp_path, plan)
    collected_into("whole", runs_dir, plan)
    assert of_table("m") == of_table("whole") and len(of_table("m")) == 6
    assert set(archive.read(measured / "m").runs["state"]) == {"done"}


@pytest.mark.parametrize("kind", ["code", "data"])
def test_a_run_of_other_code_or_data_is_refused_in_one_line(kind, tmp_path, measured):
    plan = make_plan(ARMS, (0,))
    collected_into("m", part_of(tmp_path, plan, "a"), plan)
    before = contents(measured / "m")
    other = part_of(tmp_path, plan, "b", **{kind: "0ther00000000000"})
    with pytest.raises(CollectError) as refused:
        collected_into("m", other, plan)
    text = str(refused.value)
    prints = {"code": "code c0de5eed00000001", "data": "data da7a5eed00000001"}
    assert all(each in text for each in ("results/measured/m", "run scenes-nano-s0-", "another label", prints[kind]))
    assert "0ther00000000000" in text and "\n" not in text
    assert contents(measured / "m") == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sweep": "ablation_peg"}, "its sweep is ablation_offsets, not ablation_peg"),
        ({"protocol": "tiny"}, "its protocol is smoke, not tiny"),
        ({"baseline": "token"}, "its baseline is zero, not token"),
        ({"changed": {"train.epochs": 9}}, "its changed is unchanged, not train.epochs=9"),
    ],
)
def test_results_of_another_campaign_are_refused(change, says, tmp_path):
    plan = make_plan(ARMS, (0,))
    collected_into("m", part_of(tmp_path, plan), plan)
    with pytest.raises(CollectError, match=says):
        label.into_label(collect(plan, tmp_path / "runs"), {**plan, **change}, "m", title="t", date="d")


def test_another_config_is_refused_by_the_run_and_by_the_arm(tmp_path):
    plan, other = make_plan(ARMS, (0,)), make_plan(ARMS, (0,))
    other["runs"][0]["run"] = "scenes-nano-s0-00000000"
    collected_into("m", part_of(tmp_path, plan), plan)
    with pytest.raises(
        CollectError, match=f"seed 0, is run {run_id('zero', 0)} there and scenes-nano-s0-00000000 here"
    ):
        collected_into("m", tmp_path / "runs", other)
    larger = make_plan(ARMS, (1,), model="t")
    with pytest.raises(CollectError, match=r"arm zero has model\.name=nano there and t here"):
        collected_into("m", tmp_path / "runs", larger)


def test_a_later_measurement_is_a_repeat_and_the_first_stays_the_one_that_counts(tmp_path, measured):
    plan, run = make_plan(ARMS, (0,)), run_id("axial", 0)
    runs_dir = part_of(tmp_path, plan)
    collected_into("m", runs_dir, plan)
    first = of_table("m")
    repeat(runs_dir, run, "2031-06-01T00:00:00+00:00", 97.5, "gpu")
    collected_into("m", runs_dir, plan)
    assert of_table("m") == first
    repeats = archive.read(measured / "m").repeats
    assert repeats.to_dict("records") == [
        {"run": run, "metric": METRIC, "value": 97.5, "device": "gpu", "finished": "2031-06-01T00:00:00+00:00"}
    ]
    assert collected_into("m", runs_dir, plan) == [], "a repeat is collected once"
    collected_into("other", runs_dir, plan)  # there the repeat was first, and counts
    there = archive.read(measured / "m")
    label.into_label(there, archive.plan_of(there), "other", title="t", date="d")
    assert archive.read(measured / "other").repeats["value"].tolist() == [first["axial", "token_labelling", 0][1]]


def test_one_measurement_with_two_values_was_edited_and_is_refused(tmp_path):
    plan, run = make_plan(ARMS, (0,)), run_id("axial", 0)
    runs_dir = part_of(tmp_path, plan)
    collected_into("m", runs_dir, plan)
    repeat(runs_dir, run, json.loads((runs_dir / run / "summary.json").read_text())["finished"], 12.5)
    with pytest.raises(
        CollectError, match=f"run {run} has {METRIC} .* there and 12.5 here, though it was measured once"
    ):
        collected_into("m", runs_dir, plan)


def test_the_history_keeps_every_collection_and_old_labels_have_none(tmp_path, measured):
    parts = PARTS["seeds"]
    runs_dir = part_of(tmp_path, make_plan(ARMS, (0, 1, 2, 3)))
    collected_into("m", runs_dir, parts[0], date="2031-05-04", note="First.")
    assert "history" not in yaml.safe_load((measured / "m" / "about.yaml").read_text())
    collected_into("m", runs_dir, parts[1], date="2031-06-04", note="Second.")
    about = archive.read(measured / "m").about
    assert [tuple(entry.values()) for entry in about["history"]] == [
        ("2031-05-04", "cpu", "First.", 6), ("2031-06-04", "cpu", "Second.", 6),
    ]  # fmt: skip
    assert (about["date"], about["hardware"], about["note"]) == ("2031-06-04", "cpu", "First. Second.")


def test_sentences_that_several_notes_have_stand_once(tmp_path, measured):
    notes = (
        "Two cores, busy. Seed 0.",
        "Two  cores,\nbusy. At 3.5 GHz, e.g. at night.",
        "Seed 0.",
        "Two cores, busy. Last.",
    )
    for seed, note in enumerate(notes):
        plan = make_plan(ARMS, (seed,))
        collected_into("m", part_of(tmp_path, plan, str(seed)), plan, date=f"2031-05-0{seed + 1}", note=note)
    about = yaml.safe_load((measured / "m" / "about.yaml").read_text())
    assert about["note"] == "Two cores, busy. Seed 0. At 3.5 GHz, e.g. at night. Last."
    assert [entry["note"] for entry in about["history"]] == list(notes), "the history keeps each as it was given"


def test_a_collection_without_results_is_no_part_of_the_history(tmp_path, measured):
    """E.g. with the runs_dir of another machine: more seeds are planned, but nothing was measured on that day."""
    runs_dir = part_of(tmp_path, make_plan(ARMS, (0, 1)))
    collected_into("m", runs_dir, make_plan(ARMS, (0, 1)), date="2031-05-04")
    collected_into("m", tmp_path / "nothing", make_plan(ARMS, (0, 1, 2)), date="2032-01-01", note="Nothing.")
    about = archive.read(measured / "m").about
    assert "history" not in about and (about["date"], about["note"]) == ("2031-05-04", "")
    assert len(archive.read(measured / "m").runs) == 9 and len(of_table("m")) == 6


def test_two_collections_into_one_label_at_once_lose_nothing(tmp_path, measured, monkeypatch):
    read = archive.read

    def slow_read(folder):
        there = read(folder)
        time.sleep(0.3)
        return there

    plans = [make_plan(ARMS, (seed,)) for seed in range(3)]
    folders = [part_of(tmp_path, plan, str(seed)) for seed, plan in enumerate(plans)]
    collected_into("m", folders[0], plans[0])
    monkeypatch.setattr(archive, "read", slow_read)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(collected_into, "m", folders[n], plans[n]) for n in (1, 2)]
        assert all(each.result() for each in both)
    runs = read(archive.folder("m")).runs
    assert set(runs[runs["state"] == "done"]["run"]) == {entry["run"] for plan in plans for entry in plan["runs"]}


def test_labels_of_several_machines_come_together(tmp_path, measured):
    runs_dir = part_of(tmp_path, make_plan(ARMS, (0, 1, 2, 3)))
    for name, part in zip(("one", "two"), PARTS["seeds"]):
        collected_into(name, runs_dir, part)
        collected_into("both", runs_dir, part)
    for name in ("one", "two"):
        there = archive.read(measured / name)
        label.into_label(there, archive.plan_of(there), "merged", title="Scenes", date="d")
    assert contents(measured / "merged") == contents(measured / "both")


def test_a_killed_merge_leaves_results_that_can_be_read_and_completed(tmp_path, measured, monkeypatch):
    parts, arms = PARTS["arms"], make_plan(ARMS, (0, 1, 2, 3))
    runs_dir = part_of(tmp_path, arms)
    collected_into("old", runs_dir, parts[0])
    for part in parts:
        collected_into("whole", runs_dir, part)
    write = atomic_file.write
    for start in ("old", None):
        for writes in range(1, 6):
            shutil.rmtree(measured / "m", ignore_errors=True)
            if start:
                shutil.copytree(measured / start, measured / "m")
            left = iter(range(writes))

            def dying(path, content, left=left):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return write(path, content)

            monkeypatch.setattr(atomic_file, "write", dying)
            with suppress(KeyboardInterrupt):
                collected_into("m", runs_dir, parts[1])
            monkeypatch.setattr(atomic_file, "write", write)
            if "m" in archive.labels():
                torn = of_table("m")
                known = of_table("whole")
                assert torn.items() <= known.items(), "no number is another run's"
                assert start is None or torn.items() >= of_table("old").items()
            collected_into("m", runs_dir, parts[1])
            if start:
                assert contents(measured / "m", ("about.yaml",)) == contents(measured / "whole", ("about.yaml",))


def test_unfinished_runs_take_their_newest_state(tmp_path, measured):
    plan, run = make_plan(ARMS, (0,)), run_id("axial", 0)
    runs_dir = part_of(tmp_path, plan)
    (runs_dir / run / "summary.json").unlink()
    edit_json(runs_dir / run / "state.json", state="interrupted")
    collected_into("m", runs_dir, plan)
    edit_json(runs_dir / run / "state.json", state="failed", cause="a cause")
    collected_into("m", runs_dir, plan)
    row = archive.read(measured / "m").runs.set_index("run").loc[run]
    assert (row["state"], row["cause"]) == ("failed", "a cause")
    shutil.rmtree(runs_dir / run)
    collected_into("m", runs_dir, plan)
    assert archive.read(measured / "m").runs.set_index("run").loc[run, "state"] == "failed", "what was known stays"
    make_run(runs_dir, plan, next(entry for entry in plan["runs"] if entry["run"] == run), *ARMS["axial"])
    collected_into("m", runs_dir, plan)
    assert archive.read(measured / "m").runs.set_index("run").loc[run, "state"] == "done"


def test_a_sequence_that_contradicts_another_is_appended():
    assert interleaved("abd", "acd", key=str) == interleaved("acd", "abd", key=str) == list("abcd")
    assert interleaved("ab", "bac", key=str) == list("abc")


def excluded(runs_dir: Path, run: str, because: str | None, **more) -> None:
    path = runs_dir / run / "excluded.json"
    path.write_text(json.dumps({**({"because": because} if because else {}), **more}))


def told(collected, run: str = "") -> list[str]:
    return [each for each in sentences(collected, METRIC, "accuracy", "%", 2, {"axial": "Axial"}) if run in each]


@pytest.fixture
def broken(tmp_path):
    """A plan, its folders, one of whose runs is excluded, and that run's own value."""
    plan, run = make_plan(ARMS, (0, 1)), run_id("axial", 1)
    runs_dir = part_of(tmp_path, plan)
    value = collect(plan, runs_dir).finals(METRIC).set_index("run")["value"][run]
    excluded(runs_dir, run, "the disk had errors.")
    return plan, runs_dir, run, value


def test_an_excluded_run_is_in_no_table_but_that_of_the_runs(broken, measured):
    plan, runs_dir, run, value = broken
    collected_into("m", runs_dir, plan)
    for collected in (collect(plan, runs_dir), archive.read(measured / "m")):
        row = collected.runs.set_index("run").loc[run]
        assert (row["state"], row["cause"]) == ("excluded", "the disk had errors.")
        assert collected.excluded == {run: "the disk had errors."}
        for table in (collected.metrics, collected.curves, collected.repeats):
            assert run not in set(table["run"])
        assert run not in collected.examples and run not in collected.records
        assert told(collected) == [
            f"Run {run} (Axial, seed 1) is left out: the disk had errors. Its own accuracy is {value:.2f} %."
        ]


def test_an_exclusion_can_be_taken_back_in_a_label(broken, measured):
    plan, runs_dir, run, value = broken
    collected_into("m", runs_dir, plan)
    (measured / "m" / "excluded.csv").unlink()
    assert archive.read(measured / "m").finals(METRIC).set_index("run")["value"][run] == value


def test_an_exclusion_is_carried_into_a_label_that_has_the_run(broken, measured):
    plan, runs_dir, run, _ = broken
    (runs_dir / run / "excluded.json").rename(runs_dir / "aside")
    collected_into("m", runs_dir, plan)
    assert archive.read(measured / "m").excluded == {}
    (runs_dir / "aside").rename(runs_dir / run / "excluded.json")
    collected_into("m", runs_dir, plan)
    assert list(archive.read(measured / "m").excluded) == [run]
    assert collected_into("m", runs_dir, plan) == []


def test_a_new_measurement_of_an_excluded_run_counts_and_the_first_is_still_named(broken, measured):
    plan, runs_dir, run, value = broken
    collected_into("m", runs_dir, plan)
    first = json.loads((runs_dir / run / "summary.json").read_text())
    repeat(runs_dir, run, "2031-06-01T00:00:00+00:00", 91.25)
    earlier = {
        "because": "the disk had errors.",
        "finished": first["finished"],
        "device": "cpu",
        "values": {METRIC: value},
    }
    excluded(runs_dir, run, None, earlier=[earlier])
    collected_into("m", runs_dir, plan)
    for collected in (collect(plan, runs_dir), archive.read(measured / "m")):
        assert collected.finals(METRIC).set_index("run")["value"][run] == 91.25
        assert collected.excluded == {} and collected.repeats.empty
        (sentence,) = told(collected)
        assert "A measurement of" in sentence and f"{value:.2f} %" in sentence and "the disk had errors" in sentence
    assert collected_into("m", runs_dir, plan) == []


def test_a_run_that_starts_from_an_excluded_run_is_cancelled(broken):
    plan, runs_dir, run, _ = broken
    plan["runs"].append({**plan["runs"][-1], "run": "scenes-nano-s1-00000000", "arm": "zero", "seed": 7, "parent": run})
    row = collect(plan, runs_dir).runs.set_index("run").loc["scenes-nano-s1-00000000"]
    assert row["state"] == "cancelled" and "excluded" in row["cause"]


def test_folders_and_labels_together_give_the_report_of_one_piece(tmp_path, measured):
    plan = make_plan(ARMS, (0, 1, 2))
    runs_dir = part_of(tmp_path, plan)
    one_piece = collect(plan, runs_dir)
    first = {**plan, "runs": [entry for entry in plan["runs"] if entry["seed"] == 0]}
    collected_into("half", runs_dir, first)
    gone = [entry["run"] for entry in first["runs"]]
    for run in gone:
        shutil.rmtree(runs_dir / run)
    filled = fill.filled(collect(plan, runs_dir), plan, {"half": gone})
    pd.testing.assert_frame_equal(filled.finals(METRIC), one_piece.finals(METRIC), check_dtype=False)
    hidden = ["config", "log_line"]
    pd.testing.assert_frame_equal(filled.runs.drop(columns=hidden), one_piece.runs.drop(columns=hidden))
    keys = ["run", "direction", "distance"]
    pd.testing.assert_frame_equal(
        filled.curves.sort_values(keys, ignore_index=True), one_piece.curves.sort_values(keys, ignore_index=True),
        check_dtype=False,
    )  # fmt: skip
    assert filled.labels == dict.fromkeys(gone, "half")
    assert filled.remarks == [
        "From results/measured/half: zero (seed 0); axial (seed 0); token (seed 0).",
        "All other rows are from run folders.",
    ]


def test_a_folder_that_was_collected_is_shown_and_a_repeat_in_it_does_not_count(tmp_path, measured):
    plan, run = make_plan(ARMS, (0,)), run_id("axial", 0)
    runs_dir = part_of(tmp_path, plan)
    everything = {"m": [entry["run"] for entry in plan["runs"]]}
    collected_into("m", runs_dir, plan)
    folders = collect(plan, runs_dir)
    same = fill.filled(folders, plan, everything)
    assert same.labels == {} and same.remarks == [], "the folders hold the same measurements, with whole logs"
    assert len(same.metrics) == len(folders.metrics) and same.repeats.empty
    repeat(runs_dir, run, "2031-06-01T00:00:00+00:00", 97.5)
    again = fill.filled(collect(plan, runs_dir), plan, everything)
    assert again.labels == {run: "m"} and again.repeats["value"].tolist() == [97.5]
    assert again.finals(METRIC).equals(same.finals(METRIC))


def test_new_runs_stand_beside_what_was_measured_before(tmp_path, measured):
    plan, run = make_plan(ARMS, (0,)), run_id("axial", 0)
    runs_dir = part_of(tmp_path, plan)
    everything = {"m": [entry["run"] for entry in plan["runs"]]}
    collected_into("m", runs_dir, plan)
    start = "Run folders alone are shown. Of the 3 runs here that results/measured/m has as well, "
    same = fill.beside(collect(plan, runs_dir), plan, everything)
    assert len(same.remarks) == 1 and same.remarks[0].startswith(start + "3 have the same ")
    value = float(same.finals(METRIC).set_index("run")["value"][run])
    repeat(runs_dir, run, "2031-06-01T00:00:00+00:00", value + 1.5)
    new = fill.beside(collect(plan, runs_dir), plan, everything)
    assert new.finals(METRIC).set_index("run")["value"][run] == value + 1.5, "the folder counts"
    (line,) = new.remarks
    assert line.startswith(start + "2 have the same ") and "the largest difference is 1.50 %." in line


def test_only_rows_of_the_folders_code_fill_a_report(tmp_path, measured):
    plan = make_plan(ARMS, (0,))
    collected_into("m", part_of(tmp_path, plan, "a"), plan)
    other = collect(plan, part_of(tmp_path, plan, "b", code="0ther00000000000"))
    filled = fill.filled(other, plan, {"m": [entry["run"] for entry in plan["runs"]]})
    assert set(filled.runs["code_fingerprint"]) == {"0ther00000000000"} and filled.repeats.empty
