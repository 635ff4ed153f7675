"""How schema, recipe, site, arm and command line are merged into the config of a run, checked and completed. No torch.

The rules between settings are in ``completion``.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import MISSING
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from errors import ConfigError, refuse_control_characters, unknown
from experiments import ROOT
from experiments.backbones import plugin_names, read_variants
from experiments.completion import complete, get
from experiments.data.registry import DATASETS
from experiments.own_mixer import is_own, name_of
from experiments.paths import expanded, is_file, with_absolute_paths
from experiments.schema import FIELDS, SECTIONS, Basics, Config, Data
from experiments.setting import read_time
from experiments.tasks.registry import sections_of_other_tasks
from yaml_files import called, load, own_file, read_yaml, texts, write_yaml

__all__ = [
    "RECIPES",
    "ROOT",
    "SHORT",
    "choices_of",
    "complete",
    "every_key",
    "from_dict",
    "get",
    "meant_by",
    "merge",
    "parse_overrides",
    "read_recipe",
    "read_site",
    "read_variants",
    "read_yaml",
    "recipe_names",
    "resolve",
    "scientific",
    "site_settings",
    "unknown_key",
    "write_yaml",
]

RECIPES = ROOT / "experiments" / "recipes"
SHORT = {"model": "model.name", "devices": "machine.devices"}  # keys that may be written without their section
# what timm, Hydra and Slurm call a setting that has another name here → its key, for messages
ELSEWHERE = {
    "opt": "train.optimizer", "wd": "train.weight_decay", "b": "train.batch_size", "bs": "train.batch_size",
    "sched": "train.schedule", "clip_norm": "train.clip_grad", "amp": "train.precision", "amp_dtype": "train.precision",
    "model_ema": "train.ema_decay", "model_ema_decay": "train.ema_decay", "aa": "augment.auto_augment",
    "reprob": "augment.erase", "cooldown_epochs": "train.schedule", "img_size": "data.image_size",
    "input_size": "data.image_size", "data_dir": "data.root", "data_path": "data.root", "data": "data.root",
    "num_workers": "data.workers", "j": "data.workers", "val_split": "data.eval_split", "gpu": "machine.device",
    "torchcompile": "machine.compile", "nproc_per_node": "devices", "gpus": "devices", "ngpus": "devices",
    "pretrained": "init", "resume": "init", "checkpoint": "init", "initial_checkpoint": "init", "finetune": "init",
    "output": "runs_dir", "output_dir": "runs_dir", "out": "runs_dir", "outdir": "runs_dir",
    "hydra.run.dir": "runs_dir", "hydra.sweep.dir": "runs_dir", "random_seed": "seed",
    "time": "slurm.time_minutes", "t": "slurm.time_minutes", "walltime": "slurm.time_minutes",
    "timeout_min": "slurm.time_minutes", "mem": "slurm.mem_gb", "gres": "slurm.gpus_per_node",
    "p": "slurm.partition", "a": "slurm.account", "exclude": "slurm.options",
}  # fmt: skip
# lengths that are set in epochs or in steps; of two layers the later one decides, in its own unit
UNITS = {
    "train.epochs": "train.steps",
    "train.warmup_epochs": "train.warmup_steps",
    "train.eval_every": "train.eval_every_steps",
}
NUMBERS = ("model.offset_sharing", "model.offset_interval")  # a number, or one per stage
SITE = ("runs_dir", "data", "machine", "slurm")  # what site.yaml may hold
# words of the command line that are no settings, and text as they stand; and those that are lists of names
TEXTS = ("runs_dir", "into", "protocol", "measured", "because", "layer", "images")
LISTS_OF_NAMES = ("arms", "tasks", "tables")


def resolve(experiment: str, *overrides: Mapping[str, Any], site: Mapping[str, Any] | None = None) -> Config:
    """The whole config of a run: schema defaults < recipe < site < each of ``overrides``, then checked and completed.

    overrides: dotted keys to values, e.g. ``{"model.offsets": "token", "seed": 1}``, or the short names in SHORT.
    Raises ConfigError in one line for an unknown recipe, key, choice or value.
    """
    recipe = read_recipe(experiment)
    layers = [recipe, *overrides]
    dataset = next((str(o["data.dataset"]) for o in reversed(layers) if "data.dataset" in o), Data.dataset)
    settings = _overlay(recipe, site_settings(site or {}, dataset), *overrides, {"experiment": called(experiment)})
    if is_own(mixer := settings.get("model.mixer")):  # runs have another working directory
        settings["model.mixer"] = str(Path.cwd() / expanded("model.mixer", str(mixer)))
    config = complete(_config_of(settings), settings)
    if config.init and is_file(config.init):  # runs have another working directory
        config.init = str(Path.cwd() / expanded("init", config.init))
    if config.data.root is not None:
        config.data.root = str(expanded("data.root", config.data.root))
    return config


def merge(*layers: Mapping[str, Any]) -> Config:
    """Schema defaults overlaid with layers of dotted keys, each checked for name, type and choice."""
    return _config_of(_overlay(*layers))


def _overlay(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all layers, a later one before an earlier one; a length keeps the unit that was set last."""
    settings: dict[str, Any] = {}
    for layer in layers:
        checked = {_checked_key(key): value for key, value in layer.items()}
        settings.update(checked)
        for epochs, steps in UNITS.items():
            in_epochs, in_steps = checked.get(epochs) is not None, checked.get(steps) is not None
            if in_epochs and in_steps:
                raise ConfigError(f"{epochs}={checked[epochs]} and {steps}={checked[steps]}: set one of them")
            if in_epochs or in_steps:
                settings[steps if in_epochs else epochs] = None
    return settings


