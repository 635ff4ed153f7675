"""What is kept of run folders saves reading them again, and never changes what is collected."""

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
from results.reading import cache, folders
from tests.results.synthetic import edit_json, make_plan, make_run, make_runs, run_id

ROOT = Path(__file__).resolve().parents[2]
ARMS = {"zero": (71.8, 60, 0.148), "axial": (98.3, 230, 0.152)}
TICKS = itertools.count(1)
HOUR, NOW = 3600 * 10**9, cache.Cache._now


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """Everything is collected an hour after it was written: no program can date a change of an inode back."""
    monkeypatch.setattr(cache.Cache, "_now", lambda self: None if (now := NOW(self)) is None else now + HOUR)


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
    found, read = [], folders.read

    def noted(runs_dir, wanted):
        found.extend(one.run for one in wanted)
        return read(runs_dir, wanted)

    monkeypatch.setattr(folders, "read", noted)
    return found


def settle(folder):
    """Dates every file back by a minute, and by a little more each time."""
    long_ago = time.time_ns() - 60 * 10**9 + next(TICKS) * 1000
    for path in folder.rglob("*"):
        os.utime(path, ns=(long_ago, long_ago))


def kept(runs_dir):
    return sorted((runs_dir / ".collected").rglob("*.feather"))


def same(one, other):
    pd.testing.assert_frame_equal(one.runs, other.runs)
    pd.testing.assert_frame_equal(one.metrics, other.metrics)
    pd.testing.assert_frame_equal(one.curves, other.curves)
    assert (one.warnings, one.examples) == (other.warnings, other.examples)


def afresh(plan, runs_dir):
    """As collected where nothing was kept."""
    shutil.rmtree(runs_dir / ".collected", ignore_errors=True)
    return collect(plan, runs_dir)


