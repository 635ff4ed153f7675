"""Whatever lies in place of a run's file, every command gives lines, and the other runs are shown as they are."""

from __future__ import annotations

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import run as command_line
from results import archive
from results.collect import collect
from run_format import (
    ATTEMPTS,
    CODE,
    CONFIG,
    EXAMPLES,
    EXCLUSION,
    LOG,
    METRICS,
    PROVENANCE,
    RECORDS,
    STATE,
    SUMMARY,
    WEIGHTS,
)
from sweeps.plan import load
from tests.results.synthetic import make_run
from tests.sweeps.test_sweeps import TINY, WORDS

CLAIM, LAUNCH, SUBMISSION = "claim-000001", "launch", "submission"
FILES = (
    CONFIG, STATE, SUMMARY, METRICS, PROVENANCE, LOG, WEIGHTS, EXAMPLES, RECORDS, CODE, ATTEMPTS, EXCLUSION, CLAIM,
    "log.rank-1.txt", "offsets/interventions.json", LAUNCH, SUBMISSION,
)  # fmt: skip
READING = [
    ["status=ablation_offsets", "--json"],
    ["sweep=ablation_offsets", "--dry-run", "--json"],
    ["logs={run}"],
    ["list", "runs"],
    ["prune=ablation_offsets"],
    ["cancel=ablation_offsets"],
]
PLANNED = ["protocol=smoke", "seeds=[0]", "arms=[zero,axial]", *WORDS]


class Place:
    """A folder of two finished runs, of a launch and of a submission; files of the first are put in place of others."""

    def __init__(self, folder: Path):
        self.runs_dir = folder / "runs"
        plan = load("ablation_offsets", "smoke", TINY, [0], arms=["zero", "axial"])
        self.plan = plan.as_dict()
        for entry in self.plan["runs"]:
            (make_run(self.runs_dir, self.plan, entry, 80.0, 100, 0.1) / LOG).write_text("began\n")
        self.bad, self.good = (entry["run"] for entry in self.plan["runs"])
        for kind, name, content in (
            ("launches", "launch.json", {"sweep": "ablation_offsets", "jobs": 1, "other_code": None, "runs": []}),
            ("slurm", "submission.json", {"batches": []}),
        ):
            (self.runs_dir / kind / "a").mkdir(parents=True)
            (self.runs_dir / kind / "a" / name).write_text(json.dumps(content))
        (self.runs_dir / self.bad / "offsets").mkdir()

    def path(self, name: str) -> Path:
        others = {LAUNCH: "launches/a/launch.json", SUBMISSION: "slurm/a/submission.json"}
        return self.runs_dir / others.get(name, f"{self.bad}/{name}")

    def run(self, words: list[str]) -> tuple[int, str, str]:
        words = [word.format(run=self.bad) for word in words]
        settings = PLANNED if "=ablation_offsets" in words[0] else []
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = command_line.main([*words, *settings, f"runs_dir={self.runs_dir}"])
        return code, out.getvalue(), err.getvalue()

    def check(self) -> None:
        """Every reading command ends in lines, and the good run is done."""
        for words in READING:
            code, out, err = self.run(words)
            assert code in (0, 1, 2), (words, out, err)
            assert "Traceback" not in out + err
            if code == 2:
                assert err.startswith("run.py: ") and err.count("\n") == 1, (words, err)
            if words[0].startswith("status"):
                states = {row["run"]: row["state"] for row in json.loads(out)["runs"]}
                assert states[self.good] == "done", (out, err)
        runs = collect(self.plan, self.runs_dir).runs.set_index("run")
        assert runs.loc[self.good, "state"] == "done"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("any")
    patch.setattr(archive, "MEASURED", folder / "measured")
    yield Place(folder)
    patch.undo()


class Replaced:
    """A file of the bad run that is another one for a while."""

    def __init__(self, path: Path):
        self.path, self.kept = path, path.with_name("kept-aside")

    def __enter__(self) -> Path:
        if self.path.exists():
            self.path.rename(self.kept)
        return self.path

    def __exit__(self, *_: object) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        if self.kept.exists():
            self.kept.rename(self.path)


