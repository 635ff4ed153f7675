"""The run folders in ``run_folders/``: made up, small, and in every state that a report has to show.

They are committed, with the plans they answer, so that tests read the files of a past sweep and not those that today's
code would write. `python -m tests.reports.made_up` writes them anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from reports import specification, specification_files
from reports.content.compose import Results
from reports.content.table import variant
from results import counts, papers
from results.collect import RUN_COLUMNS, Collected, collect
from tests.results.synthetic import CODE, DATA, write_json, write_yaml

FOLDER = Path(__file__).with_name("run_folders")
PLANS = FOLDER / "plans.json"
EPOCHS, STEPS = 6, 7506  # few epochs, but as many steps as 300 of ImageNet have in 6
UNTOUCHED = {("variants", "l"), ("resolution_384", "224"), ("resolution_384", "384")}  # sweep, arm
MISSING = {("variants", "s", 2), ("variants", "b", 1), ("variants", "b", 2), ("ablation_peg", "k2_nopeg", 0)}
STATES = {  # sweep, arm, seed: content of its state.json in place of a result
    ("ablation_peg", "k2_nopeg", 1): {"state": "failed", "cause": "non-finite loss at step 41"},
    ("ablation_peg", "k2_nopeg", 2): {"state": "running", "step": 3002, "steps": 7506, "epoch": 2, "epochs": 6},
    ("ablation_offsets", "joint", 2): {"state": "interrupted", "cause": "SIGTERM", "step": 10, "steps": 7506},
}
TORN = ("ablation_offsets", "axial_s1", 1)
SURPRISE = {("ablation_v1", "token_peg"): -1.9, ("ablation_offsets", "token"): +0.1}  # arms that come out otherwise


def results(runs_dir: Path) -> list[Results]:
    """Every sweep's results as collected from ``runs_dir``, a copy of the committed folders: collecting leaves a cache."""
    plans = json.loads(PLANS.read_text())
    return [
        Results(specification_files.of_sweep(n), collect(plan, runs_dir), plan, runs_dir) for n, plan in plans.items()
    ]


def write() -> None:
    """Replaces the folders."""
    from sweeps.plan import load

    shutil.rmtree(FOLDER, ignore_errors=True)
    plans = {}
    for name in specification_files.names(specification.SWEEP):
        spec = specification_files.of_sweep(name)
        plan = load(spec.sweep).as_dict()
        plans[name] = plan
        for entry in plan["runs"]:
            place = (name, entry["arm"])
            if place not in UNTOUCHED and (*place, entry["seed"]) not in MISSING:
                _write_run(name, plan, entry)
    FOLDER.mkdir(exist_ok=True)
    PLANS.write_text(json.dumps(plans, indent=1) + "\n")


