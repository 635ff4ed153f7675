"""The backbone alone with the weights of a run of any task, of a file of ours or of a released checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

import timm
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models with timm)
from atm.offsets import OffsetLayer
from errors import ConfigError
from experiments.config import read_variants
from experiments.folder import weights
from experiments.tasks import Task
from experiments.tasks.network import backbone
from measurements.offsets.source import OffsetSource


def build(source: OffsetSource) -> nn.Module:
    """The backbone of a source with its weights, in evaluation mode; a task's head does not matter here.

    Raises ConfigError where the weights are of another model, naming the variant where its sizes say so.
    """
    name, arguments = backbone(source.config.model)
    model: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    _load(model, source)
    return model.eval()


def build_whole(source: OffsetSource, task: Task) -> nn.Module:
    """The task's model with all weights of a source. Raises ConfigError where some are missing or of another model."""
    model = task.build_model()
    if note := _load(model, source).note(source.name):
        raise ConfigError(f"{note}: a task is judged with weights of its whole model")
    return model.eval()


def offset_layers(model: nn.Module) -> dict[str, OffsetLayer]:
    """The modules that give offsets, by layer: ``stages.2.blocks.6.offsets`` of a backbone is layer_3_7."""
    found = {}
    for path, module in model.named_modules():
        match = re.search(r"(?:^|\.)stages\.(\d+)\.blocks\.(\d+)\.offsets$", path)
        if match and isinstance(module, OffsetLayer):
            found[f"layer_{int(match[1]) + 1}_{int(match[2]) + 1}"] = module
    return found


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The variant whose widths and depths the weights have."""
    blocks: dict[int, set[int]] = {}
    widths: dict[int, int] = {}
    for key, value in state.items():
        if match := re.search(r"(?:^|\.)stages\.(\d+)\.blocks\.(\d+)\.norm1\.weight$", key):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
            widths[int(match[1])] = len(value)
    for name, variant in read_variants().items():
        sizes = [widths[i] for i in sorted(widths)], [len(blocks[i]) for i in sorted(blocks)]
        if sizes == (variant["dims"], variant["depths"]):
            return name
    return None


def _load(model: nn.Module, source: OffsetSource) -> weights.Loaded:
    """Raises ConfigError as ``build`` does."""
    config, state = source.config, weights.read(source.weights)
    try:
        return weights.load_backbone(model, state, source.name)
    except ConfigError as error:
        variant = variant_of(state)
        if variant is None:
            raise ConfigError(
                f"{source.name} holds no ATMNet: no stem and stages among its {len(state)} weights"
            ) from None
        if variant != config.model.name:
            raise ConfigError(
                f"{source.name} holds atmnet_{variant}, not atmnet_{config.model.name}: set model={variant}"
            ) from None
        raise ConfigError(f"{error} (built for model={config.model.name} offsets={config.model.offsets})") from None
