"""The networks that are compared, ours and timm's, and the training step that is timed on each of them."""

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

DEFORMED = "_deform"  # what follows the name of an ATMNet that is to run on deform_conv2d
COMPARED = ("atmnet_xt", "atmnet_xt_deform", "convnext_tiny", "swin_tiny_patch4_window7_224", "resnet50")


@dataclass(frozen=True)
class Network:
    """``macs``: multiply-accumulates of one image's forward pass under the papers' convention; None where unknown."""

    name: str
    module: nn.Module
    params: int
    macs: int | None


def add_models(parser: argparse.ArgumentParser, default: tuple[str, ...] = COMPARED) -> None:
    """``--models``: names of timm, ``atmnet_*`` among them, and those with ``_deform`` for deform_conv2d."""
    parser.add_argument(
        "--models",
        type=several(known_model),
        default=list(default),
        help=f"names of timm, or ATMNets with {DEFORMED}, separated by commas (default: {','.join(default)}); "
        "the first is set against the others",
    )


def known_model(name: str) -> str:
    """``name``, where there is such a network. Raises ConfigError naming the nearest."""
    ours = [f"{model}{DEFORMED}" for model in timm.list_models("atmnet_*")]
    return one_of("model", [*timm.list_models(), *ours], shown=COMPARED)(name)


def build(name: str, image: int, device: torch.device, checked: bool = True) -> Network:
    """The network, with the same random weights every time, for square images of ``image`` px.

    checked: a network on deform_conv2d is first compared with the ATMNet that it was made from; Disagreement is raised
    where their logits differ.
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
        tolerance = 1e-4 if device.type == "cpu" else 1e-2  # a GPU's convolutions use tensor cores
        require_same(f"{name} and {name.removesuffix(DEFORMED)} disagree", *logits, tolerance)
    return Network(name, deformed, params, macs)


def _create(name: str, image: int) -> nn.Module:
    torch.manual_seed(0)
    if image == 224:
        return timm.create_model(name)
    try:
        return timm.create_model(name, img_size=image)
    except TypeError:  # a network that takes every size has no such argument
        torch.manual_seed(0)
        return timm.create_model(name)


def _macs(model: nn.Module, image: int) -> int | None:
    try:
        return count(model, (3, image, image)).flops
    except (NotImplementedError, RuntimeError):  # an operator that the meta device does not know
        return None


class Step:
    """One training step on one batch: forward, cross entropy, backward, AdamW in its fused form.

    images: [B, 3, H, W] on the network's device; classes: [B]. dtype: of autocast, none for float32.
    forward: what is called in place of ``module``, as torch.compile returns it.
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
        """Bytes of parameters, buffers and optimizer state; the latter is there from the first step on."""
        state = [part for its in self.optimizer.state.values() for part in its.values() if isinstance(part, Tensor)]
        held = [*self.module.parameters(), *self.module.buffers(), *state]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def __call__(self) -> None:
        with autocast(self.images.device, self.dtype):
            loss = nn.functional.cross_entropy(self.forward(self.images), self.classes)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def autocast(device: torch.device, dtype: str) -> AbstractContextManager[object]:
    """Autocast to ``dtype``; switched off for float32."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32")


def random_batch(batch: int, image: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """images: [batch, 3, image, image]; classes: [batch]."""
    return torch.randn(batch, 3, image, image, device=device), torch.arange(batch, device=device) % 1000
