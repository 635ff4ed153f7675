"""Whole sweeps on a real Slurm: submitted, preempted, cancelled, timed out, without a controller, with equal bits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.config import ROOT
from experiments.folder.run_folder import RunFolder
from run_format import CANCELLED, DONE, FAILED, INTERRUPTED, QUEUED, RUNNING
from sweeps import local
from sweeps.collection import load_collection
from sweeps.plan import Plan, PlannedRun, load
from sweeps.slurm import attempts
from sweeps.slurm import cluster as our_cluster
from sweeps.slurm.cancel import cancel
from sweeps.slurm.launch import launch
from sweeps.slurm.submissions import known
from sweeps.status import RunStatus, describe
from tests.experiments.processes import assert_equal_runs, saved_steps, start
from tests.slurm.cluster import Cluster
from tests.sweeps.test_collection import write_family

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SHORT = {  # some seconds
    "data.image_size": [64, 64],
    "data.train_images": 32,
    "data.eval_images": 2,
    "train.batch_size": 8,
    "train.epochs": 2,
    "train.warmup_epochs": 0,
    "machine.threads": 1,
    "slurm.gpus_per_node": 0,
}
# half a minute, with averaged weights and drop path, so that an incompletely saved state has an effect
LONG = SHORT | {"train.epochs": 80, "train.ema_decay": 0.9, "model.drop_path": 0.2, "slurm.cpus_per_task": 4}
WAIT_SECONDS = 240


def wait(until: Callable[[], Any], otherwise: Callable[[], Any]) -> None:
    """Waits until a condition holds; after WAIT_SECONDS, fails with the message of ``otherwise``."""
    end = time.monotonic() + WAIT_SECONDS
    while not until():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.3)


def look(plan: Plan, runs_dir: Path) -> dict[str, RunStatus]:
    submitted, complaint = known(runs_dir, plan.distinct())
    assert complaint is None
    return {row.arm: row for row in describe(plan, runs_dir, submitted)}


def wait_for(plan: Plan, runs_dir: Path, state: str, arm: str | None = None) -> None:
    """Waits until one arm, or every arm, is in a state."""
    arms = [arm] if arm else list(plan.labels)
    wait(
        lambda: all(look(plan, runs_dir)[name].state == state for name in arms),
        lambda: f"{arms} not {state}: {look(plan, runs_dir)}",
    )


def folders(plan: Plan, runs_dir: Path) -> dict[str, RunFolder]:
    return {run.arm: RunFolder(runs_dir / run.id) for run in plan.runs}


def one_run(settings: dict[str, Any], runs_dir: Path) -> tuple[Plan, RunFolder]:
    plan = load("ablation_offsets", "smoke", LONG | settings, [0], ["zero"])
    return plan, RunFolder(runs_dir / plan.runs[0].id)


def wait_for_checkpoint(folder: RunFolder) -> None:
    wait(lambda: saved_steps(folder), lambda: f"no checkpoint: {folder.read_json('state.json')}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[PlannedRun], RunFolder]]:
    """Trains the same run undisturbed; tests that disturb equal runs share it."""
    runs_dir = tmp_path_factory.mktemp("undisturbed")
    running: dict[str, subprocess.Popen[str]] = {}

    def begin(run: PlannedRun) -> RunFolder:
        folder = RunFolder(runs_dir / run.id)
        if run.id not in running:
            folder.freeze(run.config)
            running[run.id] = start(folder)
        return folder

    yield begin
    for process in running.values():
        process.kill()
        process.communicate()


def assert_as_undisturbed(folder: RunFolder, reference: RunFolder) -> None:
    wait(reference.finished, lambda: reference.log.read_text())
    assert_equal_runs(folder, reference)


def command_line(runs_dir: Path, *words: str) -> Callable[..., str]:
    """Calls run.py with the same settings for every command; returns its output."""
    same = [f"{key}={json.dumps(value)}" for key, value in SHORT.items()]
    same += ["protocol=smoke", f"runs_dir={runs_dir}", *words]

    def run(*more: str) -> str:
        done = subprocess.run([sys.executable, "run.py", *more, *same], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_offsets_sweep_from_launch_to_report_in_arrays_of_three(tmp_path: Path) -> None:
    """A cluster with a small MaxArraySize, and the command line as a person types it."""
    run = command_line(tmp_path / "runs", "seeds=[0,1]", "arms=[zero,token,axial,joint]")
    folder = Path(tempfile.mkdtemp(prefix="test-arrays-", dir="/tmp"))
    try:
        with Cluster(folder, max_array_size=3) as small, pytest.MonkeyPatch.context() as environment:
            environment.setenv("SLURM_CONF", small.environment["SLURM_CONF"])
            assert run("sweep=ablation_offsets", "--slurm", "slurm.options=[--hold]").count("3 runs") == 2
            queued = small.run("squeue", "--noheader", "--array", "--format=%i").split()
            assert len(queued) == 8 and len({job.partition("_")[0] for job in queued}) == 3
            assert "0 runs submitted, 8 queued or running before" in run("sweep=ablation_offsets", "--slurm")
            assert sorted(small.run("squeue", "--noheader", "--array", "--format=%i").split()) == sorted(queued)
            small.run("scontrol", "release", *{job.partition("_")[0] for job in queued})
            assert "8 runs: 8 done" in run("status=ablation_offsets", "--watch")
            run("report=ablation_offsets")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = (tmp_path / "runs" / "reports" / "ablation_offsets-smoke" / "report.md").read_text()
    # of four arms three have a difference, and joint one more to axial, which the papers compare it with
    assert report.count("(n = 2)") == 4 + 3 + 1 and report.count("| done |") == 8
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/provenance.json")]
    assert len(runs) == 8 and len({run["code_fingerprint"] for run in runs}) == 1


def test_a_preempted_run_is_requeued_and_ends_with_the_same_bits(cluster, tmp_path, undisturbed) -> None:
    plan, folder = one_run({}, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for_checkpoint(folder)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 4")
    wait_for(plan, tmp_path, QUEUED)
    assert "preempted ×1" in look(plan, tmp_path)["zero"].detail
    wait_for(plan, tmp_path, DONE)
    assert attempts.read(folder).counts == {"preempted": 1, "timed out": 0, "lost contact": 0, "restarted": 0}
    assert_as_undisturbed(folder, reference)


def test_a_run_that_reaches_its_time_limit_is_requeued(cluster, tmp_path, undisturbed) -> None:
    """One minute is the shortest limit there is, and one that submitit takes for timed out from the start."""
    limited = {"train.epochs": 150, "slurm.time_minutes": 1, "slurm.signal_seconds": 40}
    plan, folder = one_run(limited, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait(lambda: attempts.read(folder).counts["timed out"] or folder.finished(), lambda: "no time-out")
    wait_for(plan, tmp_path, DONE)
    counts = attempts.read(folder).counts
    assert counts["timed out"] >= 1 and sum(counts.values()) == counts["timed out"], "each of them told for what it was"
    assert_as_undisturbed(folder, reference)


def test_a_cancelled_run_is_resumed_by_the_next_launch(cluster, tmp_path, undisturbed) -> None:
    plan, folder = one_run({}, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for_checkpoint(folder)
    assert list(cancel(plan, tmp_path, our_cluster.Cluster())) == [folder.id]
    wait_for(plan, tmp_path, INTERRUPTED)
    assert "SIGTERM" in look(plan, tmp_path)["zero"].detail
    assert not cluster.run("squeue", "--noheader", "--states=PENDING,RUNNING"), "what a person cancelled stays away"
    assert list(launch(plan, tmp_path, our_cluster.Cluster()).submitted) == [folder.id]
    wait_for(plan, tmp_path, DONE)
    assert " trains " not in folder.log.read_text().split("interrupted by")[-1]
    assert_as_undisturbed(folder, reference)


def test_a_failing_arm_affects_no_other(cluster, tmp_path) -> None:
    plan = load("ablation_offsets", "smoke", SHORT, [0], ["zero", "token", "axial"])
    runs = folders(plan, tmp_path)
    runs["token"].freeze(plan.runs[1].config)
    (runs["token"].path / "metrics.jsonl").mkdir()  # a run that cannot write its log
    launch(plan, tmp_path, our_cluster.Cluster())
    for arm, state in (("zero", DONE), ("axial", DONE), ("token", FAILED)):
        wait_for(plan, tmp_path, state, arm)
    assert "log.txt" in look(plan, tmp_path)["token"].detail
    assert launch(plan, tmp_path, our_cluster.Cluster()).skipped_failed == [runs["token"].id]
    (runs["token"].path / "metrics.jsonl").rmdir()
    assert list(launch(plan, tmp_path, our_cluster.Cluster(), retry_failed=True).submitted) == [runs["token"].id]
    wait_for(plan, tmp_path, DONE)


def test_a_child_waits_for_its_parent_and_does_not_outlive_its_failure(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)
    (tmp_path / "family.yaml").write_text(
        "recipes: {smoke: scenes}\nseeds: [0]\nbaseline: parent\narms:\n  parent: {}\n"
        "  child: {start_from: parent, train.lr: 1.0e-4}\n"
    )
    plan = load("family", "smoke", SHORT)
    runs = folders(plan, tmp_path / "runs")
    runs["parent"].freeze(plan.runs[0].config)
    (runs["parent"].path / "metrics.jsonl").mkdir()
    launch(plan, tmp_path / "runs", our_cluster.Cluster())
    assert f"waits for {runs['parent'].id}" in look(plan, tmp_path / "runs")["child"].detail
    wait_for(plan, tmp_path / "runs", FAILED, "parent")
    wait_for(plan, tmp_path / "runs", CANCELLED, "child")
    wait(lambda: not cluster.run("squeue", "--noheader"), lambda: "the child's job is still in the queue")
    assert runs["parent"].id in look(plan, tmp_path / "runs")["child"].detail

    left = launch(plan, tmp_path / "runs", our_cluster.Cluster())
    assert not left.submitted and list(left.waiting) == [runs["child"].id] and left.exit_code == 1
    (runs["parent"].path / "metrics.jsonl").rmdir()
    again = launch(plan, tmp_path / "runs", our_cluster.Cluster(), retry_failed=True)
    assert list(again.submitted) == [runs["parent"].id, runs["child"].id]
    wait_for(plan, tmp_path / "runs", DONE)


def test_a_collection_of_one_parent_and_three_children_outlives_kills(cluster, tmp_path) -> None:
    path, runs_dir = str(write_family(tmp_path)), tmp_path / "runs"
    settings = SHORT | {"train.epochs": 12, "slurm.cpus_per_task": 2}
    plan = load_collection(path, "smoke", settings)
    runs = {run: RunFolder(runs_dir / run) for run in plan.distinct()}
    (parent,) = {run.parent for run in plan.runs if run.parent}
    children = [run for run in runs if run != parent]
    assert len(children) == 3

    def states() -> dict[str, str]:
        submitted, _ = known(runs_dir, plan.distinct())
        return {row.run: row.state for row in describe(plan, runs_dir, submitted)}

    assert list(launch(plan, runs_dir, our_cluster.Cluster()).submitted) == list(runs)
    wait(lambda: any(saved_steps(runs[run]) for run in children), lambda: f"no child begins: {states()}")
    killed = next(run for run in children if saved_steps(runs[run]))
    if holder := runs[killed].holder():
        subprocess.run(["kill", "-KILL", str(holder.pid)], check=True)
    wait(lambda: states()[killed] not in (RUNNING, QUEUED), lambda: f"the job does not end: {states()}")
    finished = (runs[parent].path / "summary.json").stat().st_mtime_ns
    again = launch(plan, runs_dir, our_cluster.Cluster())
    assert set(again.submitted) <= {killed}, "what is queued, running or done is not submitted twice"
    wait(lambda: set(states().values()) == {DONE}, lambda: f"not done: {states()}")
    assert (runs[parent].path / "summary.json").stat().st_mtime_ns == finished
    assert local.launch(plan, tmp_path / "reference", jobs=2).exit_code == 0
    for run, folder in runs.items():
        assert_equal_runs(folder, RunFolder(tmp_path / "reference" / run))


def test_a_collection_is_cancelled_as_a_whole_and_its_failed_run_tried_again(cluster, tmp_path) -> None:
    path, runs_dir = str(write_family(tmp_path)), tmp_path / "runs"
    plan = load_collection(path, "smoke", SHORT | {"train.epochs": 20, "slurm.cpus_per_task": 2})
    runs = {run.id: run for run in plan.distinct().values()}
    parent = RunFolder(runs_dir / next(iter(runs)))
    broken = next(run for run in runs.values() if run.task == "boxes")

    def states() -> dict[str, str]:
        submitted, _ = known(runs_dir, plan.distinct())
        return {row.run: row.state for row in describe(plan, runs_dir, submitted)}

    assert set(launch(plan, runs_dir, our_cluster.Cluster()).submitted) == set(runs)
    wait_for_checkpoint(parent)
    assert set(cancel(plan, runs_dir, our_cluster.Cluster())) == set(runs), "children that wait are cancelled, too"
    wait(lambda: not cluster.run("squeue", "--noheader"), lambda: "jobs are left in the queue")
    wait(lambda: states()[parent.id] == INTERRUPTED, lambda: str(states()))
    assert {state for run, state in states().items() if run != parent.id} == {CANCELLED}

    (runs_dir / broken.id / "metrics.jsonl").mkdir()  # a run that cannot write its log
    assert set(launch(plan, runs_dir, our_cluster.Cluster()).submitted) == set(runs)
    others = {run for run in runs if run != broken.id}
    wait(lambda: {states()[run] for run in others} == {DONE} and states()[broken.id] == FAILED, lambda: str(states()))
    again = launch(plan, runs_dir, our_cluster.Cluster())
    assert not again.submitted and again.skipped_failed == [broken.id]
    (runs_dir / broken.id / "metrics.jsonl").rmdir()
    assert list(launch(plan, runs_dir, our_cluster.Cluster(), retry_failed=True).submitted) == [broken.id]
    wait(lambda: set(states().values()) == {DONE}, lambda: str(states()))
    assert parent.log.read_text().count(": trains ") == 1, "the parent went on from where it was cancelled"


def test_two_tasks_on_two_nodes_outlive_a_preemption_and_the_death_of_the_first(cluster, tmp_path, undisturbed) -> None:
    spread = {"machine.devices": 2, "machine.device": "cpu", "slurm.nodes": 2, "train.epochs": 40}
    plan, folder = one_run(spread, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for_checkpoint(folder)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    wait(lambda: attempts.read(folder).counts["preempted"], lambda: "not preempted")
    saved = max(saved_steps(folder))
    wait(lambda: max(saved_steps(folder)) > saved, lambda: "it does not go on")
    subprocess.run(["kill", "-KILL", str(folder.holder().pid)], check=True)
    wait_for(plan, tmp_path, DONE)
    summary = folder.finished()
    assert summary["devices"] == 2 and not any("split" in note for note in summary["notes"])
    assert attempts.read(folder).counts == {"preempted": 1, "timed out": 0, "lost contact": 1, "restarted": 0}
    assert_as_undisturbed(folder, reference)


def test_the_controller_dies_while_a_run_wants_to_be_requeued(cluster, tmp_path, undisturbed) -> None:
    plan, folder = one_run({}, tmp_path)
    reference = undisturbed(plan.runs[0])
    (job,) = launch(plan, tmp_path, our_cluster.Cluster()).submitted.values()
    wait_for_checkpoint(folder)
    holder = folder.holder()
    cluster.kill_controller()
    _, complaint = known(tmp_path, plan.distinct())
    assert "does not answer" in complaint
    subprocess.run(["kill", "-USR2", str(holder.pid)], check=True)
    wait(lambda: folder.read_json("state.json").get("state") == INTERRUPTED, lambda: "it did not save its state")
    cluster.start_controller()
    wait_for(plan, tmp_path, DONE)
    assert sum(attempts.read(folder, job).counts.values()) == 1
    assert_as_undisturbed(folder, reference)


def test_code_that_is_edited_after_a_launch_does_not_reach_its_jobs(cluster, tmp_path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "tests", "docs", "__pycache__", "site.yaml", "reports")
    )
    words = [f"{key}={json.dumps(value)}" for key, value in SHORT.items()]
    words += ["protocol=smoke", "seeds=[0]", "arms=[zero]", f"runs_dir={tmp_path / 'runs'}", "slurm.options=[--hold]"]
    done = subprocess.run(
        [sys.executable, "run.py", "sweep=ablation_offsets", *words, "--slurm"],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path in (
        copy / "experiments" / "training" / "loop.py",
        copy / "atm" / "backbone.py",
        copy / "sweeps" / "slurm" / "job.py",
    ):
        path.write_text("raise SystemExit('edited after the launch')\n")
    (folder,) = (RunFolder(path.parent) for path in (tmp_path / "runs").glob("*/config.yaml"))
    (job,) = cluster.run("squeue", "--noheader", "--format=%i").split()
    cluster.run("scontrol", "release", job)
    wait(folder.finished, lambda: folder.log.read_text())
    (snapshot,) = (tmp_path / "runs" / "code").iterdir()
    assert (snapshot / "experiments" / "training" / "loop.py").read_text() == (
        ROOT / "experiments" / "training" / "loop.py"
    ).read_text()
    from experiments.folder.fingerprint import run_fingerprint

    assert folder.read_json("provenance.json")["code_fingerprint"] == run_fingerprint(folder.config())


def test_the_price_is_measured_where_the_runs_will_be(cluster, tmp_path) -> None:
    run = command_line(tmp_path, "seeds=[0]", "arms=[zero]")
    price = json.loads(run("price=ablation_offsets", "--slurm", "--json"))
    assert price["hours"] > 0 and price["runs"] == price["left"] == 1
    wait(lambda: not cluster.run("squeue", "--noheader"), lambda: "a probe is still in the queue")
    assert json.loads(run("price=ablation_offsets", "--slurm", "--json")) == price, "a known set-up is not timed again"
    assert f"1 runs: {price['hours']:.2g} device-hours" in run("sweep=ablation_offsets", "--slurm", "--watch")
    assert "1 done used" in run("status=ablation_offsets")


def test_the_doctor_examines_a_node_as_runs_find_it(cluster, tmp_path, monkeypatch, capfd) -> None:
    from doctor import examination, on_a_node

    site = tmp_path / "site.yaml"
    site.write_text(f"machine: {{device: cpu}}\nslurm: {{setup: [export OF_THE_SITE=1], python: {_box(tmp_path)}}}\n")
    monkeypatch.setattr(on_a_node, "parse_inputs", lambda words: examination.parse_inputs(words, site))
    on_a_node.examine_on_a_node([f"runs_dir={tmp_path}"], as_json=True)
    found = capfd.readouterr()
    checks = {check["name"]: check for check in json.loads(found.out)["checks"]}
    assert checks["python"]["verdict"] == "ok" and str(tmp_path) in checks["run folder"]["message"], found
    assert (tmp_path / "entered").read_text().splitlines()[0].startswith("1 job ")


def _box(folder: Path) -> str:
    """A command that enters what stands for a container: it notes the variable of the site and the job, if any."""
    box = folder / "box"
    box.write_text(f'#!/bin/sh\necho "$OF_THE_SITE job $SLURM_JOB_ID" >> {folder}/entered\nexec "$@"\n')
    box.chmod(0o755)
    return f"{box} {sys.executable}"


def test_a_run_in_a_container_is_preempted_and_ends_with_the_same_bits(cluster, tmp_path, undisturbed) -> None:
    plan, folder = one_run({"slurm.python": _box(tmp_path)}, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for_checkpoint(folder)
    cluster.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 4")
    wait_for(plan, tmp_path, QUEUED)
    wait_for(plan, tmp_path, DONE)
    assert attempts.read(folder).counts["preempted"] == 1 and len((tmp_path / "entered").read_text().splitlines()) == 2
    assert_as_undisturbed(folder, reference)


def test_a_job_that_is_killed_is_resumed_by_the_next_launch(cluster, tmp_path, undisturbed) -> None:
    plan, folder = one_run({}, tmp_path)
    reference = undisturbed(plan.runs[0])
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for_checkpoint(folder)
    subprocess.run(["kill", "-KILL", str(folder.holder().pid)], check=True)
    wait(lambda: look(plan, tmp_path)["zero"].state not in (RUNNING, QUEUED), lambda: "the job does not end")
    assert look(plan, tmp_path)["zero"].state == INTERRUPTED
    launch(plan, tmp_path, our_cluster.Cluster())
    wait_for(plan, tmp_path, DONE)
    assert_as_undisturbed(folder, reference)
