"""From a sweep file to its runs: arms x seeds, each with its whole config and id. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown
from experiments.config import ROOT, SHORT, read_recipe, read_yaml, resolve
from experiments.data.registry import check_root
from experiments.identity import run_id
from experiments.schema import FIELDS, Config

SWEEPS = ROOT / "sweeps"
ARM_PARTS = ("label", "start_from", "recipes")  # what an arm says besides settings


@dataclass(frozen=True)
class PlannedRun:
    id: str
    arm: str
    seed: int
    config: Config
    parent: str | None = None  # id of the planned run whose final weights it starts from


@dataclass(frozen=True)
class Plan:
    sweep: str
    protocol: str
    experiment: str
    baseline: str
    labels: dict[str, str]  # arm -> what tables call it
    left_out: list[str]  # arms of the sweep that were not chosen
    runs: list[PlannedRun]  # seed by seed, so that a part of a sweep already compares all arms; parents first
    changed: dict[str, Any] = field(default_factory=dict)  # what the command line changed of the protocol

    def distinct(self) -> dict[str, PlannedRun]:
        """Runs by id: arms with one config share a run."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.id, run)
        return first

    def as_dict(self) -> dict[str, Any]:
        """The plan in plain values, as the rooms that only read results take it."""
        first = {run.arm: run.config for run in reversed(self.runs)}
        return {
            "sweep": self.sweep,
            "protocol": self.protocol,
            "experiment": self.experiment,
            "baseline": self.baseline,
            "left_out": self.left_out,
            "changed": self.changed,
            "arms": [
                {"name": arm, "label": label, "model": first[arm].model.name, "config": first[arm].as_dict()["model"]}
                for arm, label in self.labels.items()
            ],
            "runs": [{"run": run.id, "arm": run.arm, "seed": run.seed, "parent": run.parent} for run in self.runs],
        }


def load(
    name: str,
    protocol: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: list[int] | None = None,
    arms: list[str] | None = None,
    site: Mapping[str, Any] | None = None,
) -> Plan:
    """Plans a sweep. ``overrides`` are dotted keys for every run; ``arms`` chooses some of the sweep's,
    the baseline and whatever the chosen start from among them.

    Raises ConfigError for an unknown sweep, protocol, arm, key or value, DataError where classes must be counted
    and the data root is missing.
    """
    sweep = read_sweep(name)
    if protocol not in sweep["recipes"]:
        raise ConfigError(unknown(f"protocol of sweep {name}", protocol, sweep["recipes"]))
    seeds = _checked_seeds(sweep["seeds"] if seeds is None else seeds)
    parents = {arm: body.get("start_from") for arm, body in sweep["arms"].items()}
    chosen = _chosen(name, sweep, arms)
    configs: dict[str, Config] = {}
    for arm in (arm for arm in _parents_first(parents) if arm in chosen):
        configs[arm] = _resolve_arm(name, sweep, arm, protocol, overrides or {}, site)
        if parent := parents[arm]:
            _refuse_other_model(name, arm, configs[arm], parent, configs[parent])
    runs = []
    for seed in seeds:
        ids: dict[str | None, str] = {}
        for arm, config in configs.items():
            parent_id = ids.get(parents[arm])
            # nothing that was completed or checked depends on seed or parent: resolving again would give the same
            config = replace(deepcopy(config), seed=seed, init=parent_id or config.init)
            ids[arm] = run_id(config)
            runs.append(PlannedRun(ids[arm], arm, seed, config, parent_id))
    labels = {arm: str(sweep["arms"][arm].get("label", arm)) for arm in chosen}
    left_out = [arm for arm in sweep["arms"] if arm not in chosen]
    recipe, changed = sweep["recipes"][protocol], _changed(overrides or {})
    return Plan(name, protocol, recipe, sweep["baseline"], labels, left_out, runs, changed)


def _changed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that make other runs of the protocol's; the variant is no change, reports look at it by themselves."""
    long = {SHORT.get(key, key): value for key, value in overrides.items()}
    return {key: value for key, value in long.items() if key != "model.name" and FIELDS[key].metadata["scientific"]}


def _chosen(name: str, sweep: Mapping[str, Any], arms: list[str] | None) -> list[str]:
    """Names of the arms to plan, in the order of the sweep file."""
    wanted = [str(arm) for arm in arms or sweep["arms"]]
    for arm in wanted:
        if arm not in sweep["arms"]:
            raise ConfigError(unknown(f"arm of sweep {name}", arm, sweep["arms"]))
    said = f"arms=[{','.join(wanted)}]"
    for arm in wanted:
        parent = sweep["arms"][arm].get("start_from")
        if parent and parent not in wanted:
            raise ConfigError(f"{said}: {arm!r} starts from {parent!r}, so {parent!r} must be among them")
    if sweep["baseline"] not in wanted:
        raise ConfigError(f"{said}: differences are taken to {sweep['baseline']!r}, so it must be among them")
    return [arm for arm in sweep["arms"] if arm in wanted]


