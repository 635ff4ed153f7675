"""Run folders as a sweep leaves them, made up: small, deterministic, and shaped like real results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

TASK = "token_labelling"
CODE, DATA = "c0de5eed00000001", "da7a5eed00000001"
OFFSETS = {  # arm: (final accuracy, reach in px, G)
    "zero": (71.8, 60, 0.148),
    "zero_mean": (66.4, 46, 0.145),
    "token": (95.1, 150, 0.149),
    "joint": (96.9, 170, 0.121),
    "axial": (98.3, 230, 0.152),
    "axial_x3": (98.6, 240, 0.214),
    "axial_s1": (98.2, 225, 0.158),
}
PEG = {
    "stage_nopeg": (97.9, 220, 0.150),
    "stage_peg": (98.0, 224, 0.151),
    "k2_nopeg": (98.2, 226, 0.151),
    "k2_peg": (98.3, 230, 0.152),
    "zero": (71.8, 60, 0.148),
    "zero_peg": (73.0, 64, 0.149),
}
SHIFT = (-0.31, 0.12, 0.24, -0.18, 0.05)  # of a seed, common to all arms


def run_id(arm: str, seed: int) -> str:
    return f"scenes-nano-s{seed}-{hashlib.sha256(f'{arm}{seed}'.encode()).hexdigest()[:8]}"


def make_plan(
    arms: Mapping[str, Any] = OFFSETS,
    seeds: tuple[int, ...] = (0, 1, 2),
    *,
    sweep: str = "ablation_offsets",
    protocol: str = "smoke",
    model: str = "nano",
) -> dict[str, Any]:
    """The plan of a sweep of one task, in the form of ``sweeps.plan.Plan.as_dict``."""
    task = {"name": TASK, "experiment": "scenes", "metric": "eval/token_accuracy", "label": "Object-token accuracy"}
    return {
        "sweep": sweep,
        "protocol": protocol,
        "baseline": next(iter(arms)),
        "tasks": [{**task, "unit": "%", "decimals": 2, "chance": 25.0}],
        "arms": [{"name": arm, "label": arm, "model": model, "config": {"model.name": model}} for arm in arms],
        "runs": [planned(run_id(arm, seed), arm, seed) for arm in arms for seed in seeds],
    }


def planned(run: str, arm: str, seed: int, task: str = TASK, parent: str | None = None) -> dict[str, Any]:
    return {"run": run, "arm": arm, "seed": seed, "task": task, "parent": parent}


def without_tasks(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The same plan as it was written before sweeps had several tasks."""
    runs = [{key: entry[key] for key in ("run", "arm", "seed")} for entry in plan["runs"]]
    return {**{key: value for key, value in plan.items() if key != "tasks"}, "runs": runs}


def make_runs(runs_dir: Path, plan: Mapping[str, Any], arms: Mapping[str, Any] = OFFSETS, **options: Any) -> None:
    """A finished folder for every planned run."""
    for entry in plan["runs"]:
        make_run(runs_dir, plan, entry, *arms[entry["arm"]], **options)


def make_run(
    runs_dir: Path,
    plan: Mapping[str, Any],
    entry: Mapping[str, Any],
    final: float,
    reach: float,
    flops: float,
    *,
    code: str = CODE,
    data: str = DATA,
    metric: str = "eval/token_accuracy",
    examples: bool = True,
) -> Path:
    """One finished run folder; its numbers are a function of arm and seed alone."""
    folder, seed = runs_dir / entry["run"], entry["seed"]
    random = np.random.default_rng(int(entry["run"][-8:], 16))
    (folder / "checkpoints").mkdir(parents=True)
    model = plan["arms"][0]["model"]
    config = {"experiment": "scenes", "protocol": plan["protocol"], "task": TASK, "seed": seed}
    write_yaml(folder / "config.yaml", {**config, "model": {"name": model}})
    provenance = {"commit": "a1b2c3d4e5f60718", "dirty": False, "code_fingerprint": code, "data_fingerprint": data}
    provenance |= {"packages": {"torch": "2.8.0"}, "python": "3.11.7", "hardware": {"cpu": "model CPU"}}
    write_json(folder / "provenance.json", {**provenance, "created": "2031-05-04T10:00:00+00:00"})
    last = final + SHIFT[seed] * (100 - final) / 12 + random.normal(0, 0.05)
    rows = []
    for epoch in range(1, 21):
        value = last - (last - 25) * np.exp(-epoch / 3.2) * (1 - epoch / 20) + random.normal(0, 0.2) * (epoch < 20)
        loss = 1.4 * np.exp(-epoch / 4) + 0.02
        rows.append({"step": 60 * epoch, "epoch": epoch, "train/loss": loss, "train/lr": 1e-3, metric: value})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = []
    for direction, shorter in (("horizontal", 1.0), ("vertical", 0.86)):
        for distance in range(0, 256, 16):
            right = 0.25 + 0.745 / (1 + np.exp((distance - reach * shorter - 4 * SHIFT[seed]) / 14))
            counted = 4000 - 12 * distance
            curve.append(
                {"direction": direction, "distance": distance, "correct": int(right * counted), "count": counted}
            )
    summary = {"run": entry["run"], **config, "model": model, "step": 1200, "epochs": 20, "metrics": {metric: last}}
    summary |= {"curves": {"reach": curve}, "params_m": 1.234567, "flops_g": flops, "wall_s": 181.25 + seed}
    summary |= {"images_per_s": 412.5, "device": "cpu", "finished": "2031-05-04T11:30:00+00:00", "notes": []}
    write_json(folder / "summary.json", summary)
    write_json(folder / "state.json", {"state": "done", "step": 1200, "steps": 1200})
    if examples:
        np.savez(folder / "examples.npz", **make_examples(final / 100, random))
    return folder


