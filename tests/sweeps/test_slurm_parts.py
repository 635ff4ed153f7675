"""Parts of a launch on Slurm: how runs are distributed, how Slurm's output is read, what a job decides."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from errors import ConfigError
from experiments.config import ROOT
from experiments.folder.fingerprint import code_fingerprint
from experiments.folder.provenance import checkout
from experiments.folder.run_folder import RunFolder
from run_format import CANCELLED
from sweeps import snapshot
from sweeps.plan import load
from sweeps.slurm import attempts, batches, job, shared
from sweeps.slurm.batches import JobBatch, deal
from sweeps.slurm.cluster import Limits, Situation, _queued
from sweeps.slurm.job import why_interrupted
from sweeps.slurm.resources import Resources, _options
from tests.sweeps.conftest import SMALL

CODE = Path("/code")


@pytest.mark.parametrize("max_parallel", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("sizes", [[4], [4, 4, 1], [2, 1], [1, 1, 1, 1]])
def test_no_more_runs_than_asked_for_can_run_at_a_time(max_parallel, sizes):
    """Simulates the queue of an endless cluster, where every job that may start does."""
    runs = load("ablation_offsets", "smoke", SMALL, list(range(3))).runs[: sum(sizes)]
    place = 0
    for number, size in enumerate(sizes):
        for run in runs[place : place + size]:
            run.config.slurm.time_minutes += number
        place += size
    waits = {run.id: "parent" for run in runs[-2:]} if sizes[0] == 4 else {}
    dealt = deal(runs, dict.fromkeys([run.id for run in runs], CODE), waits, 3, max_parallel, "name")
    assert sorted(run for batch in dealt for run in batch.runs) == sorted(run.id for run in runs)
    left = {batch.name: list(batch.runs) for batch in dealt}
    rounds = 0
    while any(left.values()):
        running = {
            batch.name: left[batch.name][: batch.at_once or 1]
            for batch in dealt
            if not any(left[name] for name in batch.after)
        }
        assert 0 < sum(map(len, running.values())) <= max_parallel
        for name, started in running.items():
            left[name] = left[name][len(started) :]
        rounds += 1
    assert rounds <= len(runs)


def test_without_a_limit_nothing_waits_for_another(plan):
    dealt = deal(plan.runs, {run.id: CODE for run in plan.runs}, {}, 3, None, "name")
    assert all(not batch.after and batch.at_once is None for batch in dealt)


def test_runs_with_another_copy_of_the_code_are_an_array_of_their_own(plan):
    copies = {run.id: CODE for run in plan.runs} | {run.id: Path("/older") for run in plan.runs[:2]}
    dealt = deal(plan.runs, copies, {}, 1001, None, "name")
    assert [(batch.code, len(batch.runs)) for batch in dealt] == [(Path("/older"), 2), (CODE, 5)]


def test_what_the_batch_script_sets_is_no_further_option_of_sbatch_nor_is_its_beginning():
    """The options of the golden script of two nodes and of a run that waits for its parent."""
    golden = (Path(__file__).parent / "golden_batch.sh").read_text()
    settings = Resources.of(load("ablation_offsets", "smoke", SMALL, [0]).runs[0].config)
    batch = JobBatch("b", settings, ("r",), Path("code"), parents=("p",), after=("a",))
    text = golden + batches.executor(batch, Path("out"), {"a": "1"}, {"p": "2"}).text(1)
    chosen = ("exclude", "exclusive")  # of slurm.options in the golden script
    names = set(re.findall(r"^#SBATCH --([a-z-]+)", text, re.MULTILINE)) - set(chosen)
    assert {"dependency", "kill-on-invalid-dep", "array", "output"} <= names and len(names) > 16
    words = {name[:length] for name in names for length in range(1, len(name) + 1)} - {"gpus"}
    for word in words:
        for option in (f"--{word}", f"--{word}=x"):
            with pytest.raises(ConfigError, match="is set by the suite itself"):
                _options((option,))
    assert _options(("--exclude=node7", "--gpus=1", "--exclusive")) == {
        "exclude": "node7",
        "gpus": "1",
        "exclusive": True,
    }


def test_network_file_systems_are_taken_as_shared(monkeypatch, tmp_path):
    limits = Limits(1001, {}, frozenset({"node-a"}))
    for kind in ("nfs4", "lustre", "fuse.sshfs"):
        monkeypatch.setattr(shared, "file_system", lambda _, kind=kind: kind)
        shared.check(tmp_path, "runs_dir", limits)
    assert shared.own_names()


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount():
    assert shared.file_system(Path("/proc/self")) == "proc"
    assert shared.file_system(Path("/proc/self/no/such/folder")) == "proc"


def test_gpus_follow_the_processes_unless_they_are_set():
    def asked(**settings):
        given = {f"slurm.{key}" if key != "device" else "machine.device": value for key, value in settings.items()}
        resources = Resources.of(load("ablation_offsets", "smoke", {"machine.devices": 4, **given}, [0]).runs[0].config)
        return resources.tasks_per_node, resources.gpus_per_node

    assert asked() == (4, 4)
    assert asked(nodes=2) == (2, 2)
    assert asked(device="cpu") == (4, 0)
    assert asked(gpus_per_node=1) == (4, 1)


@pytest.mark.parametrize(
    ("signal_name", "circumstances", "cause"),
    [
        ("SIGUSR2", Situation(0, True, 10.0), attempts.PREEMPTED),
        ("SIGTERM", Situation(0, True, 10.0), attempts.PREEMPTED),
        ("SIGUSR2", Situation(0, False, 100.0), attempts.TIMED_OUT),
        ("SIGUSR2", Situation(0, False, 5000.0), attempts.PREEMPTED),  # by somebody who sends it without notice
        ("SIGUSR2", None, attempts.TIMED_OUT),  # counted towards the limit, so that it ends
        ("SIGTERM", Situation(0, False, 100.0), CANCELLED),
        ("SIGTERM", Situation(1, False, None), attempts.RESTARTED),
        ("SIGTERM", None, CANCELLED),
    ],
)
def test_why_a_job_is_asked_to_stop(signal_name, circumstances, cause):
    assert why_interrupted(signal_name, circumstances, restarts=0, signal_seconds=120) == cause


def test_attempts_are_counted_from_the_entries_of_jobs(tmp_path):
    folder = RunFolder(tmp_path)
    for restarts in range(3):
        attempts.started(folder, "7_1", restarts, "n")
    attempts.ended(folder, "7_1", attempts.TIMED_OUT)
    attempts.started(folder, "7_1", 3, "n")
    attempts.ended(folder, "7_1", attempts.PREEMPTED)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"what": "ended", "job"')
    assert str(attempts.read(folder)) == "preempted ×1, timed out ×1, restarted ×2"
    assert str(attempts.read(folder, "8")) == ""


def test_time_limits_are_reached_up_to_the_cap_and_preemptions_without_one(plan, tmp_path, monkeypatch):
    requeued = []
    monkeypatch.setattr(job, "requeue", lambda number: (requeued.append(number) or True, ""))
    monkeypatch.setattr(job, "situation", lambda number: None)
    folder, config = RunFolder(tmp_path), plan.runs[0].config
    config.slurm.max_timeouts = 2
    for how in [attempts.PREEMPTED] * 5 + [attempts.TIMED_OUT, attempts.LOST_CONTACT, attempts.TIMED_OUT]:
        attempts.ended(folder, "7", how)
        job._go_on(folder, config, "7", how)
    assert requeued == ["7"] * 7
    assert "timed out: job 7 has been requeued 2 times" in folder.read_json("state.json")["cause"]
    attempts.ended(folder, "8", attempts.TIMED_OUT)
    job._go_on(folder, config, "8", attempts.TIMED_OUT)
    assert requeued[7:] == ["8"], "the next launch's job begins anew"


def test_a_requeue_is_asked_for_until_the_controller_answers(plan, tmp_path, monkeypatch):
    answers = [False, False, True]
    monkeypatch.setattr(job, "ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(job, "requeue", lambda number: (answers.pop(0), "no controller"))
    monkeypatch.setattr(job, "situation", lambda number: None)
    job._go_on(RunFolder(tmp_path), plan.runs[0].config, "7", attempts.PREEMPTED)
    assert not answers


def test_a_snapshot_is_the_sources_and_their_commit(tmp_path):
    first, again = (snapshot.take(tmp_path) for _ in range(2))
    assert first == again and [path.name for path in (tmp_path / "code").iterdir()] == [first.name]
    assert code_fingerprint("token_labelling", first) == code_fingerprint("token_labelling")
    assert checkout(first) == checkout(ROOT)
    sources = [path.relative_to(ROOT) for path in (ROOT / "atm").rglob("*.py")]
    assert sources and all((first / path).read_bytes() == (ROOT / path).read_bytes() for path in sources)
    other = tmp_path / "other"
    shutil.copytree(first, other)
    edited = other / "experiments" / "training" / "loop.py"
    edited.chmod(0o644)
    edited.write_text("# edited\n")
    assert snapshot.take(tmp_path, other) != first


def test_a_line_break_in_the_name_of_a_job_is_tolerated():
    jobs = _queued("7|RUNNING|None|1:00|a\nb\n8_1|PENDING|Priority|1:00|c|d\n")
    assert {number: each.name for number, each in jobs.items()} == {"7": "a", "8_1": "c|d"}


# starts a command, as a program in Go does that was itself started with ignored signals
CONTAINER = """
import os, signal, sys
for number in (signal.SIGUSR2, signal.SIGTERM):
    assert signal.getsignal(number) == signal.SIG_IGN
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("words", [(), (sys.executable,), (sys.executable, "-c", CONTAINER, sys.executable)])
def test_python_ignores_signals_until_it_handles_them_also_in_a_container(words):
    asked = "import signal; print(*map(int, map(signal.getsignal, (12, 15))))"
    command = [*shlex.split(batches.python_command(words)), "-c", asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"], "SIG_IGN"


def test_the_command_of_python_is_read_as_a_shell_reads_it_but_nothing_in_it_is_expanded():
    def words(command):
        return Resources.of(load("ablation_offsets", "smoke", {"slurm.python": command}, [0]).runs[0].config).python

    assert words("apptainer exec --bind '/my data' image.sif python3")[3] == "/my data"
    assert "'$HOME/python'" in batches.python_command(words("$HOME/python"))
    assert words(None) == words("") == ()
    with pytest.raises(ConfigError, match=r"slurm\.python=sh -c 'exit: not a command"):
        words("sh -c 'exit")


def test_a_batch_knows_its_jobs():
    resources = Resources.of(load("ablation_offsets", "smoke", SMALL, [0]).runs[0].config)
    assert JobBatch("b", resources, ("x", "y"), CODE).job_of("y", "45") == "45_1"
    assert JobBatch("b", resources, ("x",), CODE).job_of("x", "45") == "45"


def test_nothing_here_but_a_job_imports_torch():
    code = (
        "import sys, sweeps.slurm.launch, sweeps.slurm.job, sweeps.logs, sweeps.show; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
