"""``export=RUN to=hub``: the folder that timm loads gives the run's own outputs, and its card the run's own numbers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

import atomic_file
import run
from errors import WriteError
from experiments.folder.run_folder import RunFolder
from experiments.tasks.registry import build_task
from measurements import judged_weights
from measurements.export import TARGETS
from results.records import read_records
from run_format import EXCLUSION, PROVENANCE, RECORDS, WEIGHTS
from tests.conftest import write_images
from tests.measurements.test_evaluate import train

ROOT = Path(__file__).resolve().parents[2]
FILES = {"README.md", "config.json", "model.safetensors"}
LOGITS = """
import sys, timm, torch, atm
folder, images, outputs, *features = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True, **({"features_only": True} if features else {})).eval()
with torch.no_grad():
    torch.save(model(torch.load(images)), outputs)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, root) -> RunFolder:
    return train(
        tmp_path_factory.mktemp("runs"), "classification", root, **{"model.offsets": "joint", "model.peg": False}
    )


@pytest.fixture(scope="module")
def labeller(tmp_path_factory) -> RunFolder:
    return train(tmp_path_factory.mktemp("runs"), "token_labelling", None)


def export(folder: RunFolder, into: Path, *words: str) -> int:
    return run.main([f"export={folder.id}", "to=hub", f"into={into}", f"runs_dir={folder.path.parent}", *words])


def refusal(capsys, *words: str) -> str:
    assert run.main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def by_timm_alone(folder: Path, images: torch.Tensor, work: Path, *features: str) -> object:
    """The outputs in a fresh process that sees timm and ``atm``, and nothing else of this project."""
    shutil.copytree(ROOT / "atm", work / "atm", ignore=shutil.ignore_patterns("__pycache__"))
    torch.save(images, work / "images.pt")
    command = [sys.executable, "-c", LOGITS, str(folder), "images.pt", "outputs.pt", *features]
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=work, check=True, env=alone)
    return torch.load(work / "outputs.pt")


def model_of(folder: RunFolder, kind: str) -> torch.nn.Module:
    config = folder.config()
    model = build_task(config).build_model()
    judged_weights.load(model, judged_weights.of_run(folder, config, kind), config)
    return model.eval()


def card_of(folder: Path) -> tuple[dict, str]:
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