def _config_of(settings: Mapping[str, Any]) -> Config:
    config = Config()
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        setattr(getattr(config, section) if section else config, name, _typed(key, value))
    return config


def _typed(key: str, value: Any) -> Any:
    """``value`` as the type of a setting, or ConfigError."""
    for text in value if isinstance(value, (list, tuple)) else (value,):
        refuse_control_characters(key, text)
    return copy.copy(_typed_once(key, json.dumps(value, default=str)))


@cache  # the runs of a sweep share most of their settings, and a structured config takes its time
def _typed_once(key: str, text: str) -> Any:
    value = json.loads(text)
    metadata, kind = FIELDS[key].metadata, str(FIELDS[key].type)
    if isinstance(value, list) and not kind.startswith(("list", "Any")):
        given = ",".join(map(str, value))
        raise ConfigError(f"{key}={given}: a run has one value; several are arms or seeds of a sweep (docs/sweeps.md)")
    if kind.startswith("list") and not isinstance(value, list) and value is not None:
        example = f", e.g. {key}={','.join(map(str, default))}" if (default := get(Config(), key)) else ""
        raise ConfigError(f"{key}={value}: a list is needed ({metadata['says']}){example}")
    if metadata["unit"] and isinstance(value, str) and (time := read_time(value, metadata["unit"])) is not None:
        return math.ceil(time) if kind.startswith("int") else time
    if kind.startswith("int") and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e4
    if isinstance(value, str) and (meant := metadata["others"].get(value)):
        raise ConfigError(f"{key}={value}: did you mean {key}={meant}?")
    choices, plugins = metadata["choices"], metadata["plugins"]
    own = key == "model.mixer" and is_own(value)
    if choices and value is not None and value not in choices and not own:
        choices = (*choices, *plugin_names(plugins)) if plugins else choices
        if value not in choices:
            raise ConfigError(unknown(f"value for {key}", value, choices))
    if (kind.startswith("str") and isinstance(value, str)) or (kind == "list[str]" and _are_texts(value)):
        return value  # OmegaConf would put the value of ${…} in place of it
    if isinstance(value, list) and any(isinstance(each, (list, dict)) for each in value):
        raise ConfigError(f"{key}={value}: a list of single values is needed")  # OmegaConf takes any as a number
    of_numbers = kind.removeprefix("list[").startswith(("int", "float")) or key in NUMBERS
    if of_numbers and any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value])):
        raise ConfigError(f"{key}={text}: a number is needed")
    if "${" in text:
        raise ConfigError(f"{key}={value}: nothing is put in place of ${{…}} here; write the value itself")
    section, _, name = key.rpartition(".")
    try:
        config = OmegaConf.structured(SECTIONS.get(section, Basics))
        OmegaConf.update(config, name, value)
        return getattr(OmegaConf.to_object(config), name)
    except (OmegaConfBaseException, OverflowError) as error:  # whole numbers that no float can hold
        forms = "; a time is a number, or 30:00, 24:00:00 or 2-12 as Slurm writes it" if metadata["unit"] else ""
        raise ConfigError(f"{key}={value}: {str(error).splitlines()[0]}{forms}") from None


