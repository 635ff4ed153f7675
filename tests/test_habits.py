"""What users of timm, Hydra and Slurm type out of habit: it works, or one line says what to write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from errors import ConfigError
from experiments.completion import get
from experiments.config import ELSEWHERE, ROOT, every_key, merge, parse_overrides, resolve
from experiments.schema import FIELDS
from experiments.setting import read_time
from run import COMMANDS, HABITS, OPTIONS, main
from tests.conftest import SMALL


def said(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("24:00:00", 1440),
        ("30:00", 30),
        ("1-12", 2160),
        ("2-00:30", 2910),
        ("1-00:00:30", 1441),
        ("0:30", 1),
        ("90", 90),
    ],
)
def test_times_are_read_as_slurm_writes_them(text, minutes):
    given = parse_overrides([f"slurm.time_minutes={text}"])
    given["slurm.signal_seconds"] = 10
    assert resolve("scenes", given).slurm.time_minutes == minutes
    site = {"slurm": {"time_minutes": text, "signal_seconds": 10}}
    assert resolve("scenes", site=site).slurm.time_minutes == minutes


def test_every_setting_that_is_a_time_reads_one():
    times = [key for key, field in FIELDS.items() if field.metadata["unit"]]
    assert set(times) == {key for key in FIELDS if key.endswith(("_minutes", "_seconds"))}
    for key in times:
        unit = FIELDS[key].metadata["unit"]
        assert get(merge({key: "1:00:00"}), key) == {"minutes": 60, "seconds": 3600}[unit]
    assert get(merge({"machine.checkpoint_minutes": "0:30"}), "machine.checkpoint_minutes") == 0.5


@pytest.mark.parametrize("text", ["soon", "24:00:00:00", "1-", "-5:00", "1:2x"])
def test_no_other_text_is_a_time(text):
    assert read_time(text, "minutes") is None
    with pytest.raises(ConfigError, match=r"slurm\.time_minutes=.*30:00, 24:00:00 or 2-12 as Slurm writes it"):
        resolve("scenes", {"slurm.time_minutes": text})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.workers=010", 10),  # decimal, as every number is
        ("train.epochs=1e2", 100),
        ("data.image_size=64,96", [64, 96]),
        ("data.image_size=[64,96]", [64, 96]),
        ("augment.scale=0.5,1", [0.5, 1]),
        ("slurm.options=--exclude=a,b", ["--exclude=a,b"]),
        ("slurm.options=[--hold,--wait]", ["--hold", "--wait"]),
        ("slurm.setup=module load cuda", ["module load cuda"]),
        ("slurm.account=010", "010"),
        ("data.root=a,b", "a,b"),
        ("machine.compile=yes", True),
    ],
)
def test_a_value_is_read_by_the_type_of_its_key(word, value):
    key = word.partition("=")[0]
    assert get(merge(parse_overrides([word])), key) == value


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("lr=1e-3", "did you mean 'train.lr'"),
        ("epochs=3", "did you mean 'train.epochs'"),
        ("model.lr=1", "did you mean 'train.lr'"),
        ("batch-size=3", "did you mean 'train.batch_size'"),
        ("device=cpu", "did you mean 'machine.device'"),
        ("wd=0.1", "did you mean 'train.weight_decay'"),
        ("data-dir=/x", "did you mean 'data.root'"),
        ("hydra.run.dir=/x", "did you mean 'runs_dir'"),
        ("+train.lr=1", "write train.lr=1"),
        ("++train.lr=1", "write train.lr=1"),
        ("~train.lr", "no setting can be removed"),
        ("train.lr=${x}", "nothing is put in place of ${…}"),
        ("data.root=${oc.env:HOME}/x", "nothing is put in place of ${…}"),
        ("data.image_size=64", "height and width in pixels), e.g. data.image_size=224,224"),
        ("machine.device=gpu", "did you mean machine.device=cuda?"),
        ("train.precision=bf16", "did you mean train.precision=bfloat16?"),
        ("train.lr=1e-3,2e-3", "a run has one value; several are arms or seeds of a sweep"),
        ("seed=0,1,2", "seed=0,1,2: a run has one value"),
        ("model=xt,t", "a run has one model"),
        ("model=timm/resnet50.a1_in1k", "write model=timm/resnet50"),
        ("init=pretrained", "published weights are not downloaded"),
        ("train.optimizer=adamww", "did you mean 'adamw'"),
        ("augment.auto_augment=randd", "not a valid value"),
        ("data.reader=wdss/x", "not a valid value"),
    ],
)
def test_a_setting_out_of_habit_gets_a_line_that_says_what_to_write(word, names, tmp_path, capsys):
    code, out, err = said(capsys, "experiment=scenes", word, f"runs_dir={tmp_path}" if "runs" not in word else "seed=0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert names in err


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--seed", "3"], "write seed=3"),
        (["--seed=3"], "write seed=3"),
        (["--lr", "1e-3"], "write train.lr=1e-3"),
        (["--batch-size", "64"], "write train.batch_size=64"),
        (["--data-dir", "/x"], "write data.root=/x"),
        (["--model", "xt"], "write model=xt"),
        (["--arms", "zero,axial"], "write arms=zero,axial"),
        (["--time", "24:00:00"], "write slurm.time_minutes=24:00:00"),
        (["--partition", "gpu"], "write slurm.partition=gpu"),
        (["-m"], "several runs are a sweep"),
        (["--multirun"], "several runs are a sweep"),
        (["--cfg", "job"], "--dry-run prints the whole config"),
        (["--resume"], "the same command goes on"),
        (["--config", "a.yaml"], "config=FILE a saved config"),
        (["-j", "4"], "--jobs N"),
    ],
)
@pytest.mark.parametrize("command", ["experiment=scenes", "sweep=reach"])
def test_an_option_of_another_program_gets_a_line_that_says_what_to_write(command, words, names, capsys):
    code, out, err = said(capsys, command, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert names in err and "did you mean '--" not in err


def test_hints_name_what_there_is():
    assert set(ELSEWHERE.values()) <= set(every_key())
    for hint in HABITS.values():
        assert set(re.findall(r"--[a-z-]+", hint)) <= {*OPTIONS, "--json", "--help"}
        assert set(re.findall(r"([a-z.]+)=", hint)) <= {*COMMANDS, *every_key()}
    assert not set(HABITS) & set(OPTIONS)


@pytest.mark.parametrize(
    "words",
    [
        ["seeds=0,1", "arms=zero,axial"],
        ["seed=0,1", "arms=zero,axial"],
        ["seeds=[0,1]", "arms=[zero,axial]"],
    ],
)
def test_lists_need_no_brackets(words, tmp_path, capsys):
    code, out, err = said(
        capsys, "sweep=ablation_offsets", "protocol=smoke", *words, "--dry-run", "--json", f"runs_dir={tmp_path}"
    )
    assert code == 0, err
    assert {(row["arm"], row["seed"]) for row in json.loads(out)["runs"]} == {
        (arm, seed) for arm in ("zero", "axial") for seed in (0, 1)
    }


def test_tables_of_a_collection_need_no_brackets(tmp_path, capsys):
    code, out, _ = said(
        capsys, "sweep=paper", "protocol=smoke", "tables=table1,table8", "--dry-run", f"runs_dir={tmp_path}"
    )
    assert code == 0 and "table8" in out


@pytest.mark.parametrize("words", [["init=nope"], ["init=timm/resnet50"]])
def test_a_sweep_that_starts_from_weights_that_are_not_there_is_refused_when_it_is_planned(words, tmp_path, capsys):
    for more in (["--dry-run"], []):
        code, _, err = said(
            capsys, "sweep=reach", "protocol=smoke", "arms=zero", "--fresh", *words, *more, f"runs_dir={tmp_path}"
        )
        assert code == 2 and "init=" in err and err.count("\n") == 1, err


def test_a_sweep_for_slurm_without_a_data_root_is_refused_when_it_is_planned(tmp_path, capsys):
    code, _, err = said(
        capsys, "sweep=ablation_offsets", "arms=zero,axial", "--slurm", "--dry-run", f"runs_dir={tmp_path}"
    )
    assert code == 2 and "needs images: set data.root=PATH" in err


def test_version_names_version_and_commit(capsys):
    import atm

    code, out, _ = said(capsys, "--version")
    assert code == 0 and out.startswith(f"active-token-mixer {atm.__version__}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert not commit or commit[:8] in out


def test_help_of_a_command_describes_what_it_names(capsys):
    code, out, _ = said(capsys, "sweep=ablation_offsets", "--help")
    assert code == 0
    for part in ("--jobs N", "Question:", "protocol=smoke: recipe", "arms=zero,", "seeds=0,1,2", "model.offsets=token"):
        assert part in out, part
    assert "--undo" not in out
    code, out, _ = said(capsys, "experiment=search", "-h")
    assert code == 0 and "dataset: search" in out
    code, out, _ = said(capsys, "sweep=paper", "--help")
    assert code == 0 and "table8" in out
    assert said(capsys, "sweep", "--help")[0] == 0
    assert said(capsys, "experiment=serach", "--help")[0] == 2


def test_a_command_without_its_equals_sign_is_understood_as_far_as_to_say_so(capsys):
    assert "write sweep=reach" in said(capsys, "sweep", "reach")[2]


def test_a_saved_config_is_run_again(tmp_path, capsys):
    words = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    code, printed, err = said(
        capsys, "experiment=scenes", *words, "seed=7", "--dry-run", f"runs_dir={tmp_path / 'runs'}"
    )
    assert code == 0, err
    (tmp_path / "saved.yaml").write_text(printed)  # what --dry-run printed, and a frozen config alone
    run = re.search("^run: (.+)$", printed, re.MULTILINE)[1]
    code, out, err = said(capsys, f"config={tmp_path / 'saved.yaml'}", f"runs_dir={tmp_path / 'runs'}")
    assert code == 0 and run in out, err
    frozen = tmp_path / "runs" / run / "config.yaml"
    code, out, _ = said(capsys, f"config={frozen}", "--dry-run", "--json", f"runs_dir={tmp_path / 'runs'}")
    assert json.loads(out)["run"] == run
    code, out, _ = said(capsys, f"config={frozen}", "seed=8", "--dry-run", "--json", f"runs_dir={tmp_path / 'runs'}")
    assert "-s8-" in json.loads(out)["run"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("train: {lr: 1}\n", "for a recipe: experiment="),
        ("experiment: scenes\nlr: 3\n", "train.lr"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_saved_config_is_refused(text, names, tmp_path, capsys):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    code, _, err = said(capsys, f"config={tmp_path / 'a.yaml'}", f"runs_dir={tmp_path}")
    assert code == 2 and names in err and err.count("\n") == 1, err


def test_without_its_packages_the_program_says_how_to_use_the_environment(tmp_path):
    for package in ("omegaconf", "yaml"):
        code = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.modules[{package!r}] = None; import run; "
            "sys.exit(run.main(['list']))"
        )
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and "source .venv/bin/activate" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def completions(line):
    """What the shell would be offered for a line, by argcomplete's own protocol."""
    read, write = os.pipe()
    code = (
        f"import os, sys; os.dup2({write}, 8); sys.argv = ['run.py']; sys.path.insert(0, {str(ROOT)!r}); import run; "
        "from command_line import complete; complete(run.TABLES)"
    )
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_IFS": "\n",
    }
    environment |= {"_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, pass_fds=[write, read], capture_output=True, text=True
    )
    os.close(write)
    with Path(f"/dev/fd/{read}").open() as file:
        answer = file.read().split("\n")
    os.close(read)
    assert done.returncode == 0, done.stderr
    return answer


def test_a_shell_completes_commands_names_keys_and_values():
    pytest.importorskip("argcomplete")
    assert "sweep=" in completions("run.py sw")
    assert "sweep=ablation_offsets" in completions("run.py sweep=abl")
    assert "experiment=search" in completions("run.py experiment=s")
    assert "train.lr=" in completions("run.py experiment=scenes train.l")
    assert "model.offsets=axial" in completions("run.py experiment=scenes model.offsets=a")
    assert "--dry-run" in completions("run.py sweep=reach --dr")


def test_help_loads_nothing_that_completes_lines():
    assert version("argcomplete")
    code = "import sys, run; \ntry: run.main(['--help'])\nexcept SystemExit: print('argcomplete' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "False"
