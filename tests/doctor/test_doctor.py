"""The checks of a machine, each on a machine with the fault that it looks for, a real one wherever possible."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

import ask_program
import run
from doctor import data, examination, hardware, on_a_node, programs, software, storage
from doctor.finding import ABSENT, OK, PROBLEM, ROOT, WARNING, CheckInputs, Finding, guarded
from errors import ConfigError, DataError, SuiteError
from experiments.data import registry
from experiments.folder import provenance
from sweeps.slurm.cluster import Limits, Partition

NO_SITE = Path("/no/site.yaml")


def inputs_of(runs_dir: object, site: Path = NO_SITE, *words: str) -> CheckInputs:
    return examination.parse_inputs([*words, f"runs_dir={runs_dir}"], site)


def findings_of(check, inputs: CheckInputs) -> dict[str, tuple[str, str]]:
    """Verdict and text of the findings of one check by name, as ``examine`` returns them."""
    findings = list(guarded(check.__name__, lambda: check(inputs)))
    assert all(f.advice for f in findings if f.verdict != OK), findings  # there is always advice
    return {f.name: (f.verdict, f"{f.message} -> {f.advice}") for f in findings}


def expect(finding: tuple[str, str], verdict: str, *parts: str) -> None:
    assert (finding[0], *(part for part in parts if part in finding[1])) == (verdict, *parts), finding


def command_line(*words: str, options: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "run.py", "doctor", *words]
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, env=environment)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Creates a shell script of that name and text, first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, text: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    return make


@pytest.mark.slow
def test_a_whole_run_as_lines(tmp_path):
    done = command_line(f"runs_dir={tmp_path}", "experiment=scenes")
    *lines, summary = done.stdout.splitlines()
    verdicts = [line.split()[0] for line in lines]
    assert set(verdicts) <= {OK, WARNING, PROBLEM, ABSENT}
    assert (done.returncode, done.stderr) == (int(PROBLEM in verdicts), "")
    text = " ".join(done.stdout.split())
    for part in (" python ", " packages ", " code ", f" run folder {tmp_path}", "ok experiment scenes needs no images",
                 " memory ", " gpu ", "ok distributed gloo", " slurm ", " latex "):  # fmt: skip
        assert part in text
    assert summary.startswith(f"{verdicts.count(OK)} ok")
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_document_with_every_problem(tmp_path):
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open\\nshared object file')")
    done = command_line(f"runs_dir={tmp_path}/torch.py", "--json", PYTHONPATH=str(tmp_path))
    answer = json.loads(done.stdout)
    checks = {check["name"]: check for check in answer["checks"]}
    assert (done.returncode, answer["ok"], done.stderr) == (1, False, "")
    assert checks["run folder"]["verdict"] == PROBLEM
    assert "Not a directory" in checks["run folder"]["message"] and "runs_dir=PATH" in checks["run folder"]["advice"]
    assert checks["gpu"]["message"] == "torch cannot be imported: libcudart.so.13: cannot open shared object file"
    assert checks["slurm"]  # checks after a fault are still made


def test_a_python_without_any_package_is_told_so():
    done = command_line(options=("-S",))
    lines = {line[9:29].strip(): line for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr) == (1, "")
    assert lines["packages"].startswith(PROBLEM)
    assert "torch missing" in lines["packages"] and "requirements.lock" in lines["packages"]
    assert "No module named 'torch'" in lines["gpu"]
    assert not lines["run folder"].startswith(PROBLEM)


def test_torch_is_not_imported_before_the_check_of_the_gpu(tmp_path):
    code = (
        "import sys, run; from doctor import examination\n"
        "light = not {'torch', 'yaml', 'omegaconf'} & set(sys.modules)\n"
        "names = [check.__name__ for check in examination.CHECKS]\n"
        "examination.CHECKS = examination.CHECKS[:names.index('gpu')]\n"
        f"findings = examination.examine(['experiment=scenes', 'runs_dir={tmp_path}'])\n"
        "print(light, len(findings) > 9, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["doctor", "trian.epochs=3"], "'train.epochs'"),
        (["doctor", "train.epochs=3"], "add experiment=NAME"),
        (["doctor", "experiment=scense"], "'scenes'"),
        (["doctor", "experiment="], "unknown experiment ''"),
        (["doctor", "experiment=scenes", "data.image_size=x"], "data.image_size=x"),
        (["doctor=scenes"], "doctor experiment=scenes"),
    ],
)
def test_settings_that_no_run_takes_are_refused_before_anything_is_checked(words, names, monkeypatch, capsys):
    monkeypatch.setattr(examination, "CHECKS", ())
    assert run.main(words) == 2
    captured = capsys.readouterr()
    assert names in captured.err
    assert (len(captured.err.splitlines()), captured.out) == (1, "")


@pytest.mark.parametrize(("verdicts", "code"), [((OK, WARNING, ABSENT), 0), ((OK, PROBLEM, OK), 1)])
def test_only_a_problem_fails(verdicts, code, monkeypatch, capsys):
    monkeypatch.setattr(examination, "CHECKS", (lambda inputs: [Finding(v, v, "message", "act") for v in verdicts],))
    assert run.main(["doctor"]) == code
    *lines, _ = capsys.readouterr().out.splitlines()
    assert ["to do: act" in line for line in lines] == [verdict != OK for verdict in verdicts]
    assert run.main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["ok"] is (code == 0)


def test_a_check_that_breaks_is_a_problem_of_its_own_in_one_line():
    def check(inputs: CheckInputs) -> Iterator[Finding]:
        yield Finding("first", OK, "fine\nand \n good")
        raise ValueError("a\nb")

    findings = findings_of(check, CheckInputs(Path))
    expect(findings["first"], OK, "fine and good")
    expect(findings["check"], PROBLEM, "not checked: ValueError: a b")


def test_a_package_too_old_or_missing_is_named(tmp_path, monkeypatch):
    real, versions = software.version, {"timm": "1.0.2", "omegaconf": None, "mypy": None}
    monkeypatch.setattr(software, "version", lambda name: versions.get(name, real(name)))
    findings = findings_of(software.packages, inputs_of(tmp_path))
    expect(findings["packages"], PROBLEM, "timm 1.0.2 (needed >=1.0.31)", "omegaconf missing")
    expect(findings["development packages"], WARNING, "mypy missing")


def test_versions_other_than_the_locked_ones_are_named(tmp_path, monkeypatch):
    inputs = inputs_of(tmp_path)
    locked = (
        "# numpy==1\nnot-here==1\ntorch==2.7.0\nrich==1.0 ; python_version < '3'\nrich==15.0 ; python_version > '3'"
    )
    (tmp_path / "requirements.lock").write_text(locked)
    monkeypatch.setattr(software, "ROOT", tmp_path)
    for rich, verdict, words in (("15.0", OK, "0 of 2"), ("13.8", WARNING, "1 of 2 installed packages differ")):
        monkeypatch.setattr(software, "version", {"torch": "2.7.0+cpu", "rich": rich}.get)
        expect(findings_of(software.locked_versions, inputs)["locked versions"], verdict, words)


def test_a_python_that_is_too_old(tmp_path, monkeypatch):
    assert (
        f'requires-python = ">={".".join(map(str, software.OLDEST_PYTHON))}"' in (ROOT / "pyproject.toml").read_text()
    )
    expect(findings_of(software.python, inputs_of(tmp_path))["python"], OK)
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    expect(findings_of(software.python, inputs_of(tmp_path))["python"], PROBLEM)


def test_code_that_was_changed_and_code_without_git(tmp_path, monkeypatch):
    (tmp_path / "atm").mkdir()
    for path in ("atm/a.py", "run.py"):
        (tmp_path / path).write_text("a = 1\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    expect(findings_of(software.code, inputs_of(tmp_path))["code"], OK)
    (tmp_path / "atm" / "a.py").write_text("a = 2\n")
    expect(findings_of(software.code, inputs_of(tmp_path))["code"], WARNING, "changed since")
    monkeypatch.setenv("PATH", str(tmp_path))
    expect(findings_of(software.code, inputs_of(tmp_path))["code"], WARNING, "no git")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("runs_dir: [1", "not valid YAML"),
        ("run_dir: /x", "'runs_dir'"),
        ("machine: {treads: 3}", "'machine.threads'"),
        ("data: /datasets", "data must hold keys"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (None, "is a folder, not a regular file"),
    ],
)
def test_a_site_file_that_cannot_be_used(tmp_path, text, names):
    site = tmp_path / "site.yaml"
    site.mkdir() if text is None else site.write_bytes(text if isinstance(text, bytes) else text.encode())
    expect(findings_of(data.site, inputs_of(tmp_path, site))["site"], PROBLEM, names)
    # the other checks continue without it
    assert {verdict for verdict, _ in findings_of(data.data, inputs_of(tmp_path, site)).values()} == {ABSENT}


def test_no_site_file_is_no_fault_and_the_example_is_valid(tmp_path):
    expect(findings_of(data.site, inputs_of(tmp_path))["site"], ABSENT)
    expect(
        findings_of(data.site, inputs_of(tmp_path, ROOT / "site.example.yaml"))["site"],
        OK,
        "sets runs_dir, data, machine",
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Class folders; of images, the doctor reads the names only."""
    for split, count in (("train", 8), ("val", 4)):
        for label in range(3):
            folder = tmp_path / "images" / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{number}.{'JPEG' if number else 'png'}").touch()
    (tmp_path / "images" / "train" / "class0" / "notes.txt").touch()
    return tmp_path / "images"