def _unquoted(text: str) -> str:
    if text.startswith('"') and text.endswith('"'):
        with suppress(ValueError):
            return str(json.loads(text))
    return text


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def scientific(config: Config) -> dict[str, Any]:
    """Dotted keys and values of every setting that decides a run's numbers.

    Settings at their neutral value, and sections that only other tasks have, are left out: they change nothing about
    the run, and a run that was started before they existed has the same identity as one that is started now.
    """
    foreign = sections_of_other_tasks(config.task)
    identity = {
        key: value
        for key, f in FIELDS.items()
        if f.metadata["scientific"]
        and key.partition(".")[0] not in foreign
        and ((value := get(config, key)) != f.metadata["neutral"] or f.metadata["neutral"] is MISSING)
    }
    if is_own(config.model.mixer):  # wherever its file lies; its source is a setting, too
        identity["model.mixer"] = name_of(str(config.model.mixer))
    return identity


def from_dict(frozen: Mapping[str, Any]) -> Config:
    """A config back from the ``config.yaml`` of a run folder, without execution settings that no longer exist.

    A setting that the file lacks was added after the run was frozen: it has its neutral value, whatever its default.
    """
    known = {
        name: {key: value for key, value in frozen.get(name, {}).items() if f"{name}.{key}" in FIELDS}
        for name in ("machine", "slurm")
    }
    neutral = {key: f.metadata["neutral"] for key, f in FIELDS.items() if f.metadata["neutral"] is not MISSING}
    return merge(neutral, _flatten({**frozen, **known}))


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """``key=value`` words of a command line; each value is read by the type of its key.

    Text is taken as it stands, or as what it quotes if it is a JSON string; names in lists are text, too; all else is
    YAML (``[0,1]``, ``true``, ``1e-3``). Values that commas divide are a list, also without brackets.
    """
    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if key.startswith("+"):
            raise ConfigError(f"{word}: every setting has a value already; write {word.lstrip('+')}")
        if key.startswith("~"):
            name = key.lstrip("~")
            raise ConfigError(
                f"{word}: no setting can be removed; give it another value, {name}=null where it may be off"
            )
        if not equals or not key:
            raise ConfigError(f"{word!r} is not of the form key=value")
        long = SHORT.get(key, key)
        if long in (SHORT.get(other, other) for other in parsed):
            raise ConfigError(f"{key} is given twice")
        parsed[key] = _value(long, text, word)
    return parsed


def _value(key: str, text: str, word: str) -> Any:
    kind = str(FIELDS[key].type) if key in FIELDS else "str" if key in TEXTS else ""
    if kind in ("str", "str | None"):
        return None if kind == "str | None" and text in ("", "null", "~") else _unquoted(text)
    if kind == "list[str]" and not text.startswith("["):
        return [_unquoted(text)]  # a line of the shell may have commas
    if kind == "list[str]" or key in LISTS_OF_NAMES:
        return text.split(",") if "," in text and not text.startswith("[") else texts(text, word)
    if "," in text and not text.startswith(("[", "{", '"', "'")):
        return [load(part, word) for part in text.split(",")]
    return load(text, word)


@cache
def _recipe(name: str) -> tuple[tuple[str, Any], ...]:
    if path := own_file("experiment", name, recipe_names()):
        return tuple(with_absolute_paths(_flatten(read_yaml(path)), path.parent).items())
    if name not in recipe_names():
        raise ConfigError(unknown("experiment", name, recipe_names()))
    return tuple(with_absolute_paths(_flatten(read_yaml(RECIPES / f"{name}.yaml")), RECIPES).items())


