"""Interventions on offsets: what a trained model reads with in place of the offsets that it predicts, without training.

Forward hooks on the offset predictors replace their outputs; the rest of the network is as it was trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from errors import RunFailed
from experiments.data.order import stream


class Impossible(RunFailed):
    """An intervention that cannot be made on these images."""


@dataclass
class Calls:
    """The calls of one predictor during one evaluation.

    layer: its name; seed: of what is drawn; mean: float32 [K], of its offsets over all tokens and images when nothing
    is replaced. seen: number of maps so far; previous: the offsets that it predicted for the latest one, [1, H, W, K].
    """

    layer: str
    seed: int
    mean: Tensor
    seen: int = 0
    previous: Tensor | None = None

    def permutation(self, number: int, tokens: int) -> Tensor:
        """A random order of the tokens of one map, the same on every machine and for every batch size."""
        layer = map(int, re.findall(r"\d+", self.layer))
        return torch.from_numpy(stream(self.seed, *layer, number, purpose="shuffled tokens").permutation(tokens))


Replacement = Callable[[Tensor, Calls], Tensor]
"""From the predicted offsets [B, H, W, K], in tokens, and the predictor's calls to those that are read with."""


def shuffle_tokens(offsets: Tensor, calls: Calls) -> Tensor:
    """Each map's offsets at other tokens of it; what a token reads with stays together."""
    orders = [calls.permutation(calls.seen + n, offsets[0, ..., 0].numel()) for n in range(len(offsets))]
    places = torch.stack(orders).to(offsets.device)[..., None].expand(-1, -1, offsets.shape[-1])
    return offsets.flatten(1, 2).gather(1, places).view_as(offsets)


def shuffle_images(offsets: Tensor, calls: Calls) -> Tensor:
    """Each map's offsets are those predicted for the map before it; the first keeps its own.

    The caller passes images in random order. So the result does not depend on how they are divided into batches.
    Raises Impossible where maps differ in size.
    """
    before = offsets[:1] if calls.previous is None else calls.previous
    if before.shape[1:] != offsets.shape[1:]:
        raise Impossible(f"maps of different sizes cannot exchange offsets (at {calls.layer})")
    calls.previous = offsets[-1:]
    return torch.cat([before, offsets[:-1]])


def take_mean(offsets: Tensor, calls: Calls) -> Tensor:
    return calls.mean.to(offsets).expand_as(offsets).contiguous()


def set_to_zero(offsets: Tensor, calls: Calls) -> Tensor:
    return torch.zeros_like(offsets)


def round_to_tokens(offsets: Tensor, calls: Calls) -> Tensor:
    """Halves are rounded to the even neighbour."""
    return offsets.round()


@dataclass(frozen=True)
class Intervention:
    """title: for tables; random_order: whether images are to be judged in random order."""

    title: str
    replace: Replacement
    random_order: bool = False


INTERVENTIONS: dict[str, Intervention] = {
    "shuffled_tokens": Intervention("Shuffled across tokens", shuffle_tokens),
    "shuffled_images": Intervention("Shuffled across images", shuffle_images, random_order=True),
    "mean": Intervention("Mean per channel", take_mean),
    "zero": Intervention("Zero", set_to_zero),
    "rounded": Intervention("Rounded to tokens", round_to_tokens),
}


@contextmanager
def replaced(
    predictors: Mapping[str, nn.Module], replace: Replacement, seed: int, means: Mapping[str, Tensor]
) -> Iterator[None]:
    """While entered, these predictors' outputs are replaced. predictors, means: by layer."""

    def hook(calls: Calls) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def of_module(module: nn.Module, inputs: object, offsets: Tensor) -> Tensor:
            new = replace(offsets, calls)
            calls.seen += len(offsets)
            return new

        return of_module

    with ExitStack() as hooks:
        for layer, predictor in predictors.items():
            calls = Calls(layer, seed, means[layer])
            hooks.callback(predictor.register_forward_hook(hook(calls)).remove)
        yield


@contextmanager
def averaged(predictors: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """While entered, adds up offsets; the dictionary holds their means afterwards, float32 [K] by layer."""
    totals: dict[str, tuple[Tensor, int]] = {}

    def hook(layer: str) -> Callable[[nn.Module, object, Tensor], None]:
        def of_module(module: nn.Module, inputs: object, offsets: Tensor) -> None:
            total, tokens = totals.get(layer, (0, 0))
            # in float64 the mean of equal offsets is exactly these
            totals[layer] = total + offsets.double().sum((0, 1, 2)), tokens + offsets[..., 0].numel()

        return of_module

    means: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for layer, predictor in predictors.items():
            hooks.callback(predictor.register_forward_hook(hook(layer)).remove)
        yield means
    means.update({layer: (total / tokens).float() for layer, (total, tokens) in totals.items()})
