"""The plan of results that were collected in parts: of other seeds, arms or tasks, or on other machines."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain, pairwise
from typing import Any, TypeVar

from results.plans import CollectError, Plan, tasks_of

SAME = ("sweep", "protocol", "experiment", "baseline", "changed")  # what parts of one campaign have in common
Item = TypeVar("Item", bound=Hashable)
Cell = tuple[str, str, int]  # arm, task, seed


def union(first: Plan, second: Plan, name: str) -> dict[str, Any]:
    """The arms, tasks and runs of both plans, the same whichever comes first. name: of the first one's results.

    Both have ``tasks``, and every run its task. Raises CollectError where they are not of one sweep, protocol and
    baseline, and where an arm, or the run of one arm and seed, has another config.
    """
    for key in SAME:
        own, other = first.get(key) or None, second.get(key) or None
        if own != other and not (key == "experiment" and None in (own, other)):  # which old plans lack
            raise refusal(name, f"its {key} is {_words(own)}, not {_words(other)}")
    arms = {arm["name"]: dict(arm) for arm in second["arms"]}
    for arm in first["arms"]:
        arms[arm["name"]] = _same_arm(arm, arms.get(arm["name"], arm), name)
    order = interleaved(*_arms(first), *_arms(second), key=str)
    tasks = _tasks(first, second, name)
    task_order = [task["name"] for task in tasks]
    cells: dict[Cell, dict[str, Any]] = {}
    for run in chain(first["runs"], second["runs"]):
        known = cells.setdefault(_cell(run), {"parent": None, **run})
        if known["run"] != run["run"]:
            cell = f"arm {run['arm']}, seed {run['seed']}"
            raise refusal(name, f"{cell}, is run {known['run']} there and {run['run']} here, which is another config")
    runs = interleaved(
        *([_cell(run) for run in plan["runs"]] for plan in (first, second)),
        key=lambda cell: (cell[2], task_order.index(cell[1]), order.index(cell[0])),
    )
    return {
        **{key: first.get(key) or second.get(key) for key in SAME[:-1] if key in first or key in second},
        "left_out": [arm for arm in order if arm not in arms],
        "changed": dict(first.get("changed") or {}),
        "tasks": tasks,
        "arms": [arms[arm] for arm in order if arm in arms],
        "runs": [cells[cell] for cell in runs],
    }


def refusal(name: str, why: str) -> CollectError:
    return CollectError(f"results/measured/{name}: {why}; collect into another label")


def interleaved(*sequences: Sequence[Item], key: Callable[[Item], Any]) -> list[Item]:
    """The items of all sequences, each after those that it follows in any; ``key`` decides where they leave it open.

    Where they contradict each other, the first one's order stands, and new items of the others follow.
    """
    sorter: TopologicalSorter[Item] = TopologicalSorter()
    for items in sequences:
        for item in items:
            sorter.add(item)
        for before, after in pairwise(items):
            sorter.add(after, before)
    try:
        sorter.prepare()
    except CycleError:
        return list(dict.fromkeys(chain(*sequences)))
    ordered: list[Item] = []
    ready = list(sorter.get_ready())
    while ready:
        item = min(ready, key=key)
        ready.remove(item)
        ordered.append(item)
        sorter.done(item)
        ready += sorter.get_ready()
    return ordered


def _words(value: Any) -> str:
    """A part of a plan in the words of a command line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={setting}" for key, setting in value.items())
    return str(value or "unchanged")


def _cell(run: Plan) -> Cell:
    return run["arm"], run["task"], run["seed"]


def _arms(plan: Plan) -> Iterator[list[str]]:
    """Names of arms in the order of the sweep file: those that were planned, and those that were left out."""
    yield [arm["name"] for arm in plan["arms"]]
    yield list(plan.get("left_out") or [])


def _same_arm(first: Plan, second: Plan, name: str) -> dict[str, Any]:
    """The arm with the settings of both: later code has more of them, each at the value that it had implicitly."""
    own, other = first.get("config") or {}, second.get("config") or {}
    different = [key for key in own if key in other and own[key] != other[key]]
    if first.get("model") != second.get("model") or different:
        key = different[0] if different else "model"
        values = (own[key], other[key]) if different else (first.get("model"), second.get("model"))
        raise refusal(name, f"arm {first['name']} has {key}={values[0]} there and {values[1]} here, another config")
    larger, smaller = (other, own) if len(other) > len(own) else (own, other)
    merged = {**first, "config": {**larger, **smaller}}
    return merged if "config" in first or "config" in second else dict(first)


def _tasks(first: Plan, second: Plan, name: str) -> list[dict[str, Any]]:
    """The tasks of both plans; those of plans from before sweeps had several tasks know no metric."""
    own, other = ({task["name"]: task for task in tasks_of(plan)} for plan in (first, second))
    if next(iter(own)) != next(iter(other)):
        raise refusal(name, f"its task is {next(iter(own))}, not {next(iter(other))}")
    for task in own.keys() & other.keys():
        metrics = {tasks[task].get("metric") for tasks in (own, other)} - {None}
        if len(metrics) > 1:
            raise refusal(name, f"task {task} is reported by {own[task]['metric']} there, {other[task]['metric']} here")
    order = interleaved(list(own), list(other), key=str)
    return [own[task] if own.get(task, {}).get("metric") else other.get(task) or own[task] for task in order]
