"""The names that ``model.name`` can have: the variants of ``atm``, and every model of timm. Must not import torch."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown
from experiments import ROOT
from yaml_files import read_yaml

TIMM = "timm/"
_REGISTERED = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


@cache
def read_variants() -> dict[str, dict[str, Any]]:
    """atm/variants.yaml, read as a file: importing ``atm`` would import torch."""
    return read_yaml(ROOT / "atm" / "variants.yaml")


def is_timm(name: str) -> bool:
    return name.startswith(TIMM)


def short_name(name: str) -> str:
    """The name without its prefix, as it appears in run ids: ``xt``, ``convnext_tiny``."""
    return name.rpartition("/")[2]


def check_name(name: str) -> None:
    """Raises ConfigError with the nearest names where neither ``atm`` nor timm has a model of that name."""
    if "," in name:
        raise ConfigError(f"model={name}: a run has one model; several are arms of a sweep (docs/sweeps.md)")
    if not is_timm(name):
        if name not in read_variants():
            hint = f"; did you mean {TIMM}{name}?" if name in timm_names() else ""
            raise ConfigError(unknown("model", name, [*read_variants(), f"{TIMM}NAME"]) + hint)
    elif name.removeprefix(TIMM) not in timm_names():
        plain, dot, tag = name.partition(".")
        if dot and plain.removeprefix(TIMM) in timm_names():
            raise ConfigError(
                f"model={name}: {tag} names weights, and nothing is downloaded: write model={plain}, which is trained "
                "from scratch, or starts from a file with init=PATH"
            )
        raise ConfigError(unknown("model", name, [f"{TIMM}{known}" for known in timm_names()]))


@cache
def timm_names() -> frozenset[str]:
    """Every model that timm's source files register. timm is not imported, which takes seconds."""
    sources = (_timm_folder() / "models").rglob("*.py")
    return frozenset(name for path in sources for name in _REGISTERED.findall(path.read_text(encoding="utf-8")))


def _timm_folder() -> Path:
    package = find_spec("timm")
    if package is None or package.origin is None:
        raise ConfigError("models and optimizers are those of the package timm, which is not installed")
    return Path(package.origin).parent


def check_optimizer(name: str) -> None:
    """Raises ConfigError with the nearest names where timm has no optimizer of that name."""
    known = _optimizer_names()
    if name.lower().removeprefix("lookahead_").replace("_", "") not in known:
        raise ConfigError(unknown("train.optimizer", name, known))


@cache
def _optimizer_names() -> frozenset[str]:
    """Names in timm's registry of optimizers, as its source has them; timm is not imported."""
    registry = _timm_folder() / "optim" / "_optim_factory.py"
    return frozenset(re.findall(r"""['"](\w+)['"]""", registry.read_text(encoding="utf-8")))


@cache
def plugin_names(group: str) -> tuple[str, ...]:
    """Names that installed packages add under an entry-point group; the packages themselves are not imported."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))
