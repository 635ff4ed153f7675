"""docs/own_parts.md: the changes that it shows, applied to a copy of the tree, make parts that a run can use."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from experiments.config import ROOT, parse_overrides, resolve
from experiments.data.registry import check_root
from experiments.identity import run_id
from run import main
from tests.conftest import write_images

BLOCKS = re.findall(r"^```diff\n(.*?)^```", (ROOT / "docs" / "own_parts.md").read_text(), re.MULTILINE | re.DOTALL)
SOURCES = ("atm", "experiments", "sweeps", "measurements", "results", "reports")
SMALL = ["train.epochs=1", "train.warmup_epochs=0", "data.train_images=8", "train.batch_size=4", "data.workers=0"]
SMALL += ["data.image_size=64,64", "machine.threads=1", "model=nano"]


def changes(block: str) -> list[tuple[str, str, str]]:
    """Of a block: file, the lines there, and the lines in their place."""
    parts = re.split(r"^# (\S+)\n", block, flags=re.MULTILINE)[1:]
    found = []
    for file, lines in zip(parts[::2], parts[1::2]):
        before = "".join(f"{line[1:]}\n" for line in lines.splitlines() if line[:1] != "+")
        after = "".join(f"{line[1:]}\n" for line in lines.splitlines() if line[:1] != "-")
        found.append((file, before, after))
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_every_change_of_the_page_names_lines_that_are_there_once(block):
    for file, before, after in changes(block):
        assert before and before != after
        assert (ROOT / file).read_text().count(before) == 1, f"{file} has changed: docs/own_parts.md shows {before!r}"


@pytest.mark.slow
def test_a_run_uses_all_parts_of_the_page_and_the_ids_of_others_stay(tmp_path):
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "measured", "runs", "pages")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for file in ROOT.glob("*.py"):
        shutil.copy(file, copy)
    for block in BLOCKS:
        for file, before, after in changes(block):
            text = (copy / file).read_text()
            (copy / file).write_text(text.replace(before, after))
    images = write_images(tmp_path / "images", classes=4)
    words = ["experiment=tiny_imagenet", f"data.root={images}", f"runs_dir={tmp_path / 'runs'}", *SMALL]
    own = ["train.schedule=tanh", "model.offsets=even", "--json"]

    def run(*more: str) -> dict[str, object]:
        command = [sys.executable, "run.py", *words, *more]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    metrics = run(*own)["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["eval/top1"] <= metrics["eval/top3"] <= metrics["eval/top5"] == 100.0
    assert "tanh" in (next((tmp_path / "runs").glob("tiny_imagenet-*")) / "config.yaml").read_text()
    config = resolve("tiny_imagenet", parse_overrides([f"data.root={images}", *SMALL]))
    check_root(config)
    assert run("--dry-run", "--json")["run"] == run_id(config)


@pytest.mark.slow
def test_the_recipe_of_the_page_trains_on_class_folders(tmp_path):
    (recipe,) = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "docs" / "own_parts.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "birds.yaml").write_text(recipe)
    images = write_images(tmp_path / "images", classes=4)
    words = [f"experiment={tmp_path / 'birds.yaml'}", f"data.root={images}", f"runs_dir={tmp_path / 'runs'}"]
    assert main([*words, "train.epochs=1", "train.warmup_epochs=0", "train.batch_size=4", "data.workers=0"]) == 0
    (config,) = (tmp_path / "runs").glob("birds-*/config.yaml")
    assert "dataset: birds" in config.read_text() and "num_classes: 4" in config.read_text()
