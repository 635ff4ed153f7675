"""Small images with label maps in ADE20K's layout, and configs that name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.config import ROOT, resolve
from experiments.data.registry import check_root
from experiments.schema import Config

CLASSES = ("sky", "tree", "road")
SHARED = ROOT.parent / "shared" / "data"  # real samples, beside the checkout where there are any


def write_pairs(root: Path, train: int = 4, val: int = 3, classes: tuple[str, ...] = CLASSES) -> Path:
    """``root/{images,annotations}/{training,validation}/<n>``: noise, and every label from 0 on; 24 x 20 px."""
    random = np.random.default_rng(0)
    for split, count in (("training", train), ("validation", val)):
        for number in range(count):
            write_pair(
                root,
                split,
                str(number),
                random.integers(0, 256, (20, 24, 3)),
                random.integers(0, len(classes) + 1, (20, 24)),
            )
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


def write_pair(root: Path, split: str, name: str, image: np.ndarray, labels: np.ndarray) -> None:
    for side, suffix, content in (("images", "jpg", image), ("annotations", "png", labels)):
        path = root / side / split / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content.astype(np.uint8)).save(path)


def config_of(root: Path, dataset: str = "masks", /, **given: object) -> Config:
    config = resolve("tiny_imagenet", {"data.root": str(root), "data.workers": 0})
    config.data.dataset = dataset
    for key, value in given.items():
        setattr(config.data, key, value)
    check_root(config)
    return config


def unpacked(archive: str, folder: Path) -> Path:
    """A real sample, unpacked; skips the test where it is not beside the checkout."""
    import tarfile

    path = SHARED / f"{archive}.tar.gz"
    if not path.is_file():
        pytest.skip(f"needs {path.name} beside the checkout, in {SHARED.parent.name}/{SHARED.name}")
    with tarfile.open(path) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive
