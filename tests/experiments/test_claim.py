"""Claims of a run by real processes that race, are killed or paused, or belong to another machine or user."""

from __future__ import annotations

import errno
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from errors import RunFolderError
from experiments.config import ROOT
from experiments.folder import claim
from experiments.folder.run_folder import RunFolder

HOST = socket.gethostname()
ELSEWHERE = {"host": "node7", "boot": "another", "pid_namespace": "pid:[1]"}
CHILD = """
import json, os, sys, time
from pathlib import Path
from errors import RunFolderError
from experiments.folder import claim
from experiments.folder.run_folder import RunFolder

assert "torch" not in sys.modules
options = json.loads(sys.argv[1])
if Path("/proc/self/comm").exists():
    Path("/proc/self/comm").write_text("a) Z (b")  # a name that /proc/<pid>/stat shows as it is
if "machine" in options:
    claim._machine = lambda: options["machine"]
if "user" in options:
    os.setgroups([]), os.setgid(options["user"]), os.setuid(options["user"])
claim.BEAT_SECONDS = options.get("beat", claim.BEAT_SECONDS)
print("ready", flush=True)
for line in sys.stdin:
    word, *rest = json.loads(line)
    try:
        if word == "claim":
            context = RunFolder(Path(rest[0])).claim()
            time.sleep(max(0, rest[1] - time.monotonic()))
            held = context.__enter__()
            answer = "won"
        elif word == "check":
            held.check()
            answer = "fine"
        elif word == "lost":
            answer = str(held.lost)
        elif word == "end first thread":
            import ctypes
            ctypes.CDLL(None).pthread_exit(None)
        elif word == "release":
            context.__exit__(None, None, None)
            answer = "released"
    except RunFolderError as error:
        answer = str(error)
    print(answer, flush=True)
"""


class Process:
    """Another process that claims, checks and releases when it is message to."""

    def __init__(self, **options):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(options)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.popen.pid

    def tell(self, *words):
        self.popen.stdin.write(json.dumps(words) + "\n")
        self.popen.stdin.flush()

    def hear(self):
        return self.popen.stdout.readline().strip()

    def ask(self, *words):
        self.tell(*words)
        return self.hear()

    def claim(self, folder):
        return self.ask("claim", str(folder.path), 0)


@pytest.fixture
def processes():
    """Starts processes that are ready for commands, and ends them."""
    started = []

    def make(count=1, **options):
        new = [Process(**options) for _ in range(count)]
        started.extend(new)
        assert [process.hear() for process in new] == ["ready"] * count
        return new

    yield make
    for process in started:
        process.popen.kill()
        process.popen.communicate()


@pytest.fixture
def folder(tmp_path):
    return new_folder(tmp_path / "run")


def new_folder(path):
    path.mkdir()
    return RunFolder(path)


def race(folder, processes):
    """All processes claim at the same instant; returns the winner, and the refusals of the others."""
    start = time.monotonic() + 0.02
    for process in processes:
        process.tell("claim", str(folder.path), start)
    answers = {process: process.hear() for process in processes}
    winners = [process for process, answer in answers.items() if answer == "won"]
    assert len(winners) == 1, answers.values()
    return winners[0], [answer for answer in answers.values() if answer != "won"]


def plant(folder, seconds_ago=0.0, **changes):
    """Writes a claim of this living process, or with changed content, that was last touched some seconds ago."""
    path = folder.path / "claim-000001"
    with folder.claim():
        content = json.loads(path.read_text())
    path.with_name("claim-000001.free").unlink()
    path.write_text(json.dumps(content | changes))
    age(path, seconds_ago)
    return path


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def dead_pid():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_of_two_processes_one_wins_and_is_named_to_the_other_and_a_kill_frees_the_run_at_once(folder, processes):
    waiting = processes(21)
    survivor = waiting.pop()
    for number in range(1, 21):
        rival = waiting.pop()
        winner, refusals = race(folder, [survivor, rival])
        assert refusals == [f"run is being run by process {winner.pid} on {HOST}"]
        assert names(folder) == [f"claim-{number:06d}"]
        winner.popen.kill()
        os.waitid(os.P_PID, winner.pid, os.WEXITED | os.WNOWAIT)  # stays a zombie
        survivor = rival if winner is survivor else survivor


def test_of_eight_processes_one_takes_over_a_dead_claim(tmp_path, processes):
    racing = processes(8)
    for number in range(10):
        folder = new_folder(tmp_path / f"run{number}")
        if number % 2:
            plant(folder, pid=dead_pid())
        else:
            plant(folder, seconds_ago=61, machine=ELSEWHERE)
        winner, refusals = race(folder, racing)
        assert set(refusals) == {f"run{number} is being run by process {winner.pid} on {HOST}"}
        assert names(folder) == ["claim-000002"]
        assert winner.ask("release") == "released"