# data sets that recipes use, but the tests' images are not
ELSEWHERE = ("data ade20k", "data bccd", "data camvid", "data coco", "data imagenet")


def site_with(folder: Path, **entries: object) -> Path:
    (folder / "site.yaml").write_text(json.dumps({"data": entries}))
    return folder / "site.yaml"


def test_images_are_counted_and_missing_or_unknown_data_sets_are_named(tmp_path, images, monkeypatch):
    root = {"root": str(images)}
    inputs = inputs_of(tmp_path, site_with(tmp_path, tiny_imagenet=root, tiny=root))
    findings = findings_of(data.data, inputs)
    expect(findings["data tiny_imagenet"], OK, f"{images}: 3 classes, 24 train images, 12 validation images")
    expect(findings["data imagenet"], ABSENT, "data.imagenet in site.yaml")
    expect(findings["data tiny"], WARNING, "no recipe uses tiny")
    monkeypatch.setattr(data, "COUNT_SECONDS", -1)
    expect(findings_of(data.data, inputs)["data tiny_imagenet"], OK, "more than 8 train images")


@pytest.mark.parametrize(
    ("names", "entry", "damage"),
    [
        ("no such", {"root": "/no/such/place"}, None),
        ("different classes", {}, lambda images: shutil.rmtree(images / "val" / "class1")),
        ("no folder for the validation split", {}, lambda images: shutil.rmtree(images / "val")),
        (
            "no image can be seen in 1 folders: validation/class2",
            {},
            lambda images: [image.unlink() for image in (images / "val" / "class2").iterdir()],
        ),
        ("must hold keys", "/datasets", None),
        ("'data.root'", {"rooot": "/datasets"}, None),
        ("decides a run's numbers", {"num_classes": 3}, None),
    ],
)
def test_a_data_root_that_no_run_could_use(tmp_path, images, names, entry, damage):
    if damage:
        damage(images)
    entry = {"root": str(images), **entry} if isinstance(entry, dict) else entry
    findings = findings_of(data.data, inputs_of(tmp_path, site_with(tmp_path, tiny_imagenet=entry)))
    expect(findings["data tiny_imagenet"], PROBLEM, names)
    # one bad root does not prevent the check of others
    assert findings.keys() == {*ELSEWHERE, "data tiny_imagenet"}


