"""Final weights of a run: written for timm and for later runs, and read to start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from timm.models import load_state_dict
from torch import Tensor, nn

import atomic_file
from errors import ConfigError, RunFolderError
from experiments.folder import checkpoint
from experiments.folder.parent import weights_of

DENSE = "backbone.model."  # before a backbone's names in a model that has further parts of its own
STAGES = ("stages", "layers", "blocks", "features")  # modules of timm's networks that hold all their stages, numbered


@dataclass(frozen=True)
class Loaded:
    """taken: how many tensors were loaded; fresh: names of the model's that begin afresh; left: of those not used."""

    taken: int
    fresh: list[str]
    left: list[str]

    def note(self, where: str) -> str | None:
        """What a reader of the result should know; None where everything was taken."""
        parts = [f"{_listed(self.fresh)} began afresh"] * bool(self.fresh)
        parts += [f"{_listed(self.left)} of it were left out"] * bool(self.left)
        return f"{where}: {self.taken} weights were taken; " + ", ".join(parts) if parts else None


def export(state: dict[str, Tensor], path: Path) -> None:
    atomic_file.write(path, save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def initialise(model: nn.Module, init: str, runs_dir: Path) -> list[str]:
    """Loads the weights of a finished run, or of a file, into ``model``; returns what is to be noted about it.

    Raises ConfigError where there are none, or where they do not fit.
    """
    where = f"init={init}"
    note = load_backbone(model, read(weights_of(init, runs_dir)), where).note(where)
    return [note] if note else []


def load_backbone(model: nn.Module, state: Mapping[str, Tensor], where: str) -> Loaded:
    """Loads weights into a model: of a model of the same kind all of them, of another kind those of the backbone.

    Kinds are classifiers and dense models, which have a timm network as ``backbone`` and heads of their own. Between
    models whose weights have the same names, only a classifier, or a head, of another size begins afresh. Otherwise all
    heads do, and norms after a stage or after the last one, of which every kind of model has those of the maps it uses.
    Of the backbone nothing else may be missing, remain or have another shape: raises ConfigError that begins with
    ``where``.
    """
    own = model.state_dict()
    same = own.keys() == state.keys()
    ours, theirs = _backbone_names(own), _backbone_names(state)
    if same or not (_is_dense(own) or _is_dense(state)):  # heads of different tasks may have the same names
        ours, theirs = {name: name for name in own}, {name: name for name in state}
    heads = _heads(model, own)
    pairs = {ours[name]: theirs[name] for name in ours if name in theirs}
    misshapen = [name for name, source in pairs.items() if own[name].shape != state[source].shape]
    fresh = [name for name in own if name not in pairs or (name in misshapen and name in heads)]
    left = [name for name in state if name not in pairs.values()]
    missing = [name for name in fresh if name not in heads]
    remaining = [theirs[name] for name in theirs if name not in ours and _belongs(name, ours, _is_dense(own))]
    if odd := sorted(name for name in (*missing, *remaining) if "norm" not in _first(name)):
        raise ConfigError(f"{where} does not fit this model: {len(odd)} weights are in one only, e.g. {odd[0]}")
    for name in misshapen:
        if name not in heads:
            shapes = f"{list(state[pairs[name]].shape)}, not {list(own[name].shape)}"
            raise ConfigError(f"{where} does not fit this model: {name} is {shapes}")
    taken = {name: state[source] for name, source in pairs.items() if name not in fresh}
    model.load_state_dict({**own, **taken})
    return Loaded(len(taken), fresh, left)


def read(path: Path) -> dict[str, Tensor]:
    """A state dict in our names from a safetensors file, a training checkpoint, or a released checkpoint.

    Averaged weights are taken where there are any. Raises ConfigError; a file that would run code is never loaded.
    """
    from atm.released import CheckpointError, convert, is_released

    try:
        if own := _checkpoint_of_a_run(path):
            return dict(own["ema"] or own["model"])
        state = load_state_dict(str(path), use_ema=True, weights_only=True)
        return convert(state) if is_released(state) else dict(state)
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from None
    except Exception as error:  # unpickling a file that is no checkpoint can raise anything
        raise ConfigError(f"{path}: not a checkpoint that can be read safely: {str(error).splitlines()[0]}") from None


def _checkpoint_of_a_run(path: Path) -> dict[str, Any] | None:
    """The content of one of our own checkpoints, of which timm would take the raw weights."""
    if path.suffix == ".safetensors":
        return None
    try:
        content = checkpoint.read(path)
    except RunFolderError:  # the caller says why it cannot be read
        return None
    return content if {"model", "ema", "split"} <= content.keys() else None


def _is_dense(names: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(DENSE) for name in names)


def _backbone_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in the classifier → names in ``state``, of the backbone of a dense model or of a whole classifier."""
    prefix = DENSE if _is_dense(state) else ""
    return {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}


def _heads(model: nn.Module, own: Mapping[str, Tensor]) -> set[str]:
    """Names of the model's weights that depend on the task: a classifier, or everything beside a dense backbone."""
    if _is_dense(own):
        return {name for name in own if not name.startswith(DENSE)}
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    modules = {_first(name) for name in ([classifier] if isinstance(classifier, str) else classifier)}
    return {name for name in own if _first(name) in modules}


def _first(name: str) -> str:
    """The module of a backbone that a weight belongs to, e.g. ``stages``, ``layer4``, ``stage_norms``, ``head``."""
    return name.removeprefix(DENSE).partition(".")[0]


def _belongs(name: str, names: Iterable[str], ends_early: bool) -> bool:
    """Whether a weight is of a module that a backbone with these names has, but for stages after its last one."""
    module, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    stage = f"{module}.{number}." if ends_early and module in STAGES and number.isdigit() else f"{module}."
    return any(known.startswith(stage) for known in names)


def _listed(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
