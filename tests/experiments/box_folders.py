"""Small images with annotated objects in COCO's layout, and configs that name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.config import resolve
from experiments.data import coco_file
from experiments.data.registry import check_root
from experiments.schema import Config

CATEGORIES = {3: "cat", 7: "dog", 90: "kite"}  # id → name: ids with gaps
SIDES = ((40, 64), (48, 40), (36, 50), (64, 33))  # height and width in px of the images, in turn


def write_boxes(root: Path, train: int = 4, val: int = 3, masks: bool = True) -> Path:
    """``root/{train,val}2017/<n>.jpg``, noise, with two objects each: a rectangle and a triangle, id 100 n + 1 and 2."""
    random = np.random.default_rng(0)
    for split, count, start in (("train", train, 0), ("val", val, 50)):
        document: dict[str, Any] = {
            "info": {"year": 2017},
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
        }
        (root / f"{split}2017").mkdir(parents=True)
        for number in range(start, start + count):
            height, width = SIDES[number % len(SIDES)]
            pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{split}2017" / f"{number}.jpg")
            document["images"].append(
                {"id": number + 1000, "file_name": f"{number}.jpg", "height": height, "width": width}
            )
            for place, (category, box) in enumerate(((7, [4, 6, 10, 8]), (90, [20.5, 2.5, 10, 20])), start=1):
                x, y, w, h = box
                corners = [x, y, x + w, y, x + w, y + h, x, y + h][: 8 if place == 1 else 6]
                document["annotations"].append(
                    {
                        "id": 100 * number + place,
                        "image_id": number + 1000,
                        "category_id": category,
                        "bbox": box,
                        "area": w * h / place,
                        "iscrowd": 0,
                        **({"segmentation": [corners]} if masks else {}),
                    }
                )
        write_annotations(root, split, document)
    return root


def annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def write_annotations(root: Path, split: str, document: Any) -> None:
    path = annotations(root, split)
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    coco_file._read.cache_clear()  # a test may write twice within one tick of the file system's clock


def edit(root: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the annotations of a split in place."""
    document = json.loads(annotations(root, split).read_text())
    change(document)
    write_annotations(root, split, document)


def config_of(root: Path, dataset: str = "boxes", /, **given: object) -> Config:
    config = resolve("tiny_imagenet", {"data.root": str(root), "data.workers": 0})
    config.data.dataset = dataset
    for key, value in given.items():
        setattr(config.data, key, value)
    check_root(config)
    return config
