"""The statistics of learned offsets equal those counted in plain Python, token by token, of offsets set by hand."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import atm  # noqa: F401  (registers the models)
import run
from atm.offsets import OffsetLayer, OffsetPredictor, RandomOffsets
from errors import SuiteError
from experiments.config import ROOT, parse_overrides, resolve
from experiments.folder.run_folder import RunFolder
from experiments.folder.weights import export
from experiments.identity import run_id
from experiments.tasks.registry import build_task
from experiments.training import loop
from measurements.offsets.measure import Measurement, measure
from measurements.offsets.source import OffsetRequest, OffsetSource, of_file, of_run
from results.collect import collect
from sweeps.plan import load
from tests.atm.test_atm_released import Reference
from tests.ended import end

# maps of 16 × 24, 8 × 12, 4 × 6 and 2 × 3 tokens, so that confusing rows with columns is noticed
SIZE = [64, 96]
IMAGES = 3
SCENES = {"data.image_size": SIZE, "data.eval_images": 5, "model": "nano", "machine.threads": 1}
# whole, halves and quarters, at and beyond both ends of every map
PATTERN = (0.0, -1.0, 2.0, 0.5, -0.25, -3.0, 1.75, -12.5, 11.0, -24.0, 5.0)
MODES = {
    "axial": {},
    "token": {"model.offsets": "token"},
    "joint": {"model.offsets": "joint", "model.offset_sharing": 1},
    "axial, 3 samples": {"model.samples": 3, "model.offset_sharing": 1},
    "axial, 3 samples, shared": {"model.samples": 3},
    "token, 3 samples": {"model.offsets": "token", "model.samples": 3},
    "frozen": {"model.offsets": "frozen"},
    "random, 3 samples": {"model.offsets": "random", "model.samples": 3, "model.offset_sharing": 1},
}


def set_by_hand(model: torch.nn.Module, seed: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    """Makes every layer of offsets return these constants. Returns the horizontal and the vertical ones by layer."""
    offsets_by_layer = {}
    for path, predictor in model.named_modules():
        if not isinstance(predictor, OffsetLayer):
            continue
        stage, block = (int(part) + 1 for part in path.split(".") if part.isdigit())
        reads = predictor.samples * predictor.groups
        first = 3 * stage + seed
        horizontal = [PATTERN[(first + n) % len(PATTERN)] for n in range(reads)]
        vertical = [-PATTERN[(first + 2 * n + 1) % len(PATTERN)] for n in range(reads)]
        if isinstance(predictor, RandomOffsets):
            predictor.values = torch.tensor(horizontal + vertical)
        else:
            torch.nn.init.zeros_(predictor.proj.weight)
            predictor.proj.bias.data = torch.tensor(horizontal + vertical)
        offsets_by_layer[f"layer_{stage}_{block}"] = (horizontal, vertical)
    return offsets_by_layer


def weights_by_hand(path: Path, **settings: object) -> tuple[OffsetSource, dict[str, tuple[list[float], list[float]]]]:
    torch.manual_seed(0)
    model = build_task(resolve("scenes", SCENES | settings)).build_model()
    offsets_by_layer = set_by_hand(model)
    export(model.state_dict(), path / "byhand.safetensors")
    return of_file(
        str(path / "byhand.safetensors"), path, {"experiment": "scenes", **SCENES, **settings}, {}
    ), offsets_by_layer


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("mode", MODES)
def test_every_number_is_what_counting_token_by_token_gives(mode: str, tmp_path: Path) -> None:
    source, offsets_by_layer = weights_by_hand(tmp_path, **MODES[mode])
    rows = read_csv(measure(source, OffsetRequest(images=IMAGES)) / "statistics.csv")
    assert len(rows) == 4 * 2 * 2
    for row in rows:
        stage = int(row["layer"].split("_")[1])
        stride, channels = 2 ** (stage + 1), (16, 32, 64, 96)[stage - 1]
        size = SIZE[::-1][row["direction"] == "vertical"] // stride
        offsets = offsets_by_layer[row["layer"]][row["direction"] == "vertical"]
        tokens = range(size) if row["scope"] == "all" else [size // 2]
        positions = [token + offset for token in tokens for offset in offsets]
        mean_abs = statistics.mean(map(abs, offsets))
        tokens_across = SIZE[0] * SIZE[1] // stride**2 if row["scope"] == "all" else 1
        expected = {
            "extent": size,
            "stride": stride,
            "samples": 3 if "3 samples" in mode else 1,
            "sharing": channels * (3 if "3 samples" in mode else 1) // len(offsets),
            "reads": IMAGES * tokens_across * channels * (3 if "3 samples" in mode else 1),
            "mean": statistics.mean(offsets),
            "mean_abs": mean_abs,
            "mean_abs_px": mean_abs * stride,
            "mean_abs_share": 100 * mean_abs / size,
            "spread": statistics.pstdev(offsets),
            "variation": 0.0,
            "outside": 100 * statistics.mean(not 0 <= position <= size - 1 for position in positions),
            "nothing": 100 * statistics.mean(not -1 < position < size for position in positions),
            "min": min(offsets),
            "max": max(offsets),
        }
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(value, abs=2e-6), (row["layer"], row["direction"], name)


@pytest.mark.parametrize("mode", MODES)
def test_histograms_hold_every_read_of_the_centre_token_in_its_bin(mode: str, tmp_path: Path) -> None:
    source, offsets_by_layer = weights_by_hand(tmp_path, **MODES[mode])
    rows = read_csv(measure(source, OffsetRequest(images=IMAGES)) / "histograms.csv")
    for layer, both in offsets_by_layer.items():
        stage = int(layer.split("_")[1])
        stride, channels = 2 ** (stage + 1), (16, 32, 64, 96)[stage - 1]
        for direction, offsets, side in zip(("horizontal", "vertical"), both, SIZE[::-1]):
            size = side // stride
            bins = [row for row in rows if (row["layer"], row["direction"]) == (layer, direction)]
            edges = [float(row["left"]) for row in bins] + [float(bins[-1]["right"])]
            assert edges[0] == -math.inf and edges[-1] == math.inf
            assert (edges[1], edges[-2]) == (-(size // 2), size - 1 - size // 2), "the possible maximal range"
            each = IMAGES * channels * (3 if "3 samples" in mode else 1) // len(offsets)
            for number, row in enumerate(bins):
                left, right = edges[number], edges[number + 1]
                last_inside = number == len(bins) - 2
                held = [o for o in offsets if left <= o < right or (last_inside and o == right)]
                if number == len(bins) - 1:
                    held = [o for o in offsets if o > left]
                assert int(row["reads"]) == each * len(held), (layer, direction, left, right)


@pytest.mark.parametrize("mode", ["static", "shift", "random"])
def test_constant_offsets_are_measured_as_they_are(mode: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model("atmnet_nano", num_classes=0, offsets=mode).eval()
    measurement = Measurement(model, OffsetRequest(), 5)
    measurement.add(torch.randn(5, 3, *SIZE))
    for stage, layer in zip(model.stages, measurement.layers):
        constants = stage.blocks[0].offsets
        offsets = (constants.scale * constants.values).detach().chunk(2)
        assert layer.channels == constants.dim
        for row in layer.statistics():
            own = offsets[row["direction"] == "vertical"]
            assert row["sharing"] == constants.dim // len(own) and row["variation"] == 0
            expected = [value.item() for value in (own.min(), own.max(), own.mean())]
            assert [row["min"], row["max"], row["mean"]] == pytest.approx(expected, abs=1e-5)


def test_statistics_of_offsets_that_differ_are_numpys(tmp_path: Path) -> None:
    """Random predictors, so that tokens, channels and images all differ; everything at once in numpy."""
    torch.manual_seed(1)
    model = timm.create_model("atmnet_nano", num_classes=0).eval()
    for module in model.modules():
        if isinstance(module, OffsetPredictor):
            torch.nn.init.normal_(module.proj.weight, std=0.3)
    images = torch.randn(5, 3, *SIZE)
    caught = []
    hook = model.stages[2].blocks[0].offsets.register_forward_hook(lambda *call: caught.append(call[2]))
    with torch.no_grad():
        model(images)
    hook.remove()
    offsets = caught[0].numpy().astype(float)  # [5, 4, 6, 2 * 16]
    measurement = Measurement(model, OffsetRequest(), 5)
    measurement.add(images)
    layer = next(layer for layer in measurement.layers if layer.name == "layer_3_1")
    rows = {(row["direction"], row["scope"]): row for row in layer.statistics()}
    for direction, half, extent, axis in (
        ("horizontal", offsets[..., :16], 6, 2),
        ("vertical", offsets[..., 16:], 4, 1),
    ):
        here = np.arange(extent).reshape([-1 if dim == axis else 1 for dim in range(4)])
        for scope, part, place in (("all", half, here), ("centre", half[:, 2:3, 3:4], np.array(extent // 2))):
            row, position = rows[direction, scope], part + place
            assert row["mean_abs"] == pytest.approx(np.abs(part).mean(), abs=1e-5)
            assert row["spread"] == pytest.approx(part.std(axis=3).mean(), abs=1e-5)
            assert row["variation"] == pytest.approx(part.std(axis=(0, 1, 2)).mean(), abs=1e-5)
            assert row["outside"] == pytest.approx(100 * ((position < 0) | (position > extent - 1)).mean(), abs=1e-4)
            assert row["nothing"] == pytest.approx(100 * ((position <= -1) | (position >= extent)).mean(), abs=1e-4)
    assert rows["horizontal", "all"]["variation"] > 0.1 and rows["horizontal", "all"]["outside"] > 1


def test_batches_one_by_one_give_what_one_batch_gives() -> None:
    torch.manual_seed(2)
    model = timm.create_model("atmnet_nano", num_classes=0).eval()
    images = torch.randn(6, 3, *SIZE)
    results = []
    for sizes in ((6,), (1, 3, 2)):
        measurement = Measurement(model, OffsetRequest(), 6)
        for batch in images.split(list(sizes)):
            measurement.add(batch)
        results.append(measurement)
    whole, parts = results
    for at_once, in_parts in zip(whole.layers, parts.layers):
        for row, row_in_parts in zip(at_once.statistics(), in_parts.statistics()):
            assert row == pytest.approx(row_in_parts, abs=2e-5)
        assert [row["reads"] for row in at_once.histograms()] == [row["reads"] for row in in_parts.histograms()]
    for key, values in whole.overlays().items():
        np.testing.assert_allclose(values, parts.overlays()[key], atol=1e-5)


def test_the_positions_kept_are_those_of_the_chosen_layer_image_and_token() -> None:
    torch.manual_seed(3)
    model = timm.create_model("atmnet_nano", num_classes=0).eval()
    images = torch.randn(7, 3, *SIZE)
    caught = []
    hook = model.stages[1].blocks[0].offsets.register_forward_hook(lambda *call: caught.append(call[2]))
    with torch.no_grad():
        model(images)
    hook.remove()
    measurement = Measurement(model, OffsetRequest(layer="2_1", queries=((0.99, 0.0), (0.5, 0.26), (1.0, 1.0))), 7)
    for batch in images.split(4):
        measurement.add(batch)
    overlays = measurement.overlays()
    assert overlays["indices"].tolist() == [0, 2, 4, 6]
    assert overlays["queries"].tolist() == [[7, 0], [4, 3], [7, 11]]
    for number, image in enumerate(overlays["indices"]):
        np.testing.assert_array_equal(overlays["images"][number], images[image].numpy())
        for query, (row, column) in enumerate(overlays["queries"]):
            expected = caught[0][image, row, column].numpy()
            np.testing.assert_allclose(overlays["horizontal"][number, query], expected[:8], atol=1e-5)
            np.testing.assert_allclose(overlays["vertical"][number, query], expected[8:], atol=1e-5)


def test_unusual_offsets_are_refused_rather_than_counted(tmp_path: Path) -> None:
    model = timm.create_model("atmnet_nano", num_classes=0).eval()
    model.stages[0].blocks[0].offsets.proj.bias.data.fill_(float("nan"))
    with pytest.raises(Exception, match="layer_1_1: offsets that are not finite"):
        Measurement(model, OffsetRequest(), 1).add(torch.randn(1, 3, 64, 64))
    with pytest.raises(Exception, match=r"layer '4_7'.*layer_4_1"):
        Measurement(model, OffsetRequest(layer="4_7"), 1)
    with pytest.raises(Exception, match="predicts no offsets"):
        Measurement(timm.create_model("atmnet_nano", offsets="zero"), OffsetRequest(), 1)


def test_the_same_measurement_gives_the_same_bytes_and_is_made_once(tmp_path: Path) -> None:
    source, _ = weights_by_hand(tmp_path)
    request = OffsetRequest(images=2)
    out = measure(source, request)
    names = ("statistics.csv", "histograms.csv", "overlays.npz")

    def stamps() -> list[int]:
        return [(out / name).stat().st_mtime_ns for name in (*names, "about.json")]

    first, made = {name: (out / name).read_bytes() for name in names}, stamps()
    measure(source, request)
    assert stamps() == made, "nothing has changed, so nothing is measured"
    measure(source, request, fresh=True)
    assert all(new > old for new, old in zip(stamps(), made))
    assert {name: (out / name).read_bytes() for name in names} == first
    made = stamps()
    (out / "histograms.csv").write_bytes(first["histograms.csv"][:-20])
    measure(source, request)
    assert (out / "histograms.csv").read_bytes() == first["histograms.csv"], "incomplete files are measured again"
    made = stamps()
    measure(source, OffsetRequest(images=1))
    assert stamps() != made
    assert json.loads((out / "about.json").read_text())["images"] == 1


def test_more_images_than_there_are_means_all_of_them(tmp_path: Path, shared_images: Path) -> None:
    model = timm.create_model("atmnet_nano", num_classes=3, offsets="token")
    export(model.state_dict(), tmp_path / "w.safetensors")
    settings = {"experiment": "tiny_imagenet", "model": "nano", "model.offsets": "token", "data.root": str(shared_images),
             "data.num_classes": 3, "data.image_size": [64, 64], "data.workers": 0}  # fmt: skip
    out = measure(of_file(str(tmp_path / "w.safetensors"), tmp_path, settings, {}), OffsetRequest())
    about = json.loads((out / "about.json").read_text())
    assert (about["images"], about["dataset"], about["split"]) == (12, "tiny_imagenet", "validation")
    with np.load(out / "overlays.npz") as overlays:
        assert overlays["images"].shape == (4, 64, 64, 3)
        blue = overlays["images"].astype(float).mean(axis=(1, 2))[:, 2]
    assert blue[0] > blue[-1] + 60, "pictures in their own colours: the first class is bluer than the last"


# --- runs and the command line


def trained_by_hand(runs_dir: Path, config: object, bias: float | None = None) -> RunFolder:
    """A run folder as a finished run leaves it, without the training; every offset is ``bias``."""
    folder = RunFolder(runs_dir / run_id(config))
    folder.freeze(config)
    model = build_task(config).build_model()
    for module in model.modules():
        if isinstance(module, OffsetPredictor) and bias is not None:
            torch.nn.init.zeros_(module.proj.weight)
            torch.nn.init.constant_(module.proj.bias, bias)
    export(model.state_dict(), folder.path / "weights.safetensors")
    end(folder)
    return folder


@pytest.mark.slow
def test_a_trained_run_gets_its_page_and_stays_the_run_it_was(tmp_path, small_scenes, capsys):
    config = resolve("scenes", small_scenes | {"train.epochs": 1, "train.ema_decay": 0.5})
    folder = RunFolder(tmp_path / run_id(config))
    folder.freeze(config)
    summary = loop.run(folder)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert run.main([f"offsets={folder.id[-8:]}", f"runs_dir={tmp_path}", "images=3", "query=[0.5,0.5]", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 3 and len(document["statistics"]) == 16
    assert {row["layer"] for row in document["statistics"]} == {f"layer_{i}_1" for i in (1, 2, 3, 4)}
    assert {Path(name).name for name in document["written"]} >= {"report.md", "offset_histograms.png"}
    assert all(Path(name).parent == folder.path / "offsets" for name in document["written"])
    assert all(path.read_bytes() == content for path, content in before.items())
    assert loop.run(folder) == summary, "it is still finished"
    plan = {"sweep": "single", "protocol": "smoke", "baseline": "axial", "arms": [{"name": "axial"}]}
    collected = collect({**plan, "runs": [{"run": folder.id, "arm": "axial", "seed": 0}]}, tmp_path)
    assert (list(collected.runs["state"]), collected.warnings) == (["done"], [])


def test_the_data_of_a_run_may_lie_elsewhere_by_now(tmp_path, shared_images):
    present, gone = str(shared_images), tmp_path / "gone"
    gone.symlink_to(shared_images)
    settings = {"model": "nano", "data.num_classes": 3, "data.image_size": [64, 64], "data.workers": 0}
    folder = trained_by_hand(tmp_path / "runs", resolve("tiny_imagenet", settings | {"data.root": str(gone)}), 1.0)
    site = {"data": {"tiny_imagenet": {"root": "/no/such/place"}}, "machine": {"threads": 1}}
    assert of_run(folder, {}, site).config.data.root == present, (
        "the frozen root exists, so the root of the site is not used"
    )
    gone.unlink()
    with pytest.raises(SuiteError, match="no such file or folder"):
        of_run(folder, {}, {})
    site["data"]["tiny_imagenet"]["root"] = present
    for source in (of_run(folder, {}, site), of_run(folder, {"data.root": present}, {})):
        assert source.config.data.root == present
        assert measure(source, OffsetRequest(images=2)) == folder.path / "offsets"
    assert folder.config().data.root == str(gone), "the run's own config stays as it was"


def test_a_sweep_compares_its_finished_runs(tmp_path, small_scenes, capsys):
    settings = {key: value for key, value in small_scenes.items() if key != "train.epochs"}
    arms = ["zero", "token", "axial", "axial_x3"]
    plan = load("ablation_offsets", "smoke", settings, [0, 1], arms, {})
    biases = {("token", 0): 1.0, ("token", 1): 2.0, ("axial", 0): -0.5, ("zero", 0): None, ("zero", 1): None}
    for each in plan.runs:
        if (each.arm, each.seed) in biases:
            trained_by_hand(tmp_path, each.config, biases[each.arm, each.seed])
    words = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    words += ["offsets=ablation_offsets", "protocol=smoke", "seeds=[0,1]", f"arms=[{','.join(arms)}]", "images=2"]
    words = sorted(words, key=lambda word: not word.startswith("offsets="))
    assert run.main([*words, f"runs_dir={tmp_path}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {(row["arm"], row["layer"], row["direction"], row["scope"]): row for row in document["statistics"]}
    assert {arm for arm, *_ in rows} == {"token", "axial"}
    token = rows["token", "layer_2_1", "vertical", "all"]
    assert (token["n"], token["mean_abs_mean"], token["mean_abs_low"], token["mean_abs_high"]) == (2, 1.5, 1.0, 2.0)
    # 8 × 8 tokens: one column in eight reads outside at +1, two at +2
    assert (token["outside_mean"], token["outside_low"], token["outside_high"]) == (18.75, 12.5, 25.0)
    assert rows["axial", "layer_2_1", "vertical", "all"]["n"] == 1
    state = {(each["arm"], each["seed"]): each for each in document["runs"]}
    assert state["zero", 0]["where"] == "this model predicts no offsets (model.offsets=zero)"
    assert "no such run" in state["axial_x3", 1]["where"]
    assert state["token", 1]["measured"] and not state["axial", 1]["measured"]
    page = (tmp_path / "reports" / "offsets-ablation_offsets-smoke" / "report.md").read_text()
    assert "| 1.50 [1.00, 2.00] |" in page and "predicts no offsets" in page


def test_a_sweep_of_several_tasks_compares_the_runs_of_its_own_task(tmp_path, monkeypatch, small_scenes, capsys):
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)
    (tmp_path / "transfer.yaml").write_text(
        "recipes: {smoke: scenes}\nseeds: [0]\nbaseline: axial\ndownstream: {large: {smoke: scenes_256}}\narms: {axial: {}}\n"
    )
    settings = {key: value for key, value in small_scenes.items() if key != "train.epochs"}
    own, downstream = load("transfer", "smoke", settings).runs
    trained_by_hand(tmp_path / "runs", own.config, 1.0)
    trained_by_hand(tmp_path / "runs", downstream.config, 3.0)
    words = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    words = ["offsets=transfer", "protocol=smoke", *words, "images=2", f"runs_dir={tmp_path / 'runs'}", "--json"]
    assert run.main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert [entry["run"] for entry in document["runs"]] == [own.id]
    assert {row["mean_abs_mean"] for row in document["statistics"]} == {1.0}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "timm/resnet10t"}, "model=timm/resnet10t"),
        ({"model.mixer": "identity"}, "model.mixer=identity"),
        ({"model.offsets": "zero"}, "model.offsets=zero"),
    ],
)
def test_a_network_without_offsets_is_refused_with_the_reason(tmp_path, small_scenes, settings, reason):
    folder = trained_by_hand(tmp_path, resolve("scenes", small_scenes | settings))
    with pytest.raises(SuiteError, match=rf"predicts no offsets \({reason}\)"):
        of_run(folder, {}, {})


def test_a_wrong_command_gets_one_line_that_names_the_valid_choice(tmp_path, small_scenes, capsys):
    done = trained_by_hand(tmp_path, resolve("scenes", small_scenes), 1.0)
    zero = trained_by_hand(tmp_path, resolve("scenes", small_scenes | {"model.offsets": "zero"}))
    started = RunFolder(tmp_path / run_id(started_config := resolve("scenes", small_scenes | {"seed": 7})))
    started.freeze(started_config)
    resnet = tmp_path / "resnet.pth"
    torch.save(timm.create_model("resnet18").state_dict(), resnet)
    (tmp_path / "text.pth").write_text("no weights")
    weights = str(done.path / "weights.safetensors")
    for words, says in (
        ([done.id[:-1] + "z"], f"did you mean {done.id!r}"),
        (["ablation_offset", "protocol=smoke"], "did you mean 'ablation_offsets'"),
        ([zero.id], "this model predicts no offsets (model.offsets=zero)"),
        ([started.id], "that run was not started yet"),
        ([done.id, "model.offsets=token"], f"offsets={weights} experiment=scenes model.offsets=…"),
        ([done.id, "experiment=imagenet"], "and experiment would change it"),
        ([done.id, "imags=3"], "unknown key 'imags'"),
        ([done.id, "images=0"], "images=0: give a whole number of at least 1"),
        ([done.id, "query=[0.5,2]"], "fractions of the image, e.g. query=[0.5,0.5]"),
        ([done.id, "query=0.5"], "fractions of the image"),
        ([done.id, "layer=3_2"], "valid: layer_1_1, layer_2_1, layer_3_1, layer_4_1"),
        ([done.id, "layer=last"], "e.g. layer=layer_3_1"),
        ([weights, "experiment=scenes", "model=xt"], "holds atmnet_nano, not atmnet_xt: set model=nano"),
        ([weights, "experiment=scenes", "model.samples=3"], "weights.safetensors does not fit this model"),
        ([weights, "experiment=scenes", "model.offsets=zero"], "predicts no offsets"),
        ([weights, "experiment=imagenet"], "needs images: set data.root=PATH"),
        ([str(resnet), "experiment=scenes"], "resnet.pth holds no ATMNet"),
        ([str(tmp_path / "text.pth"), "experiment=scenes"], "not a checkpoint that can be read safely"),
        (["no/such.pth"], "offsets=no/such.pth: no such file"),
        ([done.id, "--force"], "--force goes with experiment=, config= and sweep=, not with offsets"),
    ):
        code = run.main([f"offsets={words[0]}", *words[1:], f"runs_dir={tmp_path}"])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), (words, err)
        assert says in err, (words, err)
        assert len(err.splitlines()) == 1, err
    assert not (done.path / "offsets").exists()


def test_the_request_is_removed_from_the_settings_of_a_command_line():
    layers = ["layer_1_1", "layer_2_1", "layer_3_1", "layer_3_13", "layer_4_1"]
    assert OffsetRequest.taken_from({}).layer_of(layers) == "layer_3_13", "the last that predicts in stage 3"
    for word, layer in (("layer=2_1", "layer_2_1"), ("layer=layer_2_1", "layer_2_1"), ("layer=3_13", "layer_3_13")):
        settings = parse_overrides([word, "images=7", "query=[0,1]", "data.workers=0"])  # 2_1 is the number 21 in YAML
        request = OffsetRequest.taken_from(settings)
        assert (request.layer_of(layers), request.images, request.queries) == (layer, 7, ((0.0, 1.0),))
        assert settings == {"data.workers": 0}
    several = parse_overrides(["query=[[0,1],[0.5,0.25]]"])
    assert OffsetRequest.taken_from(several).queries == ((0.0, 1.0), (0.5, 0.25))


@pytest.mark.slow
def test_a_released_checkpoint_from_end_to_end(tmp_path: Path) -> None:
    """In the released key layout, with raw and averaged weights; the averaged ones read one token to the right."""
    reference = Reference("xt")
    averaged = {name: value.clone() for name, value in reference.state_dict().items()}
    for name, value in averaged.items():
        if "offset_layer.1" in name:
            value.zero_()
            if name.endswith("bias"):
                value[: len(value) // 2] = 1.0
    torch.save({"model": reference.state_dict(), "model_ema": averaged}, tmp_path / "released.pth")
    words = [
        f"offsets={tmp_path / 'released.pth'}",
        "model=xt",
        "experiment=scenes",
        "data.image_size=[64,64]",
        "images=2",
    ]
    done = subprocess.run(
        [sys.executable, "run.py", *words, f"runs_dir={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet where it is piped"
    digest = hashlib.sha256((tmp_path / "released.pth").read_bytes()).hexdigest()
    out = tmp_path / "offsets" / f"released-{digest[:8]}"
    assert f"15 files, first of all {out / 'report.md'}" in done.stdout
    assert json.loads((out / "about.json").read_text())["weights_sha256"] == digest
    rows = read_csv(out / "statistics.csv")
    assert list(dict.fromkeys(row["layer"] for row in rows)) == [
        f"layer_{n}" for n in ("1_1", "2_1", "3_1", "3_3", "4_1")
    ]
    for row in rows:
        assert float(row["mean"]) == float(row["mean_abs"]) == (row["direction"] == "horizontal")
        assert (row["channels"], row["sharing"]) in {("64", "2"), ("128", "4"), ("320", "4"), ("512", "8")}
    assert "layer_3_3" in (out / "report.md").read_text()
