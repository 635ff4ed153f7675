"""``predict=``: what a finished run of segmentation or detection sees in images, as pictures and numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import run
from experiments.config import resolve
from experiments.data.palette import palette
from experiments.folder import weights
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.tasks.registry import build_task
from experiments.tasks.views import predict_probabilities
from experiments.training import loop
from run_format import WEIGHTS
from tests.experiments.box_folders import write_boxes

SMALL = {"data.image_size": [64, 64], "data.train_images": 8, "data.eval_images": 2, "train.epochs": 1,
         "train.warmup_epochs": 0, "segment.width": 8, "segment.neck_width": 8, "machine.threads": 1}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> RunFolder:
    config = resolve("scenes_masks", SMALL)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / run_id(config))
    folder.freeze(config)
    loop.run(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Two images of unequal size, one of them twice under names that differ in their ending alone."""
    random = np.random.default_rng(5)
    for name, size in (("a.png", (48, 80, 3)), ("b.png", (64, 40, 3)), ("b.JPG", (64, 40, 3))):
        Image.fromarray(random.integers(0, 256, size, np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def predict(folder, images, *words):
    return run.main([f"predict={folder.id}", f"images={images}", f"runs_dir={folder.path.parent}", *words])


def test_every_image_of_a_folder_gets_a_picture_and_its_shares(done, pictures, capsys):
    assert predict(done, pictures, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["run"] == done.id
    files = [entry["picture"].rpartition("/")[2] for entry in said["predictions"]]
    assert files == ["a.png", "b.JPG.png", "b.png.png"]
    for entry in said["predictions"]:
        with Image.open(entry["picture"]) as opened:
            assert opened.format == "PNG" and opened.width > 300
        assert sum(each["share"] for each in entry["classes"]) == pytest.approx(100, abs=0.01)


@torch.no_grad()
def test_shares_are_those_of_the_final_weights(done, pictures, capsys):
    assert predict(done, pictures / "a.png", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["predictions"]
    task = build_task(done.config())
    model = task.build_model().eval()
    model.load_state_dict(weights.read(done.path / WEIGHTS))
    pixels = torch.from_numpy(np.array(Image.open(pictures / "a.png"))).permute(2, 0, 1)
    classes = predict_probabilities(model, pixels, task.plan).argmax(0)
    names = [*task.eval_set.class_names]
    expected = {names[number]: 100 * float((classes == number).double().mean()) for number in classes.unique().tolist()}
    assert {each["name"]: each["share"] for each in entry["classes"]} == pytest.approx(expected, abs=1e-4)
    shares = [each["share"] for each in entry["classes"]]
    assert shares == sorted(shares, reverse=True)


def test_in_words_the_largest_classes_come_first(done, pictures, capsys):
    assert predict(done, pictures / "a.png") == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("a.png: ") and "%" in first
    assert last == str(done.path / "predictions")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images="], "predict= needs images=PATH"),
        (["images=nowhere"], "images=nowhere: no such file or folder"),
        (["images=."], "no images (.png, .jpg, .jpeg) in this folder"),
        (["images=notes.txt"], "notes.txt: unreadable image"),
        (["images=a.png", "model.offsets=zero"], "model.offsets would make it another run"),
        (
            ["images=a.png", "segment.test_flop=true"],
            "unknown key 'segment.test_flop'; did you mean 'segment.test_flip'",
        ),
    ],
)
def test_what_cannot_be_predicted_is_one_line(done, pictures, tmp_path_factory, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path_factory.mktemp("empty") if words == ["images=."] else pictures)
    code = run.main([f"predict={done.id}", f"runs_dir={done.path.parent}", *words])
    said = capsys.readouterr().err
    assert code in (1, 2) and message in said and said.count("\n") == 1


def test_runs_of_other_tasks_and_unfinished_ones_are_refused(tmp_path, pictures, capsys):
    for recipe, message in (("scenes", "task=token_labelling"), ("scenes_masks", "was not started yet")):
        config = resolve(recipe, {"data.image_size": [64, 64]})
        folder = RunFolder(tmp_path / "runs" / run_id(config))
        folder.freeze(config)
        assert predict(folder, pictures / "a.png") == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1


def test_colours_of_classes_differ():
    for number in (1, 12, 150, 255):
        assert len(np.unique(palette(number), axis=0)) == number
    assert palette(0).shape == (0, 3)
    assert (palette(150)[:12] == palette(12)).all(), "a class keeps its colour when others are added"


BOXES = {"data.num_classes": 3, "data.image_size": [64, 64], "train.steps": 1, "train.warmup_steps": 0,
         "train.eval_every_steps": 1, "train.batch_size": 2, "detect.resize": [48, 80], "detect.width": 8,
         "detect.fc_width": 8, "detect.rois": 8, "detect.proposals": 8, "detect.test_proposals": 8,
         "detect.score_threshold": 0.0, "detect.detections": 7, "detect.head": "mask_rcnn",
         "data.workers": 0, "machine.threads": 1}  # fmt: skip


@pytest.fixture(scope="module")
def detected(tmp_path_factory) -> RunFolder:
    root = write_boxes(tmp_path_factory.mktemp("boxes"))
    config = resolve("bccd", BOXES | {"data.root": str(root), "data.dataset": "boxes"})
    folder = RunFolder(tmp_path_factory.mktemp("runs") / run_id(config))
    folder.freeze(config)
    loop.run(folder)
    return folder


def test_objects_are_drawn_and_named_with_masks_and_scores(detected, pictures, capsys):
    assert predict(detected, pictures, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [entry["picture"].rpartition("/")[2] for entry in said["predictions"]] == ["a.png", "b.JPG.png", "b.png.png"]
    for entry, (height, width) in zip(said["predictions"], ((48, 80), (64, 40), (64, 40))):
        assert 0 < len(entry["objects"]) <= 7 and "not_found" not in entry
        for found in entry["objects"]:
            x1, y1, x2, y2 = found["box"]
            assert found["name"] in ("cat", "dog", "kite") and 0 <= found["score"] <= 1 and "right" not in found
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and 0 <= found["pixels"] <= height * width
        with Image.open(entry["picture"]) as opened:
            assert opened.format == "PNG" and opened.width > 200


def test_images_of_the_evaluation_set_are_compared_with_their_annotations(detected, capsys):
    root = detected.config().data.root
    assert predict(detected, f"{root}/val2017", "detect.score_threshold=1e-9", "--json") == 0
    for entry in json.loads(capsys.readouterr().out)["predictions"]:
        right = sum(found["right"] for found in entry["objects"])
        assert right + len(entry["not_found"]) == 2, "two objects in each image"
    assert predict(detected, f"{root}/train2017", "--json") == 0
    assert all("not_found" not in entry for entry in json.loads(capsys.readouterr().out)["predictions"])


def test_the_score_from_which_objects_are_drawn_can_be_set(detected, pictures, capsys):
    assert predict(detected, pictures / "a.png") == 0
    assert "with a score of 0.3 or more" in capsys.readouterr().out
    assert predict(detected, pictures / "a.png", "detect.score_threshold=0.01") == 0
    assert "with a score of 0.01 or more" in capsys.readouterr().out
    assert predict(detected, pictures / "a.png", "detect.width=16") == 2
    said = capsys.readouterr().err
    assert "detect.width would make it another run" in said and "detect.score_threshold" in said
