"""The loader's benchmark reads real files through the suite's own pipeline and names the limit."""

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.tables import lines

TINY = ("--model", "atmnet_nano", "--batch", "4", "--image", "32", "--batches", "2", "--threads", "1")


def write_images(root, classes=2, images=3):
    for number in range(classes * images):
        folder = root / f"class{number % classes}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


@pytest.mark.parametrize("split", ["", "train"])
def test_loader_and_training_step_are_compared(run, tmp_path, split) -> None:
    write_images(tmp_path / "images" / split)
    report, printed = run("loader", "--root", str(tmp_path / "images"), *TINY, "--workers", "0,1")
    *loaders, step = report["rows"]
    assert [row["workers"] for row in report["rows"]] == [0, 1, None] and report["images"] == 6
    for row, cells in zip(report["rows"], lines(printed), strict=True):
        assert row["ratio"] == pytest.approx(row["images_s"] / step["images_s"])
        assert cells[:2] == [row["source"], f"{row['images_s']:.1f}"]
    slow = max(row["images_s"] for row in loaders) < step["images_s"]
    assert report["verdict"].startswith("The data pipeline is" if slow else "The network is")
    assert report["verdict"] in " ".join(printed.split())  # the caption is wrapped


def test_a_folder_without_images_is_refused(refused, tmp_path) -> None:
    assert "no such folder" in refused("loader", "--root", str(tmp_path / "nowhere"))
    assert "images" in refused("loader", "--root", str(tmp_path))
