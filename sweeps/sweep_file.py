"""A sweep file: its arms, tasks, recipes and seeds, read and checked. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, unknown
from experiments.config import ROOT, SHORT, read_yaml, unknown_key
from experiments.paths import with_absolute_paths
from experiments.schema import FIELDS
from yaml_files import own_file

SWEEPS = ROOT / "sweeps"
PARTS = ("recipes", "settings", "seeds", "baseline", "arms", "downstream")
NAMES = ("baseline", "start_from", "label", "sweep")  # keys whose values are text as it is written
ELSEWHERE = {"experiment": "a sweep and an arm have recipes", "seed": "a sweep and an arm have seeds"}
# keys of an arm that are not settings
ARM_PARTS = ("label", "seeds", "start_from", "recipes", "tasks", "downstream")
KIND, COLLECTION = "kind", "collection"  # the key and the word by which a file says that it collects other sweeps


def read_sweep(name: str) -> dict[str, Any]:
    """The content of a sweep file, one of the suite by its name or the user's own by its path.

    Names of arms are text, even if they look like numbers.

    Raises ConfigError for an unknown sweep, and for a file that lacks a part or contradicts itself.
    """
    path, sweep = read_file(name)
    if sweep.get(KIND) == COLLECTION:
        raise ConfigError(f"{path.name} is a collection of sweeps, not one of them")
    for key in sweep:
        if key not in PARTS:
            raise ConfigError(f"{path.name}: {unknown('key', key, PARTS)}")
    for part in ("recipes", "seeds", "baseline", "arms"):
        if sweep.get(part) in (None, {}):
            raise ConfigError(f"{path.name}: has no {part}")
    check_seeds(sweep["seeds"], path.name)
    _check_recipes(f"{path.name}: recipes", _mapping(f"{path.name}: recipes", sweep["recipes"]), sweep)
    for part in ("arms", "settings"):
        bodies = _mapping(f"{path.name}: {part}", sweep.get(part))
        bodies = {key: _mapping(f"{path.name}: {part}: {key}", body) for key, body in bodies.items()}
        sweep[part] = {key: with_absolute_paths(body, path.parent) for key, body in bodies.items()}
    for protocol, settings in sweep["settings"].items():
        if protocol not in sweep["recipes"]:
            raise ConfigError(f"{path.name}: settings: {unknown('protocol', protocol, sweep['recipes'])}")
        _check_settings(f"{path.name}: settings: {protocol}", settings)
    sweep["recipes"] = _absolute(sweep["recipes"], path.parent)
    sweep["downstream"], sweep["task_settings"] = _downstream_tasks(path.name, sweep, path.parent)
    for arm, body in sweep["arms"].items():
        _check_arm(f"{path.name}: arm {arm!r}", body, sweep, path.parent)
    sweep["baseline"] = _baselines(f"{path.name}: baseline", sweep)
    labels = [str(body.get("label", arm)) for arm, body in sweep["arms"].items()]
    for arm, label in zip(sweep["arms"], labels):
        if not arm.strip() or not label.strip():
            raise ConfigError(f"{path.name}: arm {arm!r}: give it a name")
        if labels.count(label) > 1:
            raise ConfigError(f"{path.name}: several arms are called {label!r} in tables")
    for arm, body in sweep["arms"].items():
        parent = body.get("start_from")
        if parent and (missing := set(seeds_of(arm, sweep)) - set(seeds_of(parent, sweep))):
            raise ConfigError(f"{path.name}: arm {arm!r} has seed {min(missing)}, but {parent!r}, its parent, has not")
    try:
        parents_first({arm: body.get("start_from") for arm, body in sweep["arms"].items()})
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    return sweep


def read_file(name: str) -> tuple[Path, dict[str, Any]]:
    """The path and the unchecked content of a file, one of the suite by its name or the user's own by its path."""
    own = own_file("sweep", name, sweep_names())
    if own is None and name not in sweep_names():
        raise ConfigError(unknown("sweep", name, sweep_names()))
    path = own or SWEEPS / f"{name}.yaml"
    return path, read_yaml(path, NAMES)


def arms_with(protocol: str, sweep: Mapping[str, Any]) -> list[str]:
    """The arms that have a recipe for a protocol."""
    return [arm for arm, body in sweep["arms"].items() if protocol in body.get("recipes", sweep["recipes"])]


def _baselines(where: str, sweep: Mapping[str, Any]) -> dict[str, str]:
    """The baseline of every protocol: the file names one for all of them, or one for each."""
    given = sweep["baseline"]
    baselines = given if isinstance(given, Mapping) else dict.fromkeys(sweep["recipes"], given)
    for protocol in sweep["recipes"]:
        if protocol not in baselines:
            raise ConfigError(f"{where}: names none for protocol {protocol}")
        _check_name(where, baselines[protocol])
        arms = arms_with(protocol, sweep) if isinstance(given, Mapping) else list(sweep["arms"])
        if baselines[protocol] not in arms:
            raise ConfigError(f"{where}: {unknown('arm', baselines[protocol], arms)}")
    return dict(baselines)


def _mapping(where: str, content: Any) -> Mapping[str, Any]:
    """Keys and values; of a key without a value none."""
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: expected keys and values, not {content!r}")
    return content


def _check_name(where: str, name: Any) -> None:
    if not isinstance(name, str):
        raise ConfigError(f"{where}: expected a name, not {name!r}")