def test_the_data_of_an_experiment(tmp_path, images):
    def check(*words: str) -> dict[str, tuple[str, str]]:
        return findings_of(data.data, inputs_of(tmp_path, NO_SITE, *words))

    tiny = ("experiment=tiny_imagenet", f"data.root={images}")
    others = dict.fromkeys(ELSEWHERE, ABSENT)
    assert {name: verdict for name, (verdict, _) in check(*tiny).items()} == {"experiment": OK, **others}
    expect(check(*tiny, "data.num_classes=7")["experiment"], PROBLEM, "holds 3 classes")
    expect(check("experiment=tiny_imagenet")["experiment"], PROBLEM, "set data.root=PATH")
    expect(check("experiment=scenes", "init=/no/weights.pth")["experiment"], PROBLEM, "no such file")


def test_a_data_set_of_the_registry_is_checked_by_its_own_check(tmp_path, images, monkeypatch):
    """Its folders are its own: images are not looked for in class folders."""
    monkeypatch.setitem(
        registry.DATASETS, "tiny_imagenet", registry.DatasetEntry("tests.doctor.test_doctor:check_pairs", "")
    )
    (tmp_path / "pairs").mkdir()
    findings = findings_of(
        data.data, inputs_of(tmp_path, site_with(tmp_path, tiny_imagenet={"root": str(tmp_path / "pairs")}))
    )
    expect(findings["data tiny_imagenet"], PROBLEM, "holds no masks")
    (tmp_path / "pairs" / "masks").mkdir()
    findings = findings_of(
        data.data, inputs_of(tmp_path, site_with(tmp_path, tiny_imagenet={"root": str(tmp_path / "pairs")}))
    )
    expect(findings["data tiny_imagenet"], OK, f"{tmp_path / 'pairs'}; a run checks its images")


