"""The checks of a machine: each on a machine that has the fault, made real wherever that is possible."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import run
from errors import ConfigError
from experiments import doctor
from experiments.config import ROOT
from experiments.doctor import ABSENT, OK, PROBLEM, WARNING, Asked, Finding


def asked(runs_dir: Path, site: Path | None = None, *words: str) -> Asked:
    return doctor.understand([*words, f"runs_dir={runs_dir}"], run.runs_folder, site or runs_dir / "no site.yaml")


def found(check, question: Asked) -> dict[str, Finding]:
    """What one check finds, by name, as ``examine`` would have it."""
    return {f.name: f for f in doctor.guarded(check.__name__, lambda: check(question))}


def command_line(*words: str, options: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "run.py", "doctor", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )


def script(folder: Path, name: str, text: str) -> None:
    """An executable ``name`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first in PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def broken_torch(tmp_path: Path) -> str:
    """A folder whose ``torch`` cannot be imported, as after half an update."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open\\nshared object file')")
    return str(tmp_path / "broken")


# --- the command


def test_a_whole_run_as_lines(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    done = command_line(f"runs_dir={runs}", "experiment=scenes")
    verdicts = {line.split()[0] for line in done.stdout.splitlines()[:-1]}
    assert verdicts <= {OK, WARNING, PROBLEM, ABSENT}
    assert done.returncode == int(PROBLEM in verdicts), done.stdout
    assert "Traceback" not in done.stderr
    said = " ".join(done.stdout.split())
    for name in ("python", "packages", "code", f"ok run folder {runs}", "ok experiment scenes needs no images", "ok memory",
                 " gpu ", "ok distributed gloo", " slurm ", " latex "):  # fmt: skip
        assert name in said
    assert list(runs.iterdir()) == []


def test_json_is_one_document_with_every_problem(tmp_path, broken_torch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = command_line(f"runs_dir={blocked}", "--json", PYTHONPATH=broken_torch)
    answer = json.loads(done.stdout)
    checks = {check["name"]: check for check in answer["checks"]}
    assert (done.returncode, answer["ok"], done.stderr) == (1, False, "")
    assert checks["run folder"] == {
        "name": "run folder",
        "verdict": PROBLEM,
        "found": f"{blocked} is a file",
        "advice": "set runs_dir in site.yaml, or runs_dir=PATH, to a folder of yours",
    }
    assert checks["gpu"]["found"] == "torch cannot be imported: libcudart.so.13: cannot open"
    assert "reinstall" in checks["gpu"]["advice"]
    assert checks["slurm"]  # what comes after a fault is checked all the same
    assert len(checks) == len(answer["checks"])


def test_a_python_without_any_package_is_told_so():
    done = command_line(options=("-S",))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    lines = {line[9:29].strip(): line for line in done.stdout.splitlines()}
    assert lines["packages"].startswith(PROBLEM)
    assert "torch missing" in lines["packages"]
    assert "requirements.lock" in lines["packages"]
    assert lines["run folder"].startswith(OK)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["doctor", "rnus_dir=/x"], "'runs_dir'"),
        (["doctor", "trian.epochs=3"], "'train.epochs'"),
        (["doctor", "train.epochs=3"], "add experiment=NAME"),
        (["doctor", "experiment="], "which one"),
        (["doctor", "experiment=scense"], "'scenes'"),
        (["doctor", "experiment=scenes", "model=nono"], "'nano'"),
        (["doctor", "experiment=scenes", "data.dataset=[1]"], "data.dataset=[1]"),
        (["doctor", "scenes"], "key=value"),
        (["doctor=scenes"], "doctor experiment=scenes"),
    ],
)
def test_words_that_no_run_takes_are_refused_before_anything_is_checked(words, names, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", ())
    assert run.main(words) == 2
    captured = capsys.readouterr()
    assert names in captured.err
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


@pytest.mark.parametrize(("verdicts", "code"), [((OK, WARNING, ABSENT), 0), ((OK, PROBLEM, OK), 1)])
def test_only_a_problem_fails(verdicts, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda asked: [Finding(v, v, "found", "advice") for v in verdicts],))
    assert run.main(["doctor"]) == code
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run.main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)


def test_on_a_terminal_the_advice_is_below_what_was_found(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    doctor.show([Finding("disk", PROBLEM, "[red]full", "make room"), Finding("gpu", OK, "one")])
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert "✗" in first and "[red]full" in first
    assert "→ make room" in second
    assert "✓" in third
    assert last == "1 ok, 1 problem"


def test_a_check_that_breaks_is_a_problem_of_its_own():
    def check(asked: Asked) -> Iterator[Finding]:
        yield Finding("first", OK, "fine")
        raise KeyError("tacit")

    findings = found(check, Asked(Path))
    assert findings["first"].verdict == OK
    assert (findings["check"].verdict, findings["check"].found) == (PROBLEM, "not checked: KeyError: 'tacit'")


def test_a_finding_is_one_printable_line():
    assert Finding("data", PROBLEM, "a\nb \udcff").found == "a b \\udcff"


# --- packages, code, site


def test_a_package_too_old_or_missing_is_named(tmp_path, monkeypatch):
    real = doctor._version
    versions = {"timm": "1.0.2", "omegaconf": None, "mypy": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    lacking = found(doctor.packages, asked(tmp_path))
    assert lacking["packages"].verdict == PROBLEM
    assert "2 of" in lacking["packages"].found
    assert "timm 1.0.2 (needed >=1.0.15)" in lacking["packages"].found
    assert "omegaconf missing" in lacking["packages"].found
    assert lacking["development packages"].verdict == WARNING
    assert lacking["development packages"].found == "mypy missing: needed by make test"


def test_versions_other_than_the_locked_ones_are_named(tmp_path, monkeypatch):
    question = asked(tmp_path)
    assert found(doctor.locked_versions, question)["locked versions"].verdict in (OK, WARNING)  # the real file is read
    (tmp_path / "requirements.lock").write_text(
        "# a comment\nnot-here==1\ntorch==2.7.0\nrich==1 ; python_version < '3'\nrich==15.0.0 ; python_version > '3'\n"
    )
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    versions = {"torch": "2.7.0+cpu", "rich": "15.0.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    finding = found(doctor.locked_versions, question)["locked versions"]
    assert (finding.verdict, finding.found) == (OK, "2 installed packages as in requirements.lock")
    versions["rich"] = "13.8.0"
    finding = found(doctor.locked_versions, question)["locked versions"]
    assert (finding.verdict, finding.found.split(": ")[1]) == (WARNING, "rich 13.8.0 (locked 15.0.0)")


def test_a_python_that_is_too_old(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "version", "3.9.2 (default)")
    finding = found(doctor.python, asked(tmp_path))["python"]
    assert finding.verdict == PROBLEM
    assert "3.9.2" in finding.found and ">=3.10" in finding.found


def test_a_python_without_a_toml_reader_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomllib", None)
    monkeypatch.setitem(sys.modules, "tomli", None)
    for check in (doctor.python, doctor.packages):
        (finding,) = found(check, asked(tmp_path)).values()
        assert finding.verdict == WARNING
        assert "tomli" in finding.found


def test_code_that_was_changed_and_code_without_git(tmp_path, monkeypatch):
    from experiments import provenance

    checkout = tmp_path / "checkout"
    (checkout / "atm").mkdir(parents=True)
    (checkout / "atm" / "a.py").write_text("a = 1\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    monkeypatch.setattr(provenance, "ROOT", checkout)
    assert found(doctor.code, asked(tmp_path))["code"].verdict == OK
    (checkout / "atm" / "a.py").write_text("a = 2\n")
    finding = found(doctor.code, asked(tmp_path))["code"]
    assert (finding.verdict, "uncommitted" in finding.found) == (WARNING, True)
    shutil.rmtree(checkout / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert "knows no commit" in found(doctor.code, asked(tmp_path))["code"].found
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(doctor.code, asked(tmp_path))["code"].found == "git is not installed"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("runs_dir: [1", "not valid YAML"),
        ("run_dir: /x", "'runs_dir'"),
        ("machine: {treads: 3}", "'machine.threads'"),
        ("machine: {threads: many}", "machine.threads=many"),
        ("machine: fast", "machine must hold keys"),
        ("data: /datasets", "data must hold keys"),
        (b"\xff\xfe\x00", "decode"),
        (None, "is not a file"),
    ],
)
def test_a_site_file_that_cannot_be_used(tmp_path, text, names):
    site = tmp_path / "site.yaml"
    site.mkdir() if text is None else site.write_bytes(text if isinstance(text, bytes) else text.encode())
    finding = found(doctor.site, asked(tmp_path, site))["site"]
    assert finding.verdict == PROBLEM
    assert names in finding.found
    assert "site.example.yaml" in finding.advice
    # the other checks go on with what there is
    assert all(f.verdict in (ABSENT, PROBLEM) for f in found(doctor.data, asked(tmp_path, site)).values())


def test_no_site_file_is_no_fault_and_the_example_is_valid(tmp_path):
    assert found(doctor.site, asked(tmp_path))["site"].verdict == ABSENT
    finding = found(doctor.site, asked(tmp_path, ROOT / "site.example.yaml"))["site"]
    assert finding.verdict == OK
    assert "runs_dir, data, machine" in finding.found


def test_runs_dir_of_the_site_is_the_one_that_is_checked(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text(f"runs_dir: {tmp_path / 'of the site'}\n")
    question = doctor.understand([], run.runs_folder, site)
    assert "of the site, to be made in" in found(doctor.run_folder, question)["run folder"].found
    assert not (tmp_path / "of the site").exists()


# --- data


def site_with(tmp_path: Path, **roots: object) -> Path:
    site = tmp_path / "site.yaml"
    site.write_text(json.dumps({"data": roots}))
    return site


def test_data_roots_of_the_site_are_counted_and_the_others_said_to_be_absent(tmp_path, images):
    (images / "train" / "class0" / "notes.txt").write_text("not an image")
    (images / "train" / "class0" / "0.jpg").rename(images / "train" / "class0" / "0.JPEG")
    findings = found(doctor.data, asked(tmp_path, site_with(tmp_path, tiny_imagenet={"root": str(images)})))
    assert findings["data tiny_imagenet"].verdict == OK
    assert findings["data tiny_imagenet"].found == f"{images}: 3 classes, 24 train and 12 validation images"
    assert findings["data imagenet"].verdict == ABSENT
    assert "data.imagenet in site.yaml" in findings["data imagenet"].advice


def damaged(images: Path, how: str) -> object:
    if how == "no such":
        return {"root": str(images / "elsewhere")}
    if how == "different classes":
        shutil.rmtree(images / "val" / "class1")
    elif how == "no folder for the validation split":
        (images / "val").rename(images / "held out")
    elif how == "1 classes of validation hold no images, e.g. class2":
        for image in (images / "val" / "class2").iterdir():
            image.unlink()
    elif how == "must hold keys":
        return str(images)
    elif how == "'data.root'":
        return {"rooot": str(images)}
    elif how == "decides a run's numbers":
        return {"root": str(images), "num_classes": 3}
    elif how == "expects 1000":
        return {"root": str(images)}
    return {"root": str(images)}


@pytest.mark.parametrize(
    "how",
    [
        "no such",
        "different classes",
        "no folder for the validation split",
        "1 classes of validation hold no images, e.g. class2",
        "must hold keys",
        "'data.root'",
        "decides a run's numbers",
        "expects 1000",
    ],
)
def test_a_data_root_that_no_run_could_use(tmp_path, images, how):
    dataset = "imagenet" if how == "expects 1000" else "tiny_imagenet"
    site = site_with(tmp_path, **{dataset: damaged(images, how)})
    findings = found(doctor.data, asked(tmp_path, site))
    assert findings[f"data {dataset}"].verdict == PROBLEM
    assert how in findings[f"data {dataset}"].found
    assert findings[f"data {dataset}"].advice
    assert len(findings) == 2  # one bad root keeps no other from being looked at


def test_counting_ends_in_time(tmp_path, images, monkeypatch):
    monkeypatch.setattr(doctor, "COUNT_SECONDS", -1)
    site = site_with(tmp_path, tiny_imagenet={"root": str(images)})
    finding = found(doctor.data, asked(tmp_path, site))["data tiny_imagenet"]
    assert finding.found.endswith("3 classes, more than 8 train and more than 4 validation images")


def test_a_data_set_that_no_recipe_names_is_a_warning(tmp_path, images):
    finding = found(doctor.data, asked(tmp_path, site_with(tmp_path, tiny={"root": str(images)})))["data tiny"]
    assert finding.verdict == WARNING
    assert "24 train" in finding.found and "no recipe is of tiny" in finding.found


def test_shards_need_their_package(tmp_path, monkeypatch):
    site = site_with(tmp_path, imagenet={"root": str(tmp_path), "reader": "wds/imagenet"})
    assert found(doctor.data, asked(tmp_path, site))["data imagenet"].verdict == OK
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    finding = found(doctor.data, asked(tmp_path, site))["data imagenet"]
    assert (finding.verdict, finding.advice) == (PROBLEM, "pip install webdataset")


def test_the_data_of_an_experiment(tmp_path, images):
    words = ("experiment=tiny_imagenet", f"data.root={images}")
    question = asked(tmp_path, None, *words)
    assert found(doctor.experiment, question)["experiment"].verdict == OK
    assert set(found(doctor.data, question)) == {"data imagenet"}
    question = asked(tmp_path, None, *words, "data.num_classes=7")
    assert "holds 3 classes" in found(doctor.experiment, question)["experiment"].found
    question = asked(tmp_path, None, "experiment=tiny_imagenet")
    assert "set data.root=PATH" in found(doctor.experiment, question)["experiment"].found
    question = asked(tmp_path, None, "experiment=scenes", "init=/no/weights.pth")
    assert "no such file" in found(doctor.experiment, question)["experiment"].found


# --- run folder


def test_a_run_folder_that_can_be_made_is_not_made(tmp_path):
    findings = found(doctor.run_folder, asked(tmp_path / "deep" / "er"))
    assert findings["run folder"].verdict == OK
    assert set(findings) == {"run folder", "disk speed", "disk space", "file system"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/runs", "~nobody_of_that_name/runs", '"\\0"'])
def test_a_run_folder_that_cannot_be(path):
    question = doctor.understand([f"runs_dir={path}"], run.runs_folder, Path("/no/site.yaml"))
    findings = found(doctor.run_folder, question)
    assert findings["run folder"].verdict == PROBLEM
    assert "runs_dir" in findings["run folder"].advice


def test_what_a_disk_lacks(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    question = asked(tmp_path)
    monkeypatch.setattr(doctor, "SLOW_SYNC_SECONDS", 0)
    monkeypatch.setattr(doctor, "FREE_BYTES", (10**20, 1))
    findings = found(doctor.run_folder, question)
    assert (findings["disk speed"].verdict, findings["disk space"].verdict) == (WARNING, WARNING)
    monkeypatch.setattr(doctor, "FREE_BYTES", (1, 1))
    assert found(doctor.run_folder, question)["disk space"].verdict == OK
    monkeypatch.setattr(doctor, "FREE_INODES", (10**20, 10**20))
    monkeypatch.setattr(fcntl, "flock", refuse)
    findings = found(doctor.run_folder, question)
    made_as_needed = not os.statvfs(tmp_path).f_files
    assert findings["disk space"].verdict == (OK if made_as_needed else PROBLEM)
    assert findings["run folder"].verdict == PROBLEM
    assert "gives no locks" in findings["run folder"].found
    assert list(tmp_path.iterdir()) == []


def test_the_innermost_mount_counts(tmp_path, monkeypatch):
    table = "\n".join(
        ["/dev/a / ext4 rw 0 0", f"n {tmp_path} nfs4 rw 0 0", f"t {tmp_path}/with\\040space lustre ro 0 0"]
    )
    monkeypatch.setattr(Path, "read_text", lambda self, **_: table)
    for folder, kind, verdict in (
        (tmp_path / "with space" / "a", "lustre, over the network, mounted read-only", PROBLEM),
        (tmp_path / "with", "nfs4, over the network", OK),
        (Path("/"), "ext4", OK),
    ):
        finding = doctor._file_system(folder)
        assert (finding.found, finding.verdict) == (kind, verdict)


mounts = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root")


@mounts
def test_a_small_disk_in_memory_then_read_only(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        findings = found(doctor.run_folder, asked(disk))
        assert findings["run folder"].verdict == OK
        assert findings["disk space"].verdict == PROBLEM
        assert (findings["file system"].verdict, "reboot" in findings["file system"].advice) == (WARNING, True)
        (disk / "full").write_bytes(bytes(3 << 20))
        finding = found(doctor.run_folder, asked(disk))["run folder"]
        assert (finding.verdict, "the disk is full" in finding.found) == (PROBLEM, True)
        (disk / "full").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        findings = found(doctor.run_folder, asked(disk / "runs"))
        assert (findings["run folder"].verdict, findings["file system"].verdict) == (PROBLEM, PROBLEM)
        assert "Read-only file system" in findings["run folder"].found
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextmanager
def as_another_user() -> Iterator[None]:
    """In this process: a program of its own would need a Python that this user can read."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can read; pytest's own let no other user in."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


users = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@users
def test_another_user_cannot_write_in_the_run_folder(open_to_all):
    with as_another_user():
        finding = found(doctor.run_folder, Asked(lambda: open_to_all / "runs"))["run folder"]
    assert finding.verdict == PROBLEM
    assert f"cannot write in {open_to_all} (owner root, you are " in finding.found
    assert "Permission denied" in finding.found


@users
def test_a_class_folder_that_cannot_be_read_is_not_passed_over(open_to_all):
    for name, mode in (("cat", 0o755), ("dog", 0o700)):
        (open_to_all / name).mkdir(mode)
    with as_another_user():
        finding = found(lambda _: doctor._count(open_to_all), Asked(Path))["<lambda>"]
    assert (finding.verdict, finding.found) == (PROBLEM, f"{open_to_all / 'dog'}: Permission denied")


# --- memory, devices, other programs


def test_limits_that_are_too_low(tmp_path, monkeypatch):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(doctor, "LEAST_SHARED_MEMORY", 10**20)
    monkeypatch.setattr(doctor, "LEAST_MEMORY", 10**20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        findings = found(doctor.processor, asked(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert findings["cores"].verdict == OK
    assert {findings[name].verdict for name in ("memory", "shared memory", "open files")} == {WARNING}
    assert "ulimit -n 4096" in findings["open files"].advice
    assert "512" in findings["open files"].found


NVIDIA_SMI = "echo '550.54, NVIDIA H100 80GB HBM3'"


@pytest.fixture
def no_gpu(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return torch


def test_a_gpu_that_torch_does_not_see_is_a_problem(tmp_path, programs, no_gpu, monkeypatch):
    question = asked(tmp_path)
    script(programs, "nvidia-smi", NVIDIA_SMI)
    finding = found(doctor.gpu, question)["gpu"]
    assert finding.verdict == PROBLEM
    assert "550.54, NVIDIA H100" in finding.found
    assert "driver" in finding.advice
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found(doctor.gpu, question)["gpu"].advice == "unset CUDA_VISIBLE_DEVICES"
    monkeypatch.setattr(no_gpu.version, "cuda", None)
    assert "build with CUDA" in found(doctor.gpu, question)["gpu"].advice
    script(programs, "nvidia-smi", "echo 'No devices were found'; exit 6")
    finding = found(doctor.gpu, question)["gpu"]
    assert (finding.verdict, "No devices were found" in finding.found) == (WARNING, True)


def test_no_gpu_is_no_fault(tmp_path, no_gpu, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = found(doctor.gpu, asked(tmp_path))["gpu"]
    assert (finding.verdict, "runs go on the CPU" in finding.found) == (ABSENT, True)


def test_a_gpu_hidden_from_a_whole_run(tmp_path, programs):
    """The real torch in a process of its own, with a GPU that only nvidia-smi shows."""
    script(programs, "nvidia-smi", NVIDIA_SMI)
    done = command_line("--json", f"runs_dir={tmp_path}", CUDA_VISIBLE_DEVICES="")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert (checks["gpu"]["verdict"], done.returncode) == (PROBLEM, 1)


def test_a_gpu_that_cannot_compute_and_one_without_bfloat16(tmp_path, monkeypatch):
    import torch

    class Properties:
        name, total_memory, major, minor = "Tesla T4", 16 * 10**9, 7, 5

    monkeypatch.setattr(torch.cuda, "device", lambda index: tempfile.TemporaryDirectory(dir=tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    finding = doctor._device(0)
    assert finding == Finding(
        "gpu 0", WARNING, "Tesla T4, 16.0 GB, compute capability 7.5, no bfloat16", finding.advice
    )
    assert "train.precision" in finding.advice

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nmore")

    monkeypatch.setattr(torch, "ones", refuse)
    finding = doctor._device(1)
    assert (finding.name, finding.verdict) == ("gpu 1", PROBLEM)
    assert finding.found == "cannot compute: CUDA error: all CUDA-capable devices are busy"


def test_backends_for_several_devices(tmp_path, monkeypatch):
    import torch

    finding = found(doctor.distributed, asked(tmp_path))["distributed"]
    assert (finding.verdict, "gloo" in finding.found) == (OK, True)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert found(doctor.distributed, asked(tmp_path))["distributed"].verdict == WARNING


def cluster(programs: Path) -> None:
    script(programs, "sbatch", "echo 'slurm 23.11.4'")
    script(
        programs,
        "scontrol",
        'if [ "$2" = config ]; then echo "MaxArraySize            = 1001"; '
        "else echo 'PartitionName=gpu AllowGroups=ALL'; echo 'PartitionName=long AllowGroups=ALL'; fi",
    )
    script(programs, "squeue", "echo 17; echo 18")
    script(programs, "sacct", "echo 12")


def test_slurm_that_answers(tmp_path, programs):
    cluster(programs)
    findings = found(doctor.slurm, asked(tmp_path))
    assert findings["slurm"].verdict == OK
    assert findings["slurm"].found == "slurm 23.11.4; partitions gpu, long; MaxArraySize 1001; jobs of yours: 2"
    assert findings["slurm accounting"].verdict == OK


def test_slurm_without_accounting_without_a_controller_and_one_that_hangs(tmp_path, programs, monkeypatch):
    question = asked(tmp_path)
    cluster(programs)
    script(programs, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    findings = found(doctor.slurm, question)
    assert findings["slurm"].verdict == OK
    assert findings["slurm accounting"].verdict == WARNING
    assert "storage is disabled" in findings["slurm accounting"].found
    script(programs, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    finding = found(doctor.slurm, question)["slurm"]
    assert (finding.verdict, "squeue does not answer" in finding.found) == (PROBLEM, True)
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.5)
    script(programs, "scontrol", "exec sleep 20")
    started = time.monotonic()
    finding = found(doctor.slurm, question)["slurm"]
    assert (finding.verdict, finding.found) == (PROBLEM, "scontrol does not answer: nothing within 0.5 s")
    assert time.monotonic() - started < 5
    (programs / "scontrol").unlink()
    if not shutil.which("scontrol"):
        assert "No such file" in found(doctor.slurm, question)["slurm"].found


def test_no_slurm_and_no_latex_are_no_fault(tmp_path, programs, monkeypatch):
    monkeypatch.setenv("PATH", str(programs))
    assert found(doctor.slurm, asked(tmp_path))["slurm"].verdict == ABSENT
    assert found(doctor.latex, asked(tmp_path))["latex"].verdict == ABSENT
    script(programs, "tectonic", "")
    assert found(doctor.latex, asked(tmp_path))["latex"] == Finding("latex", OK, str(programs / "tectonic"))


def test_every_finding_that_is_not_ok_says_what_to_do(tmp_path, programs, no_gpu):
    cluster(programs)
    question = replace(asked(tmp_path), site_refused="not valid YAML")
    for check in doctor.CHECKS:
        for finding in found(check, question).values():
            assert finding.verdict in (OK, ABSENT) or finding.advice, finding


def test_the_doctor_imports_nothing_heavy():
    code = "import sys; from experiments import doctor; print([m for m in ('torch', 'yaml', 'omegaconf', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_are_refused_before_the_site_is_read(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("runs_dir: [1")
    with pytest.raises(ConfigError, match="unknown key"):
        doctor.understand(["nothing=1"], run.runs_folder, site)
