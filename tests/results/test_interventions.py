"""Offset interventions are collected with the training that they belong to, kept, merged, and left out with their run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from results import archive, fill, label
from results.collect import collect
from results.merge import merge
from results.run_folders import cache
from results.tables import Collected
from tests.results.synthetic import (
    OFFSETS,
    edit_json,
    intervened,
    interventions_file,
    make_plan,
    make_runs,
    run_id,
    write_json,
)

ARMS = {arm: OFFSETS[arm] for arm in ("zero", "axial")}
RUN, OTHER = run_id("axial", 0), run_id("axial", 1)
CLOCK = cache._clock


@pytest.fixture(autouse=True)
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(archive, "MEASURED", tmp_path / "measured")
    hour = 3600 * 10**9  # everything is collected an hour after it was written, so that it is cached
    monkeypatch.setattr(cache, "_clock", lambda runs_dir: None if (now := CLOCK(runs_dir)) is None else now + hour)
    return tmp_path / "measured"


@pytest.fixture
def plan() -> dict:
    return make_plan(ARMS, (0, 1))


@pytest.fixture
def runs_dir(tmp_path: Path, plan: dict) -> Path:
    """Finished runs, with interventions on those of one arm."""
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    for run in (RUN, OTHER):
        intervened(tmp_path / "runs" / run, 60.0, zero=30.0, shuffled_tokens=5.0)
    return tmp_path / "runs"


def file_of(folder: Path, run: str = RUN) -> Path:
    return (
        folder / run / "offsets" / "interventions.json"
        if (folder / run).is_dir()
        else folder / f"interventions/{run}.json"
    )


def into(name: str, plan: dict, runs_dir: Path) -> list[Path]:
    return label.into_label(collect(plan, runs_dir), plan, name, title="Scenes", date="2031-05-04")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def effects(path: Path) -> dict:
    return json.loads(path.read_text())["interventions"]


def lines(collected: Collected) -> list[str]:
    return [each for each in collected.warnings if "interventions" in each]


def test_they_are_kept_without_the_settings_of_the_run_and_the_place_of_its_data(
    runs_dir: Path, plan: dict, measured: Path, tmp_path: Path
) -> None:
    collected = collect(plan, runs_dir)
    assert collected.interventions == {run: file_of(runs_dir, run) for run in (RUN, OTHER)} and not collected.warnings
    files = into("m", plan, runs_dir)
    assert [path for path in files if path.suffix == ".json"] == [file_of(measured / "m", run) for run in (RUN, OTHER)]
    kept, before = (json.loads(file_of(folder).read_text()) for folder in (measured / "m", runs_dir))
    assert kept["key"] == {"version": 1, "weights_sha256": before["weights_sha256"], "images": None, "layer": None}
    assert kept | {"key": None} == before | {"key": None}
    assert len(file_of(measured / "m").read_text().splitlines()) > 50, "a line for each number"
    back = archive.read(measured / "m")
    assert back.interventions == {run: file_of(measured / "m", run) for run in (RUN, OTHER)}
    archive.write(back, tmp_path / "again", archive.plan_of(back), title="Scenes, again", date="d")
    first, again = contents(measured / "m"), contents(tmp_path / "again")
    del first["about.yaml"], again["about.yaml"]
    assert first == again


def other_weights(run: Path) -> None:
    (run / "weights.safetensors").write_bytes(b"of another training")


def other_code(run: Path) -> None:
    edit_json(run / "offsets" / "interventions.json", trained={"code_fingerprint": "else", "data_fingerprint": "da7a"})


def other_run(run: Path) -> None:
    edit_json(run / "offsets" / "interventions.json", name="axial-7")


def torn(run: Path) -> None:
    path = run / "offsets" / "interventions.json"
    path.write_text(path.read_text()[:-20])


def not_text(run: Path) -> None:
    (run / "offsets" / "interventions.json").write_bytes(b"\xff\xfe")


def incomplete(run: Path) -> None:
    edit_json(run / "offsets" / "interventions.json", undisturbed=None)


LEFT_OUT = {
    other_weights: "measured of another training: its weights are not those of this run",
    other_code: "measured of another run: this run was trained with other code or data",
    other_run: "measured of another run, axial-7",
    torn: "offsets/interventions.json cannot be read (",
    not_text: "offsets/interventions.json cannot be read (",
    incomplete: "offsets/interventions.json cannot be read (it has a wrong undisturbed)",
}


@pytest.mark.parametrize("change", LEFT_OUT)
def test_a_file_that_does_not_count_is_one_line_and_hides_nothing_else(change, runs_dir, plan, measured) -> None:
    before = collect(plan, runs_dir)
    change(runs_dir / RUN)
    after = collect(plan, runs_dir)
    (line,) = after.warnings
    assert line.startswith(f"{RUN}: its interventions are left out: {LEFT_OUT[change]}") and "\n" not in line
    assert after.runs.equals(before.runs) and after.metrics.equals(before.metrics)
    assert after.interventions == {OTHER: before.interventions[OTHER]}
    into("m", plan, runs_dir)
    back = archive.read(measured / "m")
    assert back.warnings == [line] and list(back.interventions) == [OTHER]
    assert [path.name for path in (measured / "m" / "interventions").iterdir()] == [f"{OTHER}.json"]
    intervened(runs_dir / RUN, 60.0, zero=31.0)
    assert into("m", plan, runs_dir)
    back = archive.read(measured / "m")
    assert back.warnings == [] and list(back.interventions) == [RUN, OTHER], "the sentence is no longer true"


def test_weights_that_are_gone_are_not_compared_and_unfinished_runs_have_none(runs_dir: Path, plan: dict) -> None:
    (runs_dir / RUN / "weights.safetensors").unlink()
    (runs_dir / OTHER / "summary.json").unlink()
    collected = collect(plan, runs_dir)
    assert list(collected.interventions) == [RUN] and not lines(collected)


def test_edited_files_of_measured_results_are_one_line_and_hide_nothing_else(
    runs_dir: Path, plan: dict, measured: Path
) -> None:
    into("m", plan, runs_dir)
    before = archive.read(measured / "m")
    file_of(measured / "m").write_text("[]")
    edit_json(file_of(measured / "m", OTHER), name="axial-7")
    after = archive.read(measured / "m")
    assert after.interventions == {} and after.metrics.equals(before.metrics)
    assert after.warnings == [
        f"{RUN}: its interventions are left out: m/interventions/{RUN}.json cannot be read (expected keys and values)",
        f"{OTHER}: its interventions are left out: measured of another run, axial-7",
    ]
    assert into("m", plan, runs_dir), "the folders have them"
    assert (
        list(archive.read(measured / "m").interventions) == [RUN, OTHER] and not archive.read(measured / "m").warnings
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_in_either_order_are_the_whole(order: tuple[int, ...], tmp_path: Path, measured: Path) -> None:
    whole, parts = make_plan(ARMS, (0, 1)), [make_plan(ARMS, (0,)), make_plan(ARMS, (1,))]
    make_runs(tmp_path / "runs", whole, ARMS, examples=False)
    for run in (RUN, OTHER):
        intervened(tmp_path / "runs" / run, 60.0, zero=30.0)
    for number in order:
        into("m", parts[number], tmp_path / "runs")
    into("other", parts[1], tmp_path / "runs")
    found = archive.read(measured / "m").interventions
    assert {run: effects(path) for run, path in found.items()} == {
        run: effects(file_of(tmp_path / "runs", run)) for run in (RUN, OTHER)
    }
    before = contents(measured / "m")
    assert into("m", whole, tmp_path / "runs") == [] and contents(measured / "m") == before
    other = archive.read(measured / "other")
    assert label.into_label(other, archive.plan_of(other), "m", title="", date="d") == []
    assert contents(measured / "m") == before


def test_of_two_files_of_one_training_the_fuller_one_counts_whichever_comes_first(
    tmp_path: Path, measured: Path
) -> None:
    plan = make_plan(ARMS, (0,))
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    run = tmp_path / "runs" / RUN
    kinds = {"fuller": {"zero": 30.0, "shuffled_tokens": 5.0}, "less": {"zero": 31.0}, "newer": {"zero": 32.0}}

    def put(kind: str) -> None:
        changes = {"images": 3} if kind == "few images" else {"created": "2033"} if kind == "newer" else {}
        edit_json(intervened(run, 60.0, **kinds.get(kind, kinds["fuller"])), **changes)

    for kinds_in_order, counts in (
        (("less", "fuller"), 30.0), (("fuller", "less"), 30.0), (("fuller", "newer"), 30.0), (("less", "newer"), 32.0),
        (("newer", "less"), 32.0), (("less", "few images"), 31.0), (("few images", "less"), 31.0),
    ):  # fmt: skip
        for kind in kinds_in_order:
            put(kind)
            into("m", plan, tmp_path / "runs")
        assert effects(file_of(measured / "m"))["zero"]["differences"]["token_accuracy"] == -counts, kinds_in_order
        shutil.rmtree(measured)


def test_another_measurement_of_the_run_brings_none_for_the_one_that_counts(
    runs_dir: Path, plan: dict, measured: Path
) -> None:
    shutil.move(file_of(runs_dir), runs_dir / "kept.json")
    into("m", plan, runs_dir)
    edit_json(runs_dir / RUN / "summary.json", finished="2032-01-01T00:00:00+00:00")
    shutil.move(runs_dir / "kept.json", runs_dir / RUN / "offsets" / "interventions.json")
    into("m", plan, runs_dir)
    back = archive.read(measured / "m")
    assert set(back.repeats["run"]) == {RUN} and list(back.interventions) == [OTHER]


def test_those_of_an_excluded_run_do_not_count_and_are_kept(runs_dir: Path, plan: dict, measured: Path) -> None:
    into("m", plan, runs_dir)
    assert label.exclude("m", RUN, "ECC errors")
    back = archive.read(measured / "m")
    assert list(back.interventions) == [OTHER] and not lines(back)
    assert into("m", plan, runs_dir) == []
    write_json(runs_dir / RUN / "excluded.json", {"because": "ECC errors"})
    assert list(collect(plan, runs_dir).interventions) == [OTHER]
    into("n", plan, runs_dir)
    assert list(archive.read(measured / "n").interventions) == [OTHER]
    label.exclude("m", RUN, None)
    assert list(archive.read(measured / "m").interventions) == [RUN, OTHER]


def test_a_report_from_folders_takes_those_of_runs_that_were_collected(
    runs_dir: Path, plan: dict, measured: Path
) -> None:
    into("m", plan, runs_dir)
    shutil.rmtree(runs_dir / RUN)
    file_of(runs_dir, OTHER).unlink()
    labels = {"m": [entry["run"] for entry in plan["runs"]]}
    filled = fill.filled(collect(plan, runs_dir), plan, labels)
    assert filled.interventions == {run: file_of(measured / "m", run) for run in (RUN, OTHER)}
    file_of(measured / "m").write_text("{")
    filled = fill.filled(collect(plan, runs_dir), plan, labels)
    assert list(filled.interventions) == [OTHER] and len(lines(filled)) == 1 and lines(filled)[0].startswith(RUN)


def test_a_file_that_comes_later_is_seen_through_the_cache(runs_dir: Path, plan: dict) -> None:
    collect(plan, runs_dir)
    assert list(collect(plan, runs_dir).interventions) == [RUN, OTHER], "from the cache"
    weights = runs_dir / RUN / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[::-1])
    assert list(collect(plan, runs_dir).interventions) == [OTHER]
    weights.write_bytes(content)
    file_of(runs_dir, OTHER).unlink()
    assert list(collect(plan, runs_dir).interventions) == [RUN]
    zero = runs_dir / run_id("zero", 0)
    interventions_file(zero, 50.0, {"zero": 0.0})
    assert list(collect(plan, runs_dir).interventions) == [zero.name, RUN]


def test_merging_takes_each_runs_file_from_the_part_that_has_it(runs_dir: Path, plan: dict) -> None:
    whole = collect(plan, runs_dir)
    shutil.move(file_of(runs_dir), runs_dir / "kept.json")
    part = collect(plan, runs_dir)
    shutil.move(runs_dir / "kept.json", file_of(runs_dir).parent / "interventions.json")
    for first, second in ((whole, part), (part, whole)):
        assert merge(first, plan, second, plan, "m")[0].interventions.keys() == {RUN, OTHER}
