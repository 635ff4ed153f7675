"""Shows that changed code computes the same: replays the steps before a run's newest checkpoint and compares bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from errors import RunFolderError
from experiments.folder import checkpoint
from experiments.training.optimization import IMPLEMENTATION

if TYPE_CHECKING:
    from experiments.training.loop import Training

COMPARED = ("model", "ema", "optimizer", "scaler", "loss_sum", "last", "log")  # parts of a checkpoint
log = logging.getLogger("experiments")


def replay(training: Training) -> None:
    """Accepts the newest checkpoint of a run although other code wrote it, where this code writes the same one.

    It starts from the checkpoint before that one, or from step 0 where there is none, and compares weights, averages,
    optimizer, gradient scaler, losses and metrics. Nothing is written meanwhile. Does nothing for a run without a
    checkpoint, or whose checkpoint is of this code. Raises RunFolderError that names the first difference.
    """
    state, group = training.state, training.group
    newest = group.first_does(lambda: checkpoint.newest_valid(training.folder.checkpoints).path)
    if newest is None:
        return
    target = checkpoint.read(newest)
    state.refuse_other_run(target, newest)
    if target["code"] == state.code:
        return
    if target["split"] != training.learner.split:
        before, now = (" × ".join(map(str, split)) for split in (target["split"], training.learner.split))
        raise RunFolderError(
            f"{training.folder.id}: {newest.name} was computed on {before} devices × micro-batches, so --replay needs "
            f"as many; now there are {now}"
        )
    first = _go_back(training, group.first_does(lambda: checkpoint.older_valid(newest)))
    log.info("%s: replaying steps %d to %d", training.folder.id, first, target["step"])
    with _detached(training):
        training.advance(target["step"], target["rows"])
        difference = first_difference(state.content(), target)
    differences = [text for text in group.gather_objects(difference) if text]
    if differences:
        raise RunFolderError(
            f"{training.folder.id}: this code does not compute the same as the code before: replayed from step {first} "
            f"to {target['step']}, {differences[0]}; go back to that code, or go on with --force, which marks the run "
            "and keeps it out of averages"
        )
    state.counters.notes = [f"the code changed: equal over steps {first} to {target['step']} of this run"]
    state.replays = [{"code": state.code, "from_step": first, "to_step": target["step"]}]


def first_difference(replayed: dict[str, Any], saved: dict[str, Any]) -> str | None:
    """In words, the first value of COMPARED that differs in any bit; None where there is none."""
    for part in COMPARED:
        if difference := _difference(replayed[part], saved[part], part):
            return difference
    return None


def _difference(a: Any, b: Any, name: str) -> str | None:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"{name} is {a.dtype} {list(a.shape)}, not {b.dtype} {list(b.shape)}"
        return None if torch.equal(_bits(a), _bits(b)) else f"{name} differs"
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in {**b, **a} if key not in IMPLEMENTATION]
        parts = [(f"{name}.{key}", a.get(key), b.get(key)) for key in keys]
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        parts = [(f"{name}.{number}", x, y) for number, (x, y) in enumerate(zip(a, b))]
    else:
        return None if a == b else f"{name} is {a}, not {b}"
    return next((text for key, x, y in parts if (text := _difference(x, y, key))), None)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _go_back(training: Training, path: Path | None) -> int:
    """Loads a checkpoint, or leaves the model as it was built; returns the step."""
    state = training.state
    if training.group.size > 1:
        training.learner.rehearse()
    if path is None:
        return 0
    content = checkpoint.read(path)
    state.refuse_other_run(content, path)
    state.load(content, path)
    state.metrics.rows = list(content["log"])
    return int(content["step"])


@contextmanager
def _detached(training: Training) -> Iterator[None]:
    """Within it, nothing of the training is saved; rows of the log are gathered on every process."""
    training.state.detached = True
    try:
        with training.progress:
            yield
    finally:
        training.state.detached = False
