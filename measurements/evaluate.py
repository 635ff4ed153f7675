"""Judges weights without training, and keeps what it found in a folder of its own."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

import atomic_file
from atm import sampling
from errors import DataError, RunFailed, UnreadableError
from experiments.config import write_yaml
from experiments.folder import provenance
from experiments.folder.fingerprint import run_fingerprint
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from experiments.tasks import Evaluation, Task
from experiments.tasks.registry import build_task
from experiments.training.devices import Group, prepare
from experiments.training.outcome import one_line
from experiments.training.progress import image_bar
from measurements import judged_weights
from measurements.evaluation_settings import changed, deciding, several_views
from measurements.judged_weights import JudgedWeights
from measurements.judging import batch_size, evaluator
from measurements.predict import class_names
from results.records import pack
from results.run_folders.numbers import not_finite
from results.run_folders.summary_file import notes
from results.statistics.images import half_width
from run_format import CONFIG, EVALUATIONS, EXAMPLES, PROVENANCE, RECORDS, SUMMARY


@dataclass(frozen=True)
class JudgedRun:
    """What a run recorded of itself.

    metrics: of its last evaluation; notes: on its result; classes: their names in order, where it was judged by class.
    """

    frozen: Config
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: RunFolder) -> JudgedRun:
        summary = folder.finished()
        classes = class_names(summary) if "classes" in (summary.get("curves") or {}) else []
        return cls(folder.config(), summary["metrics"], folder.read_json(PROVENANCE), notes(summary), tuple(classes))


def evaluate(
    name: str,
    config: Config,
    weights: JudgedWeights,
    runs_dir: Path,
    run: JudgedRun | None = None,
    fresh: bool = False,
) -> tuple[RunFolder, dict[str, Any]]:
    """The folder and the summary of an evaluation; the same evaluation by the same code is not repeated.

    name: of a run or of a file; run: the run that the weights are of. Raises ConfigError where the weights do not fit,
    DataError for data of other classes, RunFailed for an image that cannot be read.
    """
    code = run_fingerprint(config)
    device = prepare(config, Group())
    task = build_task(config)
    if run and run.classes and run.classes != (here := tuple(task.eval_set.class_names)):  # type: ignore[attr-defined]
        odd = next((pair for pair in zip(run.classes, here) if pair[0] != pair[1]), (len(run.classes), len(here)))
        raise DataError(f"data.root={config.data.root}: not the classes of {name}: {odd[1]} here, {odd[0]} there")
    model = task.build_model()
    judged_weights.load(model, weights, config)
    key = {
        "weights_sha256": weights.sha256,
        "weights": weights.kind,
        "data_fingerprint": task.eval_set.fingerprint(),
        **deciding(config),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:8]
    folder = RunFolder(runs_dir / EVALUATIONS / f"{name}-{digest}")
    if not fresh and (earlier := _earlier(folder, key, code)):
        return folder, earlier
    model.to(device)
    if config.machine.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, begin = len(task.eval_set), time.monotonic()
    try:
        with (
            image_bar(name, images) as advance,
            evaluator(config, task, device, on_batch=lambda: advance(batch_size(config))) as judging,
        ):
            evaluation = judging.evaluate({weights.prefix: model})
    except Exception as error:
        raise one_line(error, folder, Group()) from error
    if several_views(config) and not (run and several_views(run.frozen)):
        evaluation = _named_by_views(evaluation)
    if broken := not_finite(evaluation.metrics):
        raise RunFailed(f"evaluate={name}: {broken}, not a finite number")
    summary = {
        "evaluation": folder.id,
        "of": name,
        "experiment": config.experiment,
        "protocol": config.protocol,
        "task": config.task,
        "seed": config.seed,
        "model": config.model.name,
        "weights": weights.as_dict(),
        "images": images,
        "metrics": evaluation.metrics,
        "intervals": _intervals(evaluation),
        "curves": evaluation.curves,
        "batch_size": batch_size(config),
        "device": str(device),
        "wall_s": round(time.monotonic() - begin, 1),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "key": key,
        **_beside_run(run, config, key["data_fingerprint"], evaluation),
    }
    _write(folder, config, task, code, device, evaluation, summary)
    return folder, summary


def describe(found: Mapping[str, Any]) -> list[str]:
    """Lines for a person. found: a summary, with ``provenance`` and the path of its ``folder``."""
    about, weights = found["provenance"], found["weights"]
    lines = []
    for name, value in found["metrics"].items():
        low, high = found["intervals"].get(name, (None, None))
        interval = "" if low is None else f"  (95 % interval over images: {low:.2f} to {high:.2f})"
        lines.append(f"{name} {value:.4g}{interval}" if low is None else f"{name} {value:.2f}{interval}")
    lines.append(f"images   {found['images']:,} of fingerprint {about['data_fingerprint']}")
    lines.append(
        f"weights  {weights['kind'] or 'as in the file'}: {weights['file']} (SHA-256 {weights['sha256'][:16]})"
    )
    lines.append(f"code     {about['code_fingerprint']} (commit {(about['commit'] or 'unknown')[:8]})")
    if own := found.get("own"):
        other = [f"{name} {own[name]:.6g}" for name, value in found["metrics"].items() if own.get(name, value) != value]
        lines.append(f"the run itself found {', '.join(other) or 'the same'}")
    if found.get("changed"):
        lines.append(f"other than in the run: {', '.join(found['changed'])}")
    return [*lines, *found["notes"], found["folder"]]


def _earlier(folder: RunFolder, key: Mapping[str, Any], code: str) -> dict[str, Any]:
    """The summary of an evaluation that this code has made before; empty where there is none."""
    with suppress(UnreadableError):
        summary = folder.read_json(SUMMARY)
        if summary.get("key") == key and folder.read_json(PROVENANCE).get("code_fingerprint") == code:
            return summary
    return {}


def _intervals(evaluation: Evaluation) -> dict[str, list[float]]:
    """Metric → its 95 % interval over images, where it has records that vary."""
    intervals = {}
    for name, record in evaluation.records.items():
        if half := half_width(record.contributions()):
            intervals[name] = [evaluation.metrics[name] - half, evaluation.metrics[name] + half]
    return intervals


def _named_by_views(evaluation: Evaluation) -> Evaluation:
    """The evaluation with the papers' names for metrics of several sizes, ``miou_ms``."""
    return replace(
        evaluation,
        metrics={f"{name}_ms": value for name, value in evaluation.metrics.items()},
        records={f"{name}_ms": record for name, record in evaluation.records.items()},
    )


