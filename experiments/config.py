"""How schema, recipe, site, arm and command line are merged into the config of one run, and checked. No torch."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from errors import ConfigError, unknown
from experiments.schema import FIELDS, LEAST, SECTIONS, Basics, Config, Data, Model

try:  # the same in C: a config is read or written ten times as fast
    from yaml import CSafeDumper as Dumper
    from yaml import CSafeLoader as Loader
except ImportError:
    from yaml import SafeDumper as Dumper  # type: ignore[assignment]
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "experiments" / "recipes"
SHORT = {"model": "model.name", "devices": "machine.devices"}  # keys that may be written without their section


def resolve(experiment: str, *overrides: Mapping[str, Any], site: Mapping[str, Any] | None = None) -> Config:
    """The whole config of a run: schema defaults < recipe < site < each of ``overrides``, then checked and completed.

    overrides: dotted keys to values, e.g. ``{"model.offsets": "token", "seed": 1}``, or the short names in SHORT.
    Raises ConfigError in one line for an unknown recipe, key, choice or value.
    """
    recipe = read_recipe(experiment)
    layers = [recipe, *overrides]
    dataset = next((str(o["data.dataset"]) for o in reversed(layers) if "data.dataset" in o), Data.dataset)
    return complete(merge(recipe, site_settings(site or {}, dataset), *overrides, {"experiment": experiment}))


def merge(*layers: Mapping[str, Any]) -> Config:
    """Schema defaults overlaid with layers of dotted keys, each checked for name, type and choice."""
    config = Config()
    for key, value in {_checked_key(key): value for layer in layers for key, value in layer.items()}.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, _typed(key, value))
    return config


def _typed(key: str, value: Any) -> Any:
    """``value`` as the type of a setting, or ConfigError."""
    return copy.copy(_typed_once(key, json.dumps(value, default=str)))


@cache  # the runs of a sweep share most of their settings, and a structured config takes its time
def _typed_once(key: str, text: str) -> Any:
    value = json.loads(text)
    choices = FIELDS[key].metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(unknown(f"value for {key}", value, choices))
    section, _, name = key.rpartition(".")
    try:
        config = OmegaConf.structured(SECTIONS.get(section, Basics))
        OmegaConf.update(config, name, value)
        return getattr(OmegaConf.to_object(config), name)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}") from None


def complete(config: Config) -> Config:
    """Replaces every null that stands for a default by that default, so that identity sees what is run."""
    model = config.model
    variants = read_variants()
    if model.name not in variants:
        raise ConfigError(unknown("model", model.name, variants))
    variant = variants[model.name]
    if model.samples not in (1, 3):
        raise ConfigError(f"model.samples={model.samples}: valid are 1 and 3")
    if model.samples == 3 and model.offsets == "zero":
        raise ConfigError("model.samples=3 needs offsets to sample at: not with model.offsets=zero")
    if model.peg is None:
        model.peg = model.offsets != "zero"
    if model.drop_path is None:
        model.drop_path = float(variant["drop_path"])
    model.offset_sharing = _sharing(model, variant)
    model.offset_interval = _interval(model, variant)
    if config.init == "required":
        raise ConfigError(f"experiment={config.experiment} fine-tunes: set init=RUN_ID, or init=PATH of a checkpoint")
    size = config.data.image_size
    if len(size) != 2 or min(size) < 1:
        raise ConfigError(f"data.image_size={size}: give height and width in pixels, e.g. [224,224]")
    if (config.augment.mixup or config.augment.cutmix) and config.train.batch_size % 2:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size}: mixup and cutmix pair images, so it must be even"
        )
    for key, least in LEAST.items():
        value = get(config, key)
        if value is not None and value < least:
            raise ConfigError(f"{key}={value}: must be at least {least}")
    if 2 * config.machine.devices > max(2, config.train.batch_size):
        raise ConfigError(
            f"machine.devices={config.machine.devices}: a batch of {config.train.batch_size} is enough for at most "
            f"{max(1, config.train.batch_size // 2)}, a pair of images each"
        )
    if config.machine.devices % config.slurm.nodes:
        raise ConfigError(
            f"slurm.nodes={config.slurm.nodes}: machine.devices={config.machine.devices} cannot be dealt out equally"
        )
    if config.slurm.signal_seconds >= 60 * config.slurm.time_minutes:
        raise ConfigError(
            f"slurm.signal_seconds={config.slurm.signal_seconds}: must be less than "
            f"slurm.time_minutes={config.slurm.time_minutes}"
        )
    return config


def get(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def scientific(config: Config) -> dict[str, Any]:
    """Dotted keys and values of every setting that decides a run's numbers."""
    return {key: get(config, key) for key, f in FIELDS.items() if f.metadata["scientific"]}


