"""What a finished run leaves behind: final weights, examples, per-image records, and last of all the summary."""

from __future__ import annotations

import io
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.utils import get_state_dict
from torch import nn

import atomic_file
from experiments.folder import weights
from experiments.folder.parent import sha256
from results.records import pack
from run_format import CONFIG, DONE, EXAMPLES, RECORDS, SHA256, SUMMARY, WEIGHTS

if TYPE_CHECKING:
    from experiments.tasks import Evaluation, Task
    from experiments.training.loop import Training


class Prediction(nn.Module):
    """A task's prediction as one forward pass, for counting its FLOPs."""

    def __init__(self, task: Task, model: nn.Module):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Any) -> Any:
        return self.task.predict(self.model, batch)


def size_of(task: Task, model: nn.Module) -> tuple[float, float]:
    """Parameters in millions, and FLOPs in units of 10^9 of the prediction of one image."""
    from atm.complexity import count

    example = task.example()
    size = count(Prediction(task, model), inputs=(example.to(torch.device("meta")),))
    return size.params / 1e6, size.flops / example.size / 1e9


def summarise(training: Training, evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``summary.json``, the same on every process of the run."""
    config, counters = training.config, training.state.counters
    training.state.saver.settle(wait=True)
    params_m, flops_g = size_of(training.task, training.learner.model)
    return {
        "run": training.folder.id,
        "experiment": config.experiment,
        "protocol": config.protocol,
        "task": config.task,
        "seed": config.seed,
        "model": config.model.name,
        "step": counters.step,
        "epochs": config.train.epochs,
        "metrics": counters.last,
        "curves": evaluation.curves,
        "params_m": params_m,
        "flops_g": flops_g,
        "wall_s": round(training.state.elapsed(), 1),
        "images_per_s": training.progress.rate,
        "device": str(training.device),
        "devices": training.group.size,
        "bad_images": list(training.ledger.state().values()),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "notes": counters.notes,
    }


def write_results(training: Training, summary: dict[str, Any], evaluation: Evaluation) -> None:
    """Writes the results, and the hashes of files into ``summary``.

    The summary comes last, so that a folder that has it has everything else.
    """
    folder, state = training.folder, training.state
    state.check_claims()
    state.metrics.flush()
    if evaluation.examples:
        packed = io.BytesIO()
        np.savez_compressed(packed, **evaluation.examples)  # type: ignore[arg-type]
        atomic_file.write(folder.path / EXAMPLES, packed.getvalue())
    if evaluation.records:
        atomic_file.write(folder.path / RECORDS, pack(evaluation.records))
    weights.export(get_state_dict(training.learner.ema or training.learner.model), folder.path / WEIGHTS)
    summary[SHA256] = {name: sha256(folder.path / name) for name in (CONFIG, WEIGHTS)}
    folder.write_json(SUMMARY, summary)
    folder.set_state(DONE, step=state.counters.step, steps=training.timetable.steps)