def _beside_run(run: JudgedRun | None, config: Config, data: str, evaluation: Evaluation) -> dict[str, Any]:
    """What the evaluation of a run's weights is compared with: the run's own, and what differs between the two.

    changed: settings that are not the run's; own: what the run found itself, where no setting is.
    """
    if run is None:
        return {"notes": []}
    settings, remarks = changed(config, run.frozen), list(run.notes)
    if not str(run.provenance.get("data_fingerprint", data)).endswith(data):
        remarks.append("these are not the images that the run was judged on")
    own = {name: run.metrics[name] for name in evaluation.metrics if name in run.metrics and not settings}
    trained = {kind: run.provenance.get(kind) for kind in ("commit", "code_fingerprint", "data_fingerprint")}
    return {"changed": settings, "own": own, "trained": trained, "notes": remarks}


def _write(
    folder: RunFolder,
    config: Config,
    task: Task,
    code: str,
    device: torch.device,
    evaluation: Evaluation,
    summary: Mapping[str, Any],
) -> None:
    """Writes the folder; the summary comes last, so that a folder that has it has everything else."""
    folder.path.mkdir(parents=True, exist_ok=True)
    (folder.path / SUMMARY).unlink(missing_ok=True)
    atomic_file.write(folder.path / CONFIG, write_yaml(config.as_dict()))
    folder.write_json(PROVENANCE, provenance.collect(task.eval_set.fingerprint(), code, sampling.describe(device.type)))
    if evaluation.records:
        atomic_file.write(folder.path / RECORDS, pack(evaluation.records))
    if evaluation.examples:
        packed = io.BytesIO()
        np.savez_compressed(packed, **evaluation.examples)  # type: ignore[arg-type]
        atomic_file.write(folder.path / EXAMPLES, packed.getvalue())
    folder.write_json(SUMMARY, summary)
