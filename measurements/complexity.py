"""Parameters, FLOPs and architecture of models. Models are built without weights; nothing is computed or trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models)
from atm import complexity
from experiments.backbones import TIMM, read_variants
from experiments.schema import Model
from experiments.tasks.detectors.detector import Detector, build_detector
from experiments.tasks.detectors.options import PUBLISHED
from experiments.tasks.network import dense_backbone
from experiments.tasks.segmenter import STRIDES, Segmenter

IMAGE_SIZE = 224  # pixels; what papers state FLOPs of classifiers for
ADE20K_CLASSES = 150
COCO_CLASSES = 80


def count(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[float, float]:
    """Parameters in M and FLOPs in G of one forward pass of any module. inputs: its arguments, on the meta device."""
    counted = complexity.count(model, inputs=inputs)
    return counted.params_m, counted.flops_g


def count_network(name: str, arguments: Mapping[str, Any], head: str, size: tuple[int, int]) -> tuple[float, float]:
    """Parameters in M and FLOPs in G of a network on one image.

    name: of timm, ATMNets included; arguments: those of its ablation arm, and ``neck_offsets`` for a head with ATMFPN;
    head: a name of HEADS; size: height and width in pixels.
    """
    with torch.device("meta"):
        network = HEADS[head](name, arguments)
    return count(network, (torch.empty(1, 3, *size, device="meta"),))


def image_size(name: str) -> int:
    """The size in pixels at which to count a timm model: 224, or the only size that the model accepts."""
    config = timm.get_pretrained_cfg(name)
    return int(config.input_size[-1]) if config and config.fixed_input_size else IMAGE_SIZE


def architecture(name: str, arguments: Mapping[str, Any]) -> list[dict[str, float]]:
    """What AAAI Table 10 prints of each stage of an ATMNet."""
    with torch.device("meta"):
        return complexity.architecture(_classifier(name, arguments))  # type: ignore[no-any-return]


def _classifier(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, **arguments)
    return model


def segmenter(name: str, arguments: Mapping[str, Any], head: str) -> Segmenter:
    """A network of timm with a head of ``experiments.dense_schema.SEGMENTATION_HEADS`` and the classes of ADE20K."""
    offsets, own = _neck_and_own(arguments)
    return Segmenter(feature_maps(name, own), head, ADE20K_CLASSES, neck_offsets=offsets)


def detector(name: str, arguments: Mapping[str, Any], head: str) -> CountableDetector:
    """A network of timm with a head of ``experiments.tasks.detectors.options.PUBLISHED`` and the classes of COCO."""
    offsets, own = _neck_and_own(arguments)
    options = replace(PUBLISHED[head], neck_offsets=offsets)
    return CountableDetector(build_detector(feature_maps(name, own), head, COCO_CLASSES, options))


def _neck_and_own(arguments: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The offset mode of ATMFPN, None for FPN, and the arguments of the backbone itself."""
    own = dict(arguments)
    return own.pop("neck_offsets", None), own


class CountableDetector(nn.Module):
    """A detector of which a forward pass computes as much for every image, whatever there is in it.

    With the published options, that is 1,000 regions for boxes and 100 for masks, for which the papers count.
    """

    def __init__(self, network: Detector):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> None:
        """images: [B, 3, H, W]."""
        self.network.compute(images)


def feature_maps(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of timm as the backbone of a segmenter or detector. Raises ConfigError where it lacks a stride."""
    variant = name.removeprefix("atmnet_")
    return dense_backbone(Model(variant if variant in read_variants() else f"{TIMM}{name}", **arguments), STRIDES)


# the papers' names, as in results/published
HEADS: dict[str, Callable[[str, Mapping[str, Any]], nn.Module]] = {
    "classification": _classifier,
    "Semantic FPN": partial(segmenter, head="semantic_fpn"),
    "UperNet": partial(segmenter, head="upernet"),
    "RetinaNet": partial(detector, head="retinanet"),
    "Mask R-CNN": partial(detector, head="mask_rcnn"),
    "Cascade Mask R-CNN": partial(detector, head="cascade_mask_rcnn"),
}
