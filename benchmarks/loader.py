"""The data pipeline against the training step: which of the two limits training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from rich.table import Table

from benchmarks.choices import at_least, positive, several
from benchmarks.networks import Step, build, known_model
from benchmarks.timing import Conditions, Stopwatch, add_inputs, add_machine, conditions, turns
from errors import DataError
from experiments.config import resolve
from experiments.data.images import Images, train_transform
from experiments.data.listing import Split, list_split
from experiments.data.loading import Batch, Batches
from experiments.schema import Config

STEP = "training step"


@dataclass(frozen=True)
class LoadingRate:
    """Images per second of the loader with ``workers`` processes, or of the training step (``workers`` None).

    ``ratio`` is the loader's rate over the training step's, ``fastest_ratio`` that of the fastest turns. Below 1,
    training waits for images.
    """

    source: str
    workers: int | None
    images_s: float
    fastest_images_s: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class LoaderReport(Conditions):
    network: str
    batch: int
    image: int
    dtype: str
    images: int
    verdict: str
    rows: list[LoadingRate]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The images, the loader and the network."""
    parser.add_argument("--root", type=Path, required=True, help="class folders of images, or train/ with those in it")
    parser.add_argument("--workers", type=several(at_least(0)), default=[0, 1, 2], help="loader processes, e.g. 0,1,2")
    parser.add_argument("--batches", type=positive, default=8, help="batches that are timed in each turn")
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    add_inputs(parser, batch=16)
    add_machine(parser)


def measure(options: argparse.Namespace) -> LoaderReport:
    """The loader alone with each number of workers, and the training step alone on one of its batches, in turns.

    Raises DataError for a folder without images.
    """
    dataset = open_training_images(options.root, options.batch, options.image)
    images = len(dataset)
    # The images are repeated to fill one epoch, because workers are idle between epochs.
    needed = options.batch * (options.batches + 3 * max(1, *options.workers))
    dataset.indices = np.resize(dataset.indices, max(images, needed))
    with conditions(options) as (device, machine):
        network = build(options.model, options.image, device)
        batch = next(_batches(dataset, options.batch, 0, device)[1])
        step = Stopwatch(Step(network.module.train(), batch.images, batch.classes, options.dtype), device)
        clocks: dict[str, Callable[[], float]] = {STEP: step}
        for workers in dict.fromkeys(options.workers):
            clocks[_label(workers)] = _loading(dataset, options.batch, workers, options.batches, device)
        times = turns(clocks, options.repeats)
    trained = times.pop(STEP)
    rows = [
        LoadingRate(
            source=name,
            workers=workers,
            images_s=options.batch / loading.median,
            fastest_images_s=options.batch / loading.fastest,
            ratio=trained.over(loading),
            fastest_ratio=trained.fastest_over(loading),
        )
        for workers, (name, loading) in zip(dict.fromkeys(options.workers), times.items())
    ]
    rows.append(LoadingRate(STEP, None, options.batch / trained.median, options.batch / trained.fastest, 1.0, 1.0))
    return LoaderReport(
        **vars(machine),
        network=options.model,
        batch=options.batch,
        image=options.image,
        dtype=options.dtype,
        images=images,
        verdict=_verdict(rows),
        rows=rows,
    )


def open_training_images(root: Path, batch: int, image: int) -> Images:
    """The images below ``root`` with the augmentation of the ImageNet recipe. Raises DataError if there are none."""
    if not root.is_dir():
        raise DataError(f"--root {root}: no such folder")
    listed = list_split(Split(root / "train" if (root / "train").is_dir() else root))
    settings = {"data.num_classes": len(listed.classes), "data.image_size": [image, image]}
    # the recipe mixes images in pairs; what is loaded does not depend on it
    mixing = {"augment.mixup": 0.0, "augment.cutmix": 0.0}
    config: Config = resolve("imagenet", {**settings, **mixing, "train.batch_size": batch})
    return Images(listed, train_transform(config), config.seed, None, "train")


def _batches(dataset: Images, batch: int, workers: int, device: torch.device) -> tuple[Batches, Iterator[Batch]]:
    """A loader with the settings of a run, and the batches of its first epoch."""
    repeats = resolve("imagenet").augment.repeats
    batches = Batches(dataset, batch, seed=0, shuffle=True, workers=workers, device=device, repeats=repeats)
    return batches, (step[0] for step in batches.steps(0))


def _loading(dataset: Images, batch: int, workers: int, timed: int, device: torch.device) -> Callable[[], float]:
    """Seconds per batch, the mean of ``timed`` batches. Workers start before and stop after these."""

    def clock() -> float:
        batches, stream = _batches(dataset, batch, workers, device)
        for _ in range(max(1, workers)):  # every worker has loaded a batch
            next(stream)
        start = perf_counter()
        for _ in range(timed):
            next(stream)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = (perf_counter() - start) / timed
        batches.close()
        return seconds

    return clock


def _label(workers: int) -> str:
    return f"loader, {workers} worker{'' if workers == 1 else 's'}" if workers else "loader in the training process"


def _verdict(rows: list[LoadingRate]) -> str:
    """One sentence: which is the limit, for the number of workers that loads fastest."""
    *loaders, step = rows
    best = max(loaders, key=lambda row: row.images_s)
    limit = "The data pipeline" if best.ratio < 1 else "The network"
    return (
        f"{limit} is the limit: {best.images_s:.1f} images/s from the {best.source}, "
        f"{step.images_s:.1f} images/s of the {step.source}, each with the machine to itself"
    )


def table(report: LoaderReport) -> Table:
    """One line per number of workers and one for the training step; the caption says which is the limit."""
    shown = Table(
        title=f"Loading and training {report.network}, batch {report.batch}, {report.image} px, {report.dtype}, "
        f"{report.device}",
        caption=f"{report.verdict}. Medians, {report.caption()}; {report.images} images with the ImageNet "
        "recipe's augmentation; ratio: images per second over those of the training step",
    )
    for heading in ("", "images/s", "fastest", "ratio", "fastest"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        rates = (f"{row.images_s:.1f}", f"{row.fastest_images_s:.1f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        shown.add_row(row.source, *rates)
    return shown
