"""A finished run as a folder that timm loads: ``local-dir:FOLDER``, or ``hf-hub:`` once it is uploaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import timm
from safetensors.torch import save
from torch import Tensor, nn

import atomic_file
from errors import ConfigError, RunFolderError
from experiments.backbones import is_timm
from experiments.data.drawn import normalisation
from experiments.folder.run_folder import RunFolder
from experiments.folder.weights import DENSE
from experiments.schema import Config
from experiments.tasks.network import backbone
from measurements import judged_weights
from measurements.evaluation_settings import kind_taken_from
from measurements.export import ExportRequest
from measurements.export.model_card import LICENCE, ExportedRun, model_card, values_of
from measurements.judged_weights import JudgedWeights
from run_format import EXCLUDED, EXCLUSION, PROVENANCE

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"  # as timm and the Hub call them
OF_THE_NETWORK = ("first_conv", "classifier", "fixed_input_size")  # of timm's config, whatever the weights
NORMS = "stage_norms."  # on the maps of ATMNet


def export(request: ExportRequest) -> dict[str, Any]:
    """Writes the network of a run with its averaged or raw weights, timm's config of it, and a model card.

    Of a classifier everything is in the folder, of a dense model ATMNet with the norms on its maps, without neck and
    head. Raises ConfigError, RunFolderError, WriteError in one line.
    """
    name, into, settings = request.name, request.into, dict(request.settings)
    if len(request.arms) > 1:
        raise ConfigError(f"export={name} to=hub takes one run (the first of {len(request.arms)}: {min(request.arms)})")
    if into is None:
        raise ConfigError(f"export={name} to=hub: give into=FOLDER")
    if into.is_file() or (into.is_dir() and any(into.iterdir())):
        raise ConfigError(f"into={into}: it is there already (valid: a new folder, or an empty one)")
    kind = kind_taken_from(settings)
    if settings:
        raise ConfigError(f"export={name} to=hub takes no {next(iter(settings))} (valid: weights)")
    folder = RunFolder(request.runs_dir / next(iter(request.arms)))
    config = folder.config()
    if because := folder.read_json(EXCLUSION).get("because"):
        raise RunFolderError(f"export={folder.id}: the run is {EXCLUDED}: {because}")
    weights = judged_weights.of_run(folder, config, kind, "export")
    model, arguments, untrained = _network(folder, config, weights)
    described = _timm_config(model, config, arguments)
    run = ExportedRun(
        folder.id,
        config,
        folder.finished(),
        folder.read_json(PROVENANCE),
        str(weights.kind),
        values_of(folder, weights.prefix),
        described["architecture"],
        untrained,
        *normalisation(config),
    )
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with atomic_file.making(into) as making:
        atomic_file.write(making / WEIGHTS, save(state, metadata={"format": "pt"}))
        atomic_file.write(making / CONFIG, json.dumps(described, indent=2) + "\n")
        atomic_file.write(making / CARD, model_card(run))
    return {
        "run": folder.id,
        "weights": weights.kind,
        "architecture": described["architecture"],
        "metrics": {value.metric: value.value for value in run.values},
        "written": [str(into / file) for file in (WEIGHTS, CONFIG, CARD)],
    }


def _network(folder: RunFolder, config: Config, weights: JudgedWeights) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """The network with its weights, the arguments that make it, and which of its weights were never trained."""
    name, arguments = backbone(config.model)
    arguments = {key: value for key, value in arguments.items() if value is not None and key != "drop_path_rate"}
    if not any(key.startswith(DENSE) for key in weights.state):
        model: nn.Module = timm.create_model(name, num_classes=config.data.num_classes, **arguments)
        judged_weights.load(model, weights, config)
        return model.eval(), arguments, []
    if is_timm(config.model.name):
        raise ConfigError(
            f"export={folder.id}: of a run of task={config.task} the backbone is exported, if that is ATMNet; this is "
            f"{config.model.name}"
        )
    arguments["stage_norms"] = True
    model = timm.create_model(name, num_classes=0, **arguments)
    state, untrained = _with_all_norms(_of_backbone(weights.state), model)
    judged_weights.load(model, JudgedWeights(weights.file, weights.kind, state), config)
    return model.eval(), arguments, untrained


def _of_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(DENSE): value for key, value in state.items() if key.startswith(DENSE)}


def _with_all_norms(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The weights with those norms of the model's that they lack, as a head that does not read a map leaves its norm
    out; and the names of the latter."""
    own = model.state_dict()
    lacking = [key for key in own if key.startswith(NORMS) and key not in state]
    return {**state, **{key: own[key] for key in lacking}}, lacking


def _timm_config(model: nn.Module, config: Config, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``config.json``."""
    mean, std = normalisation(config)
    own: Mapping[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    photographs = config.task == "classification"
    resampling = config.augment.interpolation if photographs else "bilinear"
    return {
        "architecture": backbone(config.model)[0],
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": dict(arguments),
        "pretrained_cfg": {
            **{key: own[key] for key in OF_THE_NETWORK if own.get(key) is not None},
            "num_classes": model.num_classes,
            "input_size": [3, *config.data.image_size],
            "mean": list(mean),
            "std": list(std),
            "crop_pct": config.augment.crop_pct if photographs else 1.0,
            "crop_mode": "center",
            "interpolation": "bicubic" if resampling == "random" else resampling,
            "license": LICENCE,
        },
    }
