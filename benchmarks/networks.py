"""The networks to compare, ours and timm's, and the training step that is timed on each of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

import atm  # noqa: F401  (registers the models)
from atm.complexity import count
from benchmarks.choices import one_of, several
from benchmarks.deformable import on_deform_conv2d
from benchmarks.timing import DTYPES, require_same
from measurements.complexity import detector, feature_maps, segmenter

DEFORMED = "_deform"  # suffix of an ATMNet's name that makes it run on deform_conv2d
COMPARED = ("atmnet_xt", "atmnet_xt_deform", "convnext_tiny", "swin_tiny_patch4_window7_224", "resnet50")


@dataclass(frozen=True)
class Network:
    """``macs``: multiply-accumulates of one image's forward pass under the papers' convention, None if unknown."""

    name: str
    module: nn.Module
    params: int
    macs: int | None


def add_models(parser: argparse.ArgumentParser, default: tuple[str, ...] = COMPARED) -> None:
    """``--models``: names of timm, which include ``atmnet_*``, and ``atmnet_*_deform`` for those on deform_conv2d."""
    parser.add_argument(
        "--models",
        type=several(known_model),
        default=list(default),
        help=f"names of timm, or ATMNets with {DEFORMED}, separated by commas (default: {','.join(default)}); "
        "the first is compared with the others",
    )


def known_model(name: str) -> str:
    """``name``, if there is such a network. Raises ConfigError with the nearest name otherwise."""
    ours = [f"{model}{DEFORMED}" for model in timm.list_models("atmnet_*")]
    return one_of("model", [*timm.list_models(), *ours], shown=COMPARED)(name)


def build(name: str, image: int, device: torch.device, checked: bool = True) -> Network:
    """The network, with the same random weights every time, for square images of ``image`` px.

    checked: compare a network on deform_conv2d with the ATMNet that it was made from, and raise Disagreement if their
    logits differ.
    """
    source = _create(name.removesuffix(DEFORMED), image)
    macs, params = _macs(source, image), sum(p.numel() for p in source.parameters())
    source.to(device)
    if not name.endswith(DEFORMED):
        return Network(name, source, params, macs)
    deformed = on_deform_conv2d(source)
    if checked:
        images = torch.randn(2, 3, image, image, device=device)
        with torch.no_grad():
            logits = source.eval()(images), deformed.eval()(images)
        tolerance = 1e-4 if device.type == "cpu" else 1e-2  # convolutions on a GPU use tensor cores
        require_same(f"{name} and {name.removesuffix(DEFORMED)} disagree", *logits, tolerance)
    return Network(name, deformed, params, macs)


def build_segmenter(name: str, head: str | None, device: torch.device) -> nn.Module:
    """A network of timm with a segmentation head, the same random weights every time, to evaluate.

    head: None for the backbone alone. Raises ConfigError for a network without maps at the strides that heads need.
    """
    torch.manual_seed(0)
    network = segmenter(name, {}, head) if head else feature_maps(name, {})
    return network.to(device).eval()


def build_detector(name: str, head: str | None, device: torch.device) -> nn.Module:
    """Like ``build_segmenter`` with a detector, which computes as much as the papers count: a CountableDetector."""
    torch.manual_seed(0)
    network = detector(name, {}, head) if head else feature_maps(name, {})
    return network.to(device).eval()


def _create(name: str, image: int) -> nn.Module:
    torch.manual_seed(0)
    if image == 224:
        return timm.create_model(name)
    try:
        return timm.create_model(name, img_size=image)
    except TypeError:  # a network that accepts every size has no such argument
        torch.manual_seed(0)
        return timm.create_model(name)


def _macs(model: nn.Module, image: int) -> int | None:
    try:
        return count(model, (3, image, image)).flops
    except (NotImplementedError, RuntimeError):  # an operator without an implementation for the meta device
        return None


class Step:
    """One training step on one batch: forward, cross entropy, backward, fused AdamW.

    images: [B, 3, H, W] on the network's device; classes: [B]. dtype: of autocast, which float32 switches off.
    forward: called in place of ``module``, e.g. the result of torch.compile.
    """

    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        classes: Tensor,
        dtype: str = "float32",
        forward: Callable[[Tensor], Tensor] | None = None,
    ):
        self.module, self.images, self.classes, self.dtype = module, images, classes, dtype
        self.forward = module if forward is None else forward
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def state_bytes(self) -> int:
        """Bytes of parameters, buffers and optimizer state, which exists from the first step on."""
        values = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.module.parameters(), *self.module.buffers(), *(v for v in values if isinstance(v, Tensor))]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def __call__(self) -> None:
        with autocast(self.images.device, self.dtype):
            loss = nn.functional.cross_entropy(self.forward(self.images), self.classes)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Autocast to ``dtype``, switched off for float32."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32")


def random_batch(batch: int, image: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """images: [batch, 3, image, image]; classes: [batch]."""
    return torch.randn(batch, 3, image, image, device=device), torch.arange(batch, device=device) % 1000
