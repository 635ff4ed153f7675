"""Scenes: images drawn by rule that measure over which distance, and in which direction, a model mixes tokens.

An image holds a few plain bars, all lying the same way. Only a mark at one end of a bar tells its class, and every
token of the bar is to be labelled with it. ``docs/probes.md`` says why it is made this way.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.order import SampleKey
from experiments.data.token_images import EVAL_SEED, IGNORED, Labelling, TokenImages

VERSION = 1  # of the generator: raise it with any change that changes a pixel or a label

CLASSES = ("yellow", "sky", "vermilion", "navy")
PALETTE = np.array([[240, 208, 64], [86, 180, 233], [213, 94, 0], [24, 62, 122]], np.uint8)  # falling luminance
GROUNDS = np.array([[222, 214, 202], [204, 213, 220], [207, 216, 203], [224, 207, 203], [210, 206, 216]])
FILLS = np.array([[250, 248, 244], [238, 240, 243], [244, 238, 230]])
MEAN, STD = 0.85, 0.15  # of a pixel in 0 … 1, all channels alike

HEADINGS = ("left", "right", "up", "down")  # the side of a token on which the mark of its bar lies
DIRECTIONS = ("horizontal", "vertical")
TOKEN = 16  # px, stride of the labels
LANE = 40  # px across a bar, at least; its lane is widened to fill the image
MARK = 16  # px along the bar
GAP = 2  # px between a bar and the edge of its lane, at least
CORNER = 8  # px, radius
HALO = 5  # px, width of the soft shadow
COVERED = 0.6  # of a token's area: less of it inside the bar and it is not labelled


class Layout(NamedTuple):
    """All of a scene but the classes, in the frame where bars run along x and have their marks at the low end."""

    heading: int
    bars: NDArray[np.int64]  # [n, 4] px: start, top, length, thickness
    ground: NDArray[np.float32]  # [2, 3] colours at the two ends of the image
    fill: NDArray[np.float32]  # [3]
    grain: NDArray[np.int64]  # [across, along] grey levels added to every pixel


class Scene(NamedTuple):
    image: NDArray[np.uint8]  # [h, w, 3]
    labels: NDArray[np.int64]  # [h / 16, w / 16] class, or IGNORED
    distance: NDArray[np.float32]  # [h / 16, w / 16] px along the bar from the token's centre to the mark
    direction: int  # of that distance, an index into DIRECTIONS
    classes: NDArray[np.int64]  # [n] of the bars
    pixel_bars: NDArray[np.int8]  # [h, w] number of the bar around a pixel's centre, or IGNORED

    @property
    def pixel_labels(self) -> NDArray[np.int64]:
        """[h, w] class of the bar around a pixel's centre, or IGNORED."""
        labels: NDArray[np.int64] = np.append(self.classes, IGNORED)[self.pixel_bars]  # IGNORED, -1, is the last place
        return labels


LABELLING = Labelling(
    token=TOKEN,
    strides=(16, 32),  # the last two stages of ATMNet
    class_names=CLASSES,
    palette=PALETTE,
    directions=DIRECTIONS,
    deep=4 * TOKEN,  # convolutions alone see no mark from 54 px on (stage 4, seen from a token in its cell's corner)
    on_grid=False,
    mean=MEAN,
    std=STD,
)
normalise, pixels = LABELLING.normalise, LABELLING.pixels


