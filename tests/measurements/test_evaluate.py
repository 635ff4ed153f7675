"""``evaluate=`` finds of a run's weights what the run found, bit for bit, and judges files under a recipe."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import stats

import run
from atm import released
from errors import DataError
from experiments.config import resolve
from experiments.data.registry import check_judged, check_root
from experiments.folder.run_folder import RunFolder
from experiments.identity import run_id
from experiments.tasks.registry import build_task
from experiments.training import loop
from experiments.training.evaluation import Evaluator
from measurements.evaluation_settings import KINDS
from results.evaluations import read_evaluations
from results.records import read_records
from results.run_folders.numbers import not_finite
from run_format import CONFIG, PROVENANCE, RECORDS, SUMMARY, WEIGHTS
from tests.atm.test_atm_released import Reference
from tests.conftest import write_images
from tests.experiments.box_folders import write_boxes
from tests.experiments.mask_folders import write_pairs

COMMON = {"data.image_size": [64, 64], "train.ema_decay": 0.5, "data.workers": 0, "machine.threads": 1}
EPOCH = {"train.epochs": 1, "train.warmup_epochs": 0, "data.train_images": 8, "train.batch_size": 4}
STEP = {"train.steps": 2, "train.warmup_steps": 0, "train.eval_every_steps": 1, "train.batch_size": 2}
SMALL = {
    "classification": ("tiny_imagenet", EPOCH | {"model": "nano"}),
    "token_labelling": ("scenes", EPOCH | {"data.eval_images": 6}),
    "segmentation": ("scenes_masks", EPOCH | {"data.eval_images": 6, "segment.width": 8, "segment.neck_width": 8}),
    "detection": (
        "bccd",
        STEP | {"data.num_classes": 3, "data.dataset": "boxes", "detect.resize": [48, 80], "detect.width": 8,
                "detect.fc_width": 8, "detect.rois": 8, "detect.proposals": 8, "detect.test_proposals": 8,
                "detect.score_threshold": 0.0, "detect.head": "mask_rcnn"},
    ),
}  # fmt: skip


def train(runs_dir: Path, task: str, root: Path | None, **changes: object) -> RunFolder:
    recipe, settings = SMALL[task]
    config = resolve(recipe, COMMON | settings | ({"data.root": str(root)} if root else {}) | changes)
    check_root(config)
    folder = RunFolder(runs_dir / run_id(config))
    folder.freeze(config)
    loop.run(folder)
    return folder


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {"classification": write_images(folder / "images"), "detection": write_boxes(folder / "boxes")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, roots) -> dict[str, RunFolder]:
    """A finished run of every task."""
    runs_dir = tmp_path_factory.mktemp("runs")
    return {task: train(runs_dir, task, roots.get(task)) for task in SMALL}


def evaluate(capsys, runs_dir: Path, name: object, *words: str) -> dict:
    assert run.main([f"evaluate={name}", *words, f"runs_dir={runs_dir}", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, runs_dir: Path, name: object, *words: str) -> str:
    assert run.main([f"evaluate={name}", *words, f"runs_dir={runs_dir}"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", SMALL)
def test_a_run_is_judged_as_it_judged_itself(runs, capsys, task, kind):
    folder = runs[task]
    prefix = {"ema": "eval_ema/", "raw": "eval/"}[kind]
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    found = evaluate(capsys, folder.path.parent, folder.id, f"weights={kind}")
    own = {name: value for name, value in folder.finished()["metrics"].items() if name.startswith(prefix)}
    assert found["metrics"] == own == found["own"] and own
    assert found["changed"] == found["notes"] == []
    records, of_run = (read_records(Path(path) / RECORDS) for path in (found["folder"], folder.path))
    for name, record in records.items():
        assert record.images == found["images"] and record.order == of_run[name].order
        assert np.array_equal(record.contributions(), of_run[name].contributions())
    assert {file: file.read_bytes() for file in before} == before, "the run's own folder stays as it is"


def test_an_evaluation_says_what_it_rests_on(runs, capsys):
    folder = runs["segmentation"]
    found = evaluate(capsys, folder.path.parent, folder.id)
    own = folder.read_json(PROVENANCE)
    assert found["weights"] == {
        "file": str(folder.path / WEIGHTS),
        "kind": "ema",
        "sha256": folder.finished()["sha256"][WEIGHTS],
        "released": False,
    }
    assert found["provenance"]["code_fingerprint"] == own["code_fingerprint"] == found["trained"]["code_fingerprint"]
    assert own["data_fingerprint"].endswith(f"-{found['provenance']['data_fingerprint']}")
    result = RunFolder(Path(found["folder"]))
    assert result.path.parent == folder.path.parent / "evaluations" and result.config() == folder.config()
    by_image = read_records(result.path / RECORDS)["eval_ema/miou"].contributions()
    expected = stats.t.interval(0.95, len(by_image) - 1, by_image.mean(), stats.sem(by_image))
    assert found["intervals"]["eval_ema/miou"] == pytest.approx(expected)
    assert run.main([f"evaluate={folder.id}", f"runs_dir={folder.path.parent}"]) == 0
    words = capsys.readouterr().out
    assert "eval_ema/miou" in words and "6 of fingerprint" in words and "the run itself found the same" in words


def test_the_same_evaluation_is_found_and_fresh_repeats_it(runs, capsys, monkeypatch):
    folder, judged = runs["token_labelling"], []
    whole = Evaluator.evaluate
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, models: judged.append(models) or whole(self, models))
    first = evaluate(capsys, folder.path.parent, folder.id, "--fresh")
    assert len(judged) == 1
    assert evaluate(capsys, folder.path.parent, folder.id) == first and len(judged) == 1
    assert evaluate(capsys, folder.path.parent, folder.id, "machine.threads=1")["folder"] == first["folder"]
    assert len(judged) == 1
    again = evaluate(capsys, folder.path.parent, folder.id, "--fresh")
    assert len(judged) == 2 and again["metrics"] == first["metrics"] and again["folder"] == first["folder"]
    result = RunFolder(Path(first["folder"]))
    result.write_json(PROVENANCE, {**result.read_json(PROVENANCE), "code_fingerprint": "0" * 16})
    evaluate(capsys, folder.path.parent, folder.id)
    assert len(judged) == 3, "other code may find something else"
    (result.path / SUMMARY).write_text("{torn")
    evaluate(capsys, folder.path.parent, folder.id)
    assert len(judged) == 4


def test_views_of_a_segmentation_are_another_evaluation(runs, capsys):
    folder = runs["segmentation"]
    views = ("segment.test_scales=[0.5,1.0,1.5]", "segment.test_flip=true")
    found = evaluate(capsys, folder.path.parent, folder.id, *views)
    assert found["changed"] == ["segment.test_flip", "segment.test_scales"] and found["own"] == {}
    plain = evaluate(capsys, folder.path.parent, folder.id)
    assert found["folder"] != plain["folder"] and found["metrics"] != plain["metrics"]
    with_views = train(folder.path.parent / "other", "segmentation", None,
                       **{"segment.test_scales": [0.5, 1.0, 1.5], "segment.test_flip": True})  # fmt: skip
    own = with_views.finished()["metrics"]
    assert found["metrics"] == {f"{name}_ms": own[name] for name in own if name.startswith("eval_ema/")}
    assert "eval_ema/miou_ms" in found["intervals"] and "eval_ema/miou_ms" in read_records(
        Path(found["folder"]) / RECORDS
    )
    again = evaluate(capsys, with_views.path.parent, with_views.id)
    assert again["metrics"] == again["own"] and "eval_ema/miou" in again["metrics"], (
        "the run's own views, its own names"
    )


def test_a_classifier_is_judged_at_another_size_and_on_images_elsewhere(runs, roots, tmp_path, capsys):
    folder = runs["classification"]
    larger = evaluate(capsys, folder.path.parent, folder.id, "data.image_size=[96,96]", "augment.crop_pct=0.9")
    assert larger["changed"] == ["augment.crop_pct", "data.image_size"] and larger["images"] == 12
    moved = shutil.copytree(roots["classification"], tmp_path / "moved")
    found = evaluate(capsys, folder.path.parent, folder.id, f"data.root={moved}")
    assert found["metrics"] == found["own"] and found["notes"] == []
    for image in (moved / "val" / "class0").iterdir():
        image.rename(image.with_name(f"other{image.name}"))
    other = evaluate(capsys, folder.path.parent, folder.id, f"data.root={moved}")
    assert other["folder"] != found["folder"]
    assert other["notes"] == ["these are not the images that the run was judged on"]


def test_only_the_images_that_are_judged_need_to_be_there(runs, roots, tmp_path, capsys):
    folder = runs["detection"]
    moved = shutil.copytree(roots["detection"], tmp_path / "moved")
    shutil.rmtree(moved / "train2017")
    (moved / "annotations" / "instances_train2017.json").unlink()
    found = evaluate(capsys, folder.path.parent, folder.id, f"data.root={moved}")
    assert found["metrics"] == found["own"] and found["notes"] == []
    path = moved / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace('"dog"', '"dingo"'))
    said = refusal(capsys, folder.path.parent, folder.id, f"data.root={moved}")
    assert "not the classes of" in said and "dingo here, dog there" in said


def test_masks_of_training_need_not_be_there_for_an_evaluation(tmp_path):
    root = write_pairs(tmp_path / "pairs")
    config = resolve("camvid", {"data.dataset": "masks", "data.root": str(root), "data.eval_split": "validation"})
    with_both = build_task(deepcopy(config)).eval_set.fingerprint()
    for side in ("images", "annotations"):
        shutil.rmtree(root / side / "training")
    with pytest.raises(DataError, match="no folder for the train"):
        check_root(deepcopy(config))
    check_judged(config)
    task = build_task(config)
    assert config.data.num_classes == 3 and task.eval_set.fingerprint() == with_both
    with pytest.raises(DataError):
        len(task.train_set)  # a training needs both


def test_a_file_is_judged_as_its_run_was(runs, roots, capsys):
    folder = runs["classification"]
    config = folder.config()
    words = [f"experiment={config.experiment}", "model=nano", "data.image_size=[64,64]", f"data.root={config.data.root}",
             "data.workers=0", "machine.threads=1"]  # fmt: skip
    own = folder.finished()["metrics"]
    named = {name.rpartition("/")[2]: value for name, value in own.items() if name.startswith("eval_ema/")}
    found = evaluate(capsys, folder.path.parent, folder.path / WEIGHTS, *words)
    assert found["weights"]["kind"] is None and found["of"] == "weights" and found["notes"] == []
    assert found["metrics"] == pytest.approx({f"eval/{name}": value for name, value in named.items()}, rel=1e-5)
    (checkpoint,) = folder.checkpoints.glob("*.pt")
    for kind, prefix in (("ema", "eval_ema/"), ("raw", "eval/")):
        found = evaluate(capsys, folder.path.parent, checkpoint, *words, f"weights={kind}")
        expected = {name: value for name, value in own.items() if name.startswith(prefix)}
        assert found["metrics"] == pytest.approx(expected, rel=1e-5) and found["weights"]["kind"] == kind


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A file with the names of the authors' checkpoints, the raw weights beside the averaged ones."""
    file = tmp_path_factory.mktemp("released") / "xt.pth"
    averaged = Reference("xt", num_classes=3).state_dict()
    torch.save({"model": {name: torch.zeros_like(value) for name, value in averaged.items()}, "model_ema": averaged},
               file)  # fmt: skip
    return file


