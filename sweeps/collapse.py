"""Refuses a word of the command line that takes from the arms of a sweep what tells them apart. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any, Protocol

from errors import ConfigError
from experiments.config import SHORT, scientific
from experiments.schema import FIELDS, Config


class Planned(Protocol):
    """Of a planned run, what is looked at here."""

    @property
    def id(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def task(self) -> str: ...


def refuse_collapse(
    where: str,
    runs: Iterable[Planned],
    words: Collection[str],
    own_keys: Callable[[str, str], Iterable[str]],
    without: Callable[[str, str, Collection[str]], Config],
) -> None:
    """Raises ConfigError where two arms are one run for the command line only, as it sets a key that they set.

    words: keys of the command line; own_keys: the keys that an arm sets for a task; without: the config of an arm and
    task where some words, by their long keys, are left out. Arms that are equal in the file stay so.
    """
    for task, first, second in _shared(runs):
        of_arms = {_long(key) for arm in (first, second) for key in own_keys(arm, task)}
        replaced = [word for word in words if _long(word) in of_arms and FIELDS[_long(word)].metadata["scientific"]]
        if not replaced:
            continue
        keys = {_long(word) for word in replaced}
        if _identity(without(first, task, keys)) != _identity(without(second, task, keys)):
            raise ConfigError(
                f"{where}: {' and '.join(replaced)} of the command line would make arms {first!r} and {second!r} the "
                "same run, as it replaces what they set themselves; leave it out, or leave out arms by arms=[…]"
            )


def own_keys_of(sweep: Mapping[str, Any], parts: Collection[str]) -> Callable[[str, str], Iterator[str]]:
    """The keys that an arm of a sweep file sets for a task. parts: keys of an arm that are no settings."""

    def keys(arm: str, task: str) -> Iterator[str]:
        body = sweep["arms"][arm]
        yield from (key for key in body if key not in parts)
        yield from body["downstream"].get(task, {})

    return keys


def _shared(runs: Iterable[Planned]) -> Iterator[tuple[str, str, str]]:
    """Task and two arms that share a run of it, each once."""
    arms: dict[tuple[str, str], dict[str, None]] = {}
    for run in runs:
        arms.setdefault((run.task, run.id), {})[run.arm] = None
    yield from dict.fromkeys((task, *pair) for (task, _), names in arms.items() for pair in combinations(names, 2))


def _identity(config: Config) -> dict[str, Any]:
    """What decides the config's run, apart from where its weights come from: runs that are one have one parent."""
    return scientific(replace(config, init=None))


def _long(key: str) -> str:
    return SHORT.get(key, key)