def _downstream_tasks(
    file: str, sweep: Mapping[str, Any], folder: Path
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, dict[str, Any]]]]:
    """The recipes of every downstream task and the settings that go with them, by task and protocol.

    A protocol of a task names a recipe, or has a recipe and settings: ``{recipe: scenes_boxes, train.epochs: 1}``.
    """
    tasks = sweep.get("downstream") or {}
    if not isinstance(tasks, Mapping):
        raise ConfigError(f"{file}: downstream: give recipes by task, not {tasks!r}")
    recipes: dict[str, dict[str, str]] = {}
    settings: dict[str, dict[str, dict[str, Any]]] = {}
    for task, by_protocol in tasks.items():
        where = f"{file}: downstream: {task}"
        if not isinstance(by_protocol, Mapping):
            _check_recipes(where, by_protocol, sweep)
        bodies = {protocol: body for protocol, body in by_protocol.items() if isinstance(body, Mapping)}
        named: dict[str, Any] = {p: bodies[p].get("recipe") if p in bodies else by_protocol[p] for p in by_protocol}
        _check_recipes(where, named, sweep)
        recipes[str(task)], settings[str(task)] = _absolute(named, folder), {}
        for protocol, body in bodies.items():
            own = {key: value for key, value in body.items() if key != "recipe"}
            _check_settings(f"{where}: {protocol}", own, ("recipe",))
            settings[str(task)][protocol] = with_absolute_paths(own, folder)
    return recipes, settings


def _absolute(recipes: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Recipes by protocol, those that are files of the user relative to the folder of the sweep file."""
    return {key: str(folder / recipe) if recipe.endswith(".yaml") else recipe for key, recipe in recipes.items()}


def _check_arm(where: str, body: dict[str, Any], sweep: Mapping[str, Any], folder: Path) -> None:
    _check_settings(where, {key: value for key, value in body.items() if key not in ARM_PARTS}, ARM_PARTS)
    for part in ("label", "start_from"):
        if part in body:
            _check_name(f"{where}: {part}", body[part])
    if "start_from" in body:
        if body["start_from"] not in sweep["arms"]:
            raise ConfigError(f"{where}: start_from: {unknown('arm', body['start_from'], sweep['arms'])}")
        if "init" in body:
            raise ConfigError(f"{where}: set either init or start_from, not both")
    if "seeds" in body:
        check_seeds(body["seeds"], where)
    _check_recipes(f"{where}: recipes", body.get("recipes", {}), sweep)
    if "recipes" in body:
        body["recipes"] = _absolute(body["recipes"], folder)
    settings = body.setdefault("downstream", {})
    if not isinstance(settings, Mapping) or any(not isinstance(value, Mapping) for value in settings.values()):
        raise ConfigError(f"{where}: downstream: give settings by task, e.g. {{segmentation: {{train.lr: 1.0e-4}}}}")
    for task, values in settings.items():
        if task not in sweep["downstream"]:
            raise ConfigError(f"{where}: downstream: {unknown('task', task, sweep['downstream'])}")
        _check_settings(f"{where}: downstream: {task}", values)
        if "init" in values:
            raise ConfigError(f"{where}: downstream: {task}: starts from the arm's own run, so init cannot be set")
    body["downstream"] = {task: with_absolute_paths(values, folder) for task, values in settings.items()}


def seeds_of(arm: str, sweep: Mapping[str, Any]) -> list[int]:
    """The seeds of an arm where the command line names none."""
    seeds: list[int] = sweep["arms"][arm].get("seeds", sweep["seeds"])
    return seeds


def check_seeds(seeds: Any, where: str = "") -> None:
    """Raises ConfigError where they are no list of different whole numbers. where: the file and arm."""
    place = f"{where}: " if where else ""
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int or seed < 0 for seed in seeds):
        raise ConfigError(f"{place}seeds={seeds}: give a list of whole numbers, e.g. seeds=[0,1,2], or one: seed=0")
    if any(seed not in (within := FIELDS["seed"].metadata["within"]) for seed in seeds):
        raise ConfigError(f"{place}seeds={seeds}: every seed must be {within}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"{place}seeds={seeds}: give every seed once")


def _check_settings(where: str, settings: Mapping[str, Any], parts: tuple[str, ...] = ()) -> None:
    for key in settings:
        if key not in FIELDS and key not in SHORT:
            raise ConfigError(f"{where}: {unknown_key(key, parts)}")
        if key in ELSEWHERE:
            raise ConfigError(f"{where}: {key} is not set here: {ELSEWHERE[key]}")
        if key in SHORT and SHORT[key] in settings:
            raise ConfigError(f"{where}: {key} and {SHORT[key]} are one setting")


def _check_recipes(where: str, recipes: Any, sweep: Mapping[str, Any]) -> None:
    if not isinstance(recipes, Mapping):
        raise ConfigError(f"{where}: give a recipe per protocol, e.g. {{paper: imagenet}}, not {recipes!r}")
    for protocol, recipe in recipes.items():
        if protocol not in sweep["recipes"]:
            raise ConfigError(f"{where}: {unknown('protocol', protocol, sweep['recipes'])}")
        _check_name(f"{where}: {protocol}", recipe)


def parents_first(parents: Mapping[str, str | None]) -> list[str]:
    """Arms in their order, but each after the arm it starts from. Raises ConfigError for a circle."""
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
    """The first comment line of a recipe, sweep or report file, which states its purpose."""
    with path.open() as file:
        return file.readline().lstrip("# ").strip()
