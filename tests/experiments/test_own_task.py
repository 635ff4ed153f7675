"""A task of one's own needs its file and a registration, and nothing else: everything that holds for runs holds for it."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from atm.complexity import count
from errors import RunFailed
from experiments.config import ROOT
from experiments.data import registry as data_registry
from experiments.folder.run_folder import RunFolder
from experiments.tasks import Evaluation
from experiments.tasks import registry as task_registry
from experiments.tasks.network import dense_backbone
from experiments.training import loop
from experiments.training.evaluation import refuse_other_records
from experiments.training.optimization import decay_groups
from reports.commands import report
from results import archive
from results.collect import collect
from results.records import ImageRecord, read_records
from run_format import WEIGHTS
from sweeps import local
from sweeps.plan import load
from tests.experiments.box_counting import BoxCounting
from tests.experiments.processes import assert_equal_runs, finish, frozen, saved_steps, start, wait_for_step
from tests.sweeps.test_sweeps import TINY

SETTINGS = {
    "task": "box_counting",
    "data.dataset": "counted_boxes",
    "model": "nano",
    "data.train_images": 24,
    "data.eval_images": 9,
    "train.batch_size": 4,
    "train.epochs": None,
    "train.steps": 16,
    "train.eval_every_steps": 5,
    "train.warmup_epochs": None,
    "train.warmup_steps": 2,
    "train.schedule": "polynomial",
    "train.power": 0.9,
    "train.ema_decay": 0.9,
    "machine.threads": 1,
}
POINTS = """[atm.tasks]
box_counting = tests.experiments.box_counting:TASK
[atm.datasets]
counted_boxes = tests.experiments.box_counting:DATASET
"""


@pytest.fixture(autouse=True)
def installed(tmp_path_factory, monkeypatch) -> None:
    """The registration that installing a package would bring, for this process and those that it starts."""
    site = tmp_path_factory.mktemp("site")
    package = site / "box_counting-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: box-counting\nVersion: 1\n")
    (package / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    for registry in (task_registry, data_registry):
        registry._installed.cache_clear()
    yield
    for registry in (task_registry, data_registry):
        registry._installed.cache_clear()


@pytest.fixture
def undisturbed(tmp_path) -> RunFolder:
    folder = frozen(tmp_path / "undisturbed", SETTINGS)
    assert finish(folder, fresh=True) == (0, "")
    return folder


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_trains_in_steps_and_leaves_everything_that_a_run_leaves(undisturbed):
    summary = undisturbed.finished()
    assert (summary["step"], summary["epochs"], summary["task"]) == (16, None, "box_counting")
    assert [row["step"] for row in rows(undisturbed)] == [5, 10, 15, 16]
    assert all("eval_ema/within_one" in row and "epoch" not in row for row in rows(undisturbed))
    assert summary["metrics"].keys() == {
        f"{kind}/{name}" for kind in ("eval", "eval_ema") for name in ("within_one", "error")
    }
    backbone = dense_backbone(undisturbed.config().model, (16,))  # its images are looked at in two sizes
    sizes = [(64, 64), (64, 96), (128, 128), (128, 192)]
    flops = sum(count(backbone, (3, *size)).flops for size in sizes) / 2
    flops += sum(4 * 3 * height * width for height, width in sizes[2:]) / 2  # of the enlargement
    assert summary["flops_g"] == pytest.approx(flops / 1e9, rel=1e-4)
    state = undisturbed.read_json("state.json")
    assert (state["state"], state["step"], state["steps"]) == ("done", 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_killed_and_resumes_bit_by_bit(tmp_path, undisturbed, number):
    folder = frozen(tmp_path / "runs", {**SETTINGS, "machine.checkpoint_minutes": 0.0})
    process = start(folder, fresh=True)
    wait_for_step(folder, 7, process)
    process.send_signal(number)
    process.communicate()
    assert not folder.finished() and saved_steps(folder)[-1] < 16
    assert finish(folder, fresh=True)[0] == 0
    assert_equal_runs(folder, undisturbed)


@pytest.mark.slow
def test_it_runs_on_two_devices_one_image_each_if_need_be(tmp_path, undisturbed):
    folder = frozen(tmp_path / "runs", {**SETTINGS, "machine.devices": 2, "machine.batch_per_device": 1})
    assert finish(folder, fresh=True) == (0, "")
    for ours, alone in zip(rows(folder), rows(undisturbed), strict=True):
        assert ours == pytest.approx(alone, rel=2e-4)
    four = frozen(tmp_path / "four", {**SETTINGS, "train.steps": 3, "machine.devices": 4})
    assert finish(four, fresh=True) == (0, ""), "as many devices as images"


@pytest.mark.slow
def test_it_is_collected_and_reported(tmp_path, undisturbed, capsys):
    entry = task_registry.task_entry("box_counting")
    plan = {
        "sweep": "boxes", "protocol": "smoke", "experiment": "scenes", "baseline": "axial",
        "tasks": [{"name": "box_counting", "experiment": "scenes", "metric": f"eval_ema/{entry.metric}",
                   "label": entry.label, "unit": entry.unit, "decimals": entry.decimals, "chance": entry.chance}],
        "arms": [{"name": "axial", "label": "axial", "model": "nano", "config": {}}],
        "runs": [{"run": undisturbed.id, "arm": "axial", "seed": 0, "task": "box_counting", "parent": None}],
    }  # fmt: skip
    runs_dir, value = undisturbed.path.parent, undisturbed.finished()["metrics"]["eval_ema/within_one"]
    collected = collect(plan, runs_dir)
    assert collected.warnings == []
    assert collected.finals("eval_ema/within_one")["value"].tolist() == pytest.approx([value], rel=1e-5)
    assert set(collected.metrics["step"]) == {5, 10, 15, 16}
    archive.write(collected, tmp_path / "label", plan, title="t", date="d")
    records = read_records(archive.read(tmp_path / "label").records[undisturbed.id])
    assert (
        set(records) == {"eval/within_one", "eval_ema/within_one"} and records["eval_ema/within_one"].value() == value
    )
    options = argparse.Namespace(json=True, mixed=False, check=False, fresh=False)
    assert report("boxes", {"protocol": "smoke"}, options, lambda sweep, words: (plan, runs_dir, dict, dict, dict)) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["metric"], document["rows"][0]["mean"]) == ("eval_ema/within_one", pytest.approx(value, abs=1e-3))
    assert "Counts off by at most one" in next(runs_dir.glob("reports/*/report.md")).read_text()


@pytest.mark.parametrize(("records", "why"), [
    ({"within_one": [1, 1, 1]}, "the records of within_one give 100.0, but the task reports 50.0"),
    ({"within_two": [1, 0]}, "the records of within_two give 50.0, but the task reports None"),
    ({"within_one": [1, 0, 1, 0]}, "the records of within_one are of 4 images, the evaluation set has 2"),
])  # fmt: skip
def test_its_records_must_give_its_metrics(records, why):
    kept = {name: ImageRecord.of(np.array(hits)) for name, hits in records.items()}
    refuse_other_records(Evaluation({"within_one": 50.0}), 2)
    refuse_other_records(Evaluation({"within_one": 50.0}, records={"within_one": ImageRecord.of(np.array([1, 0]))}), 2)
    with pytest.raises(RunFailed, match=f"^{why}$"):
        refuse_other_records(Evaluation({"within_one": 50.0}, records=kept), 2)


@pytest.mark.slow
def test_it_follows_another_task_in_a_sweep(tmp_path, monkeypatch):
    """Really trained: token labelling, then box counting from its backbone, for two arms, side by side in one page."""
    monkeypatch.setattr("sweeps.sweep_file.SWEEPS", tmp_path)
    downstream = {key: value for key, value in SETTINGS.items() if not key.startswith("model")}
    downstream |= {"train.steps": 4, "train.eval_every_steps": 4, "train.ema_decay": None}
    arms = {arm: {"model.offsets": arm, "downstream": {"boxes": downstream}} for arm in ("zero", "axial")}
    sweep = {"recipes": {"smoke": "scenes"}, "seeds": [0], "baseline": "zero", "arms": arms}
    sweep["settings"] = {"smoke": {**TINY, "model": "nano"}}
    sweep["downstream"] = {"boxes": {"smoke": "scenes"}}
    (tmp_path / "transfer.yaml").write_text(json.dumps(sweep))
    plan, runs_dir = load("transfer", "smoke"), tmp_path / "runs"
    said: list[str] = []
    assert sorted(local.launch(plan, runs_dir, jobs=2, say=said.append).done) == sorted(run.id for run in plan.runs)
    runs = {(run.arm, run.task): RunFolder(runs_dir / run.id) for run in plan.runs}
    own, child = runs["axial", "token_labelling"], runs["axial", "boxes"]
    start, end = (load_file(folder.path / WEIGHTS) for folder in (own, child))
    assert sum(name.startswith("backbone.") for name in end) == len(end) - 2
    notes = "".join(child.finished()["notes"])
    assert f"init={own.id}" in notes and "head.weight, head.bias began afresh" in notes
    assert any(line.startswith("note    axial") and line.endswith(notes) for line in said)
    late = "backbone.model.stages.3."
    assert any(name.startswith(late) for name in start) and not any(name.startswith(late) for name in end)
    collected = collect(plan.as_dict(), runs_dir)
    values = collected.finals("eval/within_one").set_index("arm")["value"]
    assert collected.warnings == [] and set(values.index) == {"zero", "axial"}
    options = argparse.Namespace(json=True, mixed=False, check=False, fresh=False)
    assert report("transfer", {}, options, lambda sweep, words: (plan.as_dict(), runs_dir, dict, dict, dict)) == 0
    page = next(runs_dir.glob("reports/*/report.md")).read_text()
    row = next(line for line in page.splitlines() if line.startswith("| axial") or line.startswith("| **axial"))
    accuracy = own.finished()["metrics"]["eval/token_accuracy"]
    assert f"{values['axial']:.2f}" in row and f"{accuracy:.2f}" in row


def _head_apart(self, model):
    head = {"params": list(model.head.parameters()), "weight_decay": 0.0, "lr_scale": 10.0}
    return [*decay_groups(model.backbone, self.config.train.weight_decay), head]


def test_its_optimizer_groups_scale_rates_and_spare_peg_within_the_backbone(tmp_path, monkeypatch):
    monkeypatch.setattr(BoxCounting, "parameter_groups", _head_apart)
    training = loop.Training(*_parts(tmp_path))
    try:
        groups = training.learner.optimizer.param_groups
        names = {id(parameter): name for name, parameter in training.learner.model.named_parameters()}
        decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed and not any("peg" in name or name.endswith("bias") or "norm" in name for name in decayed)
        training.learner.schedule.set(2)
        assert [group["lr"] / groups[0]["lr"] for group in groups] == pytest.approx([1.0, 1.0, 10.0])
        assert sum(len(group["params"]) for group in groups) == len(names)
    finally:
        training.close()


def _parts(tmp_path: Path):
    from experiments.interrupts import Interrupts
    from experiments.training.devices import Group

    folder = frozen(tmp_path / "runs", SETTINGS)
    return folder.config(), folder, Group(), [], Interrupts(), False