def test_of_eight_processes_one_takes_a_free_claim_each_round(folder, processes):
    racing = processes(8)
    for number in range(1, 11):
        winner, _ = race(folder, racing)
        assert winner.ask("check") == "fine"
        assert winner.ask("release") == "released"
        assert names(folder) == [f"claim-{number:06d}.free"]
        assert not folder.holder()


@pytest.mark.parametrize("dead", [False, True], ids=["empty folder", "dead claim"])
@pytest.mark.parametrize("others", ["holds", "released", "released, another holds"])
def test_a_process_with_an_outdated_listing_does_not_win_beside_the_holder(folder, monkeypatch, dead, others):
    if dead:
        plant(folder, pid=dead_pid())
    held = []
    create = claim._create

    def create_late(*arguments):
        monkeypatch.setattr(claim, "_create", create)
        held.append(claim.take(folder.path))
        if others != "holds":
            held.pop().release()
        if others == "released, another holds":
            held.append(claim.take(folder.path))
        return create(*arguments)

    monkeypatch.setattr(claim, "_create", create_late)
    if others == "released":
        with folder.claim():
            assert names(folder) == ["claim-000003" if dead else "claim-000002"]
        return
    with pytest.raises(RunFolderError, match=f"run is being run by process {os.getpid()}"):
        claim.take(folder.path)
    assert len([name for name in names(folder) if not name.endswith(".free")]) == 1
    held[0].check()
    held[0].release()


def test_a_claim_of_another_machine_is_valid_for_a_minute_after_its_last_beat(folder):
    path = plant(folder, machine=ELSEWHERE, pid=7, job="45")
    for seconds in (0, 50):
        age(path, seconds)
        assert str(folder.holder()) == "process 7 on node7 (job 45)"
        with pytest.raises(RunFolderError, match=r"^run is being run by process 7 on node7 \(job 45\)$"):
            claim.take(folder.path)
    age(path, 61)
    assert not folder.holder()
    with folder.claim():
        assert names(folder) == ["claim-000002"]
        assert folder.holder().pid == os.getpid()


def test_a_claim_from_the_future_lives_if_it_is_seen_to_be_touched(folder, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.2)
    path = plant(folder, machine=ELSEWHERE, pid=7)
    age(path, -1e8)
    touch = threading.Thread(target=lambda: [(time.sleep(0.1), age(path, -1e8 - beat)) for beat in range(30)])
    touch.start()
    assert folder.holder().pid == 7
    with pytest.raises(RunFolderError, match="process 7 on node7"):
        claim.take(folder.path)
    touch.join()
    assert not folder.holder()
    with folder.claim():
        assert names(folder) == ["claim-000002"]


@pytest.mark.parametrize("other", ["host", "boot", "pid_namespace"])
def test_a_pid_means_nothing_on_another_machine_boot_or_container(folder, other):
    path = plant(folder)
    machine = json.loads(path.read_text())["machine"]
    path.unlink()
    path = plant(folder, pid=dead_pid(), machine=machine | {other: "another"})
    assert folder.holder()
    age(path, 61)
    assert not folder.holder()
    path.unlink()
    plant(folder, pid=dead_pid())
    assert not folder.holder()


def test_ages_are_taken_on_the_clock_of_the_file_server(folder, monkeypatch):
    plant(folder, machine=ELSEWHERE)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a host that lost its clock
    with pytest.raises(RunFolderError, match="node7"):
        claim.take(folder.path)
    monkeypatch.setattr(time, "time", lambda: 1e11)
    with pytest.raises(RunFolderError, match="node7"):
        claim.take(folder.path)


def test_the_holder_keeps_its_claim_fresh_also_after_errors_of_the_file_server(folder, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.02)
    failures = []
    utime, read = os.utime, claim._read

    def failing(path, *times):
        if not times and path != folder.path and len(failures) < 3:
            failures.append(path)
            raise OSError(errno.EIO, "Input/output error")
        utime(path, *times)

    def stale(path):
        if len(failures) == 1:
            failures.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(path)

    with folder.claim() as held:
        monkeypatch.setattr(os, "utime", failing)
        monkeypatch.setattr(claim, "_read", stale)
        path = folder.path / "claim-000001"
        age(path, 61)
        for _ in range(500):
            if time.time() - path.stat().st_mtime < 30:
                break
            time.sleep(0.01)
        else:
            raise AssertionError("the claim was not touched")
        assert len(failures) == 3
        held.check()
        assert not held.lost


