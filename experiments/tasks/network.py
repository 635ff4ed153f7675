"""From the model section of a config to a timm network, for every task alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models with timm)
from errors import ConfigError
from experiments.backbones import TIMM, is_timm
from experiments.own_mixer import complete_own_mixer, is_own
from experiments.schema import Model

SWIN = "swin_"  # before timm's names of Swin
# timm expects images of 224 px and does not shift windows that then fill the map. As in mmseg and mmdet, a dense Swin
# takes any size and always shifts.
OF_DENSE_SWIN = {"strict_img_size": False, "always_partition": True}


def backbone(model: Model, image_size: Sequence[int] | None = None) -> tuple[str, dict[str, Any]]:
    """timm's name of the network and the arguments that make it the arm.

    image_size: height and width in pixels where all images have one size, for mixers that need it.
    Raises ConfigError where the file of one's own mixer is not the one that the run was planned with.
    """
    if is_timm(model.name):  # some of timm's networks know no drop path, not even one of 0
        return model.name.removeprefix(TIMM), {"drop_path_rate": model.drop_path} if model.drop_path else {}
    if is_own(model.mixer):
        complete_own_mixer(model)
    return f"atmnet_{model.name}", {
        "mixer": model.mixer,
        "offsets": model.offsets,
        "samples": model.samples,
        "peg": model.peg,
        "offset_sharing": model.offset_sharing,
        "offset_interval": model.offset_interval,
        "fusion": model.fusion,
        "shift_width": model.shift_width,
        "random_spread": model.random_spread,
        "dims": model.dims,
        "mlp_ratios": model.mlp_ratios,
        "img_size": None if image_size is None else tuple(image_size),
        "window_size": model.window_size,
        "drop_path_rate": model.drop_path,
    }


def dense_backbone(model: Model, strides: Sequence[int], image_size: Sequence[int] | None = None) -> nn.Module:
    """The network without its head; calling it gives its maps [B, C, H/stride, W/stride] at these strides.

    Its parameters are called ``model.<name in the classifier>``. Swin has a norm on each map, as ATMNet has.
    image_size: as in ``backbone``. Raises ConfigError for a network that lacks a stride.
    """
    name, arguments = backbone(model, image_size)
    arguments |= {"features_only": True, "feature_cls": "getter"}
    if name.startswith(SWIN):
        arguments |= OF_DENSE_SWIN
    try:
        with torch.device("meta"):
            offered = timm.create_model(name, **arguments).feature_info.reduction()
    except (AttributeError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"model={model.name} cannot serve as a dense backbone: {error}") from None
    missing = [stride for stride in strides if stride not in offered]
    if missing:
        raise ConfigError(f"model={model.name} has maps at strides {offered}, none at {missing[0]}")
    # of several maps at one stride, the last has seen most
    indices = tuple(max(i for i, own in enumerate(offered) if own == stride) for stride in strides)
    network: nn.Module = timm.create_model(name, out_indices=indices, **arguments)
    return NormedMaps(network) if name.startswith(SWIN) else network


class NormedMaps(nn.Module):
    """A backbone of timm's with a LayerNorm on every map. Source: ``SwinTransformer`` of mmseg and mmdet."""

    def __init__(self, features: Any):
        super().__init__()
        self.feature_info, self.indices = features.feature_info, features.out_indices
        self.model = features.model
        self.stage_norms = nn.ModuleList(LayerNorm2d(width, eps=1e-5) for width in self.feature_info.channels())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] to maps [B, C, H/stride, W/stride], finest first."""
        maps = self.model.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        return [norm(stage).contiguous() for norm, stage in zip(self.stage_norms, maps)]