def check_pairs(config) -> None:
    if not (Path(config.data.root) / "masks").is_dir():
        raise DataError(f"{config.data.root} holds no masks")


def test_an_experiment_on_a_backbone_of_timm(tmp_path, images):
    words = ("experiment=tiny_imagenet", "model=timm/resnet10t", f"data.root={images}")
    expect(findings_of(data.data, inputs_of(tmp_path, NO_SITE, *words))["experiment"], OK, "3 classes")
    with pytest.raises(ConfigError, match=r"timm/resnet10t"):
        inputs_of(tmp_path, NO_SITE, "experiment=tiny_imagenet", "model=timm/resnet10")


def test_a_run_folder_that_can_be_made_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SLOW_SYNC_SECONDS", 60)
    site = tmp_path / "site.yaml"
    site.write_text(f"runs_dir: {tmp_path / 'of the site'}\n")
    inputs = examination.parse_inputs([], site)
    expect(findings_of(storage.run_folder, inputs)["run folder"], OK, f"{tmp_path / 'of the site'}, to be made")
    assert list(tmp_path.iterdir()) == [site]


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/runs", "~nobody_of_that_name/runs"])
def test_a_run_folder_that_cannot_be(place):
    expect(next(iter(findings_of(storage.run_folder, inputs_of(place)).values())), PROBLEM)