def test_the_place_is_as_it_should_be(place):
    place.check()
    _, out, _ = place.run(["status=ablation_offsets", "--json"])
    assert [row["state"] for row in json.loads(out)["runs"]] == ["done", "done"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODD = {
    "a named pipe": pipe,
    "a terabyte of nothing": sparse,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "deep JSON": lambda path: path.write_text("[" * 200_000),
    "deep keys": lambda path: path.write_text('{"a":' * 200_000),
    "nothing": lambda path: path.touch(),
    "another encoding": lambda path: path.write_bytes('{"state": "done"}'.encode("utf-16")),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", FILES)
def test_odd_files_are_named_and_hide_nothing(place, name, odd):
    with Replaced(place.path(name)) as path:
        ODD[odd](path)
        place.check()


WORDS_OF_FILES = [
    "state",
    "step",
    "steps",
    "epoch",
    "epochs",
    "updated",
    "phase",
    "images_per_s",
    "seconds_left",
    "problem",
    "cause",
    "host",
    "pid",
    "run",
    "metrics",
    "seed",
    "protocol",
    "sha256",
    "finished",
    "wall_s",
    "devices",
    "notes",
    "model",
    "task",
    "curves",
    "commit",
    "code_fingerprint",
    "data_fingerprint",
    "replays",
    "packages",
    "copy",
    "earlier",
    "time",
    "because",
    "what",
    "job",
    "how",
    "restarts",
    "token",
    "machine",
    "pid_started",
    "sweep",
    "jobs",
    "runs",
    "done",
    "batches",
    "name",
    "id",
    "arm",
    "parent",
    "code",
    "total",
    "config.yaml",
    "values",
    "device",
    "machine",
    "slurm",
    "data",
    "train",
    "eval/token_accuracy",
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(["done", "running", "1"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS_OF_FILES), inner, max_size=8),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS_OF_FILES), JSON, min_size=1, max_size=10)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(FILES), content=OBJECTS | JSON)
@pytest.mark.slow
def test_any_json_in_any_file(place, name, content):
    with Replaced(place.path(name)) as path:
        path.write_text(json.dumps(content) + "\n")
        place.check()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=OBJECTS)
@pytest.mark.slow
def test_any_state_of_a_run_without_a_result(place, content):
    with Replaced(place.path(SUMMARY)), Replaced(place.path(STATE)) as path:
        path.write_text(json.dumps(content))
        place.check()


@pytest.mark.parametrize("name", [SUMMARY, METRICS, EXAMPLES, RECORDS, "offsets/interventions.json", CONFIG])
def test_reports_show_the_other_runs(place, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Replaced(place.path(name)) as path:
        pipe(path)
        code, out, err = place.run(["report=ablation_offsets"])
    good = json.loads((place.runs_dir / place.good / SUMMARY).read_text())["metrics"]["eval/token_accuracy"]
    assert code == 0 and f"{good:.2f}" in out, err


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from([n for n in FILES if n not in (LAUNCH, SUBMISSION, WEIGHTS)]), content=OBJECTS, data=st.data()
)
@pytest.mark.slow
def test_any_value_of_any_key(place, name, content, data):
    """The file as it is, with some keys changed."""
    path = place.path(name)
    before = {}
    if path.is_file() and path.suffix == ".json":
        before = json.loads(path.read_text())
    with Replaced(path) as path:
        path.write_text(json.dumps({**before, **content}) + "\n")
        place.check()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(FILES), content=st.binary(max_size=64))
def test_any_bytes_in_any_file(place, name, content):
    with Replaced(place.path(name)) as path:
        path.write_bytes(content)
        place.check()


def test_the_folder_of_another_user_is_an_error_and_is_not_started_over(place, monkeypatch):
    """As root, rights hold for nobody: the effective user is another one for a while."""
    if os.geteuid():
        pytest.skip("needs root to be another user")
    folder = Path(os.path.realpath("/tmp")) / f"shared-{os.getpid()}"
    shutil.copytree(place.runs_dir, folder)
    try:
        folder.chmod(0o777)
        for each in folder.rglob("*"):
            each.chmod(0o777)
        (folder / place.bad).chmod(0o700)
        shared = Place.__new__(Place)
        shared.runs_dir, shared.plan, shared.bad, shared.good = folder, place.plan, place.bad, place.good
        monkeypatch.setattr(archive, "MEASURED", folder / "measured")
        os.seteuid(65534)
        try:
            shared.check()
            code, out, err = shared.run(["sweep=ablation_offsets"])
            _, status, _ = shared.run(["status=ablation_offsets", "--json"])
        finally:
            os.seteuid(0)
        states = {row["run"]: (row["state"], row["detail"]) for row in json.loads(status)["runs"]}
        assert states[place.bad] == ("unreadable", f"{folder / place.bad}: cannot be listed (Permission denied)")
        assert code == 1 and f"{place.bad} was not started: {folder / place.bad}: cannot be listed" in err
        assert "1 of 2 runs done" in out
    finally:
        shutil.rmtree(folder)
