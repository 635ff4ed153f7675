"""Interventions replace the offsets of a finished run exactly as they are defined, and nothing else."""

from __future__ import annotations

import itertools
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from scipy import stats
from torch import nn

import reports.commands
import run
from atm.offsets import OffsetPredictor
from errors import ConfigError, RunFailed, SuiteError
from experiments.config import resolve
from experiments.data.scenes import CLASSES
from experiments.folder.run_folder import RunFolder
from experiments.folder.weights import export
from experiments.identity import run_id
from experiments.schema import OFFSET_MODES
from experiments.tasks.registry import TASKS, build_task
from experiments.tasks.token_labelling import TokenLabelling
from experiments.training import loop
from measurements.offsets.effects import InterventionRequest, Judging, intervene
from measurements.offsets.interventions import INTERVENTIONS, Calls, averaged, replaced, shuffle_images, shuffle_tokens
from measurements.offsets.model import offset_layers
from measurements.offsets.source import OffsetSource, of_run
from reports.offsets import interventions
from results import archive
from run_format import PROVENANCE, SUMMARY
from sweeps.plan import load
from tests.conftest import SMALL
from tests.ended import end
from tests.experiments import box_counting

EVERY = tuple(INTERVENTIONS)
# a mixture of signs, fractions and reads outside of small maps
PATTERN = torch.tensor([0.5, -1.0, 2.25, -0.75, 0.0, 1.5, -3.0])


def run_by_hand(runs_dir: Path, predict: str = "as initialised", **settings: object) -> OffsetSource:
    """A finished run without the training. predict: what its predictors give.

    "varying" offsets are some tokens wide, "constant" ones are PATTERN at every token, "whole" and "nothing" as well.
    """
    config = resolve("scenes", SMALL | {"data.eval_images": 7} | settings)
    folder = RunFolder(runs_dir / run_id(config))
    folder.freeze(config)
    torch.manual_seed(0)
    model = build_task(config).build_model()
    for name, parameter in model.named_parameters():
        if "heads" in name:
            torch.nn.init.normal_(parameter)  # or all classes would be alike
    for module in offset_layers(model).values() if predict != "as initialised" else ():
        width = len(module.proj.bias)
        constant = PATTERN.repeat(width)[:width]
        if predict == "varying":
            torch.nn.init.normal_(module.proj.weight, std=0.5)
        else:
            torch.nn.init.zeros_(module.proj.weight)
            values = {"constant": constant, "whole": constant.round(), "nothing": torch.zeros(width)}
            module.proj.bias.data = values[predict]
    export(model.state_dict(), folder.path / "weights.safetensors")
    end(folder)
    return of_run(folder, {}, {})


