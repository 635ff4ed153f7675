"""Measures the offsets of a trained model over its evaluation set: statistics, histograms, sampled positions.

Results are plain files (statistics.csv, histograms.csv, overlays.npz, about.json), which ``reports`` draws.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import atomic_file
from errors import ConfigError
from experiments.data.batch import ImageBatch
from experiments.data.ledger import Ledger
from experiments.data.loading import Batches
from experiments.data.registry import needs_root, pixels
from experiments.folder.fingerprint import run_fingerprint
from experiments.schema import Config
from experiments.tasks.registry import build_task
from experiments.training.devices import Group, prepare
from experiments.training.progress import image_bar
from measurements.finished_run import is_measured
from measurements.offsets.model import build, offset_layers
from measurements.offsets.source import NO_OFFSETS, OffsetRequest, OffsetSource
from measurements.offsets.statistics import Layer

BATCH = 32  # images at a time; affects only the rounding of sums
PICTURES = 4  # images whose sampled positions are saved, spread evenly over all measured images
ABOUT = "about.json"
VERSION = 1  # of the files' definitions; raised with every change of one


def measure(source: OffsetSource, request: OffsetRequest, fresh: bool = False) -> Path:
    """Measures a source and returns the folder of the results; results of the same weights and request are reused.

    Raises ConfigError if the model predicts no offsets or the weights do not fit it.
    """
    queries = [list(query) for query in request.queries]
    key = {"version": VERSION, **source.key(images=request.images, layer=request.layer, queries=queries)}
    if not fresh and is_measured(source.out / ABOUT, key):
        return source.out
    config = deepcopy(source.config)
    device = prepare(config, Group())
    model = build(source).to(device)
    task = build_task(limited(config, request.images))
    count = min(request.images, len(task.eval_set))  # type: ignore[arg-type]
    measurement = Measurement(model, request, count)
    with image_bar(source.name, count) as advance:
        for images in evaluation_images(config, task.eval_set, count, device):
            measurement.add(images)
            advance(len(images))
    about = {
        "name": source.name,
        "key": key,
        "images": measurement.seen,
        "image_size": list(config.data.image_size),
        "dataset": config.data.dataset,
        "split": config.data.eval_split if needs_root(config) else "evaluation scenes",
        "data_fingerprint": task.eval_set.fingerprint(),  # type: ignore[attr-defined]
        "experiment": config.experiment,
        "protocol": config.protocol,
        "model": config.model.name,
        "offsets": config.model.offsets,
        "layers": [
            {"layer": layer.name, "map": list(layer.size), "stride": layer.stride} for layer in measurement.layers
        ],
        "overlay_layer": measurement.drawn_layer.name,
        "weights": source.weights.name,
        "weights_sha256": source.sha256,
        "trained": {kind: source.provenance.get(kind, "") for kind in ("code_fingerprint", "data_fingerprint")},
        "code_fingerprint": run_fingerprint(config),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    _write(source, about, measurement, config)
    return source.out


def measure_all(
    sources: Mapping[str, OffsetSource | str], request: OffsetRequest, fresh: bool = False
) -> dict[str, Path | str]:
    """The folder of each source's results; a reason given as text instead of a source is passed on."""
    return {
        name: measure(source, request, fresh) if isinstance(source, OffsetSource) else source
        for name, source in sources.items()
    }


