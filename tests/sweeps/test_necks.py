"""The sweep of necks: arms that differ in the neck alone share the run that their downstream runs start from."""

from __future__ import annotations

from collections import defaultdict

import run
from sweeps.plan import Plan, load

CLASSES = {"data.num_classes": 1000}  # stands for those of the folders of ImageNet


def backbones(plan: Plan) -> dict[str, set[tuple[str, str]]]:
    """First-task run → (arm, downstream task) of all runs that start from it."""
    children: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for each in plan.runs:
        if each.parent:
            children[each.parent].add((each.arm, each.task))
    return children


def test_all_necks_of_a_backbone_and_seed_start_from_one_run():
    plan = load("necks", "smoke")
    assert list(plan.labels) == ["fpn", "atmfpn", "zero", "static"]
    assert len(plan.distinct()) == 3 * (1 + 4 * 2)
    expected = {(arm, task) for arm in plan.labels for task in ("masks", "boxes")}
    assert list(backbones(plan).values()) == [expected] * 3
    necks = {
        run.arm: (run.config.segment.neck, run.config.segment.neck_offsets) for run in plan.runs if run.task == "masks"
    }
    assert necks == {"fpn": ("fpn", None), "atmfpn": ("atmfpn", "axial"), "zero": ("atmfpn", "zero"),
                     "static": ("atmfpn", "static")}  # fmt: skip


def test_the_published_backbones_have_every_neck_and_those_of_variants_are_its_runs():
    plan = load("necks", "paper", seeds=[0])
    names = {run.id: run.config.model.name for run in plan.runs if run.parent is None}
    by_model = {names[parent]: of_parent for parent, of_parent in backbones(plan).items()}
    both = {"semantic_fpn", "mask_rcnn_1x"}
    tasks = {"t": both, "l": both, "timm/swin_tiny_patch4_window7_224": both, "timm/resnet50c": {"semantic_fpn"},
             "timm/resnet50": {"mask_rcnn_1x"}}  # fmt: skip
    assert {model: {task for _, task in of_model} for model, of_model in by_model.items()} == tasks
    for model, of_model in by_model.items():
        assert len(of_model) == 4 * len(tasks[model])
    assert len(plan.distinct()) == len(plan.distinct().keys() | names.keys()) == 5 + 4 * 8
    variants = {run.id for run in load("variants", "paper", seeds=[0]).runs}
    shared = {run.id for run in plan.runs} & variants
    assert {run.arm for run in plan.runs if run.id in shared and run.parent} == {"fpn", "l_fpn"}
    assert {names[run] for run in names if run in shared} == {"t", "l"}


def test_a_run_that_arms_share_counts_once_in_the_summary(capsys, tmp_path):
    assert run.main(["sweep=necks", "protocol=smoke", "--dry-run", f"runs_dir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(load('necks', 'smoke').distinct())} runs in {shown.count(' seed ')} rows: " in shown
