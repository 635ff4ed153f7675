"""Which code the runs of a sweep are started from, whatever becomes of the checkout and of the launcher meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from errors import ConfigError, RunFolderError
from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run_format import CODE, DONE, INTERRUPTED, NOT_RUN, PROVENANCE, RUNNING
from sweeps import launches, local, run_code, snapshot
from sweeps.plan import load
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.launch import launch as submit
from sweeps.status import state_of
from tests.experiments.processes import assert_equal_runs
from tests.sweeps.test_sweeps import TINY, tiny_words

LEFT_OUT = (".*", "runs", "tests", "docs", "__pycache__", "site.yaml", "pages", "published", "measured")
SLOW = ["train.epochs=40"]  # long enough to be caught in the middle
COMPUTES = Path("experiments/tasks/network.py")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of the checkout that a test may edit, with a history of its own."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
    commit(copy, "first")
    return copy


def commit(checkout: Path, message: str) -> str:
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=checkout, check=True, capture_output=True)
    return commit_of(checkout)


def commit_of(checkout: Path) -> str:
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=checkout, text=True).strip()


def run(checkout: Path, *words: str, code: int = 0) -> str:
    same = ["protocol=smoke", "seeds=[0]", "arms=[zero,token]"]
    done = subprocess.run(
        [sys.executable, "run.py", *tiny_words(*words, defaults=same)],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def edit(checkout: Path) -> None:
    """Changes what is computed, so that every run would refuse to go on with it."""
    with (checkout / COMPUTES).open("a") as file:
        file.write("\nEDITED = 1\n")


def wait(until, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def folders(runs_dir: Path) -> list[RunFolder]:
    return sorted((RunFolder(path.parent) for path in runs_dir.glob("*/config.yaml")), key=lambda folder: folder.id)


def kill_launcher(runs_dir: Path) -> launches.Launch:
    ((launch, launcher),) = launches.alive(runs_dir, [folder.id for folder in folders(runs_dir)])
    os.kill(launcher.pid, signal.SIGKILL)
    wait(lambda: not launch.launcher)
    return launch


@pytest.mark.slow
def test_a_killed_background_sweep_goes_on_from_its_copy_of_the_code_when_the_checkout_was_edited(checkout, tmp_path):
    disturbed, reference = tmp_path / "runs", tmp_path / "reference"
    sweep = ["sweep=ablation_offsets", "--jobs", "1", *SLOW]
    started = time.monotonic()
    text = run(checkout, *sweep, "--background", f"runs_dir={disturbed}")
    (log,) = (disturbed / "launches").glob("*/log.txt")
    assert str(log) in text and time.monotonic() - started < 60
    wait(lambda: any(run_code.has_begun(folder) for folder in folders(disturbed)))
    words = ["status=ablation_offsets", *SLOW, f"runs_dir={disturbed}"]
    (launcher,) = json.loads(run(checkout, *words, "--json"))["launchers"]
    assert launcher["log"] == str(log) and str(launcher["pid"]) in run(checkout, *words)
    refusal = run(checkout, *sweep, f"runs_dir={disturbed}", code=2)
    assert str(launcher["pid"]) in refusal and "cancel=ablation_offsets" in refusal

    kill_launcher(disturbed)
    (first,) = (folder for folder in folders(disturbed) if folder.holder())
    edit(checkout)
    commit(checkout, "second")
    os.kill(first.holder().pid, signal.SIGKILL)
    wait(lambda: not first.holder())
    text = run(checkout, *sweep, f"runs_dir={disturbed}")
    (copy,) = {folder.read_json(CODE)["copy"] for folder in folders(disturbed)}
    assert f"2 runs use the code in {disturbed / 'code' / copy}" in text and "--new-code" in text
    assert {state_of(folder)[0] for folder in folders(disturbed)} == {DONE}

    subprocess.run(["git", "checkout", "--quiet", "HEAD~1"], cwd=checkout, check=True)
    run(checkout, *sweep, f"runs_dir={reference}")
    for one, other in zip(folders(disturbed), folders(reference)):
        assert_equal_runs(one, other)
    provenances = [folder.read_json(PROVENANCE) for folder in folders(disturbed) + folders(reference)]
    assert len(provenances) == 4 and len({p["code_fingerprint"] for p in provenances}) == 1
    assert len({p["commit"] for p in provenances}) == 1


@pytest.mark.slow
def test_runs_outlive_a_killed_launcher_and_the_next_one_waits_for_them(checkout, tmp_path):
    runs_dir = tmp_path / "runs"
    words = [*SLOW, f"runs_dir={runs_dir}"]
    run(checkout, "sweep=ablation_offsets", "--jobs", "2", "--background", *words)
    wait(lambda: sum(run_code.has_begun(folder) for folder in folders(runs_dir)) == 2)
    kill_launcher(runs_dir)
    assert all(state_of(folder)[0] in (RUNNING, DONE) for folder in folders(runs_dir))
    text = run(checkout, "sweep=ablation_offsets", *words)
    assert "2 of 2 runs done" in text and "begun by an earlier launch" in text
    assert all(folder.log.read_text().count(" steps on ") == 1 for folder in folders(runs_dir)), "never started again"
    assert launches.recorded(runs_dir) == [] and len(list((runs_dir / "launches").glob("*/log.txt"))) == 1


@pytest.mark.slow
def test_cancel_stops_a_background_sweep_and_its_runs_which_the_next_launch_resumes(checkout, tmp_path):
    runs_dir = tmp_path / "runs"
    words = ["train.epochs=200", f"runs_dir={runs_dir}"]
    run(checkout, "sweep=ablation_offsets", "--jobs", "1", "--background", "--nice", *words)
    wait(lambda: any(run_code.has_begun(folder) for folder in folders(runs_dir)))
    (running,) = (folder for folder in folders(runs_dir) if folder.holder())
    priority = os.getpriority(os.PRIO_PROCESS, running.holder().pid)
    assert priority == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    cancelled = json.loads(run(checkout, "cancel=ablation_offsets", *words, "--json"))
    assert cancelled == {"cancelled": {}, "stopped": [running.id]}
    assert not running.holder() and state_of(running)[0] == INTERRUPTED and state_of(running)[2] > 0
    status = json.loads(run(checkout, "status=ablation_offsets", *words, "--json"))
    assert status["launchers"] == []
    assert sorted(row["state"] for row in status["runs"]) == [INTERRUPTED, NOT_RUN]
    assert json.loads(run(checkout, "cancel=ablation_offsets", *words, "--json"))["stopped"] == []


def test_a_commits_code_can_be_taken_from_git(checkout, tmp_path):
    first = snapshot.take(tmp_path, checkout)
    number = commit_of(checkout)
    edit(checkout)
    assert snapshot.take(tmp_path, checkout) != first
    commit(checkout, "second")
    for name in (number, number[:9], "HEAD~1"):
        assert snapshot.take_at(tmp_path, name, checkout) == first, "as it was copied when that was the checkout"
    for name in ("no-such-commit", "--all", f"{number}x"):
        with pytest.raises(ConfigError, match="git knows no such commit") as refused:
            snapshot.take_at(tmp_path, name, checkout)
        assert "\n" not in str(refused.value)
    refusal = run(checkout, "sweep=ablation_offsets", "--at", "nowhere", f"runs_dir={tmp_path / 'runs'}", code=2)
    assert refusal.splitlines()[-1].startswith("run.py: --at nowhere: git knows no such commit")
    assert not list((tmp_path / "runs").glob("*/config.yaml"))


@pytest.fixture
def present(checkout, monkeypatch):
    """Makes the copied checkout the one that launches take the present code from."""
    take = snapshot.take
    monkeypatch.setattr(snapshot, "take", lambda runs_dir: take(runs_dir, checkout))
    return lambda runs_dir: take(runs_dir, checkout)


@pytest.fixture
def plan():
    return load("ablation_offsets", "smoke", TINY | {"slurm.gpus_per_node": 0}, [0], ["zero", "token", "axial"])


def begin(plan, runs_dir, count: int) -> Path:
    """Freezes all runs of a plan, of which the first ``count`` have checkpoints, and returns their code."""
    choice = run_code.choose(plan, plan.runs, runs_dir)
    for run in plan.runs:
        choice.freeze(RunFolder(runs_dir / run.id), run.config)
    for run in plan.runs[:count]:
        (RunFolder(runs_dir / run.id).checkpoints / "step-000000001-epoch-0001.pt").touch()
    (copy,) = set(choice.copies.values())
    return copy


def test_a_sweep_that_has_begun_keeps_its_code_unless_told_otherwise(plan, checkout, present, tmp_path):
    first = begin(plan, tmp_path, 1)
    assert first == present(tmp_path)
    edit(checkout)
    second = present(tmp_path)
    run, later = plan.runs[0].id, plan.runs[1].id

    def chosen(**options):
        copies = run_code.choose(plan, plan.runs, tmp_path, **options).copies
        assert copies[later] == copies[plan.runs[2].id]
        return copies[run], copies[later]

    assert chosen() == (first, first)
    assert chosen(new_code=True) == (first, second)
    assert chosen(other_code="force") == (second, second)
    more = load("ablation_offsets", "smoke", TINY, [0, 1], ["zero", "token", "axial"])
    assert set(run_code.choose(more, more.runs, tmp_path).copies.values()) == {first}, "seeds that are added later"
    other = load("ablation_peg", "smoke", TINY | {"train.lr": 1e-2}, [0])
    assert set(run_code.choose(other, other.runs, tmp_path).copies.values()) == {second}
    text = "\n".join(run_code.choose(plan, plan.runs, tmp_path, new_code=True).describe())
    assert f"1 run uses the code in {first}" in text and f"2 runs use the code in {second}" in text
    shutil.rmtree(first)
    assert chosen() == (second, second), "the copy is gone"


def test_an_edit_that_changes_no_number_is_taken_at_once(plan, checkout, present, tmp_path):
    first = begin(plan, tmp_path, 3)
    (checkout / "sweeps" / "show.py").write_text("# edited\n")
    copies = set(run_code.choose(plan, plan.runs, tmp_path).copies.values())
    assert copies == {present(tmp_path)} != {first}


def test_older_code_is_given_no_setting_that_it_does_not_know(plan, checkout, present, tmp_path):
    schema = checkout / "experiments" / "schema.py"
    text = schema.read_text()
    without = "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("power:"))
    assert without != text
    schema.write_text(without)
    older = begin(plan, tmp_path, 1)
    schema.write_text(text)
    edit(checkout)
    choice = run_code.choose(plan, plan.runs, tmp_path)
    assert set(choice.copies.values()) == {older}
    for run in plan.runs:
        choice.freeze(RunFolder(tmp_path / run.id), run.config)
        content = (tmp_path / run.id / "config.yaml").read_text()
        assert "power:" not in content and "decay_factor:" in content
        assert RunFolder(tmp_path / run.id).config() == run.config
    needs = load(
        "ablation_offsets", "smoke", TINY | {"train.schedule": "polynomial", "train.power": 2.0}, [0], ["zero"]
    )
    choice = run_code.Choice({needs.runs[0].id: older}, present(tmp_path))
    with pytest.raises(ConfigError, match=r"train.power=2.0: .* has no such setting; --new-code"):
        choice.freeze(RunFolder(tmp_path / needs.runs[0].id), needs.runs[0].config)


def record_launch(plan, runs_dir, gpus=None) -> launches.Launch:
    runs = [launches.LaunchedRun(r.id, r.arm, r.seed, r.task, r.parent, "code") for r in plan.runs]
    launch = launches.Launch(launches.new_folder(runs_dir), plan.sweep, 1, None, runs, gpus=gpus)
    launch.write()
    assert launches.read(launch.folder) == launch
    return launch


def test_a_second_launcher_is_refused_unless_it_has_other_gpus(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    launch = record_launch(plan, tmp_path, gpus="0")
    others = load("ablation_offsets", "smoke", TINY, [1], ["zero"])
    with launch.claimed():
        with pytest.raises(RunFolderError, match="ablation_offsets is being launched: process") as refused:
            local.prepare(plan, tmp_path)
        assert str(os.getpid()) in str(refused.value) and "status=ablation_offsets" in str(refused.value)
        with local.prepare(others, tmp_path, say=lambda line: None).claimed():
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
            beside = local.prepare(plan, tmp_path, say=lambda line: None)
            assert len(beside.runs) == 3, "and of other GPUs the same ones"
            with beside.claimed():
                assert len(launches.alive(tmp_path, plan.distinct())) == 2
    assert not launch.folder.exists(), "a launch without a log leaves nothing behind"
    assert launches.alive(tmp_path, plan.distinct()) == []


def test_jobs_of_slurm_go_on_from_the_copy_that_their_sweep_began_with(plan, checkout, present, slurm, tmp_path):
    first = begin(plan, tmp_path, 1)
    run = RunFolder(tmp_path / plan.runs[0].id)
    run.write_json(PROVENANCE, {"code_fingerprint": "as that code makes it", "commit": "0123abc"})
    edit(checkout)
    submit(plan, tmp_path, Cluster())
    assert len(slurm.scripts) == 1 and f"--chdir={first}" in slurm.scripts[0]
    slurm.end("100", "CANCELLED")
    assert len(submit(plan, tmp_path, Cluster(), new_code=True).submitted) == 3
    copies = [text.partition("--chdir=")[2].splitlines()[0] for text in slurm.scripts[1:]]
    assert sorted(copies) == sorted(map(str, [first, present(tmp_path)]))
    slurm.end("101", "CANCELLED")
    slurm.end("102", "CANCELLED")
    shutil.rmtree(first)
    with pytest.raises(RunFolderError, match=r"1 runs began with other code, .*--at 0123abc"):
        submit(plan, tmp_path, Cluster())


@pytest.mark.slow
def test_a_replay_that_is_refused_leaves_the_run_the_copy_it_began_with(checkout, tmp_path):
    runs_dir = tmp_path / "runs"
    words = ["sweep=ablation_offsets", "arms=[zero]", "--jobs", "1", *SLOW, f"runs_dir={runs_dir}"]
    run(checkout, *words, "--background")
    wait(lambda: any(run_code.has_begun(folder) for folder in folders(runs_dir)))
    run(checkout, "cancel=ablation_offsets", *words[1:2], *SLOW, f"runs_dir={runs_dir}")
    (folder,) = folders(runs_dir)
    copy = folder.read_json(CODE)["copy"]
    assert state_of(folder)[0] == INTERRUPTED
    schedules = checkout / "experiments" / "training" / "schedules.py"
    schedules.write_text(schedules.read_text().replace("min_lr=train.min_lr", "min_lr=2 * train.min_lr + 1e-5"))
    assert "does not compute the same" in run(checkout, *words, "--replay", code=1)
    assert copy in run_code.copies_in_use([folder]), "prune keeps it"
    assert f"code in {runs_dir / 'code' / copy}" in run(checkout, *words)
    assert state_of(folder)[0] == DONE


@pytest.mark.slow
def test_a_copy_holds_every_module_that_a_run_imports(tmp_path):
    copy = snapshot.take(tmp_path)
    walk = (
        "import importlib, pkgutil, sys, experiments\n"
        "for module in pkgutil.walk_packages(experiments.__path__, 'experiments.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(*[m.__file__ for n, m in list(sys.modules.items()) if n.split('.')[0] in sys.argv[1:]], sep='\\n')\n"
    )
    rooms = sorted(
        {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", walk, *rooms], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = [Path(file).relative_to(copy) for file in done.stdout.split()]
    assert {Path("results/records.py"), COMPUTES} <= set(files)
