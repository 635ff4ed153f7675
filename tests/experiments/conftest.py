"""Small real data: JPEGs in class folders, and runs that take a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_images(root: Path, classes: int = 3, train: int = 8, val: int = 4, size: int = 40) -> Path:
    """``root/{train,val}/<class>/<n>.jpg``: noise around a colour per class."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 60, (size, size + 8, 3)) + np.array([60 * label, 120, 180 - 60 * label])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.jpg")
    return root


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images")


# scenes at a size at which a step takes some ten milliseconds
SMALL = {
    "data.image_size": [64, 64],
    "data.train_images": 32,
    "data.eval_images": 4,
    "train.batch_size": 8,
    "train.epochs": 3,
    "train.warmup_epochs": 0,
}


@pytest.fixture
def small_scenes() -> dict[str, object]:
    return dict(SMALL)