def test_a_released_checkpoint_is_judged_with_its_averaged_weights(checkpoint, roots, tmp_path, capsys):
    words = ["experiment=imagenet", "model=xt", "data.num_classes=3", f"data.root={roots['classification']}",
             "data.image_size=[64,64]", "train.precision=float32", "data.workers=0", "machine.threads=1"]  # fmt: skip
    found = evaluate(capsys, tmp_path, checkpoint, *words)
    assert found["weights"]["kind"] == "ema" and found["of"] == "xt" and not not_finite(found["metrics"])
    assert found["weights"]["released"] is True
    (judged,), unreadable = read_evaluations(tmp_path)
    assert not unreadable
    assert judged.released and (judged.model, judged.size, judged.images) == ("xt", (64, 64), 12)
    assert judged.metrics["top1"] == found["metrics"]["eval_ema/top1"] and judged.dataset == "imagenet"
    converted = tmp_path / "converted.safetensors"
    safetensors.torch.save_file(released.load(checkpoint).state_dict(), converted)
    ours = evaluate(capsys, tmp_path, converted, *words)
    assert set(found["metrics"]) == {f"eval_ema/{name}" for name in ("top1", "top5", "loss")}
    assert list(ours["metrics"].values()) == list(found["metrics"].values()) and not ours["weights"]["released"]
    raw = evaluate(capsys, tmp_path, checkpoint, *words, "weights=raw")
    assert raw["metrics"]["eval/loss"] == pytest.approx(np.log(3)), "weights of zero say nothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=t"], "it holds atmnet_xt: set model=xt"),
        (["model=xt", "data.num_classes=200"], "2 of another shape (e.g. head.weight); head.weight is [3, 512]"),
        (["model=xt", "model.offsets=zero"], "unexpected"),
        (["model=xt", "train.lr=1"], "train.lr changes nothing about an evaluation"),
        (["model=xt", "augment.mixup=0"], "augment.mixup changes nothing about an evaluation"),
        (["model=xt", "init=other.pth"], "init changes nothing about an evaluation"),
        (["model=xt", "data.image_sise=[32,32]"], "did you mean 'data.image_size'"),
        (["model=xt", "weights=average"], "unknown value for weights 'average'"),
    ],
)
def test_a_file_that_cannot_be_judged_so_is_one_line(checkpoint, roots, tmp_path, capsys, words, message):
    given = {word.partition("=")[0] for word in words}
    rest = [word for word in ("data.num_classes=3", "data.image_size=[64,64]") if word.partition("=")[0] not in given]
    root = write_images(tmp_path / "many", classes=200, train=1, val=1) if "data.num_classes=200" in words else None
    said = refusal(capsys, tmp_path, checkpoint, "experiment=imagenet", f"data.root={root or roots['classification']}",
                   "data.workers=0", *rest, *words)  # fmt: skip
    assert message in said
    assert not (tmp_path / "evaluations").exists()


