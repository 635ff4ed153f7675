"""Decisions of a launch on Slurm, against a stand-in for Slurm's programs; tests/slurm tests with a real Slurm."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from errors import SuiteError
from experiments.config import ROOT
from experiments.folder.claim import take
from experiments.folder.run_folder import RunFolder
from run import main
from run_format import CANCELLED, DONE, FAILED, INTERRUPTED, NOT_RUN, QUEUED, RUNNING, UNKNOWN
from sweeps import show
from sweeps.plan import load
from sweeps.slurm import attempts, probes
from sweeps.slurm.batches import submit
from sweeps.slurm.cancel import cancel
from sweeps.slurm.cluster import Cluster
from sweeps.slurm.launch import launch, scripts
from sweeps.slurm.submissions import known
from sweeps.status import describe
from tests.ended import end
from tests.sweeps.conftest import SEVEN, SMALL


def states(plan, runs_dir):
    submitted, complaint = known(runs_dir, plan.distinct())
    return {row.arm: (row.state, row.detail) for row in describe(plan, runs_dir, submitted)}, complaint


def finish(folder, state="done"):
    folder.set_state(state, cause="a cause", step=1, steps=1)
    if state == "done":
        end(folder)


def test_one_array_is_submitted_once(plan, slurm, tmp_path):
    outcome = launch(plan, tmp_path / "runs", Cluster())
    assert list(outcome.submitted.values()) == [f"100_{task}" for task in range(7)]
    assert set(slurm.jobs) == set(outcome.submitted.values())
    again = launch(plan, tmp_path / "runs", Cluster())
    assert not again.submitted and again.left_alone.keys() == outcome.submitted.keys()
    assert len(slurm.scripts) == 1 and "#SBATCH --array=0-6%7" in slurm.scripts[0]
    assert all(RunFolder(tmp_path / "runs" / run).config() for run in outcome.submitted)


def test_every_job_gets_its_own_run(plan, slurm, tmp_path):
    from submitit.core.utils import DelayedSubmission

    outcome = launch(plan, tmp_path / "runs", Cluster())
    for run, number in outcome.submitted.items():
        (pickle,) = (tmp_path / "runs" / "slurm").glob(f"*/{number}_submitted.pkl")
        assert Path(DelayedSubmission.load(pickle).function.folder).name == run


def test_an_array_is_split_at_the_largest_size(plan, slurm, tmp_path):
    slurm.set(max_array_size=3)
    launch(plan, tmp_path / "runs", Cluster())
    assert [re.search(r"--array=(\S+)", text)[1] for text in slurm.scripts[:2]] == ["0-2%3", "0-2%3"]
    assert "--array" not in slurm.scripts[2], "a single run needs no array"
    assert list(slurm.jobs) == ["100_0", "100_1", "100_2", "101_0", "101_1", "101_2", "102"]


def test_runs_of_other_resources_are_arrays_of_their_own(slurm, tmp_path):
    plan = load("ablation_offsets", "smoke", SMALL, [0], SEVEN)
    for run in plan.runs[:2]:
        run.config.slurm.mem_gb = 1.5
    launch(plan, tmp_path / "runs", Cluster())
    assert ["--mem=1536M" in text for text in slurm.scripts] == [True, False]
    assert ["0-1%2" in slurm.scripts[0], "0-4%5" in slurm.scripts[1]] == [True, True]


def test_runs_that_are_done_running_or_failed_are_left_alone(plan, slurm, tmp_path):
    runs = [RunFolder(tmp_path / run.id) for run in plan.runs]
    for folder, run in zip(runs, plan.runs):
        folder.freeze(run.config)
    finish(runs[0])
    finish(runs[1], "failed")
    with runs[2].claim():
        outcome = launch(plan, tmp_path, Cluster())
    assert (outcome.done, outcome.skipped_failed) == ([runs[0].id], [runs[1].id])
    assert list(outcome.left_alone) == [runs[2].id] and len(outcome.submitted) == 4
    assert outcome.exit_code == 1
    retried = launch(plan, tmp_path, Cluster(), retry_failed=True)
    assert list(retried.submitted) == [runs[1].id, runs[2].id]


@pytest.mark.parametrize("end", ["CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "COMPLETED"])
def test_a_job_that_ended_before_its_run_is_followed_by_another(plan, slurm, tmp_path, end):
    first = launch(plan, tmp_path, Cluster())
    slurm.end("100", end)
    assert launch(plan, tmp_path, Cluster()).submitted.keys() == first.submitted.keys()


@pytest.mark.parametrize("end", ["FAILED", "OUT_OF_MEMORY"])
def test_a_job_that_failed_without_a_message_is_tried_again_when_asked_to(plan, slurm, tmp_path, end):
    launch(plan, tmp_path, Cluster())
    slurm.end("100_3", end)
    state, detail = states(plan, tmp_path)[0]["joint"]
    assert state == FAILED and end in detail and "100_3_0_log.err" in detail
    assert len(launch(plan, tmp_path, Cluster()).skipped_failed) == 1
    assert len(launch(plan, tmp_path, Cluster(), retry_failed=True).submitted) == 1


def test_a_run_whose_process_was_killed_is_resumed_without_being_asked(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    RunFolder(tmp_path / plan.runs[3].id).set_state("running", step=5, steps=10)
    slurm.end("100_3", "FAILED")
    state, detail = states(plan, tmp_path)[0]["joint"]
    assert state == INTERRUPTED and "100_3 ended: FAILED, exit code 1:0; starting it again resumes it" in detail
    assert list(launch(plan, tmp_path, Cluster()).submitted) == [plan.runs[3].id]


def test_a_state_that_is_not_known_is_shown_and_not_submitted_twice(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    slurm.end("100_0", "BEWITCHED")
    assert states(plan, tmp_path)[0]["zero"] == (UNKNOWN, "Slurm reports state BEWITCHED for job 100_0")
    assert not launch(plan, tmp_path, Cluster()).submitted


def test_states_with_and_without_accounting(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    runs = {run.arm: RunFolder(tmp_path / run.id) for run in plan.runs}
    finish(runs["zero"])
    runs["token"].set_state("running", step=5, steps=10, epoch=1, epochs=2)
    for number, state in (("100_0", "COMPLETED"), ("100_1", "RUNNING"), ("100_2", "NODE_FAIL"), ("100_3", "CANCELLED")):
        slurm.end(number, state)
    attempts.started(runs["zero_mean"], "100_1", 0, "n")
    attempts.ended(runs["zero_mean"], "100_1", attempts.PREEMPTED)
    attempts.started(runs["zero_mean"], "100_1", 1, "n")
    for accounting in (True, False):
        slurm.set(accounting=accounting)
        shown, complaint = states(plan, tmp_path)
        assert complaint is None
        assert shown["zero"][0] == DONE
        assert shown["zero_mean"] == (RUNNING, "starting, job 100_1, 1:00:00 to its limit, preempted ×1")
        assert shown["token"][0] == INTERRUPTED and "NODE_FAIL" in shown["token"][1]
        assert shown["joint"][0] == CANCELLED
        assert shown["axial"] == (QUEUED, "(Priority) job 100_4")
    slurm.forget()
    shown, _ = states(plan, tmp_path)
    assert shown["zero"][0] == DONE and shown["token"][0] == INTERRUPTED
    assert shown["joint"][0] == UNKNOWN and "job 100_3" in shown["joint"][1]


def test_status_asks_slurm_once_and_only_when_something_was_submitted(plan, slurm, tmp_path):
    states(plan, tmp_path)
    assert not slurm.read()["calls"]
    launch(plan, tmp_path, Cluster())
    slurm.set(calls=[])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    states(plan, tmp_path)
    assert [call[0] for call in slurm.read()["calls"]] == ["squeue", "sacct"]
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_status_reports_that_slurm_does_not_answer_and_continues(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    finish(RunFolder(tmp_path / plan.runs[0].id))
    slurm.set(away=True)
    shown, complaint = states(plan, tmp_path)
    assert "Unable to contact slurm controller" in complaint
    assert shown["zero"][0] == DONE and shown["token"] == (UNKNOWN, "job 100_2: Slurm does not answer")
    with pytest.raises(SuiteError, match="does not answer"):
        launch(plan, tmp_path, Cluster())


def test_a_launch_that_died_after_sbatch_is_found_again(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    (record,) = (tmp_path / "slurm").glob("*/submission.json")
    content = json.loads(record.read_text())
    content["batches"][0]["job"] = None  # as it is before sbatch answers
    record.write_text(json.dumps(content))
    assert not launch(plan, tmp_path, Cluster()).submitted
    assert states(plan, tmp_path)[0]["zero"][0] == QUEUED


def test_a_job_that_was_never_given_its_call_is_replaced(plan, slurm, tmp_path):
    """As if sbatch accepted the job and submitit was killed before it read the answer."""
    launch(plan, tmp_path, Cluster())
    (record,) = (tmp_path / "slurm").glob("*/submission.json")
    content = json.loads(record.read_text())
    content["batches"][0]["job"] = None
    record.write_text(json.dumps(content))
    for path in record.parent.glob("*_submitted.pkl"):
        path.unlink()
    assert len(launch(plan, tmp_path, Cluster()).submitted) == 7
    assert [state for job, state in slurm.jobs.items() if job.startswith("100_")] == ["CANCELLED"] * 7


def test_a_job_that_the_controller_lost_is_not_waited_for(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    slurm.set(lost=["100_2"])  # accounting goes on to say PENDING
    assert states(plan, tmp_path)[0]["token"][0] == UNKNOWN
    assert list(launch(plan, tmp_path, Cluster()).submitted) == [plan.runs[2].id]


def test_a_record_that_cannot_be_read_stops_a_launch_and_not_status(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    (record,) = (tmp_path / "slurm").glob("*/submission.json")
    record.write_text("{")
    with pytest.raises(SuiteError, match="its jobs may be in the queue"):
        launch(plan, tmp_path, Cluster())
    assert states(plan, tmp_path)[0]["zero"][0] == NOT_RUN


def test_signals_wait_until_a_batch_is_handed_over_and_written_down(plan, slurm, tmp_path, monkeypatch):
    slurm.set(max_array_size=3)

    def interrupted(made, calls):
        os.kill(os.getpid(), signal.SIGINT)
        return submit(made, calls)

    monkeypatch.setattr("sweeps.slurm.launch.submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        launch(plan, tmp_path, Cluster())
    assert list(slurm.jobs) == ["100_0", "100_1", "100_2"]
    monkeypatch.setattr("sweeps.slurm.launch.submit", submit)
    assert len(launch(plan, tmp_path, Cluster()).submitted) == 4


def test_variables_of_the_shell_do_not_override_the_batch_script(plan, slurm, tmp_path, monkeypatch):
    for name in ("SBATCH_PARTITION", "SBATCH_EXPORT", "SBATCH_ACCOUNT", "SUBMITIT_PREEMPT_SIGNAL"):
        monkeypatch.setenv(name, "USR1")
    launch(plan, tmp_path, Cluster())
    assert not slurm.read()["environment"].keys() & {"SBATCH_PARTITION", "SBATCH_EXPORT", "SUBMITIT_PREEMPT_SIGNAL"}
    assert "SBATCH_ACCOUNT" in slurm.read()["environment"], "no slurm.account is set"
    assert "#SBATCH --signal=USR2@120" in slurm.scripts[0] and os.environ["SBATCH_EXPORT"] == "USR1"


def test_other_limits_of_arrays_are_kept(plan, slurm, tmp_path):
    slurm.set(parameters="bf_continue,max_array_tasks=5")
    launch(plan, tmp_path / "a", Cluster())
    assert len(slurm.scripts) == 2
    slurm.set(max_array_size=0)
    assert len(launch(plan, tmp_path / "b", Cluster()).submitted) == 7 and len(slurm.scripts) == 2 + 7


def test_runs_of_other_code_are_refused_before_they_are_queued(plan, slurm, tmp_path):
    folder = RunFolder(tmp_path / plan.runs[0].id)
    folder.freeze(plan.runs[0].config)
    folder.write_json("provenance.json", {"code_fingerprint": "other"})
    (folder.checkpoints / "step-000000001-epoch-0001.pt").touch()
    with pytest.raises(SuiteError, match="1 runs began with other code"):
        launch(plan, tmp_path, Cluster())
    assert not slurm.scripts
    assert len(launch(plan, tmp_path, Cluster(), other_code="force").submitted) == 7


def test_a_dry_run_with_a_parent_in_the_queue(slurm, tmp_path):
    plan = load("resolution_384", "smoke", SMALL, [0])
    launch(plan, tmp_path, Cluster())
    cluster = slurm.read()
    assert list(cluster["jobs"]) == ["100", "101"] and "--dependency=afterok:100" in slurm.scripts[1]
    assert "#SBATCH --kill-on-invalid-dep=yes" in slurm.scripts[1]
    slurm.end("101", "CANCELLED")
    ((batch, text),) = scripts(plan, tmp_path, Cluster(), None, False)
    assert batch.runs == (plan.runs[1].id,) and "--dependency=afterok:100" in text


def test_probes_are_as_many_at_a_time_as_asked_for_and_a_failed_one_costs_no_other(slurm, tmp_path, monkeypatch):
    plan = load("ablation_offsets", "smoke", SMALL, [0], ["zero", "token", "axial"])
    for name in ("ASK_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(probes, name, 0.0)

    def play(seconds):
        """Does what jobs would do between two looks: two write a rate, one dies."""
        for number, run in zip((100, 102), (plan.runs[0], plan.runs[2])):
            (folder,) = (tmp_path / "slurm").glob("2*")
            rate = {
                "hardware": "CPU",
                "train_images_per_s": 1,
                "eval_images_per_s": 1,
                "steps_per_epoch": 1,
                "eval_images": 1,
            }
            (folder / f"{run.id}.json").write_text(json.dumps(rate))
            slurm.end(str(number), "COMPLETED")
        slurm.end("101", "FAILED")

    monkeypatch.setattr(probes, "time", SimpleNamespace(sleep=play, monotonic=itertools.count().__next__))
    with pytest.raises(SuiteError, match=r"ended without a result: token \(log: .*101_0_log.err"):
        probes.estimate_on_slurm(plan, tmp_path, Cluster(), max_parallel=1)
    monkeypatch.undo()
    assert [re.findall(r"--dependency=(\S+)", text) for text in slurm.scripts] == [
        [],
        ["afterany:100"],
        ["afterany:101"],
    ]
    kept = json.loads((tmp_path / "prices.json").read_text())
    assert len(kept) == 2, "measured rates are kept"


def test_a_queued_run_is_not_started_in_the_foreground(slurm, tmp_path):
    plan = load("ablation_offsets", "smoke", SMALL, [0], SEVEN)
    launch(plan, tmp_path, Cluster())
    words = ["experiment=scenes", "model.offsets=zero", f"runs_dir={tmp_path}", "machine.device=cpu"]
    done = subprocess.run([sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "is in Slurm's queue as job 100_0" in done.stderr


def test_a_launch_that_died_before_sbatch_is_done_again(plan, slurm, tmp_path):
    slurm.set(refuse_after=0)
    with pytest.raises(SuiteError, match="job submit limit"):
        launch(plan, tmp_path, Cluster())
    slurm.set(refuse_after=None)
    assert len(launch(plan, tmp_path, Cluster()).submitted) == 7


def test_runs_submitted_before_slurm_refused_stay_submitted(plan, slurm, tmp_path):
    slurm.set(max_array_size=3, refuse_after=1)
    first = launch(plan, tmp_path, Cluster())
    assert len(first.submitted) == 3 and first.problem
    slurm.set(refuse_after=None)
    second = launch(plan, tmp_path, Cluster())
    assert len(second.submitted) == 4 and not second.submitted.keys() & first.submitted.keys()


def test_two_launches_do_not_submit_together(plan, slurm, tmp_path):
    (tmp_path / "slurm").mkdir(exist_ok=True)
    claim = take(tmp_path / "slurm")
    try:
        with pytest.raises(SuiteError, match="another launch is submitting"):
            launch(plan, tmp_path, Cluster())
    finally:
        claim.release()
    assert not slurm.scripts


def test_a_launch_from_within_a_job_does_not_pass_that_jobs_variables_on(plan, slurm, tmp_path, monkeypatch):
    for name, value in (("SLURM_JOB_ID", "7"), ("SLURM_MEM_PER_CPU", "1"), ("WORLD_SIZE", "4"), ("SLURM_CONF", "conf")):
        monkeypatch.setenv(name, value)
    assert launch(plan, tmp_path, Cluster()).submitted
    seen = slurm.read()["environment"]  # of the last program that was called
    assert seen["SLURM_CONF"] == "conf" and not seen.keys() & {"SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "WORLD_SIZE"}
    assert os.environ["WORLD_SIZE"] == "4"


def test_nobody_else_can_change_what_a_job_executes(plan, slurm, tmp_path):
    previous = os.umask(0o002)
    try:
        launch(plan, tmp_path / "runs", Cluster())
        assert os.umask(0o002) == 0o002
    finally:
        os.umask(previous)
    for folder in (tmp_path / "runs" / "slurm", tmp_path / "runs" / "code"):
        made = [path for path in (folder, *folder.rglob("*")) if not path.name.startswith("claim-")]
        assert len(made) > 5
        assert [path for path in made if path.stat().st_mode & 0o077 and not path.is_symlink()] == []
    run = tmp_path / "runs" / plan.runs[0].id
    assert run.stat().st_mode & 0o777 == 0o775, "results are for the group"


def test_cancel_cancels_live_jobs(plan, slurm, tmp_path):
    launch(plan, tmp_path, Cluster())
    slurm.end("100_0", "COMPLETED")
    assert list(cancel(plan, tmp_path, Cluster()).values()) == [f"100_{task}" for task in range(1, 7)]
    assert list(slurm.jobs.values()) == ["COMPLETED", *["CANCELLED"] * 6]
    assert cancel(plan, tmp_path, Cluster()) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slurm.partition": "gpus"}, "unknown partition 'gpus'; did you mean 'gpu'"),
        ({"slurm.partition": "short"}, "time_minutes=1440: partition short allows 30"),
        ({"slurm.time_minutes": 5000}, "partition gpu allows 2880"),
        ({"slurm.account": "nobody"}, "Invalid account"),
        ({"slurm.options": ["--array=1"]}, "is set by the suite itself"),
        ({"slurm.options": ["--mem=1"]}, "set slurm.mem_gb"),
        ({"slurm.options": ["--o=/tmp/x"]}, "is set by the suite itself"),  # sbatch takes it for --output
        ({"slurm.options": ["--arra=1"]}, "--array is set by the suite itself"),
        ({"slurm.options": ["--gpus-per-n=1"]}, "set slurm.gpus_per_node"),
        ({"slurm.options": ["exclude=node1"]}, "not of the form"),
        ({"slurm.nodes": 2}, "machine.devices=1 cannot be"),
        ({"slurm.signal_seconds": 1200, "slurm.time_minutes": 20}, "must be less than slurm.time_minutes"),
    ],
)
def test_runs_that_would_fail_are_refused_before_anything_is_submitted(slurm, tmp_path, settings, message):
    with pytest.raises(SuiteError, match=re.escape(message)) as refusal:
        launch(load("ablation_offsets", "smoke", SMALL | settings, [0]), tmp_path / "runs", Cluster())
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2
    assert not slurm.scripts and not list((tmp_path / "runs").glob("scenes-*"))
    assert not list((tmp_path / "runs" / "slurm").glob("2*")), "nothing half-written"


def test_a_folder_that_other_nodes_do_not_see_is_refused(plan, slurm, tmp_path):
    slurm.set(hosts=["node-a", socket.gethostname()])
    with pytest.raises(SuiteError, match="which node-a and other nodes do not see"):
        launch(plan, tmp_path / "runs", Cluster())
    assert not slurm.scripts
    trusting = load("ablation_offsets", "smoke", SMALL | {"slurm.shared": True}, [0])
    assert launch(trusting, tmp_path / "runs", Cluster()).submitted


def test_without_slurm_one_line_says_so(tmp_path):
    words = ["sweep=ablation_offsets", "protocol=smoke", "--slurm", f"runs_dir={tmp_path / 'runs'}"]
    done = subprocess.run(
        [sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 2 and done.stderr.startswith("run.py: no sbatch on this machine")
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_the_batch_script_is_the_golden_one(slurm, tmp_path):
    """Every resource set, on two nodes with two GPUs each; paths and the interpreter differ between machines."""
    settings = SMALL | {
        "machine.devices": 4,
        "slurm.nodes": 2,
        "slurm.gpus_per_node": None,
        "slurm.cpus_per_task": 8,
        "slurm.mem_gb": 64,
        "slurm.time_minutes": 600,
        "slurm.partition": "gpu",
        "slurm.account": "vision",
        "slurm.qos": "normal",
        "slurm.constraint": "a100|h100",
        "slurm.setup": ["module load cuda"],
        "slurm.options": ["--exclude=node7", "--exclusive"],
    }
    plan = load("ablation_offsets", "smoke", settings, [0, 1], SEVEN)
    ((batch, text),) = scripts(plan, tmp_path / "runs", Cluster(), 4, False)
    for text_here, name in (
        (str(tmp_path), "TMP"),
        (sys.executable, "PYTHON"),
        (batch.name.rpartition(".")[0][-20:], "ID"),
    ):
        text = text.replace(text_here, name)
    assert text == (Path(__file__).parent / "golden_batch.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert not (tmp_path / "runs").exists(), "a dry run writes nothing"


@pytest.mark.slow
def test_the_command_line_from_launch_to_cancel(slurm, tmp_path):
    words = ["protocol=smoke", "seeds=[0]", f"runs_dir={tmp_path / 'runs'}", "slurm.gpus_per_node=0"]
    words += [f"arms=[{','.join(SEVEN)}]", "train.lr=0.002"]  # runs that no committed result has

    def run(*more):
        done = subprocess.run([sys.executable, "run.py", *more, *words], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    code, out, _ = run("sweep=ablation_offsets", "--slurm", "--dry-run", "--json")
    assert code == 0 and len(json.loads(out)) == 1 and not slurm.scripts
    code, out, err = run("sweep=ablation_offsets", "--slurm", "--max-parallel", "2")
    assert code == 0 and "job 100: 7 runs, at most 2 at a time" in out, err
    code, out, _ = run("status=ablation_offsets", "--json")
    assert [(row["state"], row["job"]) for row in json.loads(out)["runs"]] == [("queued", f"100_{n}") for n in range(7)]
    code, out, _ = run("report=ablation_offsets", "--json")
    assert code == 0 and {row["state"] for row in json.loads(out)["rows"]} == {"queued"}
    code, out, _ = run("cancel=ablation_offsets", "--json")
    assert len(json.loads(out)["cancelled"]) == 7
    for refused in (["--jobs", "2", "--slurm"], ["--max-parallel", "2"], ["--max-parallel", "0", "--slurm"]):
        code, out, err = run("sweep=ablation_offsets", *refused)
        assert code == 2 and len(err.splitlines()) == 1 and "--max-parallel" in err


def test_the_end_of_a_runs_log_is_shown_by_a_part_of_its_id(plan, slurm, tmp_path):
    launch(plan, tmp_path / "runs", Cluster())
    folder = RunFolder(tmp_path / "runs" / plan.runs[0].id)
    folder.log.write_text("".join(f"line {number}\n" for number in range(100)))
    (submission,) = (tmp_path / "runs" / "slurm").glob("2*")
    (submission / "100_0_0_log.err").write_text("srun: error: a message of Slurm\n")

    def logs(name):
        command = [sys.executable, "run.py", f"logs={name}", f"runs_dir={tmp_path / 'runs'}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    shown = logs(folder.id[-8:]).stdout
    assert "line 99" in shown and "line 10\n" not in shown and "a message of Slurm" in shown
    assert "is a part of 7 run ids" in logs("scenes").stderr
    assert "unknown run" in logs("nonsense").stderr


def test_watching_goes_on_while_slurm_does_not_answer_and_ends_when_nothing_runs(plan, slurm, tmp_path, capsys):
    launch(plan, tmp_path, Cluster())
    answers = iter(["away", "back", "ended"])

    def look():
        answer = next(answers)
        slurm.set(away=answer == "away")
        if answer == "ended":
            slurm.end("100", "COMPLETED")
        submitted, complaint = known(tmp_path, plan.distinct())
        return describe(plan, tmp_path, submitted), complaint

    capsys.readouterr()
    rows = show.watch(plan, tmp_path, look, 0.0)
    assert {row.state for row in rows} == {CANCELLED} and next(answers, None) is None
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 3 * 7 + 1, "a line whenever a state has changed, and the summary"


def test_batch_scripts_are_shown_where_slurms_programs_have_no_cluster(tmp_path, monkeypatch, capsys):
    for program in ("sbatch", "scontrol", "squeue", "sacct"):
        (tmp_path / program).write_text(
            "#!/bin/sh\necho 'error: Could not establish a configuration source' >&2\nexit 1\n"
        )
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    words = ["sweep=ablation_offsets", "protocol=smoke", "--slurm", "--dry-run", "arms=[zero,axial]", "seeds=[0]"]
    assert main([*words, f"runs_dir={tmp_path / 'runs'}"]) == 0
    shown = capsys.readouterr()
    assert "#SBATCH" in shown.out and "nothing was submitted" in shown.out
    assert "Could not establish a configuration source; shown as for a cluster of the usual limits" in shown.err
