"""The data pipeline of a training against its step: which of the two is the limit."""

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
from benchmarks.timing import Circumstances, Stopwatch, add_inputs, add_machine, circumstances, turns
from errors import DataError
from experiments.config import resolve
from experiments.data.images import Images, open_images
from experiments.data.layout import split_folder
from experiments.data.loading import Batch, Batches
from experiments.schema import Config

STEP = "training step"


@dataclass(frozen=True)
class Row:
    """Images a second of the loader with so many worker processes, or of the training step (``workers`` None).

    ``ratio`` is the loader's rate over the training step's, ``fastest_ratio`` that of the fastest turns: below 1 the
    training waits for its images.
    """

    what: str
    workers: int | None
    images_s: float
    fastest_images_s: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class Report(Circumstances):
    network: str
    batch: int
    image: int
    dtype: str
    images: int
    verdict: str
    rows: list[Row]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The images, the loader and the network that would train on them."""
    parser.add_argument("--root", type=Path, required=True, help="class folders of images, or train/ with those in it")
    parser.add_argument("--workers", type=several(at_least(0)), default=[0, 1, 2], help="loader processes, e.g. 0,1,2")
    parser.add_argument("--batches", type=positive, default=8, help="batches that are timed in each turn")
    parser.add_argument("--model", type=known_model, default="atmnet_xt", help="a name of timm (default: atmnet_xt)")
    add_inputs(parser, batch=16)
    add_machine(parser)


def measure(options: argparse.Namespace) -> Report:
    """The loader alone with each number of workers, and the training step alone on one of its batches, in turns.

    Raises DataError for a folder without images.
    """
    dataset = open_training_images(options.root, options.batch, options.image)
    images_there = len(dataset)
    # one epoch, however few there are: between epochs the workers would run out of work
    needed = options.batch * (options.batches + 3 * max(1, *options.workers))
    dataset.indices = np.resize(dataset.indices, max(images_there, needed))
    with circumstances(options) as (device, where):
        network = build(options.model, options.image, device)
        images, classes = _first_batch(dataset, options.batch, device)
        step = Stopwatch(Step(network.module.train(), images, classes, options.dtype), device)
        clocks: dict[str, Callable[[], float]] = {STEP: step}
        for workers in dict.fromkeys(options.workers):
            clocks[_called(workers)] = _loading(dataset, options.batch, workers, options.batches, device)
        times = turns(clocks, options.repeats)
    trained = times.pop(STEP)
    rows = [
        Row(
            what=name,
            workers=workers,
            images_s=options.batch / its.median,
            fastest_images_s=options.batch / its.fastest,
            ratio=trained.over(its),
            fastest_ratio=trained.fastest_over(its),
        )
        for workers, (name, its) in zip(dict.fromkeys(options.workers), times.items())
    ]
    rows.append(Row(STEP, None, options.batch / trained.median, options.batch / trained.fastest, 1.0, 1.0))
    return Report(
        **vars(where),
        network=options.model,
        batch=options.batch,
        image=options.image,
        dtype=options.dtype,
        images=images_there,
        verdict=_verdict(rows),
        rows=rows,
    )


def open_training_images(root: Path, batch: int, image: int) -> Images:
    """The images below ``root`` with the augmentation of the ImageNet recipe. Raises DataError where there are none."""
    if not root.is_dir():
        raise DataError(f"--root {root}: no such folder")
    classes = sum(entry.is_dir() for entry in split_folder(root, "train").iterdir())
    settings = {"data.root": str(root.resolve()), "data.num_classes": classes, "data.image_size": [image, image]}
    # the recipe pairs images; what is loaded does not depend on it
    config: Config = resolve("imagenet", {**settings, "train.batch_size": batch + batch % 2})
    dataset = open_images(config, training=True)
    assert isinstance(dataset, Images)  # of class folders
    return dataset


def _batches(dataset: Images, batch: int, workers: int, device: torch.device) -> tuple[Batches, Iterator[Batch]]:
    """A loader as a run makes it, and the batches of its first epoch."""
    repeats = resolve("imagenet").augment.repeats
    batches = Batches(dataset, batch, seed=0, shuffle=True, workers=workers, device=device, repeats=repeats)
    return batches, (step[0] for step in batches.steps(0))


def _first_batch(dataset: Images, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    images, classes, _ = next(_batches(dataset, batch, 0, device)[1])
    return images, classes


def _loading(dataset: Images, batch: int, workers: int, timed: int, device: torch.device) -> Callable[[], float]:
    """Seconds of one batch, over ``timed`` of them. Workers start before, and end after what is timed."""

    def clock() -> float:
        batches, stream = _batches(dataset, batch, workers, device)
        for _ in range(max(1, workers)):  # each has loaded a batch
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


def _called(workers: int) -> str:
    return f"loader, {workers} worker{'' if workers == 1 else 's'}" if workers else "loader in the training process"


def _verdict(rows: list[Row]) -> str:
    """One line: which is the limit, with the number of workers that loads fastest."""
    *loaders, step = rows
    best = max(loaders, key=lambda row: row.images_s)
    limit = "The data pipeline" if best.ratio < 1 else "The network"
    return (
        f"{limit} is the limit: {best.images_s:.1f} images/s from the {best.what}, "
        f"{step.images_s:.1f} images/s of the {step.what}, each with the machine to itself"
    )


def table(report: Report) -> Table:
    """A line for each number of workers, one for the training step, and which is the limit."""
    shown = Table(
        title=f"Loading and training {report.network}, batch {report.batch}, {report.image} px, {report.dtype}, "
        f"{report.device}",
        caption=f"{report.verdict}. Medians, {report.caption()}; {report.images} images with the ImageNet "
        "recipe's augmentation; ratio: images a second over the training step's",
    )
    for heading in ("", "images/s", "fastest", "ratio", "fastest"):
        shown.add_column(heading, justify="left" if not heading else "right")
    for row in report.rows:
        rates = (f"{row.images_s:.1f}", f"{row.fastest_images_s:.1f}", f"{row.ratio:.3f}", f"{row.fastest_ratio:.3f}")
        shown.add_row(row.what, *rates)
    return shown