METRIC = {"name": "token_accuracy", "label": "Object-token accuracy", "unit": "%", "decimals": 2}
TITLES = {"shuffled_tokens": "Shuffled across tokens", "zero": "Zero"}


def interventions_file(
    run: Path, own: float, falls: Mapping[str, float], *, code: str = CODE, data: str = DATA, sha256: str = "5ha",
    metric: Mapping[str, Any] = METRIC, titles: Mapping[str, str] = TITLES, **changes: Any,
) -> Path:  # fmt: skip
    """A run's file as ``measurements/offsets/effects.py`` leaves it, written without it. falls: by intervention."""
    name = metric["name"]
    effects = {
        each: {"title": titles[each], "metrics": {name: own - fall, "loss": 2.0},
               "differences": {name: -fall, "loss": 1.0}, "intervals": {name: [-fall - 1, -fall + 1]}}
        for each, fall in falls.items()
    }  # fmt: skip
    key = {"version": 1, "weights_sha256": sha256, "images": None, "layer": None, "root": "/data", "data.dataset": "x"}
    about = {
        "name": run.name, "key": key, "metric": metric, "images": 50, "dataset": "tiny_imagenet",
        "experiment": "tiny_imagenet", "layers": ["layer_1_1"], "undisturbed": {name: own, "loss": 1.0},
        "otherwise": {}, "impossible": {}, "interventions": effects, "weights_sha256": sha256,
        "trained": {"code_fingerprint": code, "data_fingerprint": data}, "code_fingerprint": "judged",
        "data_fingerprint": "1mages", "created": "2031-05-05T10:00:00+00:00",
    }  # fmt: skip
    file = run / "offsets" / "interventions.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about | changes))
    return file


def intervened(run: Path, own: float, **falls: float) -> Path:
    """Interventions on a finished run, which has weights then."""
    weights = run / "weights.safetensors"
    weights.write_bytes(f"weights of {run.name}".encode())
    return interventions_file(run, own, falls, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())


def make_examples(accuracy: float, random: np.random.Generator, size: int = 128) -> dict[str, np.ndarray]:
    """Scenes with bars whose mark tells their class; predictions err at the far ends of the bars."""
    scenes = np.random.default_rng(7)
    palette = np.array([[240, 208, 64], [86, 180, 233], [213, 94, 0], [24, 62, 122]], np.uint8)
    images = np.full((5, size, size, 3), 214, np.uint8)
    labels = np.full((5, size // 16, size // 16), -1, np.int8)
    for n in range(5):
        for lane, (row, kind) in enumerate(zip((0, 2, 5), scenes.permutation(4))):
            start, rows = int(scenes.integers(0, 3)), 2 if lane == 1 else 1
            labels[n, row : row + rows, start:8] = kind
            images[n, 16 * row + 2 : 16 * (row + rows) - 2, 16 * start : 126] = 140
            images[n, 16 * row + 2 : 16 * (row + rows) - 2, 16 * start : 16 * start + 12] = palette[kind]
    far = np.arange(8)[None, None, :] / 8
    wrong = random.random(labels.shape) < (1 - accuracy) * 2.2 * far
    predictions = np.where(labels < 0, 0, np.where(wrong, (labels + 1) % 4, labels)).astype(np.int8)
    return {"images": images, "labels": labels, "predictions": predictions, "palette": palette}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content)))


def edit_json(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})
