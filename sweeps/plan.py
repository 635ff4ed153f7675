"""From a sweep file to its runs: arms x tasks x seeds, each with its whole config and id. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any

from errors import ConfigError, unknown
from experiments.config import SHORT
from experiments.identity import run_id
from experiments.own_mixer import is_own, name_of
from experiments.schema import FIELDS, Config
from experiments.tasks.registry import task_entry
from sweeps.arm_configs import ArmConfigs, first_task_of, words_by_task
from sweeps.collapse import own_keys_of, refuse_collapse
from sweeps.own_arm import with_mixer
from sweeps.sweep_file import (
    ARM_PARTS,
    SWEEPS,
    arms_with,
    check_seeds,
    headline,
    parents_first,
    read_sweep,
    seeds_of,
    sweep_names,
)
from yaml_files import called

__all__ = ["SWEEPS", "Plan", "PlannedRun", "PlannedTask", "headline", "load", "read_sweep", "sweep_names"]


@dataclass(frozen=True)
class PlannedRun:
    id: str
    arm: str
    seed: int
    task: str
    config: Config
    parent: str | None = None  # id of the planned run whose final weights it starts from


@dataclass(frozen=True)
class PlannedTask:
    """What an arm is trained for: the sweep's own task, or a downstream one, and the metric that reports show."""

    name: str
    experiment: str
    metric: str
    label: str
    unit: str
    decimals: int
    chance: float | None

    @classmethod
    def of(cls, name: str, config: Config) -> PlannedTask:
        entry = task_entry(config.task)
        weights = "eval" if config.train.ema_decay is None else "eval_ema"
        metric = f"{weights}/{entry.metric}"
        chance = entry.chance_level(config)
        return cls(name, config.experiment, metric, entry.label_of(config), entry.unit, entry.decimals, chance)


@dataclass(frozen=True)
class Plan:
    sweep: str
    protocol: str
    experiment: str
    baseline: str
    labels: dict[str, str]  # arm -> its name in tables
    left_out: list[str]  # arms that the sweep has under the protocol and that were not chosen
    tasks: list[PlannedTask]  # the sweep's own task first, then the downstream tasks, which start from its runs
    runs: list[PlannedRun]  # seed by seed, so that a part of a sweep already compares all arms; parents first
    changed: dict[str, Any] = field(default_factory=dict)  # settings of the protocol that the command line changed
    given: str = ""  # how a command line names the sweep: by its name, or the user's own by its path
    words: tuple[str, ...] = ()  # the settings of that command line, as they were written

    def distinct(self) -> dict[str, PlannedRun]:
        """Runs by id: arms with the same config share a run."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.id, run)
        return first

    def as_dict(self) -> dict[str, Any]:
        """The plan in plain values, for the rooms that only read results."""
        first = {run.arm: run.config for run in reversed(self.runs)}
        return {
            "sweep": self.sweep,
            "protocol": self.protocol,
            "experiment": self.experiment,
            "baseline": self.baseline,
            "left_out": self.left_out,
            "changed": self.changed,
            "tasks": [asdict(task) for task in self.tasks],
            "arms": [
                {"name": arm, "label": label, "model": first[arm].model.name, "config": _model_of(first[arm])}
                for arm, label in self.labels.items()
            ],
            "runs": [
                {"run": run.id, "arm": run.arm, "seed": run.seed, "task": run.task, "parent": run.parent}
                for run in self.runs
            ],
        }


def load(
    name: str,
    protocol: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: list[int] | None = None,
    arms: list[str] | None = None,
    site: Mapping[str, Any] | None = None,
    tasks: list[str] | None = None,
    *,
    compared: bool = True,
    mixer: str | None = None,
) -> Plan:
    """Plans a sweep. ``overrides`` are dotted keys for every run. ``seeds`` replace those of the file and of its arms.
    ``arms`` chooses some of the sweep's arms, among them whatever the chosen arms start from and, if they are to be
    ``compared``, the baseline; without it, those that have a recipe for the protocol are planned. ``tasks`` chooses
    some of its tasks. With ``mixer``, a mixer of one's own is an arm as well, and without ``arms`` it and the baseline
    are planned.

    Raises ConfigError for an unknown sweep, protocol, arm, task, key or value, DataError where classes must be counted
    and the data root is missing.
    """
    sweep = read_sweep(name)
    if protocol not in sweep["recipes"]:
        raise ConfigError(
            f"sweep {name}: {unknown('protocol', protocol, sweep['recipes'])}; choose one with protocol=NAME"
        )
    if seeds is not None:
        check_seeds(seeds)
    if mixer is not None:
        sweep, own_arm = with_mixer(name, sweep, mixer)
        arms = arms or [sweep["baseline"][protocol], own_arm]
    parents = {arm: body.get("start_from") for arm, body in sweep["arms"].items()}
    chosen = _chosen_arms(name, sweep, arms, protocol, compared=compared)
    first_task = first_task_of(sweep, protocol)
    resolving = ArmConfigs(name, sweep, protocol, words_by_task(overrides or {}, sweep, protocol), site)
    configs: dict[tuple[str, str], Config] = {}  # by task and arm, in the order in which runs are to be started
    ordered = [arm for arm in parents_first(parents) if arm in chosen]
    for arm in ordered:
        configs[first_task, arm] = config = resolving.own(arm)
        if parent := parents[arm]:
            _refuse_other_model(f"sweep {name}: arm {arm!r}", config, repr(parent), configs[first_task, parent])
    for task in _chosen_tasks(name, sweep, protocol, first_task, tasks):
        for arm in ordered:
            if task in _tasks_of_arm(name, sweep, arm, first_task):
                configs[task, arm] = config = resolving.downstream(arm, task, configs[first_task, arm])
                where = f"sweep {name}: task {task!r} of arm {arm!r}"
                _refuse_other_model(where, config, f"the arm's {first_task} run", configs[first_task, arm])
    runs = []
    seeds_by_arm = {arm: seeds_of(arm, sweep) if seeds is None else seeds for arm in ordered}
    for seed in dict.fromkeys(chain(*seeds_by_arm.values())):
        ids: dict[tuple[str, str], str] = {}
        for (task, arm), config in configs.items():
            if seed not in seeds_by_arm[arm]:
                continue
            start = (first_task, parents[arm] or "") if task == first_task else (first_task, arm)
            parent_id = ids.get(start)
            # seed and parent decide nothing that was completed or checked, so the config is not resolved again
            config = replace(deepcopy(config), seed=seed, init=parent_id or config.init)
            ids[task, arm] = run_id(config)
            runs.append(PlannedRun(ids[task, arm], arm, seed, task, config, parent_id))
    refuse_collapse(f"sweep {name}", runs, overrides or {}, own_keys_of(sweep, ARM_PARTS), resolving.without)
    labels = {arm: str(sweep["arms"][arm].get("label", arm)) for arm in chosen}
    left_out = [arm for arm in arms_with(protocol, sweep) if arm not in chosen]
    planned_tasks: dict[str, PlannedTask] = {}
    for (task, _), config in configs.items():
        planned_tasks.setdefault(task, PlannedTask.of(task, config))
    recipe, changed = sweep["recipes"][protocol], _changed(overrides or {})
    return Plan(
        called(name), protocol, called(recipe), sweep["baseline"][protocol], labels, left_out,
        list(planned_tasks.values()), runs, changed, name,
    )  # fmt: skip


def _model_of(config: Config) -> dict[str, Any]:
    """The settings of an arm's model as results keep them: without the place of a file on this machine."""
    settings = asdict(config.model)
    if is_own(config.model.mixer):
        settings["mixer"] = name_of(str(config.model.mixer))
    return settings