def test_a_disk_that_is_full_slow_or_in_memory(tmp_path, monkeypatch):
    inputs, inodes_are_counted = inputs_of(tmp_path), bool(os.statvfs(tmp_path).f_files)
    monkeypatch.setattr(storage, "SLOW_SYNC_SECONDS", 0)
    monkeypatch.setattr(storage, "SCARCE", ((PROBLEM, 0, 0), (WARNING, 10**20, 0)))
    findings = findings_of(storage.run_folder, inputs)
    expect(findings["run folder"], WARNING, "less busy")
    expect(findings["disk"], WARNING, "another disk")
    monkeypatch.setattr(storage, "SCARCE", ((PROBLEM, 0, 10**20),))
    assert (findings_of(storage.run_folder, inputs)["disk"][0] == PROBLEM) is inodes_are_counted
    monkeypatch.setattr(storage, "SCARCE", ())
    monkeypatch.setattr(storage, "ask", lambda *_: (True, "tmpfs"))
    expect(findings_of(storage.run_folder, inputs)["disk"], WARNING, "reboot")
    monkeypatch.setattr(storage.atomic_file, "write", lambda *_: None)  # as if any process could make the file anew
    expect(findings_of(storage.run_folder, inputs)["run folder"], PROBLEM, "two processes")
    assert list(tmp_path.iterdir()) == []


def test_limits_that_are_too_low(tmp_path, monkeypatch):
    for limit in ("LEAST_MEMORY", "LEAST_SHARED_MEMORY", "LEAST_OPEN_FILES"):
        monkeypatch.setattr(hardware, limit, 10**20)
    findings = findings_of(hardware.machine, inputs_of(tmp_path))
    for name, advice in {"memory": "batch_size", "shared memory": "--shm-size", "open files": "ulimit -n"}.items():
        expect(findings[name], WARNING, advice)


def test_a_gpu_that_torch_does_not_see(tmp_path, program, monkeypatch):
    import torch

    def gpu(verdict: str, *parts: str) -> None:
        expect(findings_of(hardware.gpu, inputs)["gpu"], verdict, *parts)

    inputs = inputs_of(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program("nvidia-smi", "echo '550.54, NVIDIA H100 80GB HBM3'")
    gpu(PROBLEM, "550.54, NVIDIA H100", "update the driver")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu(PROBLEM, "unset CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: warnings.warn("old driver", stacklevel=1))
    gpu(PROBLEM, "torch warns: old driver", "update the driver")
    monkeypatch.setattr(torch.version, "cuda", None)
    gpu(PROBLEM, "build with CUDA")
    program("nvidia-smi", "echo 'No devices were found'; exit 6")
    gpu(WARNING, "No devices were found")
    (tmp_path / "nvidia-smi").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu(ABSENT, "runs go on the CPU")


def test_gpus_that_torch_sees(tmp_path, monkeypatch):
    import torch

    def compute(*_: object, **__: object) -> torch.Tensor:
        if len(chosen) % 2:
            return torch.zeros(1)
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nmore")

    chosen: list[int] = []
    t4 = SimpleNamespace(name="Tesla T4", total_memory=16 * 10**9)
    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "device": lambda index: chosen.append(index) or nullcontext(),
        "get_device_properties": lambda index: t4,
        "is_bf16_supported": lambda including_emulation: False,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch, "ones", compute)
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: True)
    findings = findings_of(hardware.gpu, inputs_of(tmp_path))
    expect(findings["gpu"], OK, "2; torch")
    expect(findings["gpu 0"], WARNING, "Tesla T4, 16.0 GB, no bfloat16", "train.precision")
    expect(findings["gpu 1"], PROBLEM, "devices are busy ->")
    expect(findings["distributed"], OK, "gloo and nccl: devices=N can be used, on GPUs up to devices=2")
    monkeypatch.setattr(torch.distributed, "is_backend_available", lambda name: name == "gloo")
    expect(findings_of(hardware.gpu, inputs_of(tmp_path))["distributed"], WARNING, "no nccl")