class Measurement:
    """Records the offsets of a model while images pass through it.

    count: number of images to come. For PICTURES of them, the positions that the request's queries sample are saved.
    """

    def __init__(self, model: nn.Module, request: OffsetRequest, count: int) -> None:
        self.model, self.request = model, request
        modules = offset_layers(model)
        if not modules:
            raise ConfigError(NO_OFFSETS)
        self.layers = [
            Layer(name, m.dim, m.groups, m.samples, 4 * 2 ** (int(name.split("_")[1]) - 1))
            for name, m in modules.items()
        ]
        drawn = request.layer_of(list(modules))
        self.drawn_layer = next(layer for layer in self.layers if layer.name == drawn)
        self._modules = list(modules.values())
        self._drawn_offsets = torch.empty(0)  # of the latest batch
        self.seen = 0
        self.pictures = np.unique(np.linspace(0, count - 1, min(PICTURES, count)).round().astype(int))
        self._overlays: list[dict[str, Any]] = []

    @torch.inference_mode()
    def add(self, images: Tensor) -> None:
        """images: [B, 3, H, W], normalised."""
        with ExitStack() as hooks:
            for layer, module in zip(self.layers, self._modules):
                hooks.callback(module.register_forward_hook(self._recorder(layer)).remove)
            self.model(images)
        for number in self.pictures[(self.pictures >= self.seen) & (self.pictures < self.seen + len(images))]:
            self._save_overlay(int(number), images[number - self.seen], self._drawn_offsets[number - self.seen])
        self.seen += len(images)

    def overlays(self) -> dict[str, Any]:
        """The arrays of overlays.npz.

        images float32 [N, 3, h, w], normalised; indices [N] of the images; queries [Q, 2], rows and columns of tokens;
        horizontal and vertical float32 [N, Q, R], the offsets in tokens of the R reads of each query.
        """
        packed = {key: np.stack([overlay[key] for overlay in self._overlays]) for key in self._overlays[0]}
        return {**packed, "queries": self._queries(), "map": np.array(self.drawn_layer.size)}

    def _recorder(self, layer: Layer) -> Any:
        def record(module: nn.Module, inputs: Any, offsets: Tensor) -> None:
            layer.add(offsets)
            if layer is self.drawn_layer:
                self._drawn_offsets = offsets

        return record

    def _save_overlay(self, number: int, image: Tensor, offsets: Tensor) -> None:
        """offsets: [H, W, 2 * R]"""
        rows, columns = torch.from_numpy(self._queries()).to(offsets.device).T
        horizontal, vertical = offsets[rows, columns].float().cpu().chunk(2, dim=-1)
        self._overlays.append(
            {
                "indices": number,
                "images": image.float().cpu().numpy(),
                "horizontal": horizontal.numpy(),
                "vertical": vertical.numpy(),
            }
        )

    def _queries(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Row and column of the token that contains each query, [Q, 2]."""
        size = np.array(self.drawn_layer.size)
        tokens: np.ndarray[Any, np.dtype[np.int64]] = np.minimum(
            (np.array(self.request.queries) * size).astype(np.int64), size - 1
        )
        return tokens


def evaluation_images(config: Config, dataset: Any, count: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of the evaluation set's images; an unreadable one is an error, as in every evaluation."""
    batches = Batches(dataset, BATCH, config.seed, shuffle=False, workers=config.data.workers, device=device)
    ledger = Ledger(dataset, 0.0)
    try:
        left = count
        for batch in batches.evaluation():
            ledger.refuse(dataset, batch)
            assert isinstance(batch, ImageBatch)  # a backbone alone takes one tensor of equal images
            yield batch.images[:left]
            left -= batch.size
            if left <= 0:  # a stream has no end of its own
                return
    finally:
        batches.close()


def limited(config: Config, images: int) -> Config:
    """The config for a part of the evaluation set; the data set spreads the part evenly over its images."""
    config.data.eval_images = min(images, config.data.eval_images or images)
    return config


def _write(source: OffsetSource, about: dict[str, Any], measurement: Measurement, config: Config) -> None:
    """Writes all files. ``about.json`` is last and holds the hashes of the others, so that a mixture is recognised."""
    overlays = measurement.overlays()
    overlays["images"] = pixels(config.data.dataset)(torch.from_numpy(overlays["images"]))
    packed = io.BytesIO()
    np.savez_compressed(packed, **overlays)
    files = {
        "statistics.csv": _csv([row for layer in measurement.layers for row in layer.statistics()]),
        "histograms.csv": _csv([row for layer in measurement.layers for row in layer.histograms()]),
        "overlays.npz": packed.getvalue(),
    }
    for name, content in files.items():
        atomic_file.write(source.out / name, content)
    about["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    atomic_file.write(source.out / ABOUT, json.dumps(about, indent=1) + "\n")


def _csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
