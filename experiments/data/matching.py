"""Match: the probe in which a cue names its place by content, a colour, not by a displacement (``docs/probes.md``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.data.probes import CUES, TILE, Probe, Tiles, asked, labelling

ITEMS = 8  # tiles that carry a colour and a class
GROUND = 240  # of all tiles but items and cues
DARKEST, BRIGHTEST = 12, 224  # red and green of a colour; grain cuts neither end off
LEVELS = np.array([89, 140, 191, 242], np.uint8)  # blue of an item of each class
CLASSES = ("darkest", "dark", "bright", "brightest")
PALETTE = np.array([[24, 24, 89], [66, 92, 140], [134, 160, 191], [206, 226, 242]], np.uint8)  # for pictures
LATTICE = 4  # colours of an image are places of a square lattice in red and green, so no two are alike
SPACING = 56  # grey levels


class Match(Probe):
    """Eight tiles, each with a colour of its own and a class; cues of the same colours ask for their namesake's class.

    Each class is dealt to two items and each item to as many cues, so that the image as a whole tells nothing of a cue.
    Red and green are the colour, blue is an item's class and dark in a cue.
    """

    plural = "match"
    labelling = labelling(CLASSES, PALETTE, ("any",))

    def recipe(self) -> dict[str, Any]:
        return super().recipe() | {"items": [ITEMS, GROUND, DARKEST, BRIGHTEST, LATTICE, SPACING, *LEVELS.tolist()]}

    def grid(self, random: np.random.Generator) -> Tiles:
        shape = rows, columns = self.size[0] // TILE, self.size[1] // TILE
        tiles = np.stack(np.divmod(random.permutation(rows * columns), columns), axis=1)
        items, cues = tiles[:ITEMS], tiles[ITEMS : ITEMS + rows * columns // CUES]
        origin = random.integers(DARKEST, BRIGHTEST - (LATTICE - 1) * SPACING, size=2, endpoint=True)
        named = random.permutation(LATTICE**2)[:ITEMS]
        names = origin + SPACING * np.stack(np.divmod(named, LATTICE), axis=1)  # [items, 2] red and green
        classes = random.permutation(np.arange(ITEMS) % len(CLASSES))
        namesake = np.arange(len(cues)) % ITEMS
        looks = random.permutation(namesake) if self.shuffled == "cues" else namesake
        colours = np.full((*shape, 3), GROUND, np.uint8)
        colours[tuple(items.T)] = np.insert(names, 2, LEVELS[classes], axis=1)
        colours[tuple(cues.T)] = np.insert(names[looks], 2, DARKEST, axis=1)
        way = items[namesake] - cues
        distance = TILE * np.sqrt((way * way).sum(1).astype(np.float64))
        direction = np.zeros(len(cues), np.int64)
        return asked(shape, colours, cues, classes[namesake], distance, direction, items[namesake][:, None])