def test_a_head_must_be_in_the_file(runs, checkpoint, roots, tmp_path, capsys):
    dense = ("experiment=scenes_masks", "model=xt", "data.image_size=[64,64]")
    assert "has no head of task=segmentation" in refusal(capsys, tmp_path, checkpoint, *dense)
    said = refusal(capsys, tmp_path, runs["segmentation"].path / WEIGHTS, "experiment=tiny_imagenet",
                   f"data.root={roots['classification']}", "model=nano")  # fmt: skip
    assert "holds a model of segmentation or detection, not of task=classification" in said


def test_files_that_are_no_weights_are_refused(tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return (Path(tmp_path / "harm").touch, ())

    torch.save({"model": Harmful()}, tmp_path / "harmful.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"model": torch.zeros(3), "epoch": 3}, tmp_path / "numbers.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in (
        ("harmful.pth", "can be read safely: it holds more than weights"),
        ("text.safetensors", "can be read safely"),
        ("numbers.pth", "holds no weights by name"),
        ("list.pth", "holds a list"),
        ("nowhere.pth", "no such file"),
    ):
        assert message in refusal(capsys, tmp_path, tmp_path / name, "experiment=scenes")
    assert not (tmp_path / "harm").exists()
    assert "needs experiment=RECIPE" in refusal(capsys, tmp_path, tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epochs=3", "train.epochs changes nothing about an evaluation"),
        ("segment.hflip=0.5", "segment.hflip changes nothing about an evaluation"),
        ("detect.resize=[10,20]", "detect.resize changes nothing about an evaluation"),
        ("model=t", "model.name is settled by the run"),
        ("machine.devices=2", "machine.devices changes nothing about an evaluation"),
        ("segment.test_scales=[]", "give at least one scale"),
        ("segment.test_flop=true", "did you mean 'segment.test_flip'"),
    ],
)
def test_settings_that_a_run_is_not_judged_by_are_one_line(runs, capsys, word, message):
    folder = runs["segmentation"]
    assert message in refusal(capsys, folder.path.parent, folder.id, word)


def test_runs_without_the_weights_asked_for_are_refused(tmp_path, roots, capsys):
    folder = train(tmp_path, "token_labelling", None)
    for checkpoint in folder.checkpoints.glob("*.pt"):
        checkpoint.unlink()
    assert "its raw weights were in the checkpoint of step 2" in refusal(capsys, tmp_path, folder.id, "weights=raw")
    evaluate(capsys, tmp_path, folder.id)
    weights = safetensors.torch.load_file(folder.path / WEIGHTS)
    safetensors.torch.save_file({name: value + 1 for name, value in weights.items()}, folder.path / WEIGHTS)
    assert "is not the file that the run wrote" in refusal(capsys, tmp_path, folder.id)
    (folder.path / WEIGHTS).unlink()
    assert f"its {WEIGHTS} is missing" in refusal(capsys, tmp_path, folder.id)
    plain = train(tmp_path, "token_labelling", None, **{"train.ema_decay": None})
    assert "has no averaged weights" in refusal(capsys, tmp_path, plain.id, "weights=ema")
    found = evaluate(capsys, tmp_path, plain.id)
    assert found["weights"]["kind"] == "raw" and found["metrics"] == found["own"] == plain.finished()["metrics"]
    unfinished = RunFolder(tmp_path / "scenes-nano-s0-01234567")
    unfinished.freeze(plain.config())
    assert "was not started yet" in refusal(capsys, tmp_path, unfinished.id)
    assert "unknown run" in refusal(capsys, tmp_path, "nothing")
    assert (folder.path / CONFIG).is_file()
