"""The weights that ``evaluate=`` judges: of a finished run or of a file, averaged or raw, and whether they fit."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from atm.released import CheckpointError, convert, is_released
from errors import ConfigError, RunFolderError
from experiments.folder import checkpoint
from experiments.folder.run_folder import RunFolder
from experiments.folder.weights import DENSE
from experiments.schema import Config
from measurements.finished_run import finished
from measurements.offsets.model import variant_of
from results.file_hash import sha256
from run_format import SHA256, WEIGHTS

# what training checkpoints of timm, of the authors and of this suite call the two kinds of weights
NAMES = {"ema": ("model_ema", "state_dict_ema", "ema"), "raw": ("model", "state_dict")}
PREFIXES = {"ema": "eval_ema", "raw": "eval", None: "eval"}  # of metrics, as in the summary of a run


@dataclass(frozen=True)
class JudgedWeights:
    """kind: "ema" or "raw"; None where the file holds one set and does not say which.

    released: whether the file has the authors' names of weights.
    """

    file: Path
    kind: str | None
    state: Mapping[str, Tensor]
    released: bool = False

    @cached_property
    def sha256(self) -> str:
        return sha256(self.file)

    @property
    def prefix(self) -> str:
        """What the names of its metrics begin with."""
        return PREFIXES[self.kind]

    def as_dict(self) -> dict[str, Any]:
        return {"file": str(self.file), "kind": self.kind, "sha256": self.sha256, "released": self.released}


def of_run(folder: RunFolder, config: Config, kind: str | None, command: str = "evaluate") -> JudgedWeights:
    """The final weights of a finished run; without a ``kind`` the averaged ones if it averages.

    Raw weights beside averaged ones are in its last checkpoint only. Raises ConfigError, RunFolderError, which name the
    ``command``.
    """
    summary, where = finished(folder, command), f"{command}={folder.id}"
    averages = config.train.ema_decay is not None
    if kind == "ema" and not averages:
        raise ConfigError(f"{where}: the run has no averaged weights (train.ema_decay=null); valid: weights=raw")
    kind = kind or ("ema" if averages else "raw")
    if kind == "raw" and averages:
        last = checkpoint.valid_of_step(folder.checkpoints, int(summary["step"]))
        if last is None:
            raise RunFolderError(
                f"{where}: its raw weights were in the checkpoint of step {summary['step']}, which is gone or damaged "
                "(valid: weights=ema)"
            )
        return JudgedWeights(last, kind, _state(checkpoint.read(last), kind, where)[0])
    file = folder.path / WEIGHTS
    weights = JudgedWeights(file, kind, _state(_content(file), None, where)[0])
    if dict(summary.get(SHA256) or {}).get(WEIGHTS) not in (None, weights.sha256):
        raise RunFolderError(f"{where}: its {WEIGHTS} is not the file that the run wrote (its SHA-256 differs)")
    return weights


def of_file(name: str, kind: str | None) -> JudgedWeights:
    """The weights in a file of ours, timm's or the authors'; without a ``kind`` the averaged ones if there are any.

    Raises ConfigError.
    """
    file = Path(name).expanduser()
    content = _content(file)
    state, kind = _state(content, kind, f"evaluate={name}")
    parts = [content, *(each for each in content.values() if isinstance(each, Mapping))]
    return JudgedWeights(file.resolve(), kind, state, any(map(is_released, parts)))


def load(model: nn.Module, weights: JudgedWeights, config: Config) -> None:
    """Loads weights into the task's model. Raises ConfigError where some are missing, left over or of another shape."""
    own, state, where = model.state_dict(), weights.state, weights.file
    missing, left = [name for name in own if name not in state], [name for name in state if name not in own]
    misshapen = [name for name in own if name in state and own[name].shape != state[name].shape]
    if not (missing or left or misshapen):
        model.load_state_dict(dict(state))
        return
    counts = {"missing": missing, "unexpected": left, "of another shape": misshapen}
    faults = ", ".join(f"{len(names)} {fault} (e.g. {names[0]})" for fault, names in counts.items() if names)
    dense, file_is_dense = (any(name.startswith(DENSE) for name in names) for names in (own, state))
    if dense and not file_is_dense:
        raise ConfigError(
            f"{where} has no head of task={config.task}, it holds a network alone: weights {faults}; "
            "init= starts a run from it"
        )
    if file_is_dense and not dense:
        raise ConfigError(f"{where} holds a model of segmentation or detection, not of task={config.task}: {faults}")
    variant, advice = variant_of(state), ""
    if variant is not None and variant != config.model.name:
        advice = f"; it holds atmnet_{variant}: set model={variant}"
    elif misshapen:
        first = misshapen[0]
        advice = f"; {first} is {list(state[first].shape)} there, not {list(own[first].shape)}"
    raise ConfigError(f"{where} does not fit model={config.model.name}: weights {faults}{advice}")


def _content(file: Path) -> Mapping[str, Any]:
    """What a file of weights holds. Raises ConfigError; a file that would run code is never loaded."""
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        # training checkpoints of timm hold their command line, which is no tensor
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UnpicklingError:  # torch's message advises to load it all the same
        raise ConfigError(f"{file}: not a checkpoint that can be read safely: it holds more than weights") from None
    except Exception as error:  # unpickling a file that is no checkpoint can raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{file}: not a checkpoint that can be read safely: {said}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: holds a {type(content).__name__}, not weights by name")
    return content


def _state(content: Mapping[str, Any], kind: str | None, where: str) -> tuple[dict[str, Tensor], str | None]:
    """The weights of a kind under this project's names, and which kind it is."""
    present = {each: content[name] for each, names in NAMES.items() for name in names if _holds_weights(content, name)}
    if present:
        kind = kind or ("ema" if "ema" in present else "raw")
        if kind not in present:
            raise ConfigError(f"{where} holds no such weights: weights={kind} (valid: {', '.join(present)})")
        content = present[kind]
    elif kind is not None:
        raise ConfigError(f"{where} holds one set of weights and does not say of which kind: leave out weights={kind}")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{where}: holds no weights by name")
    try:
        return (convert(state) if is_released(state) else state), kind
    except CheckpointError as error:
        raise ConfigError(f"{where}: {error}") from None


def _holds_weights(content: Mapping[str, Any], name: str) -> bool:
    return isinstance(content.get(name), Mapping)
