"""The command line as a person types it, right and wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from experiments.config import ROOT
from measurements import complexity as counting
from results import counts, recipes
from run import COMMANDS, OPTIONS, main

SMALL = ["data.image_size=[64,64]", "data.train_images=16", "data.eval_images=2", "train.batch_size=8", "train.epochs=1",
         "train.warmup_epochs=0", "machine.threads=1"]  # fmt: skip


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "run.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["experimnt=scenes"], "'experiment'"),
        (["experiment="], "which one"),
        ([], "which command"),
        (["list", "model=xt"], "takes no 'model=xt'"),
        (["sweep=ablation_offsets", "arms=3"], "unknown arm of sweep ablation_offsets '3'"),
        (["report=ablation_offsets", "measured=2022"], "unknown measured results '2022'"),
        (["sweep=ablation_offsets", "--dry-rum"], "'--dry-run'"),
        (["sweep=ablation_offsets", "--jobs", "two"], "invalid int value: 'two'"),
        (["experiment=scense"], "'scenes'"),
        (["experiment=scenes", "trian.epochs=3"], "'train.epochs'"),
        (["experiment=scenes", "train.epochs"], "key=value"),
        (["experiment=scenes", "model=nono"], "'nano'"),
        (["experiment=scenes", "model=resnet50"], "timm/resnet50"),
        (["sweep=ablation_peg", "status=ablation_peg"], "two commands"),
        (["experiment=../recipes/scenes"], "unknown experiment '../recipes/scenes'"),
        (["sweep=../sweeps/reach"], "unknown sweep '../sweeps/reach'"),
        (["report=../specs/paper"], "unknown report or run '../specs/paper'"),
        (["report=../specs/paper", "measured=all"], "unknown report '../specs/paper'"),
        (["experiment=scenes", "slurm.account=a\nb"], "control character"),
        (["sweep=reach", "protocol=smoke", "runs_dir=x\ny"], "control character"),
        (["sweep=ablation_offset"], "'ablation_offsets'"),
        (["sweep=ablation_offsets", "arms=[axail]"], "'axial'"),
        (["sweep=ablation_offsets", "protocol=papr"], "'paper'"),
        (["sweep=ablation_offsets", "protocol=smoke", "seeds=3"], "seeds=[0,1,2]"),
        (["sweep=ablation_offsets", "--jobs", "0"], "at least 1"),
        (["experiment=scenes", "--slurm"], "--slurm goes with sweep=, price= and doctor, not with experiment"),
        (["report=ablation_offsets", "--jobs", "2"], "--jobs goes with sweep=, not with report"),
        (["logs=scenes", "protocol=smoke"], "takes runs_dir=PATH and nothing else"),
        (["sweep=ablation_offsets"], "needs images: set data.root=PATH"),
        (["status=ablation_pag"], "'ablation_peg'"),
        (["report=ablation_offset"], "'ablation_offsets'"),
        (["experiment=imagenet"], "needs images: set data.root=PATH"),
        (["experiment=tiny_imagenet", "data.root=/no/such/place"], "no such file or folder"),
        (["experiment=imagenet_384", "data.root=/"], "init=RUN_ID"),
        (["experiment=scenes_256"], "init=RUN_ID"),
        (["experiment=scenes_256", "init=scenes-nano-s0-00000000"], "init=scenes-nano-s0-00000000: no such run in"),
        (["sweep=resolution_384", "arms=[384]"], "'384' starts from '224', so '224' must be among them"),
        (["experiment=scenes", "runs_dir=/dev/null"], "cannot write"),
        (["experiment=scenes", "devices=0"], "machine.devices=0: must be at least 1"),
        (["experiment=scenes", "devices=9"], "a batch of 8 images is enough for at most 8"),
        (["experiment=scenes", "machine.batch_per_device=0"], "must be at least 1"),
        (["experiment=scenes", "device=2"], "did you mean 'machine.device' or 'devices'"),
        (["experiment=scenes", "--forse"], "'--force'"),
    ],
)
def test_a_wrong_command_gets_one_line_and_exit_code_2(words, names, capsys):
    assert_refused(main(words), *capsys.readouterr(), names)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["sweep=ablation_offsets", "--dry-rum"], "'--dry-run'"),
        (["experiment=scenes", "model=resnet50"], "timm/resnet50"),
        pytest.param(["experiment=scenes", "data.image_size=[65,64]"], "multiple", marks=pytest.mark.slow),
    ],
)
def test_a_process_of_its_own_says_no_more(words, names, tmp_path):
    done = run(*words, f"runs_dir={tmp_path}")
    assert_refused(done.returncode, done.stdout, done.stderr, names)


def assert_refused(code, out, err, names):
    assert code == 2, err
    assert names in err
    assert len(err.splitlines()) == 1
    assert out == ""


HEAVY = ("torch", "timm", "pandas", "numpy", "matplotlib", "rich", "omegaconf", "yaml")
PLANNING = ("omegaconf", "yaml")


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["--help"], ()),
        (["list"], PLANNING),
        (["sweep=ablation_offsets", "protocol=smoke", "--dry-run"], PLANNING),
        (["status=ablation_offsets", "protocol=smoke"], PLANNING),
        (["experiment=scenes", "--dry-run"], PLANNING),
    ],
)
def test_commands_that_answer_at_once_import_nothing_heavy(words, allowed, tmp_path):
    if "--help" not in words and words != ["list"]:
        words = [*words, f"runs_dir={tmp_path}"]
    code = (
        "import sys, run\n"
        f"try: run.main({words!r})\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(eval(done.stderr)) <= set(allowed)


def test_help_names_every_command_and_option():
    text = run("--help").stdout
    for command, row in COMMANDS.items():
        assert all(form.startswith(command) for form in row.usage)
        assert all(f"run.py {form} " in text for form in row.usage), command
    assert all(f"\n  {option} " in text for option in OPTIONS)


def test_the_page_of_commands_names_every_command_and_no_other():
    text = (ROOT / "docs" / "commands.md").read_text()
    assert set(re.findall(r"run\.py ([a-z]+)\b", text)) <= set(COMMANDS)
    assert [word for word in COMMANDS if f"`{word}=" not in text and f"run.py {word}" not in text] == []


def test_list_as_json_is_one_document_with_a_line_for_everything():
    listed = json.loads(run("list", "--json").stdout)
    assert set(listed) == {"experiment", "sweep", "report"}
    assert all(line for entries in listed.values() for line in entries.values())


def test_dry_run_starts_nothing(tmp_path):
    words = ["sweep=ablation_offsets", "protocol=smoke", "--dry-run", "--fresh", "--json"]  # whatever is measured
    done = run(*words, f"runs_dir={tmp_path}")
    plan = json.loads(done.stdout)
    assert len(plan["runs"]) == 24
    assert {row["state"] for row in plan["runs"]} == {"not run"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_run_from_the_command_line(tmp_path):
    words = ["experiment=scenes", *SMALL, f"runs_dir={tmp_path}"]
    first = run(*words, "--json")
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert summary["step"] == 2
    again = run(*words)
    assert summary["run"] in again.stdout
    assert "token_accuracy" in again.stdout


@pytest.mark.slow
def test_complexity_prints_every_row_and_the_committed_counts_are_those_of_the_models(tmp_path, monkeypatch, capsys):
    """Both commands count every model, which takes 50 seconds, so here the second takes the counts of the first."""
    count, known = counting.count_network, {}

    def counted_once(*model):
        key = json.dumps(model)
        if key not in known:
            known[key] = count(*model)
        return known[key]

    monkeypatch.setattr(counting, "count_network", counted_once)
    assert main(["complexity", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == len(known) >= 15
    committed = counts.COUNTED
    monkeypatch.setattr(counts, "COUNTED", tmp_path / "counted.csv")
    of_recipes = recipes.RECIPES
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "recipes.csv")
    assert main(["collect=complexity"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'counted.csv'}\n{tmp_path / 'recipes.csv'}\n"
    assert (tmp_path / "recipes.csv").read_text() == of_recipes.read_text()
    assert (tmp_path / "counted.csv").read_text().splitlines() == committed.read_text().splitlines()


@pytest.mark.slow
def test_one_run_on_two_devices_gives_one_document(tmp_path):
    done = run("experiment=scenes", *SMALL, "devices=2", f"runs_dir={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["devices"], summary["step"]) == (2, 2)
    assert done.stderr.count("epoch 1/1") == 1, "the first process speaks for all"