def _write_run(sweep: str, plan: dict[str, Any], entry: dict[str, Any]) -> None:
    folder = FOLDER / entry["run"]
    if folder.exists():  # of another sweep, too
        return
    folder.mkdir(parents=True)
    arm = next(arm for arm in plan["arms"] if arm["name"] == entry["arm"])
    key = (sweep, entry["arm"], entry["seed"])
    config = {"experiment": plan["experiment"], "protocol": plan["protocol"], "task": "classification"}
    write_yaml(folder / "config.yaml", {**config, "seed": entry["seed"], "model": arm["config"]})
    provenance = {"commit": "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334", "dirty": False, "code_fingerprint": CODE}
    write_json(
        folder / "provenance.json",
        {**provenance, "data_fingerprint": DATA, "python": "3.11.7", "packages": {"torch": "2.8.0"}},
    )
    model = arm["config"]["name"]
    random = np.random.default_rng(int(entry["run"][-8:], 16))
    last = _expected(sweep, entry["arm"], model) + SURPRISE.get(key[:2], 0.0) + random.normal(0, 0.12)
    done = STATES.get(key)
    rows = []
    for epoch in range(1, EPOCHS + 1):
        top1 = last - (last - 20) * np.exp(-1.4 * epoch) * (epoch < EPOCHS)
        rows.append({"step": STEPS * epoch // EPOCHS, "epoch": epoch, "train/loss": round(6.9 - 0.8 * epoch, 4)})
        rows[-1] |= {"eval/top1": round(top1 - 0.2, 4), "eval_ema/top1": round(top1, 4)}
    if done:
        rows = rows[:2]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if done:
        write_json(folder / "state.json", done)
        return
    write_json(
        folder / "state.json", {"state": "done", "step": STEPS, "steps": STEPS, "epoch": EPOCHS, "epochs": EPOCHS}
    )
    summary = {"run": entry["run"], **config, "seed": entry["seed"], "model": model, "step": STEPS}
    summary |= {"epochs": EPOCHS, "metrics": {"eval_ema/top1": round(last, 4)}, **_complexity(model)}
    summary |= {
        "wall_s": 361200.5,
        "images_per_s": 1063.4,
        "device": "made up",
        "finished": "2031-05-04T11:30:00+00:00",
    }
    write_json(folder / "summary.json", {**summary, "notes": ["made up for tests"]})
    if key == TORN:
        text = (folder / "summary.json").read_text()
        (folder / "summary.json").write_text(text[: len(text) // 2])


DENSE = ("ablation_peg", "ablation_v1", "necks", "variants")  # sweeps whose tasks have numbers in the papers


def dense_results(folder: Path) -> list[Results]:
    """Results of every task of sweeps with dense tasks, near what the papers print; of one arm of each, no dense run is
    finished. They have no run folders."""
    results = []
    for sweep in DENSE:
        spec = specification_files.of_sweep(sweep)
        entries = {"classification": {"metric": "eval_ema/top1", "label": "Top-1"}}
        entries |= {
            name: {"metric": task.protocols["paper"].metric, "label": task.protocols["paper"].label}
            for name, task in spec.tasks.items()
            if task.papers
        }
        models = {arm: _model(described) for arm, described in spec.arms.items()}
        plan = plan_of_tasks(sweep, list(models), tasks=entries, models=models)
        unfinished = list(models)[-1]
        means = {
            (task, arm): None if arm == unfinished and task != "classification" else _printed(spec, arm, task)
            for arm in models
            for task in entries
        }
        further = {name: [column.metric for column in task.columns] for name, task in spec.tasks.items()}
        collected = collected_by_hand(plan, means, further)
        results.append(Results(spec, collected, plan, folder, alias=f"{sweep}-dense"))
    return results


def _model(arm: specification.Arm) -> str:
    """What a plan calls the model whose numbers stand beside an arm; T for other arms."""
    for place in arm.published:
        (model,) = {number.model for number in papers.numbers(place.source, place.table) if number.row == place.row}
        return place.model or variant(model)
    return "t"


def _printed(spec: specification.Specification, arm: str, task: str) -> float:
    """The main metric that the papers print for an arm and task, or some number."""
    report = spec.tasks.get(task) or specification.TaskReport(papers=spec.papers)
    for place in spec.arms[arm].published if arm in spec.arms and report.papers else ():
        if place.task in (None, task):
            for number in papers.numbers(place.source, place.table):
                found = (number.row, number.metric, number.head) == (
                    place.row,
                    report.papers.metric,
                    report.papers.head,
                )
                if found and number.value is not None:
                    return number.value
    return 40.0


TASKS = {  # name in the plan → its entry there
    "classification": {"metric": "eval_ema/top1", "label": "Top-1"},
    "detection": {"metric": "eval/ap_box", "label": "Box AP"},
    "segmentation": {"metric": "eval/miou", "label": "mIoU"},
}


def plan_of_tasks(
    sweep: str,
    arms: Sequence[str],
    *,
    tasks: Collection[str] | Mapping[str, Mapping[str, str]] = TASKS,
    models: Mapping[str, str] | None = None,
    lacking: Sequence[tuple[str, str]] = (),
    protocol: str = "paper",
) -> dict[str, Any]:
    """Three seeds of every arm in every task; ``lacking`` are (arm, task) without runs; models are T unless named.

    tasks: names in TASKS, or the entries of others by name.
    """
    entries = tasks if isinstance(tasks, Mapping) else {task: TASKS[task] for task in tasks}
    models = models or dict.fromkeys(arms, "t")
    entry = {"experiment": "imagenet", "unit": "%", "decimals": 2, "chance": None}
    return {
        "sweep": sweep,
        "protocol": protocol,
        "experiment": "imagenet",
        "baseline": arms[0],
        "tasks": [{"name": task, **entry, **entries[task]} for task in entries],
        "arms": [{"name": arm, "label": f"Arm {arm}", "model": models[arm], "config": {}} for arm in arms],
        "runs": [
            {"run": f"{task}-{arm}-s{seed}-0000000{seed}", "arm": arm, "seed": seed, "task": task, "parent": None}
            for arm in arms
            for task in entries
            for seed in range(3)
            if (arm, task) not in lacking
        ],
    }


def collected_by_hand(
    plan: Mapping[str, Any],
    means: Mapping[tuple[str, str], float | None],
    further: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Collected:
    """What ``collect`` gives for a plan of several tasks. means: (task, arm) → mean of its seeds, or None: not run;
    further: metrics of tasks beside the main one, with nine tenths of its value.

    Each task has code and data of its own, as its fingerprints cover the task's module and data set.
    """
    metric_of = {task["name"]: task["metric"] for task in plan["tasks"]}
    models = {arm["name"]: arm["model"] for arm in plan["arms"]}
    runs, metrics = [], []
    for number, entry in enumerate(plan["runs"]):
        mean, task = means[entry["task"], entry["arm"]], entry["task"]
        own = {key: entry[key] for key in ("run", "arm", "seed", "task")}
        row = dict.fromkeys(RUN_COLUMNS) | own | {"model": models[entry["arm"]], "state": "done", "dirty": "no"}
        row |= {"params_m": 5.4, "flops_g": 1.1, "step": 300, "wall_s": 10.0, "images_per_s": 80.0, "commit": "abc"}
        row |= {"code_fingerprint": f"c0de {task}", "data_fingerprint": f"da7a {task}"}
        if mean is None:
            row |= dict.fromkeys(("params_m", "flops_g", "step", "wall_s", "images_per_s")) | {"state": "not run"}
        else:
            noise = np.random.default_rng(number // 3).normal(0, 0.02, 3)  # of one arm and task
            value = mean + float(noise[entry["seed"]] - noise.mean())
            points = [(150, value - 5.0, False), (300, value, False), (300, value, True)]
            metrics += [
                {**own, "protocol": plan["protocol"], "step": step, "metric": metric, "value": share * v, "final": f}
                for metric, share in [(metric_of[task], 1.0), *((each, 0.9) for each in further.get(task, ()))]
                for step, v, f in points
            ]
        runs.append(row)
    numbers = dict.fromkeys(("params_m", "flops_g", "progress", "wall_s", "images_per_s"), "float64")
    texts = [column for column in RUN_COLUMNS if column not in (*numbers, "seed", "epochs", "step", "log_line")]
    frame = pd.DataFrame(runs).astype({**numbers, **dict.fromkeys(("seed", "epochs", "step", "log_line"), "Int64")})
    frame[texts] = frame[texts].fillna("").astype(object)
    curves = pd.DataFrame(columns=["run", "arm", "seed", "task", "curve"])
    return Collected(frame, pd.DataFrame(metrics), curves)


def _expected(sweep: str, arm: str, model: str) -> float:
    """Near the number that the papers print for an arm of this model."""
    spec = specification_files.of_sweep(sweep)
    for place in spec.arms[arm].published if arm in spec.arms else ():
        number = papers.number(place.source, place.table, place.row, spec.papers.metric)
        if number.value is not None and variant(number.model) == model:
            return number.value
    return 80.0


def _complexity(model: str) -> dict[str, float]:
    known = counts.load()
    label = next(label for label, _, _ in known if variant(label.partition(",")[0]) == model)
    return {metric: known[label, 0, metric] for metric in ("params_m", "flops_g")}


if __name__ == "__main__":
    write()
