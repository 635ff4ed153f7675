"""The run folders in ``run_folders/``: made up, small, and in every state that a report has to show.

They are committed, with the plans they answer, so that a test reads what a sweep left behind and not what the code of
the day would write. `python -m tests.reports.made_up` writes them anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from reports import specification
from reports.content.compose import Results
from reports.content.table import variant
from results import counts, papers
from results.collect import collect
from tests.results.synthetic import CODE, DATA, write_json, write_yaml

FOLDER = Path(__file__).with_name("run_folders")
PLANS = FOLDER / "plans.json"
EPOCHS, STEPS = 6, 7506  # few epochs, but as many steps as 300 of ImageNet have in 6
UNTOUCHED = {("variants", "l"), ("resolution_384", "224"), ("resolution_384", "384")}  # sweep, arm
MISSING = {("variants", "s", 2), ("variants", "b", 1), ("variants", "b", 2), ("ablation_peg", "k2_nopeg", 0)}
STATES = {  # sweep, arm, seed: what its folder says instead of a result
    ("ablation_peg", "k2_nopeg", 1): {"state": "failed", "cause": "non-finite loss at step 41"},
    ("ablation_peg", "k2_nopeg", 2): {"state": "running", "step": 3002, "steps": 7506, "epoch": 2, "epochs": 6},
    ("ablation_offsets", "joint", 2): {"state": "interrupted", "cause": "SIGTERM", "step": 10, "steps": 7506},
}
TORN = ("ablation_offsets", "axial_s1", 1)
SURPRISE = {("ablation_v1", "token_peg"): -1.9, ("ablation_offsets", "token"): +0.1}  # arms that come out otherwise


def results(runs_dir: Path) -> list[Results]:
    """Every sweep's results as collected from ``runs_dir``, a copy of the committed folders: collecting leaves a cache."""
    plans = json.loads(PLANS.read_text())
    return [Results(specification.of_sweep(n), collect(plan, runs_dir), plan, runs_dir) for n, plan in plans.items()]


def write() -> None:
    """Replaces the folders."""
    from sweeps.plan import load

    shutil.rmtree(FOLDER, ignore_errors=True)
    plans = {}
    for name in specification.names(specification.SWEEP):
        spec = specification.of_sweep(name)
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


def _expected(sweep: str, arm: str, model: str) -> float:
    """About what the papers print for an arm of this model."""
    spec = specification.of_sweep(sweep)
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