def test_a_later_process_with_the_holders_pid_is_not_the_holder(folder):
    plant(folder)
    assert folder.holder()
    with pytest.raises(RunFolderError, match=f"process {os.getpid()}"):
        claim.take(folder.path)
    (folder.path / "claim-000001").unlink()
    plant(folder, pid_started=1)
    assert not folder.holder()
    with folder.claim():
        assert names(folder) == ["claim-000002"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="threads are seen in /proc")
def test_a_process_holds_its_run_until_its_last_thread_has_ended(folder, processes):
    """After a kill, threads that wait for a device or a file server may outlive the first one."""
    (process,) = processes()
    assert process.claim(folder) == "won"
    process.tell("end first thread")
    for _ in range(500):
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        raise AssertionError("the first thread did not end")
    assert folder.holder()
    process.popen.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not folder.holder()


def test_a_holder_that_was_stopped_notices_that_its_run_was_taken_over(folder, processes):
    (paused,) = processes(machine=ELSEWHERE, beat=0.05)
    assert paused.claim(folder) == "won"
    assert paused.ask("check") == "fine"
    paused.popen.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, paused.pid, os.WSTOPPED)
    with pytest.raises(RunFolderError, match="node7"):
        claim.take(folder.path)
    age(folder.path / "claim-000001", 61)
    with folder.claim() as held:
        paused.popen.send_signal(signal.SIGCONT)
        message = f"run was taken over by process {os.getpid()} on {HOST}; process {paused.pid} stops"
        assert paused.ask("check") == message
        assert paused.ask("release") == "released"
        assert names(folder) == ["claim-000002"]
        held.check()


def test_the_heartbeat_itself_notices_a_loss(folder, processes):
    (paused,) = processes(machine=ELSEWHERE, beat=0.05)
    assert paused.claim(folder) == "won"
    assert paused.ask("lost") == "False"
    paused.popen.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, paused.pid, os.WSTOPPED)
    age(folder.path / "claim-000001", 61)
    with folder.claim():
        paused.popen.send_signal(signal.SIGCONT)
        assert any(paused.ask("lost") == "True" or time.sleep(0.02) for _ in range(250))


def test_a_higher_claim_ends_a_lower_one_before_its_file_is_gone(folder):
    with folder.claim() as held:
        (folder.path / "claim-000002").write_text("")
        with pytest.raises(RunFolderError, match="run was taken over by another process"):
            held.check()


def test_a_claim_of_the_same_number_by_another_process_is_a_loss(folder):
    path = folder.path / "claim-000001"
    with folder.claim() as held:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"token": "another"}))
        with pytest.raises(RunFolderError, match="lost its claim"):
            held.check()
    assert names(folder) == ["claim-000001"]


def test_a_claim_that_vanishes_before_it_is_read_makes_the_process_list_again(folder, monkeypatch):
    """Another process may have taken its number by then."""
    read = claim._read
    with folder.claim():
        monkeypatch.setattr(claim, "_read", lambda path: monkeypatch.setattr(claim, "_read", read))
        with pytest.raises(RunFolderError, match=f"is being run by process {os.getpid()}"):
            claim.take(folder.path)
        assert names(folder) == ["claim-000001"]


def test_a_claim_that_was_removed_or_replaced_by_hand_is_lost(folder):
    path = folder.path / "claim-000001"
    with folder.claim() as held:
        path.unlink()
        with pytest.raises(RunFolderError, match="whose file is gone"):
            held.check()
        with folder.claim() as successor:
            with pytest.raises(RunFolderError):
                held.check()
            held.release()
            successor.check()


@pytest.mark.parametrize("content", ["", '{"token": "a1', "[]", {"pid": -1}, {"pid": 2**40}, {"machine": None}])
def test_a_claim_that_names_no_holder_counts_while_it_is_fresh(folder, monkeypatch, content):
    monkeypatch.setattr(claim, "NAME_SECONDS", 0.1)
    path = plant(folder, **(content if isinstance(content, dict) else {}))
    if isinstance(content, str):
        path.write_text(content)
    assert folder.holder()
    with pytest.raises(RunFolderError, match="run is being run by another process"):
        claim.take(folder.path)
    age(path, 61)
    assert not folder.holder()
    with folder.claim():
        assert names(folder) == ["claim-000002"]


