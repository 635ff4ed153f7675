"""Measures the effective receptive field of a network over evaluation images, before and after training.

Results are plain files (maps.npz, about.json), which ``reports`` draws.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import atomic_file
from errors import ConfigError
from experiments.data.registry import needs_root
from experiments.folder import weights
from experiments.folder.fingerprint import run_fingerprint
from experiments.tasks import Task
from experiments.tasks.network import backbone
from experiments.tasks.registry import build_task
from experiments.training.devices import Group, prepare
from experiments.training.progress import image_bar
from measurements.finished_run import is_measured
from measurements.offsets.measure import evaluation_images, limited
from measurements.receptive_field.source import FieldRequest, FieldSource

ABOUT, MAPS = "about.json", "maps.npz"
BEFORE, AFTER = "before", "after"
VERSION = 1  # of the files' definitions; raised with every change of one


def measure(source: FieldSource, request: FieldRequest, fresh: bool = False) -> Path:
    """Measures a source and returns the folder of the results; results of the same weights and request are reused.

    Raises ConfigError where the network gives no maps or the weights do not fit it.
    """
    key = {"version": VERSION, **source.key(request)}
    if not fresh and is_measured(source.out / ABOUT, key):
        return source.out
    config = deepcopy(source.config)
    device = prepare(config, Group())
    task = build_task(limited(config, request.images))
    count = min(request.images, len(task.eval_set))  # type: ignore[arg-type]
    networks = _networks(source, task)
    maps, shape = {}, (0, 0)
    with image_bar(source.name, count * len(networks)) as advance:
        for state, network in networks.items():
            images = evaluation_images(config, task.eval_set, count, device)
            maps[state], shape = receptive_field(network.to(device), images, request.stage, advance)
    about = {
        "name": source.name,
        "key": key,
        "images": count,
        "image_size": list(config.data.image_size),
        "map": list(shape),
        "stage": request.stage,
        "dataset": config.data.dataset,
        "split": config.data.eval_split if needs_root(config) else "evaluation images",
        "experiment": config.experiment,
        "model": config.model.name,
        "mixer": config.model.mixer,
        "seed": config.seed,
        "curve": source.curve,
        "weights_sha256": key["weights_sha256"],
        "trained": {kind: source.provenance.get(kind, "") for kind in ("code_fingerprint", "data_fingerprint")},
        "code_fingerprint": run_fingerprint(config),
        "data_fingerprint": task.eval_set.fingerprint(),  # type: ignore[attr-defined]
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    packed = io.BytesIO()
    arrays: dict[str, Any] = {state: each.astype(np.float32) for state, each in maps.items()}
    np.savez_compressed(packed, **arrays)
    atomic_file.write(source.out / MAPS, packed.getvalue())
    about["files"] = {MAPS: hashlib.sha256(packed.getvalue()).hexdigest()}
    atomic_file.write(source.out / ABOUT, json.dumps(about, indent=1) + "\n")
    return source.out


def measure_all(
    sources: Mapping[str, FieldSource | str], request: FieldRequest, fresh: bool = False
) -> dict[str, Path | str]:
    """The folder of each source's results; a reason given as text instead of a source is passed on."""
    return {
        name: measure(source, request, fresh) if isinstance(source, FieldSource) else source
        for name, source in sources.items()
    }


def receptive_field(
    network: nn.Module, images: Iterable[Tensor], stage: int | None = None, advance: Any = lambda count: None
) -> tuple[np.ndarray, tuple[int, int]]:
    """The share of each pixel in the gradient of the map's centre token, float64 [H, W], and the size of the map.

    images: batches [B, 3, H, W]. Of each image: the gradient of half the squared norm of the centre token (index
    size // 2) by the image, its absolute value summed over colours, divided by its sum; of these the mean over images.
    Luo et al. (NeurIPS 2016, arXiv 1701.04128) differentiate one unit, or the sum of the channels; of a stage of a
    transformer that sum is what the next LayerNorm takes out. The norm weights each channel by what it holds.
    Raises ConfigError for a network without maps or without that stage, and where no image has any gradient.
    """
    network.eval().requires_grad_(False)
    total: np.ndarray | None = None
    seen, shape = 0, (0, 0)
    for batch in images:
        inputs = batch.detach().float().requires_grad_(True)
        tokens = _map(network, inputs, stage)
        shape = (int(tokens.shape[-2]), int(tokens.shape[-1]))
        centre = tokens[:, :, shape[0] // 2, shape[1] // 2]
        (gradient,) = torch.autograd.grad(0.5 * centre.square().sum(), inputs)  # images do not meet in evaluation mode
        share = gradient.abs().sum(dim=1).double()
        share = share / share.sum(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        total = share.sum(dim=0).cpu().numpy() + (0 if total is None else total)
        seen += len(batch)
        advance(len(batch))
    if total is None or not total.sum() > 0:
        raise ConfigError("the centre of this network's map does not depend on the image")
    return total / total.sum(), shape


def _map(network: Any, inputs: Tensor, stage: int | None) -> Tensor:
    """The output of a stage before any norm, [B, C, H, W]; stage: from 1, None for the last."""
    if not hasattr(network, "forward_intermediates"):
        raise ConfigError(f"{type(network).__name__} gives no maps: timm has no forward_intermediates for it")
    tokens: Tensor
    try:  # timm answers so to other image sizes, and to stages that are not there
        (tokens,) = network.forward_intermediates(
            inputs, indices=1 if stage is None else [stage - 1], norm=False, output_fmt="NCHW", intermediates_only=True
        )
    except (AssertionError, IndexError) as error:
        where = f"data.image_size={list(inputs.shape[-2:])}" if stage is None else f"stage={stage}"
        raise ConfigError(f"{type(network).__name__} takes no {where}: {error}") from None
    return tokens


def _networks(source: FieldSource, task: Task) -> dict[str, nn.Module]:
    """The backbone as the run's seed begins it and, where there are weights, with those; heads do not matter."""
    torch.manual_seed(source.config.seed)
    begun = task.build_model().state_dict()
    networks = {BEFORE: _with(source, begun)}
    if source.weights:
        networks[AFTER] = _with(source, weights.read(source.weights))
    return networks


def _with(source: FieldSource, state: Mapping[str, Tensor]) -> nn.Module:
    model = source.config.model
    name, arguments = backbone(model, source.config.data.image_size)
    network: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    weights.load_backbone(network, state, source.name)
    return network