def _resolve_arm(
    name: str, sweep: Mapping[str, Any], arm: str, protocol: str, overrides: Mapping[str, Any], site: Any
) -> Config:
    """The config of an arm for any seed; ``init`` names the parent arm in place of its run."""
    body = sweep["arms"][arm]
    recipes = body.get("recipes", sweep["recipes"])
    if protocol not in recipes:
        raise ConfigError(
            f"sweep {name}: arm {arm!r} has no recipe for protocol {protocol}, only for {', '.join(recipes)}; "
            "choose others with arms=[…]"
        )
    common = sweep.get("settings", {}).get(protocol, {})
    settings = {key: value for key, value in body.items() if key not in ARM_PARTS}
    start = {"init": body["start_from"]} if "start_from" in body else {}
    own = read_recipe(recipes[protocol]).get("protocol", Config.protocol)
    if own != protocol:
        raise ConfigError(f"{name}.yaml: arm {arm!r}: recipe {recipes[protocol]} is of protocol {own}, not {protocol}")
    config = resolve(recipes[protocol], common, settings, overrides, start, site=site)
    if config.data.num_classes is None:
        check_root(config)
    return config


def _refuse_other_model(name: str, arm: str, config: Config, parent: str, start: Config) -> None:
    """Said when it is planned: that weights do not fit would otherwise be found out after the parent's training."""
    own, other = asdict(config.model), asdict(start.model)
    for key in own:
        if key != "drop_path" and own[key] != other[key]:
            raise ConfigError(
                f"sweep {name}: arm {arm!r} has model.{key}={own[key]}, but {parent!r}, whose weights it starts from, "
                f"has {other[key]}"
            )


def _checked_seeds(seeds: Any) -> list[int]:
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise ConfigError(f"seeds={seeds}: give a list of whole numbers, e.g. seeds=[0,1,2]")
    return seeds


def read_sweep(name: str) -> dict[str, Any]:
    """A sweep file, with the parts every one must have; names of arms are text, also where they look like numbers.

    Raises ConfigError.
    """
    path = SWEEPS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(unknown("sweep", name, sweep_names()))
    sweep = read_yaml(path)
    for part in ("recipes", "seeds", "baseline", "arms"):
        if part not in sweep:
            raise ConfigError(f"{path.name}: has no {part}")
    sweep["arms"] = {str(arm): dict(body or {}) for arm, body in sweep["arms"].items()}
    sweep["baseline"] = str(sweep["baseline"])
    if sweep["baseline"] not in sweep["arms"]:
        raise ConfigError(f"{path.name}: baseline: {unknown('arm', sweep['baseline'], sweep['arms'])}")
    for arm, body in sweep["arms"].items():
        _check_arm(f"{path.name}: arm {arm!r}", body, sweep)
    try:
        _parents_first({arm: body.get("start_from") for arm, body in sweep["arms"].items()})
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    return sweep


def _check_arm(where: str, body: dict[str, Any], sweep: Mapping[str, Any]) -> None:
    for key in body:
        if key not in ARM_PARTS and key not in FIELDS and key not in SHORT:
            raise ConfigError(f"{where}: {unknown('key', key, [*ARM_PARTS, *FIELDS, *SHORT])}")
    if "start_from" in body:
        body["start_from"] = str(body["start_from"])
        if body["start_from"] not in sweep["arms"]:
            raise ConfigError(f"{where}: start_from: {unknown('arm', body['start_from'], sweep['arms'])}")
        if "init" in body:
            raise ConfigError(f"{where}: either init or start_from says what it starts from, not both")
    recipes = body.get("recipes", {})
    if not isinstance(recipes, Mapping):
        raise ConfigError(f"{where}: recipes: give a recipe per protocol, e.g. {{paper: imagenet}}, not {recipes!r}")
    for protocol in recipes:
        if protocol not in sweep["recipes"]:
            raise ConfigError(f"{where}: recipes: {unknown('protocol', protocol, sweep['recipes'])}")


def _parents_first(parents: Mapping[str, str | None]) -> list[str]:
    """Arms in their order, but each after the one it starts from. Raises ConfigError for a circle."""
    ordered: list[str] = []
    for first in parents:
        chain: list[str] = []
        arm: str | None = first
        while arm is not None and arm not in ordered:
            if arm in chain:
                circle = " from ".join(map(repr, [*chain[chain.index(arm) :], arm]))
                raise ConfigError(f"start_from goes in a circle: {circle}")
            chain.append(arm)
            arm = parents[arm]
        ordered += reversed(chain)
    return ordered


def sweep_names() -> list[str]:
    return sorted(path.stem for path in SWEEPS.glob("*.yaml"))


def headline(path: Path) -> str:
    """The first comment line of a recipe, sweep or report file: what it is for, in a sentence."""
    with path.open() as file:
        return file.readline().lstrip("# ").strip()
