"""The cache saves reading run folders again, and never changes what is collected."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from results.collect import collect
from results.run_folders import cache, rows
from tests.results.synthetic import edit_json, make_plan, make_run, make_runs, run_id

ROOT = Path(__file__).resolve().parents[2]
ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}
TICKS = itertools.count(1)
HOUR, CLOCK = 3600 * 10**9, cache._clock


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """Everything is collected an hour after it was written: no program can date a change of an inode back."""
    monkeypatch.setattr(cache, "_clock", lambda runs_dir: None if (now := CLOCK(runs_dir)) is None else now + HOUR)


@pytest.fixture
def plan():
    return make_plan(ARMS)


@pytest.fixture
def runs_dir(tmp_path, plan):
    make_runs(tmp_path / "runs", plan, ARMS, examples=False)
    settle(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def reads(monkeypatch):
    """Run ids in the order in which their folders are read."""
    runs, read = [], rows.read

    def noting(runs_dir, folders):
        runs.extend(folder.run for folder in folders)
        return read(runs_dir, folders)

    monkeypatch.setattr(rows, "read", noting)
    return runs


def settle(folder):
    """Dates every file back by a minute, and a little less each time."""
    long_ago = time.time_ns() - 60 * 10**9 + next(TICKS) * 1000
    for path in folder.rglob("*"):
        os.utime(path, ns=(long_ago, long_ago))


def cache_file(runs_dir):
    (path,) = (runs_dir / ".collected").iterdir()
    return path


def same(collected, expected):
    pd.testing.assert_frame_equal(collected.runs, expected.runs)
    pd.testing.assert_frame_equal(collected.metrics, expected.metrics)
    pd.testing.assert_frame_equal(collected.curves, expected.curves)
    for part in ("warnings", "examples", "records"):
        assert getattr(collected, part) == getattr(expected, part)


def afresh(plan, runs_dir):
    """Collects without a cache."""
    shutil.rmtree(runs_dir / ".collected", ignore_errors=True)
    return collect(plan, runs_dir)


def test_a_run_that_did_not_change_is_not_read_again(plan, runs_dir, reads):
    first = collect(plan, runs_dir)
    assert sorted(reads) == sorted(entry["run"] for entry in plan["runs"])
    reads.clear()
    same(collect(plan, runs_dir), first)
    assert reads == []


def change_log(folder):
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text().replace('"epoch": 7', '"epoch": 8', 1))  # of the same size


CHANGES = {
    "a hand-edited log of the same size": change_log,
    "a longer log": lambda folder: (folder / "metrics.jsonl").open("a").write('{"step": 1300, "train/loss": 0.5}\n'),
    "another result": lambda folder: edit_json(folder / "summary.json", metrics={"eval/token_accuracy": 1.5}),
    "another commit": lambda folder: edit_json(folder / "provenance.json", commit="f00"),
    "another config": lambda folder: (folder / "config.yaml").write_text("seed: 0  # edited\n"),
    "no summary": lambda folder: (folder / "summary.json").unlink(),
    "examples": lambda folder: (folder / "examples.npz").write_bytes(b""),
    "records": lambda folder: (folder / "records.npz").write_bytes(b""),
    "a vanished run": shutil.rmtree,
    "a torn log": lambda folder: os.truncate(folder / "metrics.jsonl", 100),
    "a foreign line": lambda folder: (folder / "metrics.jsonl").write_text("who wrote this?\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_and_only_the_changed_run_is_read(plan, runs_dir, reads, change):
    before = collect(plan, runs_dir)
    reads.clear()
    CHANGES[change](runs_dir / run_id("axial", 1))
    if (runs_dir / run_id("axial", 1)).exists():
        settle(runs_dir / run_id("axial", 1))
    after = collect(plan, runs_dir)
    assert reads == [run_id("axial", 1)]
    with pytest.raises(AssertionError):
        same(before, after)
    reads.clear()
    same(collect(plan, runs_dir), after)
    assert reads == []
    same(afresh(plan, runs_dir), after)


def test_an_edit_in_place_of_equal_size_and_time_is_seen(plan, runs_dir, reads):
    collect(plan, runs_dir)
    reads.clear()
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    before = log.stat()
    time.sleep(0.02)  # a tick of the file system's clock, at least
    with log.open("r+") as file:
        file.write(log.read_text().replace('"epoch": 7', '"epoch": 8', 1))
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = log.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    again = collect(plan, runs_dir)
    assert reads == [run_id("zero", 0)]
    same(again, afresh(plan, runs_dir))


@pytest.mark.parametrize("of", ["the content", "the inode"])
def test_a_file_that_changed_less_than_two_seconds_ago_is_read_again(plan, runs_dir, reads, monkeypatch, of):
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    time.sleep(0.02)
    os.utime(log, ns=(0, 0))  # changes the inode
    changed = log.stat().st_ctime_ns
    if of == "the content":
        changed += HOUR
        os.utime(log, ns=(changed, changed))
    for passed, is_cached in ((0, False), (10**9, False), (2 * 10**9, False), (2 * 10**9 + 1, True)):
        monkeypatch.setattr(cache, "_clock", lambda runs_dir, now=changed + passed: CLOCK(runs_dir) and now)
        collect(plan, runs_dir)
        reads.clear()
        collect(plan, runs_dir)
        assert (run_id("zero", 0) not in reads) == is_cached, passed


def test_a_file_from_the_future_is_read_again_each_time(plan, runs_dir, reads):
    late = time.time() + 2 * 3600
    os.utime(runs_dir / run_id("zero", 0) / "state.json", (late, late))
    for _ in range(3):
        reads.clear()
        collect(plan, runs_dir)
    assert reads == [run_id("zero", 0)]


def test_a_run_that_is_planned_with_another_seed_is_read_again(plan, runs_dir):
    collect(plan, runs_dir)
    with_other_seeds = {**plan, "runs": [{**entry, "seed": entry["seed"] + 7} for entry in plan["runs"]]}
    assert set(collect(with_other_seeds, runs_dir).runs["state"]) == {"unreadable"}
    assert set(collect(plan, runs_dir).runs["state"]) == {"done"}


def test_a_cache_that_is_torn_garbled_or_foreign_is_silently_replaced(plan, runs_dir, reads):
    expected, dice = collect(plan, runs_dir), random.Random(0)
    path = cache_file(runs_dir)
    for _ in range(20):
        content = bytearray(path.read_bytes())
        if dice.random() < 0.5:
            content = content[: dice.randrange(len(content))]
        else:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        reads.clear()
        same(collect(plan, runs_dir), expected)
        assert len(reads) == 6
    path.with_name("notes.txt").write_text("a file of somebody else's")
    reads.clear()
    same(collect(plan, runs_dir), expected)
    assert reads == []


def test_other_code_reads_everything_again(plan, runs_dir, reads, monkeypatch):
    expected = collect(plan, runs_dir)
    reads.clear()
    monkeypatch.setattr(cache, "version", lambda: bytes(32))
    same(collect(plan, runs_dir), expected)
    assert len(reads) == 6


def test_a_folder_that_cannot_be_written_is_read_without_a_cache(plan, runs_dir, reads):
    (runs_dir / ".collected").write_text("in the way, for root as well")
    first = collect(plan, runs_dir)
    reads.clear()
    same(collect(plan, runs_dir), first)
    assert len(reads) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(plan, runs_dir):
    runs_dir.chmod(0o555)
    try:
        assert set(collect(plan, runs_dir).runs["state"]) == {"done"} and not (runs_dir / ".collected").exists()
    finally:
        runs_dir.chmod(0o755)


def test_a_folder_that_does_not_exist_is_not_made(plan, tmp_path):
    assert set(collect(plan, tmp_path / "nowhere").runs["state"]) == {"not run"}
    assert not (tmp_path / "nowhere").exists()


def test_a_sweep_that_is_watched_has_one_cache_and_no_run_twice(tmp_path):
    plan, runs_dir = make_plan(ARMS, tuple(range(5))), tmp_path / "runs"
    for entry in plan["runs"] * 2:
        shutil.rmtree(runs_dir / entry["run"], ignore_errors=True)
        make_run(runs_dir, plan, entry, *ARMS[entry["arm"]], examples=False)
        settle(runs_dir / entry["run"])
        collect(plan, runs_dir)
    cached = cache.Rows(cache._load(cache_file(runs_dir))).runs
    assert sorted(cached) == sorted(entry["run"] for entry in plan["runs"])
    same(collect(plan, runs_dir), afresh(plan, runs_dir))


def test_runs_that_are_neither_planned_nor_there_leave_the_cache(plan, runs_dir):
    collect(plan, runs_dir)
    shutil.rmtree(runs_dir / run_id("zero", 2))
    change_log(runs_dir / run_id("zero", 0))
    settle(runs_dir / run_id("zero", 0))
    collect({**plan, "runs": [entry for entry in plan["runs"] if entry["seed"] == 0]}, runs_dir)
    cached = cache.Rows(cache._load(cache_file(runs_dir))).runs
    assert sorted(cached) == sorted({entry["run"] for entry in plan["runs"]} - {run_id("zero", 2)})


def test_collecting_a_part_of_a_sweep_leaves_the_rest_in_the_cache(plan, runs_dir, reads):
    collect(plan, runs_dir)
    part = {**plan, "runs": [entry for entry in plan["runs"] if entry["seed"] == 0]}
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    change_log(log.parent)
    settle(log.parent)
    reads.clear()
    assert len(collect(part, runs_dir).runs) == 2 and reads == [run_id("zero", 0)]
    collect(plan, runs_dir)
    assert reads == [run_id("zero", 0)]


def test_many_runs_with_logs_of_every_kind(tmp_path):
    """Many groups of runs, read in threads, then cached; some torn, some with lines that are not rows."""
    plan = make_plan(ARMS, tuple(range(150)))
    for number, entry in enumerate(plan["runs"]):
        folder = tmp_path / entry["run"]
        folder.mkdir()
        lines = [
            json.dumps({"step": n, "epoch": n, "train/loss": n / 7, "eval/x": number + n / 3}) for n in range(1, 6)
        ]
        if number % 10 == 1:
            lines[2] = "not a row"
        (folder / "metrics.jsonl").write_text("\n".join(lines) + ("\n" if number % 7 else ""))
        (folder / "state.json").write_text('{"state": "running", "step": 5, "steps": 10}')
    settle(tmp_path)
    first = collect(plan, tmp_path)
    assert len(first.metrics) == 2 * (300 * 5 - 30) and len(first.warnings) == 30
    by_run = first.metrics[first.metrics["metric"] == "eval/x"].groupby("run", observed=True)["value"].max()
    assert by_run[plan["runs"][42]["run"]] == pytest.approx(42 + 5 / 3, rel=1e-5)
    assert list(first.runs["log_line"].unique()) == [5]
    same(collect(plan, tmp_path), first)


COLLECT = """
import json, sys
from pathlib import Path
from results.collect import collect
from results.run_folders import cache
clock = cache._clock
cache._clock = lambda runs_dir: None if (now := clock(runs_dir)) is None else now + 3600 * 10**9
plan = json.loads(sys.argv[1])
for _ in range(int(sys.argv[3])):
    collected = collect(plan, Path(sys.argv[2]))
    assert len(collected.finals("eval/token_accuracy")) == 6 and collected.warnings == [], collected.warnings
    assert collected.metrics["value"].notna().all() and len(collected.metrics) == 6 * 60
"""


def test_collectors_that_run_at_once_do_not_disturb_each_other(plan, runs_dir, reads):
    words = [sys.executable, "-c", COLLECT, json.dumps(plan), str(runs_dir), "12"]
    collectors = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    while any(process.poll() is None for process in collectors):
        for path in (runs_dir / ".collected").glob("[!.]*"):
            path.unlink(missing_ok=True)  # and somebody clears up
        log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
        os.utime(log, ns=(log.stat().st_atime_ns, log.stat().st_mtime_ns + 1000))
        time.sleep(0.02)
    assert [(process.returncode, process.stderr.read()) for process in collectors] == [(0, "")] * 3
    after = collect(plan, runs_dir)
    reads.clear()
    same(collect(plan, runs_dir), after)
    assert reads == []
    same(afresh(plan, runs_dir), after)