def read_recipe(name: str) -> dict[str, Any]:
    return dict(_recipe(name))


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def users_site() -> Path:
    """Where a user has a site file for all checkouts."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "atm" / "site.yaml"


def read_site(path: Path = ROOT / "site.yaml") -> dict[str, Any]:
    """Settings of this machine or cluster (``site.example.yaml`` shows them all); empty where there is no file.

    What the checkout's file does not set is taken from the user's own. Paths are absolute. Raises ConfigError.
    """
    return _below(_read_site(path), _read_site(users_site()))


def _below(site: Mapping[str, Any], users: Mapping[str, Any]) -> dict[str, Any]:
    """A site, and key by key what only the user's has."""
    merged = {**users, **site}
    for key in users.keys() & site.keys():
        if isinstance(users[key], Mapping) and isinstance(site[key], Mapping):
            merged[key] = _below(site[key], users[key])
    return merged


def _read_site(path: Path) -> dict[str, Any]:
    site = read_yaml(path, may_be_empty=True) if os.path.lexists(path) else {}
    for key in site:
        if key not in SITE:
            raise ConfigError(f"{path.name}: {unknown('key', key, SITE)}")
    if not isinstance(site.get("runs_dir"), str | None):
        raise ConfigError(f"{path.name}: runs_dir: expected a path, not {site['runs_dir']!r}")
    known = {*DATASETS, *(dict(_recipe(name)).get("data.dataset") for name in recipe_names())}
    for name in _entries(site, "data"):
        if name not in known and (near := get_close_matches(name, [str(each) for each in known], n=1, cutoff=0.8)):
            raise ConfigError(f"{path.name}: data: no data set is called {name!r}; did you mean {near[0]!r}?")
    data = {
        name: with_absolute_paths(entry, path.parent) if isinstance(entry, Mapping) else entry
        for name, entry in _entries(site, "data").items()
    }
    return with_absolute_paths(site, path.parent) | ({"data": data} if data else {})


def site_settings(site: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The part of a site that concerns a run: where the data set is, and how its machine executes."""
    settings = {f"data.{k}": v for k, v in _entries(_entries(site, "data"), dataset).items()}
    for section in ("machine", "slurm"):
        settings.update({f"{section}.{k}": v for k, v in _entries(site, section).items()})
    for key, value in settings.items():
        try:
            field = FIELDS[_checked_key(key)]
            _typed(key, value)
        except ConfigError as error:
            raise ConfigError(f"site.yaml: {error}") from None
        if field.metadata["scientific"]:
            raise ConfigError(f"site.yaml: {key} decides a run's numbers; set it in a recipe or on the command line")
    return settings


def _entries(section: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entries = section.get(name) or {}
    if not isinstance(entries, Mapping):
        raise ConfigError(f"site.yaml: {name} must hold keys and values, not {entries!r}")
    return entries


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
        raise ConfigError(unknown_key(key))
    return key


def unknown_key(key: str, others: Collection[str] = ()) -> str:
    """The message for a key that is no setting, with the keys that end as it does or are meant by it elsewhere.

    others: further keys that are valid in its place.
    """
    return unknown("key", key, [*others, *FIELDS, *SHORT], meant_by(key))


def every_key() -> list[str]:
    """Every key that a command line can set."""
    return [*FIELDS, *SHORT, *TEXTS, *LISTS_OF_NAMES, "seeds"]


def choices_of(key: str) -> list[str]:
    """The values of a setting, where they are names."""
    long = SHORT.get(key, key)
    if long == "model.name":
        return list(read_variants())
    if long == "experiment":
        return recipe_names()
    return list(FIELDS[long].metadata["choices"]) if long in FIELDS else []


def meant_by(name: str) -> list[str]:
    """The keys that are called so without their section, with dashes, or by other programs: ``lr``, ``data-dir``."""
    plain = name.lower().replace("-", "_")
    leaf = plain.rpartition(".")[2]
    meant = [key for key in (plain,) if key in every_key()]
    meant += [key for key in FIELDS if key.rpartition(".")[2] == leaf]
    return list(dict.fromkeys([*meant, *(ELSEWHERE[each] for each in (plain, leaf) if each in ELSEWHERE)]))