def test_a_claim_that_is_being_written_is_read_again(folder, processes):
    path = plant(folder, machine=ELSEWHERE)
    content = path.read_text()
    path.write_text("")
    (process,) = processes()
    process.tell("claim", str(folder.path), 0)
    time.sleep(0.2)
    path.write_text(content)
    assert process.hear() == f"run is being run by process {os.getpid()} on node7"


@pytest.fixture
def open_folder():
    """A run folder in a path that other users can enter."""
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    yield new_folder(base / "run")
    shutil.rmtree(base)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@needs_root
@pytest.mark.parametrize("user", [65534, 54321])
def test_the_folder_of_another_user_is_refused_with_both_names(open_folder, processes, user):
    open_folder.path.chmod(0o755)
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    (process,) = processes(user=user)
    message = f"cannot write {open_folder.path}: it belongs to root and is not writable for {name}"
    assert process.claim(open_folder) == message
    assert names(open_folder) == []


@needs_root
def test_a_shared_folder_is_held_and_taken_over_between_users(open_folder, processes):
    open_folder.path.chmod(0o777)
    (process,) = processes(user=65534)
    with open_folder.claim() as held:
        path = open_folder.path / "claim-000001"
        assert process.claim(open_folder) == f"run is being run by process {os.getpid()} on {HOST}"
        path.chmod(0o600)
        assert process.claim(open_folder) == "run is being run by another process"
        age(path, 61)
        assert process.claim(open_folder) == "won"
        with pytest.raises(RunFolderError, match=f"taken over by process {process.pid}"):
            held.check()
    assert names(open_folder) == ["claim-000002"]


def test_a_folder_that_is_missing_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"^cannot write .*/absent: No such file or directory$"):
        claim.take(tmp_path / "absent")
    assert not RunFolder(tmp_path / "absent").holder()


def test_a_read_only_disk_is_refused(small_disk):
    folder = new_folder(small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunFolderError, match=r"^cannot write .*/run: Read-only file system$"):
        claim.take(folder.path)


def test_a_full_disk_is_refused_and_leaves_no_claim(small_disk):
    folder = new_folder(small_disk / "run")
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(RunFolderError, match=r"^cannot write .*/run: the disk is full$"):
        claim.take(folder.path)
    assert names(folder) == []
    (small_disk / "filler").unlink()
    with folder.claim():
        assert folder.holder()


def test_asking_who_holds_a_run_changes_nothing(folder):
    def state():
        paths = [folder.path, *folder.path.iterdir()]
        return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}

    def asked():
        before = state()
        answer = folder.holder()
        assert state() == before
        return answer

    assert not asked()
    with folder.claim():
        assert asked()
    assert names(folder) == ["claim-000001.free"]
    assert not asked()
    (folder.path / "claim-000002").write_text("")
    assert asked()
    age(folder.path / "claim-000002", 61)
    assert not asked()


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "45"}, "45"),
        ({"SLURM_JOB_ID": "48", "SLURM_ARRAY_JOB_ID": "45", "SLURM_ARRAY_TASK_ID": "3"}, "45_3"),
    ],
)
def test_a_refusal_names_the_slurm_job(folder, processes, monkeypatch, variables, job):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (process,) = processes()
    assert process.claim(folder) == "won"
    message = f"process {process.pid} on {HOST} (job {job})"
    assert str(folder.holder()) == message
    with pytest.raises(RunFolderError) as caught:
        claim.take(folder.path)
    assert str(caught.value) == f"run is being run by {message}"


@pytest.mark.parametrize(
    "change",
    [{"pid": "1"}, {"pid": 1.5}, {"pid": True}, {"pid": 2**40}, {"token": 7}, {"machine": []}, {"job": 3},
     {"pid_started": "now"}],
    ids=str,
)  # fmt: skip
def test_a_claim_with_a_value_of_a_wrong_type_names_no_holder_and_is_judged_at_once(change):
    whole = {"token": "a", "machine": ELSEWHERE, "pid": 1, "pid_started": None, "job": None}
    assert claim._parse(json.dumps(whole).encode()).pid == 1
    started = time.process_time()
    assert claim._parse(json.dumps(whole | change).encode()) is claim.UNKNOWN
    assert time.process_time() - started < 1


def test_a_claim_of_deep_json_or_that_is_a_pipe_or_endless_names_no_holder(folder):
    path = folder.path / "claim-000001"
    path.write_bytes(b"[" * 60_000)
    assert claim.holder_of(folder.path) is claim.UNKNOWN
    for replace in (os.mkfifo, lambda at: at.symlink_to("/dev/zero")):
        path.unlink()
        replace(path)
        content = claim._read(path)
        assert content is not None and content[0] is claim.UNKNOWN