@pytest.mark.parametrize("kind", ["ema", "raw"])
@pytest.mark.slow
def test_a_classifier_has_its_logits_in_a_fresh_process(classifier, tmp_path, capsys, kind):
    into, images = tmp_path / "hub", torch.randn(3, 3, 64, 64)
    assert export(classifier, into, f"weights={kind}", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {Path(file).name for file in document["written"]} == FILES == {path.name for path in into.iterdir()}
    torch.set_num_threads(1)
    with torch.no_grad():
        expected = model_of(classifier, kind)(images)
    assert torch.equal(by_timm_alone(into, images, tmp_path), expected)

    own = classifier.finished()["metrics"]
    prefix = {"ema": "eval_ema/", "raw": "eval/"}[kind]
    head, text = card_of(into)
    (result,) = head["model-index"][0]["results"]
    metrics = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert metrics == {name.removeprefix(prefix): own[name] for name in own if name.startswith(prefix)}
    assert document["metrics"] == metrics
    assert f"| Top-1 (%) | {own[f'{prefix}top1']:.2f}" in text
    assert "n = 12 images of the validation split of tiny_imagenet" in text
    assert result["dataset"]["split"] == "validation"


def test_averaged_and_raw_weights_differ(classifier, tmp_path):
    for kind in ("ema", "raw"):
        assert export(classifier, tmp_path / kind, f"weights={kind}") == 0
    assert export(classifier, tmp_path / "default") == 0
    ema, raw, default = (load_file(tmp_path / kind / "model.safetensors") for kind in ("ema", "raw", "default"))
    assert any(not torch.equal(ema[name], raw[name]) for name in ema)
    assert all(torch.equal(ema[name], default[name]) for name in ema)


def test_the_card_names_arm_protocol_and_origin(classifier, tmp_path):
    assert export(classifier, tmp_path / "hub") == 0
    head, text = card_of(tmp_path / "hub")
    about = classifier.read_json(PROVENANCE)
    for word in (classifier.id, about["commit"], about["code_fingerprint"], about["data_fingerprint"],
                 "| offsets | joint |", "| peg | False |", "protocol tiny", "MIT", "seed 0", "local-dir:",
                 "mean 0.485, 0.456, 0.406"):  # fmt: skip
        assert word in text, word
    assert head["license"] == "mit" and head["library_name"] == "timm"
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["train.batch_size"] == 4 and settings["model.offsets"] == "joint"
    assert str(classifier.path.parent) not in text and classifier.config().data.root not in text


def test_the_card_loads_the_model_as_it_says(classifier, tmp_path, monkeypatch):
    assert export(classifier, tmp_path / "FOLDER") == 0
    code = card_of(tmp_path / "FOLDER")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    from PIL import Image

    names = {"image": Image.new("RGB", (80, 70), "red")}
    exec(code, names)
    assert names["logits"].shape == (1, 3)
    config = classifier.config()
    assert names["data"]["input_size"] == [3, 64, 64] and names["data"]["crop_pct"] == config.augment.crop_pct
    assert names["data"]["interpolation"] == config.augment.interpolation


def test_timm_loads_it_from_the_hub_too(classifier, tmp_path, monkeypatch):
    assert export(classifier, tmp_path / "hub") == 0

    def download(repo_id: str, filename: str, **options: object) -> str:
        assert repo_id == "someone/atm"
        if not (tmp_path / "hub" / filename).is_file():
            raise timm.models._hub.EntryNotFoundError(filename, response=None)
        return str(tmp_path / "hub" / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    model = timm.create_model("hf-hub:someone/atm", pretrained=True)
    assert all(
        torch.equal(model.state_dict()[name], value) for name, value in load_file(classifier.path / WEIGHTS).items()
    )


@pytest.mark.slow
def test_of_a_dense_model_the_backbone_is_exported_and_the_card_says_so(labeller, tmp_path):
    into, images = tmp_path / "hub", torch.randn(2, 3, 64, 64)
    assert export(labeller, into) == 0
    whole = model_of(labeller, "ema")
    torch.set_num_threads(1)
    with torch.no_grad():
        expected = whole.backbone(images)
    maps = by_timm_alone(into, images, tmp_path, "features_only")
    assert len(maps) == 4
    for ours, read in zip(expected, maps[2:], strict=True):  # scenes are labelled from the last two maps
        assert torch.equal(ours, read)
    head, text = card_of(into)
    assert "This is the backbone alone" in text and "stage_norms.0.weight" in text and "stage_norms.2" not in text
    assert head["pipeline_tag"] == "image-feature-extraction"
    n = next(iter(read_records(labeller.path / RECORDS).values())).images
    assert f"n = {n} images" in text and n == 6
    code = text.split("```python\n")[1].split("```")[0].replace("FOLDER", str(into))
    names = {"images": images}
    exec(code, names)
    assert [map.shape[-1] for map in names["maps"]] == [16, 8, 4, 2]


def test_a_network_of_timm_is_exported_as_a_classifier_only(root, tmp_path, capsys):
    runs_dir = tmp_path / "runs"
    other = {"model": "timm/resnet10t"}
    classifier = train(runs_dir, "classification", root, **other)
    assert export(classifier, tmp_path / "hub") == 0
    capsys.readouterr()
    assert "import atm" not in card_of(tmp_path / "hub")[1]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
        assert torch.equal(model(images), model_of(classifier, "ema")(images))
    dense = train(runs_dir, "token_labelling", None, **other)
    said = refusal(capsys, f"export={dense.id}", "to=hub", f"into={tmp_path / 'dense'}", f"runs_dir={runs_dir}")
    assert "timm/resnet10t" in said and not (tmp_path / "dense").exists()


def test_wrong_words_are_refused_in_one_line(classifier, tmp_path, capsys):
    run_, runs_dir, into = f"export={classifier.id}", f"runs_dir={classifier.path.parent}", f"into={tmp_path / 'hub'}"
    assert "into=FOLDER" in refusal(capsys, run_, "to=hub", runs_dir)
    assert "to=NAME (hub" in refusal(capsys, run_, into, runs_dir)
    assert "'hub'" in refusal(capsys, run_, "to=hubb", into, runs_dir)
    assert "weights" in refusal(capsys, run_, "to=hub", into, runs_dir, "weights=averaged")
    assert "takes no seed" in refusal(capsys, run_, "to=hub", into, runs_dir, "seed=1")
    assert "unknown run" in refusal(capsys, "export=nothing", "to=hub", into, runs_dir)
    assert not (tmp_path / "hub").exists()


def test_an_unfinished_or_excluded_run_is_refused(classifier, tmp_path, capsys):
    runs_dir = tmp_path / "runs"
    for name, content in ((EXCLUSION, '{"because": "the labels were wrong"}'), ("summary.json", None)):
        copy = RunFolder(shutil.copytree(classifier.path, runs_dir / classifier.id))
        copy.path.joinpath(name).write_text(content) if content else copy.path.joinpath(name).unlink()
        said = refusal(capsys, f"export={copy.id}", "to=hub", f"into={tmp_path / 'hub'}", f"runs_dir={runs_dir}")
        assert ("the labels were wrong" if content else "not done") in said
        shutil.rmtree(copy.path)


def test_a_folder_with_something_in_it_is_not_touched(classifier, tmp_path, capsys):
    into = tmp_path / "hub"
    into.mkdir()
    assert export(classifier, into) == 0, "an empty folder may be there"
    before = {path.name: path.read_bytes() for path in into.iterdir()}
    for taken in (into, into / "config.json"):
        assert export(classifier, taken, "weights=raw") == 2
        assert "there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in into.iterdir()} == before


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path):
    with pytest.raises(WriteError), atomic_file.making(tmp_path / "hub") as folder:
        (folder / "README.md").write_text("ours")
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "README.md").write_text("theirs")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["theirs"]


def test_nothing_is_left_of_a_folder_that_fails_half_way(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_file.making(tmp_path / "hub") as folder:
        (folder / "README.md").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(classifier, small_disk, capsys):
    (small_disk / "fill").write_bytes(bytes(39 * 2**20))
    assert export(classifier, small_disk / "hub") == 1
    assert "the disk is full" in capsys.readouterr().err
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_every_target_exists():
    from measurements.export import target

    assert all(callable(target(name)) for name in TARGETS)
