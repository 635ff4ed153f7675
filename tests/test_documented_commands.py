"""Every command that README and docs show is one that the program takes; those that train are planned, none is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import command_line
import run as program
from benchmarks.__main__ import parse
from reports import specification_files
from sweeps.sweep_file import SWEEPS
from tests.conftest import write_images
from tests.test_documents import DOCUMENTS

COMMAND = re.compile(r"(?:python run\.py|torchrun --nproc-per-node=\d run\.py|python -m benchmarks) \S.*")
PLACES = {  # what stands for a user's own, in the order in which it is replaced
    "RUN,RUN": "search-nano-s0-00000000,search-nano-s1-00000000", "RUN_ID": "scenes-nano-s0-00000000",
    "RUN|FILE|SWEEP": "search", "results/runs/RUN/weights.safetensors": "weights.safetensors",
    "RUN": "search-nano-s0-00000000", "SWEEP": "search", "PROBE": "search", "NAME": "search", "LABEL": "search-smoke",
    "OTHER": "search-smoke", "FOLDER": "folder", "TEXT": "broken", "CHECKPOINT": "t.pth", "FILE": "xt.pth",
    "RATE": "1e-3", "[…]": "[axial,window]", "layer=…": "layer=layer_3_1", "--sections A,B,…": "--sections speed", "A,B,…": "atmnet_xt", "224,384,…": "224", "H,…": "none",
    "tiny|full": "tiny",
}  # fmt: skip
NUMBERS = {
    "N": "2",
    "PX": "64",
    "SECONDS": "60",
    "TYPE": "float32",
    "A": "atmnet_xt",
    "H": "none",
    "D": "cpu",
}  # of options
HEADS = {"resolution": "upernet", "segmentation": "upernet", "detection": "retinanet"}
TRAINED = ("experiment", "sweep")
NOT_PLANNED = ("--slurm", "--watch", "--background", "--nice", "--retry-failed")  # of a plan that starts nothing
WITH_VALUE = ("--max-parallel", "--jobs")
IMAGES = ("imagenet", "tiny_imagenet")  # recipes whose data set is made up here; others' roots are not looked into


def documented() -> Iterator[tuple[str, str]]:
    """(document:line, command) of code blocks, without what stands behind the command, and once more without options in
    brackets."""
    for path in DOCUMENTS:
        fenced = False
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("```"):
                fenced = not fenced
            if not (fenced or line.startswith("    ")) or not (match := COMMAND.match(line.strip())):
                continue
            shown = re.split(r"\s{2,}| #", match[0])[0].replace(" …", "").replace(" [key=value]", "")
            full = re.sub(r"(?<= )\[([^\]]*(?:\[[^\]]*\][^\]]*)*)\](?= |$)", r"\1", shown)
            for text in dict.fromkeys((full, re.sub(r" \[[^\]]*(?:\[[^\]]*\][^\]]*)*\](?= |$)", "", shown))):
                yield f"{path.name}:{number}", text


DOCUMENTED = list(documented())
OF_RUN = [pytest.param(text, id=place) for place, text in DOCUMENTED if "run.py" in text]
OF_BENCHMARKS = [pytest.param(text, id=place) for place, text in DOCUMENTED if "benchmarks" in text]


def words_of(text: str) -> list[str]:
    """A command's words, with something of the suite in the place of what stands for a user's own."""
    for place, instead in PLACES.items():
        text = re.sub(rf"(?<![A-Za-z_.]){re.escape(place)}(?![a-z])", lambda _, to=instead: to, text)
    _, _, after = text.partition("run.py " if "run.py" in text else "-m benchmarks ")
    words = shlex.split(after)
    return [NUMBERS.get(word, re.sub(r"=N$", "=2", word)) for word in words if word != "key=value"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("documented") / "images")


def test_there_are_many():
    assert len(OF_RUN) > 100 and len(OF_BENCHMARKS) > 20
    assert {Path(place.partition(":")[0]).name for place, _ in DOCUMENTED} >= {
        "README.md",
        "slurm.md",
        "own_ablation.md",
    }


@pytest.mark.parametrize("text", OF_RUN)
def test_the_program_takes_its_words(text, monkeypatch):
    """Command, options, which option goes with which command, keys and their values' form."""
    load = command_line._load
    functions = {row.function for row in program.COMMANDS.values()}
    called = []

    def instead(path):
        return (
            (lambda name, settings, options, *_: called.append((name, settings)) or 0)
            if path in functions
            else load(path)
        )

    monkeypatch.setattr(command_line, "_load", instead)
    assert command_line.dispatch(words_of(text), program.TABLES) == 0 and len(called) == 1


@pytest.mark.parametrize("text", OF_RUN)
def test_the_sweep_or_report_that_it_names_exists(text):
    word, _, name = words_of(text)[0].partition("=")
    if word in ("status", "price", "plan", "cancel", "collect", "prune", "sweep"):
        assert (SWEEPS / f"{name}.yaml").is_file() or name.endswith(".yaml")
    if word == "report":
        assert name in (*specification_files.known(), "mine") or name.endswith(".yaml")


@pytest.mark.slow
@pytest.mark.parametrize("text", [param for param in OF_RUN if words_of(param.values[0])[0].split("=")[0] in TRAINED])
def test_what_it_would_train_is_planned(text, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = words_of(text)
    for option in WITH_VALUE:
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    words = [word for word in words if word not in NOT_PLANNED]
    name = words[0].partition("=")[2]
    if name.startswith("~") or name.endswith(".yaml") or "mixer=" in text:
        pytest.skip("a file of a user's own: tests/test_own_ablation.py, tests/experiments/test_own_mixer.py have it")
    if any(word.startswith("init=") for word in words):
        pytest.skip("weights that are not here")
    own_images = [word for word in words if not word.startswith("data.root=")] + [f"data.root={tiny}"]
    has_images = name in IMAGES or (
        "protocol=tiny" in words and not name.startswith(("campaign_camvid", "campaign_bccd"))
    )
    if not has_images and any(word.startswith("data.root=") for word in words):
        pytest.skip("a data set that is not here")
    code = program.main([*(own_images if has_images else words), "--dry-run", f"runs_dir={tmp_path}"])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert shown.out and not (tmp_path / "search").exists()


@pytest.mark.parametrize("text", OF_BENCHMARKS)
def test_the_benchmarks_take_their_words(text, tmp_path):
    words = ["." if word == "PATH" else word for word in words_of(text)]
    words = [HEADS[words[0]] if word == "none" else word for word in words]
    assert parse(words).benchmark == words[0]
