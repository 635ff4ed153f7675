"""Builds a backbone alone with the weights of a run of any task, of a weights file or of a released checkpoint."""

from __future__ import annotations

import re

import timm
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models with timm)
from errors import ConfigError
from experiments.config import read_variants
from experiments.folder import weights
from experiments.tasks.network import backbone
from measurements.offsets.source import OffsetSource


def build(source: OffsetSource) -> nn.Module:
    """The backbone of a source with its weights, without the head of its task, in evaluation mode.

    Raises ConfigError if the weights belong to another model, and names the variant if its sizes identify it.
    """
    config = source.config
    name, arguments = backbone(config.model)
    model: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    state = _backbone_state(weights.read(source.weights), source.name)
    own = {key: value for key, value in model.state_dict().items() if _is_body(key)}
    different = [key for key in sorted(own.keys() | state.keys()) if _shape(own, key) != _shape(state, key)]
    if different:
        variant = _variant(state)
        if variant and variant != config.model.name:
            raise ConfigError(
                f"{source.name} holds atmnet_{variant}, not atmnet_{config.model.name}: set model={variant}"
            )
        raise ConfigError(
            f"{source.name} does not fit model={config.model.name} offsets={config.model.offsets}: "
            f"{len(different)} weights are missing, unexpected or of another shape, e.g. {different[0]}"
        )
    model.load_state_dict(state, strict=False)  # the final norm and head may differ; all others were compared above
    return model.eval()


def _backbone_state(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of stem and stages within those of any network, named as in the backbone alone."""
    prefixes = [key.removesuffix("stem.weight") for key in state if re.search(r"(^|\.)stem\.weight$", key)]
    body = {
        key.removeprefix(prefix): value
        for prefix in prefixes
        for key, value in state.items()
        if key.startswith(prefix) and _is_body(key.removeprefix(prefix))
    }
    if len(prefixes) != 1 or not any(key.startswith("stages.") for key in body):
        raise ConfigError(f"{name} holds no ATMNet: no stem and stages among its {len(state)} weights")
    return body


def _is_body(key: str) -> bool:
    return key.startswith(("stem.", "stages."))


def _shape(state: dict[str, Tensor], key: str) -> list[int] | None:
    return list(state[key].shape) if key in state else None


def _variant(state: dict[str, Tensor]) -> str | None:
    """The name of the variant whose widths and depths the weights have, if there is one."""
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