def test_what_did_not_change_is_not_read_again(plan, runs_dir, reads):
    first = collect(plan, runs_dir)
    assert sorted(reads) == sorted(entry["run"] for entry in plan["runs"]) and len(kept(runs_dir)) == 1
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
    "a vanished run": shutil.rmtree,
    "a torn log": lambda folder: os.truncate(folder / "metrics.jsonl", 100),
    "a foreign line": lambda folder: (folder / "metrics.jsonl").write_text("who wrote this?\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_seen_and_nothing_else_is_read(plan, runs_dir, reads, change):
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
def test_what_changed_less_than_two_seconds_ago_is_read_again(plan, runs_dir, reads, monkeypatch, of):
    log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
    time.sleep(0.02)
    os.utime(log, ns=(0, 0))  # changes the inode
    changed = log.stat().st_ctime_ns
    if of == "the content":
        changed += HOUR
        os.utime(log, ns=(changed, changed))
    for passed, kept_now in ((0, False), (10**9, False), (2 * 10**9, False), (2 * 10**9 + 1, True)):
        monkeypatch.setattr(cache.Cache, "_now", lambda self, passed=passed: NOW(self) and changed + passed)
        collect(plan, runs_dir)
        reads.clear()
        collect(plan, runs_dir)
        assert (run_id("zero", 0) not in reads) == kept_now, passed


def test_a_file_from_the_future_is_read_again_each_time(plan, runs_dir, reads):
    late = time.time() + 2 * 3600
    os.utime(runs_dir / run_id("zero", 0) / "state.json", (late, late))
    for _ in range(3):
        reads.clear()
        collect(plan, runs_dir)
    assert reads == [run_id("zero", 0)]


def test_a_run_that_is_planned_otherwise_is_judged_anew(plan, runs_dir):
    collect(plan, runs_dir)
    other = {**plan, "runs": [{**entry, "seed": entry["seed"] + 7} for entry in plan["runs"]]}
    assert set(collect(other, runs_dir).runs["state"]) == {"unreadable"}
    assert set(collect(plan, runs_dir).runs["state"]) == {"done"}


def test_chunks_that_are_torn_garbled_or_foreign_are_silently_replaced(plan, runs_dir, reads):
    expected, dice = collect(plan, runs_dir), random.Random(0)
    for _ in range(20):
        (chunk,) = kept(runs_dir)
        content = bytearray(chunk.read_bytes())
        if dice.random() < 0.5:
            content = content[: dice.randrange(len(content))]
        else:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        chunk.write_bytes(content)
        reads.clear()
        same(collect(plan, runs_dir), expected)
        assert len(reads) == 6
    (chunk,) = kept(runs_dir)
    chunk.with_name(f"{cache.version()}-{'0' * 64}.feather").write_bytes(chunk.read_bytes())
    chunk.with_name("notes.txt").write_text("mine")
    reads.clear()
    same(collect(plan, runs_dir), expected)
    assert reads == []


def test_other_code_reads_everything_again(plan, runs_dir, reads, monkeypatch):
    expected = collect(plan, runs_dir)
    reads.clear()
    monkeypatch.setattr(cache, "version", lambda: "0" * 16)
    same(collect(plan, runs_dir), expected)
    assert len(reads) == 6


def test_a_folder_that_cannot_be_written_is_read_without_keeping_anything(plan, runs_dir, reads):
    (runs_dir / ".collected").write_text("in the way, for root as well")
    first = collect(plan, runs_dir)
    reads.clear()
    same(collect(plan, runs_dir), first)
    assert len(reads) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(plan, runs_dir):
    runs_dir.chmod(0o555)
    try:
        assert set(collect(plan, runs_dir).runs["state"]) == {"done"} and kept(runs_dir) == []
    finally:
        runs_dir.chmod(0o755)


def test_a_folder_that_is_not_there_is_not_made(plan, tmp_path):
    assert set(collect(plan, tmp_path / "nowhere").runs["state"]) == {"not run"}
    assert not (tmp_path / "nowhere").exists()


def test_a_sweep_that_is_watched_keeps_few_chunks_and_no_run_twice(tmp_path):
    plan, runs_dir = make_plan(ARMS, tuple(range(5))), tmp_path / "runs"
    for entry in plan["runs"] * 2:
        shutil.rmtree(runs_dir / entry["run"], ignore_errors=True)
        make_run(runs_dir, plan, entry, *ARMS[entry["arm"]], examples=False)
        settle(runs_dir / entry["run"])
        collect(plan, runs_dir)
        assert len(kept(runs_dir)) <= 5
    held = [run for path in kept(runs_dir) for run in pd.read_feather(path)["run"]]
    assert {entry["run"] for entry in plan["runs"]} == set(held) and len(held) < 20
    same(collect(plan, runs_dir), afresh(plan, runs_dir))


def test_a_part_of_a_sweep_leaves_the_rest_kept(plan, runs_dir, reads):
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
    """More runs than go into a chunk, read in threads, then kept; some torn, some with lines that are not rows."""
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
        (folder / "state.json").write_text('{"state": "running", "epoch": 5, "epochs": 10}')
    settle(tmp_path)
    first = collect(plan, tmp_path)
    assert len(first.metrics) == 2 * (300 * 5 - 30) and len(first.warnings) == 30
    by_run = first.metrics[first.metrics["metric"] == "eval/x"].groupby("run", observed=True)["value"].max()
    assert by_run[plan["runs"][42]["run"]] == pytest.approx(42 + 5 / 3, rel=1e-5)
    assert list(first.runs["log_line"].unique()) == [5]
    assert len(kept(tmp_path)) == 2
    same(collect(plan, tmp_path), first)


COLLECT = """
import json, sys
from pathlib import Path
from results.collect import collect
from results.reading.cache import Cache
now = Cache._now
Cache._now = lambda self: None if (clock := now(self)) is None else clock + 3600 * 10**9
plan = json.loads(sys.argv[1])
for _ in range(int(sys.argv[3])):
    found = collect(plan, Path(sys.argv[2]))
    assert len(found.finals("eval/token_accuracy")) == 6 and found.warnings == [], found.warnings
    assert found.metrics["value"].notna().all() and len(found.metrics) == 6 * 60
"""


def test_collectors_at_once_do_not_get_into_each_others_way(plan, runs_dir, reads):
    words = [sys.executable, "-c", COLLECT, json.dumps(plan), str(runs_dir), "12"]
    others = [subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    while any(other.poll() is None for other in others):
        for path in kept(runs_dir)[:1]:
            path.unlink(missing_ok=True)  # and somebody clears up
        log = runs_dir / run_id("zero", 0) / "metrics.jsonl"
        os.utime(log, ns=(log.stat().st_atime_ns, log.stat().st_mtime_ns + 1000))
        time.sleep(0.02)
    assert [(other.returncode, other.stderr.read()) for other in others] == [(0, "")] * 3
    after = collect(plan, runs_dir)
    reads.clear()
    same(collect(plan, runs_dir), after)
    assert reads == []
    same(afresh(plan, runs_dir), after)