def from_dict(frozen: Mapping[str, Any]) -> Config:
    """A config back from the ``config.yaml`` of a run folder; a way to execute runs that is no more is left out."""
    known = {
        name: {key: value for key, value in frozen.get(name, {}).items() if f"{name}.{key}" in FIELDS}
        for name in ("machine", "slurm")
    }
    return merge(_flatten({**frozen, **known}))


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """``key=value`` words of a command line; values are YAML (``[0,1]``, ``true``, ``1e-3``)."""
    parsed: dict[str, Any] = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found or not key:
            raise ConfigError(f"{word!r} is not of the form key=value")
        try:
            # OmegaConf's YAML reads 1e-3 as a number, PyYAML's as text
            value = OmegaConf.to_object(OmegaConf.create(f"value: {text}"))["value"]  # type: ignore[call-overload, index]
        except (OmegaConfBaseException, yaml.YAMLError, TypeError):
            raise ConfigError(f"{word!r}: the value is not valid YAML") from None
        parsed[key] = value
    return parsed


@cache
def _recipe(name: str) -> tuple[tuple[str, Any], ...]:
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("experiment", name, recipe_names()))
    return tuple(_flatten(read_yaml(path)).items())


def read_recipe(name: str) -> dict[str, Any]:
    return dict(_recipe(name))


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


@cache
def read_variants() -> dict[str, dict[str, Any]]:
    """atm/variants.yaml, read as a file: importing ``atm`` would import torch."""
    return read_yaml(ROOT / "atm" / "variants.yaml")


def write_yaml(content: Mapping[str, Any]) -> str:
    return str(yaml.dump(dict(content), Dumper=Dumper, sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path.name}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name}: expected keys and values")
    return content


def read_site(path: Path = ROOT / "site.yaml") -> dict[str, Any]:
    """Values of this machine or cluster (``site.example.yaml`` shows them all); nothing where there is no file."""
    return read_yaml(path) if path.is_file() else {}


def site_settings(site: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The part of a site that concerns a run: where the data set is, and how its machine executes."""
    chosen = {f"data.{k}": v for k, v in _entries(_entries(site, "data"), dataset).items()}
    for section in ("machine", "slurm"):
        chosen.update({f"{section}.{k}": v for k, v in _entries(site, section).items()})
    for key in chosen:
        if FIELDS[_checked_key(key)].metadata["scientific"]:
            raise ConfigError(f"site.yaml: {key} decides a run's numbers; set it in a recipe or on the command line")
    return chosen


def _entries(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entries = section.get(name) or {}
    if not isinstance(entries, Mapping):
        raise ConfigError(f"site.yaml: {name} must hold keys and values, not {entries!r}")
    return entries


def _sharing(model: Model, variant: Mapping[str, Any]) -> list[int] | None:
    given, dims = model.offset_sharing, variant["dims"]
    if model.offsets in ("zero", "token"):
        if given is not None:
            raise ConfigError(f"model.offset_sharing={given}: model.offsets={model.offsets} has nothing to share")
        return None
    sharing = variant["offset_sharing"] if given is None else [given] * len(dims) if isinstance(given, int) else given
    if (
        not isinstance(sharing, list)
        or len(sharing) != len(dims)
        or any(not isinstance(s, int) or s < 1 or dim % s for s, dim in zip(sharing, dims))
    ):
        raise ConfigError(
            f"model.offset_sharing={given}: give divisors of the widths {dims}, one number or one per stage"
        )
    return list(sharing)


def _interval(model: Model, variant: Mapping[str, Any]) -> int | str | None:
    given = model.offset_interval
    if model.offsets == "zero" and not model.peg:
        return None
    if given is None:
        return int(variant["offset_interval"])
    if given == "stage":
        return "stage"
    if isinstance(given, int) and given >= 1:
        return given
    raise ConfigError(f"model.offset_interval={given}: give a number of blocks, or stage")


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name in SECTIONS:
            flat.update(_flatten(value, f"{name}."))
        else:
            flat[_checked_key(name)] = value
    return flat


def _checked_key(key: str) -> str:
    key = SHORT.get(key, key)
    if key not in FIELDS:
        raise ConfigError(unknown("key", key, [*FIELDS, *SHORT]))
    return key
