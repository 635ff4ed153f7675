"""The first images of an evaluation set with their masks and predictions, small enough to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from experiments.data.masks import IGNORED

EXAMPLES = 6
LONGEST = 512  # px, of a side
BLANK = 255  # grey level of the area beside an image that is smaller than another one


class MaskExamples:
    """Keeps the first EXAMPLES images, downscaled where a side is longer than LONGEST."""

    def __init__(self, class_names: Sequence[str], palette: np.ndarray) -> None:
        self._class_names, self._palette = tuple(class_names), np.asarray(palette, np.uint8)
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # of each image [h, w, 3], [h, w], [h, w]

    def add(self, image: Tensor, true: np.ndarray, predicted: np.ndarray) -> None:
        """image: uint8 [3, h, w]; true, predicted: integers [h, w] up to 255."""
        if len(self._kept) >= EXAMPLES:
            return
        height, width = true.shape
        scale = min(1.0, LONGEST / max(height, width))
        size = [max(1, round(side * scale)) for side in (height, width)]
        pixels = F.resize_image(image.cpu(), size, antialias=True).permute(1, 2, 0).numpy()
        maps = (torch.from_numpy(part.astype(np.uint8)) for part in (true, predicted))
        true, predicted = (F.resize_mask(part[None], size)[0].numpy() for part in maps)
        self._kept.append((pixels, true, predicted))

    def merge(self, other: MaskExamples) -> None:
        self._kept = (self._kept + other._kept)[:EXAMPLES]

    def arrays(self) -> dict[str, np.ndarray]:
        """images uint8 [N, H, W, 3]; labels, predictions uint8 [N, H, W]; palette uint8 [K, 3]; class_names [K].

        H and W are the largest height and width. Beside a smaller image, pixels are white and both maps IGNORED.
        """
        if not self._kept:
            return {}
        height, width = (max(kept[1].shape[axis] for kept in self._kept) for axis in (0, 1))

        def together(part: int, blank: int) -> np.ndarray:
            shape = (len(self._kept), height, width, *self._kept[0][part].shape[2:])
            arrays = np.full(shape, blank, np.uint8)
            for array, kept in zip(arrays, self._kept):
                rows, columns = kept[part].shape[:2]
                array[:rows, :columns] = kept[part]
            return arrays

        return {
            "images": together(0, BLANK),
            "labels": together(1, IGNORED),
            "predictions": together(2, IGNORED),
            "palette": self._palette.copy(),
            "class_names": np.array(self._class_names),
        }