def test_slurm_that_answers_in_part_in_full_and_not_at_all(tmp_path, program, monkeypatch):
    inputs = inputs_of(tmp_path)
    program("sbatch", "echo 'slurm 23.11.4'")
    program("squeue", "echo 17; echo 18")
    program("sacct", "echo 'accounting storage is disabled' >&2; exit 1")
    program("scontrol", 'if [ "$2" = config ]; then echo "MaxArraySize            = 1001"; '
           "else echo 'PartitionName=gpu AllowGroups=ALL'; echo 'PartitionName=long AllowGroups=ALL'; fi")  # fmt: skip
    expect(findings_of(programs.slurm, inputs)["slurm"], WARNING, "storage is disabled", "nothing")
    program("sacct", "echo 12")
    words = "slurm 23.11.4; partitions: gpu, long; MaxArraySize 1001; jobs of yours: 2; sacct answers"
    expect(findings_of(programs.slurm, inputs)["slurm"], OK, words)
    program("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    monkeypatch.setattr(ask_program, "ANSWER_SECONDS", 0.5)
    program("scontrol", "exec sleep 200")
    expect(findings_of(programs.slurm, inputs)["slurm"], PROBLEM, "Unable to contact", "timed out")


def test_on_a_node_the_doctor_gets_what_runs_of_the_site_get(tmp_path, monkeypatch):
    site = tmp_path / "site.yaml"
    site.write_text(
        "machine: {devices: 8}\nslurm: {nodes: 2, partition: gpu, account: vision, mem_gb: 3, time_minutes: 24:00:00, "
        "python: apptainer exec box.sif python3, setup: [module load apptainer], options: [--exclusive]}\n"
    )
    monkeypatch.setattr(on_a_node, "Cluster", lambda: SimpleNamespace(limits=lambda: LIMITS))
    monkeypatch.setattr(on_a_node, "parse_inputs", lambda words: examination.parse_inputs(words, site))
    *options, bash, flag, script = on_a_node.job(["experiment=scenes", "data.workers=3"], as_json=True)
    assert options[0] == "srun" and [bash, flag] == ["bash", "-c"]
    given = {"--nodes=1", "--ntasks=1", "--gpus-per-node=1", "--partition=gpu", "--account=vision", "--mem=3072M"}
    assert {*given, "--time=10", "--cpus-per-task=4", "--exclusive"} <= set(options)
    load, doctor = script.splitlines()
    assert load == "module load apptainer" and doctor.startswith("exec sh -c ") and "box.sif sh -c" in doctor
    assert doctor.endswith(f"python3 {ROOT / 'run.py'} doctor experiment=scenes data.workers=3 --json")
    assert on_a_node.job([], as_json=False)[-1].endswith("run.py doctor")
    site.write_text("slurm: {partition: gpus}\n")
    with pytest.raises(SuiteError, match="unknown partition 'gpus'; did you mean 'gpu'"):
        on_a_node.job([], as_json=False)


LIMITS = Limits(1001, {"gpu": Partition("gpu", default=True, up=True, max_minutes=None)}, frozenset())


def test_no_slurm_and_no_latex_are_no_fault(tmp_path, program, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    expect(findings_of(programs.slurm, inputs_of(tmp_path))["slurm"], ABSENT)
    expect(findings_of(programs.latex, inputs_of(tmp_path))["latex"], ABSENT)
    program("tectonic", "")
    expect(findings_of(programs.latex, inputs_of(tmp_path))["latex"], OK, str(tmp_path / "tectonic"))


@pytest.mark.slow
def test_sampling_without_a_compiler_is_slower_and_says_what_to_do(tmp_path):
    checks_of_sampler = []
    for settings in ({}, {"CXX": str(tmp_path / "g++")}):
        done = command_line(f"runs_dir={tmp_path}", "--json", **settings)
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        checks_of_sampler.append(checks["sampler, cpu"])
    fast, slow = checks_of_sampler
    assert (fast["verdict"], fast["message"].split()[0]) == (OK, "native")
    assert (slow["verdict"], slow["message"]) == (WARNING, f"eager (no C++ compiler ({tmp_path / 'g++'}) was found)")
    assert "install g++" in slow["advice"]
