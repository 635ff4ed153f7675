"""The backbone alone with the weights of a run of any task, of a file of ours or of a released checkpoint."""

from __future__ import annotations

import re

import timm
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models with timm)
from errors import ConfigError
from experiments.config import read_variants
from experiments.folder import weights
from experiments.tasks.network import backbone
from measurements.offsets.source import Source


def build(source: Source) -> nn.Module:
    """The backbone of a source with its weights, in evaluation mode; a task's head does not matter here.

    Raises ConfigError where the weights are of another model, naming the variant where its sizes say so.
    """
    config = source.config
    name, arguments = backbone(config.model)
    model: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    state = _backbone_state(weights.read(source.weights), source.name)
    own = {key: value for key, value in model.state_dict().items() if _is_body(key)}
    odd = [key for key in sorted(own.keys() | state.keys()) if _shape(own, key) != _shape(state, key)]
    if odd:
        variant = _variant(state)
        if variant and variant != config.model.name:
            raise ConfigError(
                f"{source.name} holds atmnet_{variant}, not atmnet_{config.model.name}: set model={variant}"
            )
        raise ConfigError(
            f"{source.name} does not fit model={config.model.name} offsets={config.model.offsets}: "
            f"{len(odd)} weights are missing, unexpected or of another shape, e.g. {odd[0]}"
        )
    model.load_state_dict(state, strict=False)  # but for norm and head, all of them were just compared
    return model.eval()


def _backbone_state(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Stem and stages of whatever network holds them, under the names they have in the backbone alone."""
    prefixes = [key.removesuffix("stem.weight") for key in state if re.search(r"(^|\.)stem\.weight$", key)]
    found = {
        key.removeprefix(prefix): value
        for prefix in prefixes
        for key, value in state.items()
        if key.startswith(prefix) and _is_body(key.removeprefix(prefix))
    }
    if len(prefixes) != 1 or not any(key.startswith("stages.") for key in found):
        raise ConfigError(f"{name} holds no ATMNet: no stem and stages among its {len(state)} weights")
    return found


def _is_body(key: str) -> bool:
    return key.startswith(("stem.", "stages."))


def _shape(state: dict[str, Tensor], key: str) -> list[int] | None:
    return list(state[key].shape) if key in state else None


def _variant(state: dict[str, Tensor]) -> str | None:
    """The variant whose widths and depths the weights have."""
    blocks: dict[int, set[int]] = {}
    widths: dict[int, int] = {}
    for key, value in state.items():
        if match := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.norm1\.weight", key):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
            widths[int(match[1])] = len(value)
    for name, variant in read_variants().items():
        sizes = [widths[i] for i in sorted(widths)], [len(blocks[i]) for i in sorted(blocks)]
        if sizes == (variant["dims"], variant["depths"]):
            return name
    return None