def _changed(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that make other runs than the protocol's; another variant is no such change, reports show it anyway."""
    long = {SHORT.get(key, key): value for key, value in overrides.items()}
    return {key: value for key, value in long.items() if key != "model.name" and FIELDS[key].metadata["scientific"]}


def _chosen_arms(
    name: str, sweep: Mapping[str, Any], arms: list[str] | None, protocol: str, *, compared: bool
) -> list[str]:
    """Names of the arms to plan, in the order of the sweep file; unless chosen, those with a recipe of the protocol."""
    chosen = [str(arm) for arm in arms or arms_with(protocol, sweep)]
    for arm in chosen:
        if arm not in sweep["arms"]:
            raise ConfigError(unknown(f"arm of sweep {name}", arm, sweep["arms"]))
    word = f"arms=[{','.join(chosen)}]"
    for arm in chosen:
        parent = sweep["arms"][arm].get("start_from")
        if parent and parent not in chosen:
            raise ConfigError(f"{word}: {arm!r} starts from {parent!r}, so {parent!r} must be among them")
    if compared and (baseline := sweep["baseline"][protocol]) not in chosen:
        raise ConfigError(f"{word}: differences are taken to {baseline!r}, so it must be among them")
    return [arm for arm in sweep["arms"] if arm in chosen]


def _chosen_tasks(
    name: str, sweep: Mapping[str, Any], protocol: str, first_task: str, tasks: list[str] | None
) -> list[str]:
    """Names of the downstream tasks to plan, in the order of the sweep file; unless chosen, those with the protocol."""
    if first_task in sweep["downstream"]:
        raise ConfigError(f"{name}.yaml: downstream: {first_task!r} is the sweep's own task; choose another name")
    valid = [first_task, *sweep["downstream"]]
    for task in tasks or []:
        if task not in valid:
            raise ConfigError(unknown(f"task of sweep {name}", task, valid))
    if tasks is not None:
        return [task for task in sweep["downstream"] if task in tasks]
    return [task for task, recipes in sweep["downstream"].items() if protocol in recipes]


def _tasks_of_arm(name: str, sweep: Mapping[str, Any], arm: str, first_task: str) -> list[str]:
    valid = [first_task, *sweep["downstream"]]
    tasks = sweep["arms"][arm].get("tasks", valid)
    tasks = tasks if isinstance(tasks, list) else [tasks]
    for task in tasks:
        if task not in valid:
            raise ConfigError(f"{name}.yaml: arm {arm!r}: tasks: {unknown('task', task, valid)}")
    return [task for task in valid if task in tasks]


def _refuse_other_model(where: str, config: Config, parent: str, start: Config) -> None:
    """Checked when the sweep is planned: weights that do not fit would otherwise be refused after the parent's
    training."""
    own, other = asdict(config.model), asdict(start.model)
    for key in own:
        if key != "drop_path" and own[key] != other[key]:
            raise ConfigError(
                f"{where} has model.{key}={own[key]}, but {parent}, whose weights it starts from, has {other[key]}"
            )
