"""The drawn data sets as segmentation data: ``scenes`` and the probes with a class for every pixel that is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from experiments.data.batch import unreadable
from experiments.data.masks import IGNORED, LabelledMasks
from experiments.data.order import SampleKey
from experiments.data.probes import Probe
from experiments.data.scenes import GROUNDS, Scenes
from experiments.data.token_images import IGNORED as NOT_ASKED
from experiments.data.token_images import TokenImages

VERSION = 1  # of the masks: raise it with any change that changes a pixel's class
GROUND = "ground"


class DrawnMasks(Dataset[tuple[Tensor, Tensor]]):
    """The images of a drawn data set, bit by bit, each with a mask int64 [h, w].

    Indexing gives an image and its mask: of training, float32 [3, h, w], normalised as the drawn data set does; of
    evaluation, uint8 [3, h, w]. Both are functions of what the drawn images are functions of (``TokenImages``).
    class_names: K names; palette: uint8 [K, 3].
    """

    drawn: TokenImages
    class_names: tuple[str, ...]
    palette: NDArray[np.uint8]

    def sample(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The image, uint8 [h, w, 3], and its mask, int64 [h, w]."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Tensor]:
        image, mask = self.sample(key)
        if self.drawn.split == "train":
            return self.drawn.labelling.normalise(image), torch.from_numpy(mask)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(mask)

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> LabelledMasks:
        images, masks = zip(*samples)
        if self.drawn.split == "train":
            return LabelledMasks(torch.stack(images), unreadable(()), torch.stack(masks))
        return LabelledMasks(images, unreadable(()), masks)

    def name(self, index: int) -> str:
        return self.drawn.name(index)

    def problem(self, index: int) -> str:
        return self.drawn.problem(index)

    def fingerprint(self) -> str:
        """Hash of what images and masks are drawn from, the same for runs of every seed."""
        recipe = {"masks": VERSION, "classes": self.class_names, "images": self.drawn.fingerprint()}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


class BarMasks(DrawnMasks):
    """Scenes: a pixel in a bar has the class of the bar, any other one is ground. No pixel is ignored."""

    def __init__(self, scenes: Scenes) -> None:
        self.drawn = self.scenes = scenes
        self.class_names = (*scenes.labelling.class_names, GROUND)
        self.palette = np.concatenate([scenes.labelling.palette, GROUNDS[:1].astype(np.uint8)])

    def sample(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        scene = self.scenes.scene(key)
        ground = len(self.class_names) - 1
        return scene.image, np.where(scene.pixel_labels == NOT_ASKED, ground, scene.pixel_labels)


class CueMasks(DrawnMasks):
    """Probes: all pixels of a cue have the class that it asks for, any other pixel is ignored."""

    def __init__(self, probe: Probe) -> None:
        self.drawn = self.probe = probe
        self.class_names = probe.labelling.class_names
        palette = probe.labelling.palette
        self.palette = palette if palette.ndim == 2 else _blended(palette)

    def sample(self, key: SampleKey) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        image, labels = self.probe[key][:2]
        tile = self.probe.labelling.token
        mask = labels.masked_fill(labels == NOT_ASKED, IGNORED).repeat_interleave(tile, 0).repeat_interleave(tile, 1)
        return self.probe.labelling.pixels(image[None])[0], mask.numpy()


def drawn_masks(images: TokenImages) -> DrawnMasks:
    """The masks of a drawn data set. Raises TypeError for one of another kind."""
    if isinstance(images, Scenes):
        return BarMasks(images)
    if isinstance(images, Probe):
        return CueMasks(images)
    raise TypeError(f"{images.plural} have no masks")


def _blended(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One colour for each class of several parts, [K, P, 3] to [K, 3]: each part weighs twice as much as the next."""
    weights = 0.5 ** np.arange(palette.shape[1])
    mixed: NDArray[np.uint8] = np.average(palette, axis=1, weights=weights).round().astype(np.uint8)
    return mixed
