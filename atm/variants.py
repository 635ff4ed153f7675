"""The model sizes of the papers as timm entry points: ``timm.create_model("atmnet_t")``."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from atm.backbone import UNSHARED, ATMNet
from atm.mixers import takes_offsets

VARIANTS: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("variants.yaml").read_text("utf-8"))
"""Arguments of ``ATMNet`` per model size, and the published drop path rate."""


def _filter_checkpoint(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Converts a released checkpoint, so that timm's own loading functions accept it. For a dense model the final norm
    and the head of a classifier are left out, and the norms that it has in their place keep their initialisation."""
    from atm.released import convert, is_released

    state_dict = dict(convert(state_dict) if is_released(state_dict) else state_dict)
    if model.dense and not any(name.startswith("stage_norms.") for name in state_dict):
        norms = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("stage_norms.")}
        state_dict = {name: t for name, t in state_dict.items() if not name.startswith(("norm.", "head."))} | norms
    return state_dict


def _create_atmnet(variant: str, pretrained: bool = False, **kwargs: Any) -> ATMNet:
    arguments = {key: value for key, value in kwargs.items() if value is not None}
    defaults = {key: value for key, value in VARIANTS[variant].items() if key != "drop_path"}
    if arguments.get("offsets") in UNSHARED or not takes_offsets(arguments.get("mixer", "atm")):
        del defaults["offset_sharing"]
    if arguments.get("features_only"):
        arguments.setdefault("stage_norms", True)
    device, dtype = arguments.pop("device", None), arguments.pop("dtype", None)
    with nullcontext() if device is None else torch.device(device):
        model = build_model_with_cfg(
            ATMNet,
            f"atmnet_{variant}",
            pretrained,
            pretrained_filter_fn=_filter_checkpoint,
            feature_cfg={"out_indices": tuple(range(len(defaults["dims"]))), "feature_cls": "getter"},
            **{**defaults, **arguments},
        )
    return model if dtype is None else model.to(dtype)


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem",
        "classifier": "head",
        "paper_ids": "arXiv:2203.06108",
        "paper_name": "Active Token Mixer",
        "license": "mit",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({f"atmnet_{variant}": _cfg() for variant in VARIANTS})


@register_model
def atmnet_nano(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """A quarter-width model for tests and short runs; not in the papers."""
    return _create_atmnet("nano", pretrained, **kwargs)


@register_model
def atmnet_xt(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """ATMNet-xT: 15.3 M parameters, 2.2 G FLOPs, 79.7 % on ImageNet-1K (AAAI Table 1)."""
    return _create_atmnet("xt", pretrained, **kwargs)


@register_model
def atmnet_t(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """ATMNet-T: 27.2 M parameters, 4.0 G FLOPs, 82.0 % on ImageNet-1K (AAAI Table 1)."""
    return _create_atmnet("t", pretrained, **kwargs)


@register_model
def atmnet_s(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """ATMNet-S: 38.6 M parameters, 6.9 G FLOPs, 83.1 % on ImageNet-1K (AAAI Table 1)."""
    return _create_atmnet("s", pretrained, **kwargs)


@register_model
def atmnet_b(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """ATMNet-B: 52.2 M parameters, 10.1 G FLOPs, 83.5 % on ImageNet-1K (AAAI Table 1)."""
    return _create_atmnet("b", pretrained, **kwargs)


@register_model
def atmnet_l(pretrained: bool = False, **kwargs: Any) -> ATMNet:
    """ATMNet-L: 76.2 M parameters, 12.4 G FLOPs, 83.8 % on ImageNet-1K (AAAI Table 1)."""
    return _create_atmnet("l", pretrained, **kwargs)
