"""A sweep's plan in plain values, as the rooms that read results know it.

``sweep``, ``protocol``, ``baseline``; ``arms``: name, label, model, config; ``tasks``: name, experiment, metric, label,
unit, decimals, chance, the sweep's own task first; ``runs``: run, arm, task, seed, parent. Plans made before sweeps had
several tasks lack ``tasks`` and each run's ``task``: their only task has the name that their runs recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from errors import SuiteError, unknown

Plan = Mapping[str, Any]


class CollectError(SuiteError):
    """A plan or a collection that contradicts itself."""


def check_plan(plan: Plan) -> None:
    """Refuses a plan whose runs or baseline name an arm or task it does not have, or that plans one run twice."""
    where = f"plan of sweep {plan['sweep']}"
    arms, tasks = {arm["name"] for arm in plan["arms"]}, {task["name"] for task in plan.get("tasks") or ()}
    for name in [entry["arm"] for entry in plan["runs"]] + [plan["baseline"]]:
        if name not in arms:
            raise CollectError(f"{where}: {unknown('arm', name, arms)}")
    for name in [entry["task"] for entry in plan["runs"] if tasks and "task" in entry]:
        if name not in tasks:
            raise CollectError(f"{where}: {unknown('task', name, tasks)}")
    counts = Counter((entry["arm"], entry.get("task", ""), entry["seed"]) for entry in plan["runs"])
    for (arm, task, seed), count in counts.items():
        if count > 1:
            of_task = f" of task {task}" if len(tasks) > 1 else ""
            raise CollectError(f"{where}: arm {arm} has seed {seed}{of_task} more than once")


def tasks_of(plan: Plan, recorded: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The plan's tasks, its own first; ``recorded`` are names of tasks that runs of an older plan recorded."""
    if plan.get("tasks"):
        return [dict(task) for task in plan["tasks"]]
    name = next((name for name in recorded if name), "")
    unknown_metric = {"metric": None, "label": None, "unit": None, "decimals": None, "chance": None}
    return [{"name": name, "experiment": plan.get("experiment"), **unknown_metric}]
