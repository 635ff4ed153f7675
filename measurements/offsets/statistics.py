"""Sums and counts over the offsets of one layer, added up by batches: memory does not grow with the data set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from errors import RunFailed

DIRECTIONS = ("horizontal", "vertical")  # in the order of the predictor's output
BINS_PER_TOKEN = 4


@dataclass
class Layer:
    """All offsets of one predictor.

    name: ``layer_i_j``, stage i and block j counted from 1, as in the papers. channels: of its map.
    groups: offsets per token, direction and sample; channels / groups channels share one. stride: pixels per token.
    """

    name: str
    channels: int
    groups: int
    samples: int
    stride: int
    sides: list[Side] = field(default_factory=list)

    def add(self, offsets: Tensor) -> None:
        """offsets: [B, H, W, 2 * samples * groups] in tokens, the horizontal half first.

        Raises RunFailed for offsets that are not finite and for a map whose size differs from that of earlier maps.
        """
        sizes = (offsets.shape[2], offsets.shape[1])  # along each direction
        if not self.sides:
            self.sides = [Side(size) for size in sizes]
        elif tuple(side.size for side in self.sides) != sizes:
            raise RunFailed(f"{self.name}: maps of different sizes cannot be counted together")
        if not torch.isfinite(offsets).all():
            raise RunFailed(f"{self.name}: offsets that are not finite")
        for side, half, dim in zip(self.sides, offsets.double().chunk(2, dim=-1), (2, 1)):
            side.add(half, dim)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return self.sides[1].size, self.sides[0].size

    def statistics(self) -> list[dict[str, Any]]:
        """One row per direction and scope; docs/offsets.md defines the columns."""
        described = {
            "layer": self.name,
            "channels": self.channels,
            "sharing": self.channels // self.groups,
            "samples": self.samples,
            "stride": self.stride,
        }
        rows = []
        for direction, side in zip(DIRECTIONS, self.sides):
            for scope, sums in (("all", side.all), ("centre", side.centre)):
                rows.append(
                    {
                        **described,
                        "direction": direction,
                        "scope": scope,
                        "extent": side.size,
                        "reads": sums.tokens * self.samples * self.channels,
                        **sums.row(self.stride),
                    }
                )
        return rows

    def histograms(self) -> list[dict[str, Any]]:
        """Reads of the centre token per bin [left, right) in tokens; the first and last row count reads outside."""
        sharing = self.channels // self.groups
        return [
            {"layer": self.name, "direction": direction, "left": left, "right": right, "reads": sharing * count}
            for direction, side in zip(DIRECTIONS, self.sides)
            for left, right, count in side.histogram.bins()
        ]


class Side:
    """One direction of a layer: sums over all tokens, sums over the centre token, and its histogram."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.all, self.centre, self.histogram = Sums(size), Sums(size), Histogram(size)

    def add(self, offsets: Tensor, dim: int) -> None:
        """offsets: float64 [B, H, W, R]; dim: the axis they move along."""
        index = torch.arange(self.size, dtype=offsets.dtype, device=offsets.device)
        index = index.reshape(1, 1, -1) if dim == 2 else index.reshape(1, -1, 1)
        self.all.add(offsets.flatten(0, 2), index.expand(offsets.shape[:3]).flatten())
        centre = offsets[:, offsets.shape[1] // 2, offsets.shape[2] // 2]
        self.centre.add(centre, torch.full((len(centre),), float(self.size // 2), dtype=offsets.dtype).to(index.device))
        self.histogram.add(centre)


class Sums:
    """The sums that the statistics of a set of tokens are computed from; ``size`` tokens lie along their axis."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tokens = self.outside = self.nothing = 0
        self.absolute = self.spread = 0.0
        self.low, self.high = math.inf, -math.inf
        self.totals: Tensor | None = None  # sum and sum of squares per read, [2, R]

    def add(self, offsets: Tensor, index: Tensor) -> None:
        """offsets: float64 [N, R], of each of the R reads of N tokens; index: [N], of each token along the axis."""
        position = offsets + index[:, None]
        totals = torch.stack([offsets.sum(0), offsets.square().sum(0)])
        self.totals = totals if self.totals is None else self.totals + totals
        self.tokens += len(offsets)
        self.absolute += float(offsets.abs().sum())
        self.spread += float(offsets.std(dim=1, correction=0).sum())
        self.outside += int(((position < 0) | (position > self.size - 1)).sum())
        self.nothing += int(((position <= -1) | (position >= self.size)).sum())
        self.low, self.high = min(self.low, float(offsets.min())), max(self.high, float(offsets.max()))

    def row(self, stride: int) -> dict[str, float]:
        assert self.totals is not None
        mean, square = self.totals / self.tokens
        reads = self.tokens * len(mean)
        mean_abs = self.absolute / reads
        values = {
            "mean": float(mean.mean()),
            "mean_abs": mean_abs,
            "mean_abs_px": mean_abs * stride,
            "mean_abs_share": 100 * mean_abs / self.size,
            "spread": self.spread / self.tokens,
            "variation": float((square - mean.square()).clamp(min=0).sqrt().mean()),
            "outside": 100 * self.outside / reads,
            "nothing": 100 * self.nothing / reads,
            "min": self.low,
            "max": self.high,
        }
        return {name: round(value, 6) for name, value in values.items()}


class Histogram:
    """Offsets of the centre token over the whole range that it can reach: -(size // 2) to size - 1 - size // 2."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.counts = torch.zeros(max(1, BINS_PER_TOKEN * (size - 1)), dtype=torch.int64)
        self.below = self.above = 0

    def add(self, offsets: Tensor) -> None:
        """offsets: float64 [B, R]"""
        position = offsets.flatten().cpu() + self.size // 2
        below, above = position < 0, position > self.size - 1
        self.below += int(below.sum())
        self.above += int(above.sum())
        inside = (position[~below & ~above] * BINS_PER_TOKEN).floor().long()
        # the upper edge of the range belongs to the last bin
        self.counts += torch.bincount(inside.clamp(max=len(self.counts) - 1), minlength=len(self.counts))

    def bins(self) -> list[tuple[float, float, int]]:
        first = -(self.size // 2)
        edges = [first + number / BINS_PER_TOKEN for number in range(len(self.counts) + 1)]
        inside = list(zip(edges, edges[1:], self.counts.tolist()))
        return [(-math.inf, edges[0], self.below), *inside, (edges[-1], math.inf, self.above)]