class Scenes(TokenImages):
    """Drawn bars. ``TokenImages`` says what an image is a function of; labels are [h/16, w/16]."""

    labelling = LABELLING
    plural = "scenes"

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, ...]:
        scene = self.scene(key)
        image, labels = normalise(scene.image), torch.from_numpy(scene.labels)
        if self.split == "train":
            return image, labels
        return image, labels, torch.from_numpy(scene.distance), torch.full_like(labels, scene.direction)

    def scene(self, key: SampleKey) -> Scene:
        random = self.stream(key)
        layout = draw_layout(random, self.size)
        return render(layout, draw_classes(random, len(layout.bars)))

    def fingerprint(self) -> str:
        """Hash of what the scenes are drawn from, the same for runs of every seed."""
        recipe = {
            "data": "scenes",
            "version": VERSION,
            "split": self.split,
            "eval_seed": EVAL_SEED,
            "size": self.size,
            "length": self.length,
            "classes": CLASSES,
            "palette": PALETTE.tolist(),
            "grounds": GROUNDS.tolist(),
            "fills": FILLS.tolist(),
            "lengths": [LANE, MARK, GAP, CORNER, HALO, COVERED, MEAN, STD],
        }
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def draw_layout(random: np.random.Generator, size: tuple[int, int]) -> Layout:
    """One bar per lane. All bars of an image share heading, thickness and colours, so only marks tell them apart."""
    heading = int(random.integers(4))
    across, along = size if heading < 2 else size[::-1]
    lanes = max(2, across // LANE)
    lane = across // lanes
    thickness = int(random.integers(lane * 5 // 8, lane * 3 // 4, endpoint=True))
    margin = HALO if along > 64 else 0
    length = random.integers(along // 2, along - 2 * margin, size=lanes, endpoint=True)
    start = margin + np.floor(random.random(lanes) * (along - 2 * margin - length + 1)).astype(np.int64)
    top = np.arange(lanes) * lane + random.integers(GAP, lane - thickness - GAP, size=lanes, endpoint=True)
    tint = GROUNDS[random.integers(len(GROUNDS))]
    ground = tint + random.integers(-12, 12, size=(2, 1), endpoint=True)  # shades along the bars, never across
    fill = FILLS[random.integers(len(FILLS))] + random.integers(-5, 5, endpoint=True)
    grain = random.integers(-3, 3, size=(across, along), endpoint=True)
    bars = np.stack([start, top, length, np.full(lanes, thickness)], axis=1)
    return Layout(heading, bars, ground.astype(np.float32), fill.astype(np.float32), grain)


def draw_classes(random: np.random.Generator, bars: int) -> NDArray[np.int64]:
    """Draws classes like cards, each once before any comes again, so that the other bars tell little about a bar."""
    decks = -(-bars // len(CLASSES))
    return np.argsort(random.random((decks, len(CLASSES))), axis=1, kind="stable").reshape(-1)[:bars]


def render(layout: Layout, classes: NDArray[np.int64]) -> Scene:
    """Draws the bars with their marks. Sums, products and square roots only: the same bits on every machine."""
    across, along = layout.grain.shape
    rows, columns = across // TOKEN, along // TOKEN
    blend = (np.arange(along, dtype=np.float32) / np.float32(along))[:, None]
    shade = layout.ground[0] + (layout.ground[1] - layout.ground[0]) * blend
    image = np.broadcast_to(shade, (across, along, 3)).copy()
    owner = np.full((across, along), IGNORED, np.int8)
    for number, bar in enumerate(layout.bars):
        band = slice(max(0, bar[1] - HALO), bar[1] + bar[3] + HALO)
        depth = _depth(bar, np.arange(across)[band], np.arange(along))
        _paint(image[band], depth, bar, layout.fill, PALETTE[classes[number]].astype(np.float32))
        owner[band][depth > 0] = number
    image += (layout.grain + 0.5).astype(np.float32)[:, :, None]
    image = np.clip(image, 0, 255).astype(np.uint8)

    owners = owner.reshape(rows, TOKEN, columns, TOKEN).swapaxes(1, 2).reshape(rows, columns, -1)
    labels = np.full((rows, columns), IGNORED, np.int64)
    distance = np.zeros((rows, columns), np.float32)
    centres = np.arange(columns) * TOKEN + TOKEN // 2
    for number, bar in enumerate(layout.bars):
        covered = np.count_nonzero(owners == number, axis=2) >= COVERED * TOKEN**2
        labels[covered] = classes[number]
        distance += covered * np.maximum(centres - (bar[0] + MARK), 0).astype(np.float32)
    image, labels, distance, owner = (_turn(array, layout.heading) for array in (image, labels, distance, owner))
    return Scene(image, labels, distance, layout.heading // 2, classes, owner)


def _depth(bar: NDArray[np.int64], ys: NDArray[np.int64], xs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Signed distance in px, [ys, xs], from the pixels' centres to the outline of a bar; positive inside."""
    start, top, length, thickness = bar.tolist()
    x = (np.abs(xs + 0.5 - start - length / 2) - (length / 2 - CORNER)).astype(np.float32)[None, :]
    y = (np.abs(ys + 0.5 - top - thickness / 2) - (thickness / 2 - CORNER)).astype(np.float32)[:, None]
    outer_x, outer_y = np.maximum(x, 0), np.maximum(y, 0)
    outside = np.sqrt(outer_x * outer_x + outer_y * outer_y)
    depth: NDArray[np.float32] = np.float32(CORNER) - outside - np.minimum(np.maximum(x, y), 0)
    return depth


def _paint(
    image: NDArray[np.float32],
    depth: NDArray[np.float32],
    bar: NDArray[np.int64],
    fill: NDArray[np.float32],
    colour: NDArray[np.float32],
) -> None:
    """Lays the halo, then the bar with its mark over ``image`` [y, x, 3], in place; depth: [y, x]."""
    halo = np.clip(1 + depth / HALO, 0, 1)
    image *= (1 - np.float32(0.14) * halo * halo)[:, :, None]
    body = np.broadcast_to(fill, (image.shape[1], 3)).copy()
    body[: bar[0] + MARK] = colour
    image += (body - image) * np.clip(depth + np.float32(0.5), 0, 1)[:, :, None]


def _turn(array: NDArray[Any], heading: int) -> NDArray[Any]:
    """From the frame of a layout, marks at the low end of x, to an image whose marks lie towards ``heading``."""
    turned = array if heading < 2 else array.swapaxes(0, 1)
    if HEADINGS[heading] in ("right", "down"):
        turned = turned[:, ::-1] if heading < 2 else turned[::-1]
    return np.ascontiguousarray(turned)
