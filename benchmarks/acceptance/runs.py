"""Runs of the suite on the device: killed and resumed under deterministic algorithms, and a minute of protocol tiny."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torchvision.io import write_jpeg

from benchmarks.acceptance.outcomes import CheckedDevice, CheckResult
from errors import RunFailed
from experiments.config import ROOT, resolve
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.launch import command
from run_format import METRICS, STATE, WEIGHTS

DRAWN_CLASSES = 20
MINUTE_S = 60.0
SAID = "said.txt"  # standard error of the run's processes
COMPARED = (METRICS, WEIGHTS)


def killed_and_resumed(place: CheckedDevice) -> list[CheckResult]:
    """A run that is killed by SIGKILL after a checkpoint and started again ends with the bits of one that is not."""
    settings = {
        "data.image_size": [64, 64],
        "data.train_images": 32,
        "data.eval_images": 4,
        "model.drop_path": 0.2,
        "train.batch_size": 8,
        "train.epochs": 3 if place.tiny else 20,
        "train.warmup_epochs": 0,
        "train.ema_decay": 0.9,
        "train.deterministic": True,
        "machine.checkpoint_minutes": 0,
    }
    with tempfile.TemporaryDirectory() as path:
        undisturbed, folder = (_frozen(Path(path) / name, "scenes", settings, place) for name in ("whole", "killed"))
        with _started(undisturbed) as whole, _started(folder) as first:
            while not list(folder.checkpoints.glob("step-*.json")):
                if first.poll() is not None:
                    raise RunFailed(f"the run ended before it could be killed: {_last_line(folder)}")
                time.sleep(0.02)
            first.kill()
            first.wait()
            step = folder.read_json(STATE).get("step")
            with _started(folder) as second:
                for each, process in ((undisturbed, whole), (folder, second)):
                    if process.wait() != 0:
                        raise RunFailed(f"a run ended with code {process.returncode}: {_last_line(each)}")
        whole_files, files = ([(each.path / name).read_bytes() for name in COMPARED] for each in (undisturbed, folder))
    differing = [name for name, one, other in zip(COMPARED, whole_files, files) if one != other]
    detail = f"killed at step {step}; {' and '.join(differing)} differ" if differing else f"killed at step {step}"
    return [CheckResult("the same bits", not differing, detail)]


def minute_of_tiny(place: CheckedDevice) -> list[CheckResult]:
    """Protocol tiny with the published mixer for a minute, on drawn images in the layout of Tiny-ImageNet.

    Held if the run ends by itself, or by the signal after a minute, with a finite loss that is lower than at first.
    """
    images = 4 if place.tiny else 100
    with tempfile.TemporaryDirectory() as path:
        _draw(Path(path) / "images", images)
        settings = {
            "data.root": str(Path(path) / "images"),
            "data.num_classes": DRAWN_CLASSES,
            "data.workers": 0 if place.tiny else 2,
            "train.batch_size": 16 if place.tiny else 64,
            "train.epochs": 2 if place.tiny else 1000,
            "train.warmup_epochs": 0,
            "train.precision": "bfloat16",
        }
        folder = _frozen(Path(path) / "runs", "tiny_imagenet", settings, place)
        with _started(folder) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(MINUTE_S)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            if process.wait() not in (0, 128 + signal.SIGTERM):
                raise RunFailed(f"the run ended with code {process.returncode}: {_last_line(folder)}")
        rows = [json.loads(line) for line in (folder.path / METRICS).read_text().splitlines()]
        state = folder.read_json(STATE)
    losses = [row["train/loss"] for row in rows]
    falls = all(map(isfinite, losses)) and losses[-1] < losses[0]
    rate = state.get("images_per_s")
    speed = f", {rate:.0f} images/s" if rate else ""
    return [CheckResult("", falls, f"{state.get('step')} steps{speed}, loss {losses[0]:.3f} to {losses[-1]:.3f}")]


def _frozen(runs_dir: Path, recipe: str, settings: dict[str, Any], place: CheckedDevice) -> RunFolder:
    threads = {"machine.threads": 1} if not place.on_gpu else {}
    config = resolve(recipe, {**settings, **threads, "machine.device": place.device_name})
    folder = RunFolder(runs_dir / run_id(config))
    folder.freeze(config)
    return folder


@contextmanager
def _started(folder: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    """The run's process, which is killed if it is left before it ends."""
    with (folder.path / SAID).open("ab") as said:
        process = subprocess.Popen(command(folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _last_line(folder: RunFolder) -> str:
    return ((folder.path / SAID).read_text().strip().splitlines() or ["it said nothing"])[-1]


def _draw(root: Path, images: int) -> None:
    """Class folders of JPEGs at 64 px: noise around a colour of each class. val has a quarter of the images."""
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", images), ("val", max(1, images // 4))):
        for label in range(DRAWN_CLASSES):
            folder = root / split / f"class{label:02}"
            folder.mkdir(parents=True)
            colour = torch.randint(60, 180, (3, 1, 1), generator=torch.Generator().manual_seed(label))
            for number in range(count):
                noise = torch.randint(0, 60, (3, 64, 64), generator=generator)
                write_jpeg((colour + noise).to(torch.uint8), str(folder / f"{number}.jpg"))
