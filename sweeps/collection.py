"""The plan of a collection: what its tables take from several sweeps, as one graph of runs. Never imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from errors import ConfigError, unknown
from sweeps.collection_file import OWN, TablePart, read_collection
from sweeps.plan import Plan, PlannedRun, load
from sweeps.sweep_file import check_seeds
from yaml_files import called


@dataclass(frozen=True)
class TableCell:
    """What a table shows of one arm and task: one run per seed. arm: ``<sweep>/<arm>``, as in the plan."""

    arm: str
    task: str
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.arm}, {self.task}"


@dataclass(frozen=True)
class CollectionPlan(Plan):
    """The runs of all tables: those of their cells, and those that these start from.

    An arm is called ``<sweep>/<arm>``; runs of several sweeps that have one config are one run. sweeps: the plan of
    every sweep as far as it is taken, with its baseline, by which its results are collected and reported.
    """

    tables: dict[str, list[TableCell]] = field(default_factory=dict)
    sweeps: list[Plan] = field(default_factory=list)

    def runs_by_table(self) -> dict[str, list[str]]:
        """Ids of the runs that every table needs, parents first: those of its cells, and those that they start from."""
        runs = self.distinct()
        needed = {table: {run for cell in cells for run in cell.runs} for table, cells in self.tables.items()}
        return {table: _with_parents(runs.values(), ids) for table, ids in needed.items()}

    def as_dict(self) -> dict[str, Any]:
        """In plain values; a collection has no baseline, its sweeps have."""
        content = super().as_dict()
        del content["baseline"], content["left_out"]
        return content


def load_collection(
    name: str,
    protocol: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: list[int] | None = None,
    tables: list[str] | None = None,
    site: Mapping[str, Any] | None = None,
    mixer: str | None = None,
) -> CollectionPlan:
    """Plans the tables of a collection, or some of them. ``seeds`` replace those of the file, the rest is that of
    ``plan.load``: with ``mixer``, that mixer and the baseline of every sweep.

    Raises ConfigError as that does, and for an unknown table.
    """
    content = read_collection(name)
    if protocol not in content.seeds:
        raise ConfigError(f"{name}: {unknown('protocol', protocol, content.seeds)}; choose one with protocol=NAME")
    for table in tables or []:
        if table not in content.parts:
            raise ConfigError(unknown(f"table of {name}", table, content.parts))
    if seeds is not None:
        check_seeds(seeds)
    chosen = {table: parts for table, parts in content.parts.items() if not tables or table in tables}
    plans = {}
    for sweep in dict.fromkeys(part.sweep for parts in chosen.values() for part in parts):
        of_sweep = [part for parts in chosen.values() for part in parts if part.sweep == sweep]
        tasks = [task for part in of_sweep for task in part.tasks if protocol in part.protocols(task)]
        plans[sweep] = load(
            sweep, protocol, overrides, seeds or content.seeds[protocol], None, site, tasks, mixer=mixer
        )
    cells = {table: [cell for part in parts for cell in _cells(part, plans[part.sweep])]
             for table, parts in chosen.items()}  # fmt: skip
    for table, of_table in cells.items():
        if not of_table:
            raise ConfigError(f"{name}: {table} has no arm with protocol {protocol}; choose others with tables=[…]")
    shown = {(cell.arm, cell.task) for of_table in cells.values() for cell in of_table}
    taken = {sweep: _taken(plan, shown) for sweep, plan in plans.items()}
    runs = [
        run for seed in _seeds(taken.values()) for of_sweep in taken.values() for run in of_sweep if run.seed == seed
    ]
    arms = {run.arm for run in runs}
    labels = {
        _arm(plan, arm): f"{plan.sweep}: {label}" for plan in plans.values() for arm, label in plan.labels.items()
    }
    first = next(iter(plans.values()))
    return CollectionPlan(
        sweep=called(name),
        protocol=protocol,
        experiment=first.experiment,
        baseline="",
        labels={arm: label for arm, label in labels.items() if arm in arms},
        left_out=[],
        tasks=list({task.name: task for plan in plans.values() for task in plan.tasks}.values()),
        runs=runs,
        changed=first.changed,
        given=name,
        tables=cells,
        sweeps=[_reported(plan, {run.id for run in taken[sweep]}) for sweep, plan in plans.items()],
    )


def _arm(plan: Plan, arm: str) -> str:
    return f"{plan.sweep}/{arm}"


def _seeds(runs: Iterable[Iterable[PlannedRun]]) -> list[int]:
    return list(dict.fromkeys(run.seed for of_sweep in runs for run in of_sweep))


def _cells(part: TablePart, plan: Plan) -> list[TableCell]:
    """The cells that a part adds to its table, with the arms that its sweep has under the protocol."""
    ids: dict[tuple[str, str], list[str]] = {}
    for run in plan.runs:
        ids.setdefault((run.arm, run.task), []).append(run.id)
    tasks = [plan.tasks[0].name if task == OWN else task for task in part.tasks]
    cells = [(arm, task) for arm in plan.labels if part.arms is None or arm in part.arms for task in tasks]
    return [TableCell(_arm(plan, arm), task, tuple(ids[arm, task])) for arm, task in cells if (arm, task) in ids]


def _taken(plan: Plan, shown: Collection[tuple[str, str]]) -> list[PlannedRun]:
    """The runs of a sweep that stand in cells, and those that they start from, under the names of the collection."""
    runs = [replace(run, arm=_arm(plan, run.arm)) for run in plan.runs]
    needed = _with_parents(runs, {run.id for run in runs if (run.arm, run.task) in shown})
    parents = {run.parent for run in runs if run.id in needed}
    return [run for run in runs if (run.arm, run.task) in shown or (run.id in needed and run.id in parents)]


def _with_parents(runs: Iterable[PlannedRun], ids: Collection[str]) -> list[str]:
    """Those of ``ids`` and whatever they start from, in the order of ``runs``, in which parents are first."""
    ordered, needed = list(runs), set(ids)
    for run in reversed(ordered):
        if run.id in needed and run.parent:
            needed.add(run.parent)
    return list(dict.fromkeys(run.id for run in ordered if run.id in needed))


def _reported(plan: Plan, ids: Collection[str]) -> Plan:
    """The plan of a sweep with the runs that are taken, and those of its baseline, to which differences are taken."""
    runs = [run for run in plan.runs if run.id in ids or run.arm == plan.baseline]
    arms = {run.arm for run in runs}
    labels = {arm: label for arm, label in plan.labels.items() if arm in arms}
    tasks = [task for task in plan.tasks if any(run.task == task.name for run in runs)]
    return replace(
        plan, labels=labels, runs=runs, tasks=tasks, left_out=[arm for arm in plan.labels if arm not in arms]
    )
