"""Probes: images in which where to read depends on content, so that no fixed pattern of reading serves.

An image is a grid of tiles. Some of them are cues, and a cue is to be labelled with the class of the tile that it
names: by a displacement (``search``, ``pair``, ``diagonal``), or by a colour (``match``, which is a module of its own).
``docs/probes.md`` says why they are made this way.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from errors import ConfigError, unknown
from experiments.data.order import SampleKey
from experiments.data.token_images import EVAL_SEED, IGNORED, Labelling, TokenImages

VERSION = 1  # of the generators: raise it with any change that changes a pixel or a label
TILE = 8  # px
STRIDES = (4, 8, 16, 32)  # of the maps that are read: all stages of ATMNet
CUES = 5  # a tile in so many is a cue
GRAIN = 12  # grey levels, at most, that are added to or taken from every pixel
DEEP = 5 * TILE  # px: beyond four tiles
MEAN, STD = 0.5, 0.3  # of a pixel in 0 … 1, all channels alike
SHUFFLES = ("cues", "classes")
FARTHEST = 20  # tiles, so that the weights of all places stay whole numbers of 63 bits

# red and green tell a class, blue a cue; far apart, since the contrast of neighbours is what offsets learn from
CLASSES = ("black", "red", "green", "yellow")
PALETTE = np.array([[26, 26, 26], [230, 26, 26], [26, 230, 26], [230, 230, 26]], np.uint8)  # rising luminance
NEUTRAL = 128  # red and green of a cue that would point at itself
AMPLITUDE = 112  # grey levels from there to the red or green of the farthest displacement
CUE_BLUE = 230


class Tiles(NamedTuple):
    """An image in tiles: all that is drawn but the grain."""

    colours: NDArray[np.uint8]  # [h, w, 3]
    labels: NDArray[np.int64]  # [h, w]
    distance: NDArray[np.float32]  # [h, w] px from a cue to the place that it names
    direction: NDArray[np.int64]  # [h, w]
    places: NDArray[np.int64]  # [h, w, P, 2] row and column of the places, -1 where nothing is asked


def labelling(class_names: tuple[str, ...], palette: NDArray[np.uint8], directions: tuple[str, ...]) -> Labelling:
    return Labelling(TILE, STRIDES, class_names, palette, directions, DEEP, on_grid=True, mean=MEAN, std=STD)


class Probe(TokenImages):
    """Tiles of 8 px with cues among them; labels are [h/8, w/8].

    shuffled, an attack on the probe: ``cues`` gives every cue the look of another one in the image, ``classes`` draws
    the labels anew, so that in both nothing that a cue shows leads to its label.
    """

    def __init__(self, size: tuple[int, int], seed: int, length: int, split: str, shuffled: str | None = None):
        super().__init__(size, seed, length, split)
        if shuffled is not None and shuffled not in SHUFFLES:
            raise ConfigError(f"data.shuffled: {unknown('shuffle', shuffled, SHUFFLES)}")
        self.shuffled = shuffled

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, ...]:
        random = self.stream(key, purpose=self.plural)
        grid = self.grid(random)
        image = self.labelling.normalise(render(random, grid.colours))
        if self.shuffled == "classes":
            is_asked = grid.labels != IGNORED
            grid.labels[is_asked] = random.integers(len(self.labelling.class_names), size=np.count_nonzero(is_asked))
        if self.split == "train":
            return image, torch.from_numpy(grid.labels)
        return image, *map(torch.from_numpy, grid[1:])

    def grid(self, random: np.random.Generator) -> Tiles:
        raise NotImplementedError

    def recipe(self) -> dict[str, Any]:
        """What the images are drawn from."""
        return {
            "data": self.plural,
            "version": VERSION,
            "split": self.split,
            "eval_seed": EVAL_SEED,
            "size": self.size,
            "length": self.length,
            "shuffled": self.shuffled,
            "classes": self.labelling.class_names,
            "palette": self.labelling.palette.tolist(),
            "numbers": [TILE, CUES, GRAIN, MEAN, STD],
        }

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.recipe(), sort_keys=True).encode()).hexdigest()[:16]


class Displacements(NamedTuple):
    """The K displacements that a cue can name, each of P places."""

    moves: NDArray[np.int64]  # [K, P, 2] rows and columns, in tiles
    weights: NDArray[np.int64]  # [K] whole numbers proportional to their frequency
    shown: NDArray[np.int64]  # [K, 2] the tiles that red and green stand for
    direction: NDArray[np.int64]  # [K]
    distance: NDArray[np.int64]  # [K] tiles, the largest of all numbers in moves


class PointingProbe(Probe):
    """A random field of four classes, and cues whose red and green are the displacement to the place to be read.

    max_distance: tiles, how far a cue can point along an axis; None for the probe's own ``reach``. Nearer places are
    more frequent, in proportion to 1/distance along each axis; places outside the image or on another cue are left out.
    """

    reach: ClassVar[int]

    def __init__(
        self,
        size: tuple[int, int],
        seed: int,
        length: int,
        split: str,
        shuffled: str | None = None,
        max_distance: int | None = None,
    ):
        super().__init__(size, seed, length, split, shuffled)
        self.max_distance = self.reach if max_distance is None else max_distance
        if not 1 <= self.max_distance <= FARTHEST:
            raise ConfigError(f"data.max_distance={max_distance}: from 1 to {FARTHEST} tiles")
        self.displacements = self.table(_steps(self.max_distance))

    @staticmethod
    def table(steps: NDArray[np.int64]) -> Displacements:
        """steps: [2n, 2] every step along one axis and its weight."""
        raise NotImplementedError

    def recipe(self) -> dict[str, Any]:
        return super().recipe() | {"max_distance": self.max_distance, "cues": [NEUTRAL, AMPLITUDE, CUE_BLUE]}

    def grid(self, random: np.random.Generator) -> Tiles:
        shape = rows, columns = self.size[0] // TILE, self.size[1] // TILE
        moves, weights, shown, direction, distance = self.displacements
        classes = random.integers(len(CLASSES), size=shape)
        is_cue = np.zeros(shape, bool)
        cues = np.stack(np.divmod(random.permutation(rows * columns)[: rows * columns // CUES], columns), axis=1)
        is_cue[tuple(cues.T)] = True
        targets = cues[:, None, None] + moves  # [cues, K, P, 2]
        inside = ((targets >= 0) & (targets < shape)).all((2, 3))
        clipped = np.clip(targets, 0, (rows - 1, columns - 1))
        free = inside & ~is_cue[clipped[..., 0], clipped[..., 1]].any(2)
        bounds = np.cumsum(free * weights, axis=1)
        drawn = np.floor(random.random(len(cues)) * bounds[:, -1])
        points = bounds[:, -1] > 0  # a cue that could name no place stays a tile of the field
        cues, targets = cues[points], targets[points]
        chosen = (bounds <= drawn[:, None]).sum(1)[points]
        targets = targets[np.arange(len(cues)), chosen]  # [cues, P, 2]

        found = classes[targets[..., 0], targets[..., 1]]
        answers = found @ (len(CLASSES) ** np.arange(found.shape[1])[::-1])
        colours = PALETTE[classes]
        looks = shown[np.roll(chosen, 1) if self.shuffled == "cues" else chosen]  # cues come in random order
        colours[tuple(cues.T)] = np.insert(NEUTRAL + looks * (AMPLITUDE // self.max_distance), 2, CUE_BLUE, axis=1)
        return asked(shape, colours, cues, answers, distance[chosen] * float(TILE), direction[chosen], targets)


def asked(
    shape: tuple[int, int],
    colours: NDArray[np.uint8],
    cues: NDArray[np.int64],
    answers: NDArray[np.int64],
    distance: NDArray[np.floating[Any]],
    direction: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> Tiles:
    """A grid that asks nothing but at its ``cues`` [n, 2]; the other arrays have a row for each of them."""
    at = tuple(cues.T)
    grid = Tiles(
        colours,
        np.full(shape, IGNORED, np.int64),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int64),
        np.full((*shape, *targets.shape[1:]), -1, np.int64),
    )
    grid.labels[at], grid.distance[at], grid.direction[at], grid.places[at] = answers, distance, direction, targets
    return grid


def render(random: np.random.Generator, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[h, w, 3] to an image of tiles, uint8 [8 h, 8 w, 3], with the same grain in all channels."""
    image = colours.repeat(TILE, axis=0).repeat(TILE, axis=1).astype(np.int16)
    image += random.integers(-GRAIN, GRAIN, size=image.shape[:2], endpoint=True).astype(np.int16)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _steps(farthest: int) -> NDArray[np.int64]:
    """Steps -farthest … farthest but 0, and whole weights proportional to 1/distance. [2 farthest, 2]"""
    whole = math.lcm(*range(1, farthest + 1))
    steps = np.array([step for step in range(-farthest, farthest + 1) if step])
    return np.stack([steps, whole // np.abs(steps)], axis=1)


class Search(PointingProbe):
    """One displacement along a row or a column."""

    plural = "search"
    labelling = labelling(CLASSES, PALETTE, ("horizontal", "vertical"))
    reach = 7

    @staticmethod
    def table(steps: NDArray[np.int64]) -> Displacements:
        none = np.zeros(len(steps), np.int64)
        along, down = np.stack([none, steps[:, 0]], 1), np.stack([steps[:, 0], none], 1)
        moves = np.concatenate([along, down])
        direction = np.repeat([0, 1], len(steps))
        return Displacements(
            moves[:, None], np.tile(steps[:, 1], 2), moves[:, ::-1], direction, np.abs(moves).max(axis=1)
        )


class Diagonal(PointingProbe):
    """One displacement in both directions at once."""

    plural = "diagonal"
    labelling = labelling(CLASSES, PALETTE, ("diagonal",))
    reach = 4

    @staticmethod
    def table(steps: NDArray[np.int64]) -> Displacements:
        down, along = (axis.ravel() for axis in np.indices((len(steps), len(steps))))
        moves = np.stack([steps[down, 0], steps[along, 0]], 1)
        weights = steps[down, 1] * steps[along, 1]
        return Displacements(
            moves[:, None], weights, moves[:, ::-1], np.zeros(len(moves), np.int64), np.abs(moves).max(axis=1)
        )


class Pair(PointingProbe):
    """Two displacements along the row, and both classes asked: one label of sixteen."""

    plural = "pair"
    labelling = labelling(
        tuple(f"{first} {second}" for first in CLASSES for second in CLASSES),
        np.array([[first, second] for first in PALETTE for second in PALETTE]),
        ("horizontal",),
    )
    reach = 4

    @staticmethod
    def table(steps: NDArray[np.int64]) -> Displacements:
        first, second = np.nonzero(~np.eye(len(steps), dtype=bool))  # two places, in either order
        shown = np.stack([steps[first, 0], steps[second, 0]], 1)
        moves = np.stack([np.zeros_like(shown), shown], axis=2)
        weights = steps[first, 1] * steps[second, 1]
        return Displacements(moves, weights, shown, np.zeros(len(shown), np.int64), np.abs(shown).max(axis=1))


pixels = Search.labelling.pixels  # of all probes
