"""A collection file: tables, each with what it takes from which sweep, read and checked. Never imports torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from errors import ConfigError, unknown
from sweeps.sweep_file import COLLECTION, KIND, check_seeds, read_file, read_sweep

KEYS = ("kind", "seeds", "tables")
PART_KEYS = ("sweep", "arms", "tasks")
OWN = "own"  # among the tasks of a part: the sweep's own task, whatever it is called under a protocol


@dataclass(frozen=True)
class Part:
    """What a table takes from a sweep. arms: None for all of them; tasks: names of downstream tasks, and OWN.

    recipes: of the downstream tasks of the sweep, by task and protocol; a task is planned with those protocols alone.
    """

    sweep: str
    arms: tuple[str, ...] | None
    tasks: tuple[str, ...]
    recipes: Mapping[str, Mapping[str, str]]

    def protocols(self, task: str) -> Collection[str]:
        """The protocols of a downstream task, none of the sweep's own."""
        return self.recipes.get(task, {})


@dataclass(frozen=True)
class CollectionFile:
    """seeds: by protocol; parts: by table."""

    seeds: dict[str, list[int]]
    parts: dict[str, tuple[Part, ...]]


def is_collection(name: str) -> bool:
    """Whether the file of a sweep is a collection of sweeps. Raises ConfigError for an unknown name."""
    return read_file(name)[1].get(KIND) == COLLECTION


def read_collection(name: str) -> CollectionFile:
    """The content of a collection file. Raises ConfigError where it contradicts itself or the sweeps it names."""
    path, content = read_file(name)
    for key in content:
        if key not in KEYS:
            raise ConfigError(f"{path.name}: {unknown('key', key, KEYS)}")
    seeds, tables = content.get("seeds"), content.get("tables")
    if not isinstance(seeds, Mapping) or not seeds:
        raise ConfigError(f"{path.name}: seeds: give them by protocol, e.g. {{smoke: [0]}}, not {seeds!r}")
    for protocol, of_protocol in seeds.items():
        check_seeds(of_protocol, f"{path.name}: {protocol}")
    if not isinstance(tables, Mapping) or not tables:
        raise ConfigError(f"{path.name}: tables: give parts by table, not {tables!r}")
    sweeps: dict[str, Mapping[str, Any]] = {}
    parts = {}
    for table, bodies in tables.items():
        where = f"{path.name}: {table}"
        if not isinstance(bodies, list) or not bodies:
            raise ConfigError(f"{where}: give a list of parts, e.g. [{{sweep: variants}}], not {bodies!r}")
        parts[str(table)] = tuple(_part(where, body, sweeps, path.parent) for body in bodies)
    return CollectionFile({str(protocol): list(each) for protocol, each in seeds.items()}, parts)


def _part(where: str, body: Any, sweeps: dict[str, Mapping[str, Any]], folder: Any) -> Part:
    """sweeps: content of the sweep files that were read, which this adds to."""
    if not isinstance(body, Mapping) or "sweep" not in body:
        raise ConfigError(f"{where}: a part names a sweep, e.g. {{sweep: variants}}, not {body!r}")
    for key in body:
        if key not in PART_KEYS:
            raise ConfigError(f"{where}: {unknown('key', key, PART_KEYS)}")
    name = str(body["sweep"])
    name = str(folder / name) if name.endswith(".yaml") else name
    if name not in sweeps:
        sweeps[name] = read_sweep(name)
    sweep = sweeps[name]
    arms = _names(f"{where}: arms", body["arms"], "arm", sweep["arms"]) if "arms" in body else None
    tasks = _names(f"{where}: tasks", body.get("tasks", [OWN]), "task", [OWN, *sweep["downstream"]])
    return Part(name, arms, tasks, sweep["downstream"])


def _names(where: str, given: Any, kind: str, valid: Collection[str]) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{where}: give a list of names, not {given!r}")
    for name in map(str, given):
        if name not in valid:
            raise ConfigError(f"{where}: {unknown(kind, name, valid)}")
    return tuple(map(str, given))