def results(source: OffsetSource, *names: str, images: int | None = None, layer: str | None = None) -> dict:
    path = intervene(source, InterventionRequest(names or EVERY, images, layer), fresh=True)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A real run whose averaged weights differ from the raw ones, of a precision that shows in its metrics."""
    settings = {"data.eval_images": 7, "train.epochs": 2, "train.ema_decay": 0.5, "train.precision": "bfloat16"}
    config = resolve("scenes", SMALL | settings)
    folder = RunFolder(tmp_path_factory.mktemp("runs") / run_id(config))
    folder.freeze(config)
    loop.run(folder)
    return folder


# --- the definitions


def test_tokens_exchange_whole_offsets_within_their_image() -> None:
    offsets = torch.randn(5, 4, 6, 8)
    shuffled = shuffle_tokens(offsets, Calls("layer_1_1", 0, torch.zeros(8)))
    for before, after in zip(offsets.flatten(1, 2), shuffled.flatten(1, 2)):
        assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    moved = (shuffled != offsets).any(-1).float().mean()
    assert moved > 0.8, "a random order leaves one token in place on average"
    order = torch.arange(24.0).reshape(1, 4, 6, 1).expand(5, 4, 6, 8)
    drawn = [shuffle_tokens(order, Calls(layer, seed, torch.zeros(8)))[..., 0].flatten(1).tolist()
             for layer, seed in (("layer_1_1", 0), ("layer_3_1", 0), ("layer_1_1", 1))]  # fmt: skip
    assert len({tuple(each) for orders in drawn for each in orders}) == 15, "by image, layer and seed"


def test_images_take_the_offsets_predicted_for_the_image_before() -> None:
    offsets = torch.randn(5, 4, 6, 8)
    calls = Calls("layer_1_1", 0, torch.zeros(8))
    shuffled = torch.cat([shuffle_images(part, calls) for part in offsets.split([2, 1, 2])])
    assert torch.equal(shuffled, offsets[[0, 0, 1, 2, 3]])
    with pytest.raises(RunFailed, match=r"maps of different sizes .*layer_1_1"):
        shuffle_images(torch.randn(1, 4, 5, 8), calls)


def test_the_mean_is_taken_per_channel_over_tokens_and_images() -> None:
    model = timm.create_model("atmnet_nano", num_classes=0).eval()
    for module in offset_layers(model).values():
        torch.nn.init.normal_(module.proj.weight, std=0.3)
    images, caught = torch.randn(5, 3, 64, 96), []
    hook = model.stages[2].blocks[0].offsets.register_forward_hook(lambda *call: caught.append(call[2]))
    with torch.no_grad(), averaged(offset_layers(model)) as means:
        for part in images.split([3, 2]):
            model(part)
    hook.remove()
    np.testing.assert_allclose(means["layer_3_1"], torch.cat(caught).double().mean((0, 1, 2)), rtol=1e-5)
    caught.clear()
    chosen = offset_layers(model)
    with torch.no_grad(), replaced(chosen, INTERVENTIONS["mean"].replace, 0, means):
        hook = model.stages[2].blocks[0].offsets.register_forward_hook(lambda *call: caught.append(call[2]))
        model(images)
        hook.remove()
    assert caught[0].shape == (5, 4, 6, 32) and (caught[0] == means["layer_3_1"]).all()
    assert not any(module._forward_hooks for module in chosen.values()), "hooks are removed"


@pytest.mark.parametrize("mode", [{}, {"model.offsets": "joint"}, {"model.offsets": "token", "model.samples": 3}])
def test_every_offset_of_every_layer_is_replaced(tmp_path: Path, mode: dict) -> None:
    """What the mixers receive, by hooks of our own on the mixers."""
    source = run_by_hand(tmp_path, "varying", **mode)
    task = build_task(source.config)
    model = task.build_model().eval()
    model.load_state_dict(timm.models.load_state_dict(str(source.weights)))
    received: list[torch.Tensor] = []
    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if type(module).__name__ == "ActiveTokenMixer":
                hooks.callback(module.register_forward_pre_hook(lambda m, call: received.append(call[1])).remove)
        blocks = sum(type(module).__name__ == "ActiveTokenMixer" for module in model.modules())
        for name, holds in {
            "zero": lambda offsets: (offsets == 0).all(),
            "rounded": lambda offsets: (offsets == offsets.round()).all() and (offsets != 0).any(),
        }.items():
            received.clear()
            with replaced(offset_layers(model), INTERVENTIONS[name].replace, 0, dict.fromkeys(offset_layers(model))):
                model(torch.randn(2, 3, 64, 64))
            assert len(received) == blocks and all(map(holds, received)), name


# --- whole evaluations


def test_undisturbed_a_run_is_what_its_summary_says(trained: RunFolder) -> None:
    about = results(of_run(trained, {}, {}))
    summary = trained.finished()["metrics"]
    assert about["undisturbed"] == {
        name.removeprefix("eval_ema/"): value for name, value in summary.items() if name.startswith("eval_ema/")
    }
    assert about["undisturbed"]["loss"] != summary["eval/loss"], "the averaged weights were judged, not the raw ones"
    assert about["otherwise"] == {} and about["images"] == 7 and about["batch_size"] == 8
    assert list(about["interventions"]) == list(EVERY)
    assert about["layers"] == [f"layer_{stage}_1" for stage in (1, 2, 3, 4)]
    provenance = json.loads((trained.path / "provenance.json").read_text())
    assert about["trained"]["code_fingerprint"] == provenance["code_fingerprint"]
    assert about["trained_commit"] == provenance["commit"]


def test_another_result_than_the_summarys_is_said(trained: RunFolder) -> None:
    source = of_run(trained, {}, {})
    changed = OffsetSource(**{**vars(source), "metrics": {**source.metrics, "token_accuracy": 12.5}})
    assert results(changed, "zero")["otherwise"] == {"token_accuracy": 12.5}
    assert results(changed, "zero", images=3)["otherwise"] == {}, "of some images only, the summary says nothing"


def test_constant_offsets_are_changed_by_no_shuffle_and_no_mean(tmp_path: Path) -> None:
    about = results(run_by_hand(tmp_path, "constant"))
    for name in ("shuffled_tokens", "mean"):
        assert about["interventions"][name]["metrics"] == about["undisturbed"]
        assert about["interventions"][name]["intervals"] == {}, "no image differs"
    images = about["interventions"]["shuffled_images"]["metrics"]  # in another order, sums are rounded otherwise
    assert images["token_accuracy"] == about["undisturbed"]["token_accuracy"]
    assert images["loss"] == pytest.approx(about["undisturbed"]["loss"], rel=1e-6)
    for name in ("zero", "rounded"):
        assert abs(about["interventions"][name]["differences"]["loss"]) > 1e-4, name


@pytest.mark.parametrize("mode", [mode for mode in OFFSET_MODES if mode in ("static", "shift", "random")])
def test_controls_that_read_alike_everywhere_are_changed_by_no_shuffle_and_no_mean(tmp_path: Path, mode: str) -> None:
    about = results(
        run_by_hand(tmp_path, **{"model.offsets": mode}), "shuffled_tokens", "shuffled_images", "mean", "zero"
    )
    losses = {name: effect["metrics"]["loss"] for name, effect in about["interventions"].items()}
    assert losses["shuffled_tokens"] == losses["mean"] == about["undisturbed"]["loss"] != losses["zero"]
    assert losses["shuffled_images"] == pytest.approx(about["undisturbed"]["loss"], rel=1e-6)


def test_whole_offsets_are_not_changed_by_rounding(tmp_path: Path) -> None:
    about = results(run_by_hand(tmp_path, "whole"), "rounded", "zero")
    assert about["interventions"]["rounded"]["metrics"] == about["undisturbed"]
    assert about["interventions"]["zero"]["metrics"] != about["undisturbed"]


def test_zero_is_the_network_with_offsets_of_zero(tmp_path: Path) -> None:
    varying, nothing = run_by_hand(tmp_path / "a", "varying"), run_by_hand(tmp_path / "b", "nothing")
    zero = results(varying, "zero")["interventions"]["zero"]["metrics"]
    assert zero == results(nothing, "zero")["undisturbed"]
    # and of a network that has no offsets at all, whose FCs are applied to one tensor
    model = build_task(varying.config).build_model()
    model.load_state_dict(timm.models.load_state_dict(str(varying.weights)))
    for module in model.modules():
        if type(module).__name__ == "Block":
            module.predicts = False
    judging = Judging(varying.config, build_task(varying.config), model, torch.device("cpu"))
    assert judging.evaluate().metrics["loss"] == pytest.approx(zero["loss"], rel=1e-5)


def test_offsets_that_vary_are_changed_by_everything(tmp_path: Path) -> None:
    about = results(run_by_hand(tmp_path, "varying"))
    for name, effect in about["interventions"].items():
        assert abs(effect["differences"]["loss"]) > 1e-3, name
        assert effect["differences"] == {
            metric: value - about["undisturbed"][metric] for metric, value in effect["metrics"].items()
        }


def test_batches_do_not_matter(tmp_path: Path) -> None:
    source = run_by_hand(tmp_path, "varying")
    whole = results(source)
    source.config.machine.batch_per_device = 2
    parts = results(source)
    assert (whole["batch_size"], parts["batch_size"]) == (8, 2)
    for name in EVERY:
        expected, found = (each["interventions"][name]["metrics"] for each in (whole, parts))
        assert found["token_accuracy"] == expected["token_accuracy"], name
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5), name


def test_one_layer_alone_is_replaced(tmp_path: Path) -> None:
    source = run_by_hand(tmp_path, "varying")
    together = results(source, "zero")
    losses = set()
    for stage in (1, 2, 3, 4):
        about = results(source, "zero", layer=f"{stage}_1")
        assert about["layers"] == [f"layer_{stage}_1"]
        losses.add(about["interventions"]["zero"]["metrics"]["loss"])
    assert len(losses | {together["interventions"]["zero"]["metrics"]["loss"]}) == 5
    files = {path.name for path in source.out.iterdir()}
    assert files == {"interventions.json", *(f"interventions-layer_{stage}_1.json" for stage in (1, 2, 3, 4))}


def test_images_are_exchanged_in_random_order_and_recorded_in_their_own(tmp_path: Path, shared_images: Path) -> None:
    """Neighbours in class folders are of one class, and would have alike offsets."""
    settings = {"model": "nano", "data.num_classes": 3, "data.image_size": [64, 64], "data.workers": 0}
    config = resolve("tiny_imagenet", settings | {"data.root": str(shared_images), "machine.threads": 1})
    torch.manual_seed(0)
    task = build_task(config)
    model = task.build_model()
    torch.nn.init.normal_(model.head.weight)
    judging = Judging(config, task, model, torch.device("cpu"))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, call: seen.append(call[0]))
    stored, mixed = judging.evaluate(), judging.evaluate(random_order=True)
    in_order, shuffled = seen
    places = [int((in_order == image).flatten(1).all(1).nonzero()) for image in shuffled]
    assert sorted(places) == list(range(12)) and places != list(range(12))
    classes = [place // 4 for place in places]
    assert sum(a != b for a, b in itertools.pairwise(classes)) > 3, "three times the class would change in the folders"
    assert stored.metrics["top1"] == mixed.metrics["top1"]
    assert np.array_equal(stored.records["top1"].correct, mixed.records["top1"].correct)
    assert 0 < stored.records["top1"].correct.sum() < 12, "so that the order of the records is visible"


def test_the_interval_is_the_paired_t_interval_over_images(tmp_path: Path, shared_images: Path) -> None:
    settings = {"model": "nano", "data.num_classes": 3, "data.image_size": [64, 64], "data.workers": 0}
    config = resolve("tiny_imagenet", settings | {"data.root": str(shared_images), "machine.threads": 1})
    folder = RunFolder(tmp_path / run_id(config))
    folder.freeze(config)
    torch.manual_seed(0)
    task = build_task(config)
    model = task.build_model()
    for parameter in model.parameters():
        if parameter.ndim == 2:  # freshly initialised mixers add too little to change a class
            torch.nn.init.normal_(parameter, std=0.2)
    export(model.state_dict(), folder.path / "weights.safetensors")
    end(folder)
    effect = results(of_run(folder, {}, {}), "shuffled_tokens")["interventions"]["shuffled_tokens"]
    judging = Judging(config, task, model, torch.device("cpu"))
    own = judging.evaluate().records["top1"].correct[:, 0]
    with replaced(offset_layers(model), shuffle_tokens, config.seed, dict.fromkeys(offset_layers(model))):
        disturbed = judging.evaluate().records["top1"].correct[:, 0]
    assert (own != disturbed).any()
    expected = stats.ttest_rel(100 * disturbed, 100 * own).confidence_interval(0.95)
    assert effect["intervals"]["top1"] == pytest.approx(list(expected))
    assert effect["differences"]["top1"] == pytest.approx(100 * (disturbed.mean() - own.mean()))


def test_results_are_kept_and_added_to(tmp_path: Path) -> None:
    source = run_by_hand(tmp_path, "varying")
    path = intervene(source, InterventionRequest(("zero",)))
    made = path.stat().st_mtime_ns, json.loads(path.read_text())
    assert intervene(source, InterventionRequest(("zero",))).stat().st_mtime_ns == made[0], "nothing is judged again"
    intervene(source, InterventionRequest(("rounded",)))
    about = json.loads(path.read_text())
    assert list(about["interventions"]) == ["zero", "rounded"]
    assert about["interventions"]["zero"] == made[1]["interventions"]["zero"]
    intervene(source, InterventionRequest(("rounded",), images=3))
    about = json.loads(path.read_text())
    assert (about["images"], list(about["interventions"])) == (3, ["rounded"]), "of other images, all is judged anew"
    path.write_text(path.read_text()[:-20])
    intervene(source, InterventionRequest(("rounded",), images=3))
    assert json.loads(path.read_text())["images"] == 3
    content = path.read_text()
    weights = run_by_hand(tmp_path / "other", "whole").weights.read_bytes()
    source.weights.write_bytes(weights)
    intervene(
        OffsetSource(**{n: v for n, v in vars(source).items() if n != "sha256"}), InterventionRequest(("rounded",), 3)
    )
    assert path.read_text() != content, "the weights have changed"


# --- the command line


def test_a_runs_table_and_document(trained: RunFolder, capsys: pytest.CaptureFixture) -> None:
    before = {
        path: path.read_bytes() for path in trained.path.rglob("*") if "offsets" not in path.parts and path.is_file()
    }
    words = [f"offsets={trained.id[-8:]}", f"runs_dir={trained.path.parent}", "interventions=true"]
    assert run.main(words) == 0
    shown = capsys.readouterr().out
    for effect in INTERVENTIONS.values():
        assert effect.title in shown
    assert run.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["written"] == [str(trained.path / "offsets" / "interventions.json")]
    assert f"{document['undisturbed']['token_accuracy']:.2f}" in shown
    assert run.main([*words[:2], "interventions=[rounded,zero]", "images=3", "--json", "--fresh"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], list(document["interventions"])) == (3, ["zero", "rounded"])
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_cannot_be_asked_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    done = run_by_hand(tmp_path)
    name = done.name
    for words, says in (
        (["interventions=shuffle_tokens"], "did you mean 'shuffled_tokens'"),
        (["interventions=[zero,mena]"], "unknown intervention 'mena'; did you mean 'mean'?"),
        (["interventions=[]"], "name some of shuffled_tokens"),
        (["interventions=true", "query=[0.5,0.5]"], "query="),
        (["interventions=true", "images=0"], "images=0"),
        (["interventions=true", "layer=4_2"], "valid: layer_1_1"),
        (["interventions=true", "model.offsets=token"], "model.offsets would change it"),
        (["intervention=true"], "unknown key 'intervention'"),
    ):
        assert run.main([f"offsets={name}", f"runs_dir={tmp_path}", *words]) == 2, words
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and says in err, (words, err)
    for settings, says in (
        ({"model.offsets": "zero"}, "(model.offsets=zero)"),
        ({"model.mixer": "identity"}, "(model.mixer=identity)"),
        ({"model": "timm/resnet18"}, "(model=timm/resnet18)"),
    ):
        with pytest.raises(SuiteError, match="predicts no offsets") as error:
            run_by_hand(tmp_path, **settings)
        assert says in str(error.value)


@pytest.mark.slow
def test_a_sweep_says_by_arm_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {key: value for key, value in SMALL.items() if key != "train.epochs"}
    arms = ["zero", "token", "axial"]
    plan = load("ablation_offsets", "smoke", settings, [0, 1], arms, {})
    found = {}
    monkeypatch.setattr(archive, "MEASURED", tmp_path / "measured")
    monkeypatch.setattr(reports.commands, "PAGES", tmp_path / "pages")
    for each in plan.runs:
        folder = RunFolder(tmp_path / each.id)
        folder.freeze(each.config)
        torch.manual_seed(each.seed)
        model = build_task(each.config).build_model()
        for module in model.modules():
            if isinstance(module, OffsetPredictor):
                torch.nn.init.normal_(module.proj.weight, std=0.5)
        if (each.arm, each.seed) != ("token", 1):
            export(model.state_dict(), folder.path / "weights.safetensors")
            folder.write_json(PROVENANCE, {"code_fingerprint": "c0de", "data_fingerprint": "da7a"})
            summary = {"run": folder.id, "seed": each.seed, "protocol": "smoke", "step": 1, "finished": "2031-05-04"}
            folder.write_json(SUMMARY, summary | {"metrics": {"eval/token_accuracy": 50.0}})
        if each.arm == "axial":
            found[each.seed] = results(of_run(folder, {}, {}), "zero")
    words = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    words = ["offsets=ablation_offsets", "protocol=smoke", "seeds=[0,1]", f"arms=[{','.join(arms)}]", *words]
    assert run.main([*words, f"runs_dir={tmp_path}", "interventions=true", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {(row["arm"], row["intervention"], row["metric"]): row for row in document["interventions"]}
    assert {arm for arm, *_ in rows} == {"token", "axial"} and {name for _, name, _ in rows} == set(EVERY)
    row = rows["axial", "zero", "loss"]
    expected = [about["interventions"]["zero"]["differences"]["loss"] for about in found.values()]
    assert row["n"] == 2 and row["difference"] == pytest.approx(np.mean(expected))
    half = stats.t.ppf(0.975, 1) * np.std(expected, ddof=1) / np.sqrt(2)
    assert [row["low"], row["high"]] == pytest.approx([np.mean(expected) - half, np.mean(expected) + half])
    assert (rows["token", "zero", "loss"]["n"], rows["token", "zero", "loss"]["low"]) == (1, None)
    states = {(each["arm"], each["seed"]): each["where"] for each in document["runs"]}
    assert "predicts no offsets" in states["zero", 0] and states["axial", 0].endswith("interventions.json")
    text = (tmp_path / "reports" / "interventions-ablation_offsets-smoke" / "report.md").read_text()
    for effect in INTERVENTIONS.values():
        assert effect.title in text
    assert "No network saw such offsets in training" in text and "predicts no offsets" in text
    assert run.main([*words, f"runs_dir={tmp_path}", "interventions=true"]) == 0
    shown = capsys.readouterr().out
    assert "predicts no offsets" in shown and "Shuffled" in shown
    # the report of the sweep shows the same, from its run folders and from what was collected of them
    runs = [f"runs_dir={tmp_path}", *words[1:]]
    assert run.main(["report=ablation_offsets", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interventions"] == document["interventions"]
    assert run.main(["collect=ablation_offsets", *runs, "into=m"]) == 0
    out, err = capsys.readouterr()
    assert out.count("/m/interventions/") == 3 and "interventions" not in err
    files = list((tmp_path / "measured" / "m" / "interventions").iterdir())
    assert {path.stem for path in files} == {each["run"] for each in document["runs"] if each["measured"]}
    assert all(str(tmp_path) not in path.read_text() and path.stat().st_size < 6000 for path in files)
    assert run.main(["report=ablation_offsets", "measured=m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["interventions"] == document["interventions"]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    page = (tmp_path / "pages" / "m" / "report.md").read_text()
    assert all(row in page for row in rows[:4]) and rows[3].startswith("| axial |")
    table = tmp_path / "reports" / "interventions-ablation_offsets-smoke" / "table.csv"
    assert (tmp_path / "pages" / "m" / "m-interventions" / "table.csv").read_text() == table.read_text()


class Plain(TokenLabelling):
    """A task with a model of its own, which ignores the model section."""

    def build_model(self) -> nn.Module:
        return nn.Conv2d(3, len(CLASSES), 16, stride=16)


def test_a_task_whose_model_has_no_offsets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "plain", replace(TASKS["token_labelling"], module=f"{__name__}:Plain"))
    with pytest.raises(ConfigError, match="this model predicts no offsets"):
        intervene(run_by_hand(tmp_path, task="plain"), InterventionRequest(EVERY))


def test_what_images_of_different_sizes_cannot_do_is_said_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, "box_counting", box_counting.TASK)
    source = run_by_hand(tmp_path, task="box_counting")
    about = json.loads(intervene(source, InterventionRequest(EVERY)).read_text())
    assert list(about["interventions"]) == [name for name in EVERY if name != "shuffled_images"]
    assert "maps of different sizes cannot exchange offsets" in about["impossible"]["shuffled_images"]
    assert about["metric"]["name"] == "within_one"
    section = interventions.of_run(interventions.read(source.out / "interventions.json"))
    assert [caution for caution in section.cautions if "different sizes" in caution]
    made = (source.out / "interventions.json").stat().st_mtime_ns
    assert intervene(source, InterventionRequest(EVERY)).stat().st_mtime_ns == made
