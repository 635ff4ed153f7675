"""The state of a collection table by table: what is done, what is missing, what it costs, and what to run next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pasted_command import same_settings
from run_format import DEAD_ENDS, DONE, EXCLUDED, MEASURED, UNKNOWN
from sweeps.collection import CollectionPlan, TableCell
from sweeps.price import hours_by_run, in_hours
from sweeps.schedule import LeftRun, wall_hours
from sweeps.status import RunStatus

HAS_RESULT = (DONE, MEASURED)
ENDED = (*DEAD_ENDS, UNKNOWN)  # states whose causes a person has to look at
LEFT_ALONE = (*HAS_RESULT, EXCLUDED)  # states of runs that a launch does not start


@dataclass(frozen=True)
class NextCell:
    """The cell whose next missing run costs least. hours: with the runs it starts from that are not done."""

    table: str
    cell: str
    run: str
    hours: float


@dataclass(frozen=True)
class Summary:
    """Of a table, or of all tables. complete: cells that lack no seed; hours: device-hours of the runs with a price."""

    cells: int
    complete: int
    runs: int
    states: dict[str, int]
    hours: float
    hours_left: float
    not_priced: int

    def columns(self) -> list[str]:
        hours = [in_hours(each) if self.not_priced < self.runs else "" for each in (self.hours, self.hours_left)]
        states = ", ".join(f"{number} {state}" for state, number in self.states.items())
        unpriced = f"; {self.not_priced} not priced" if self.not_priced else ""
        return [str(self.cells), str(self.complete), *hours, f"{self.runs}: {states}{unpriced}"]


@dataclass(frozen=True)
class CollectionState:
    """States and prices of a collection's runs. hours: device-hours by run id, of the runs that are priced."""

    plan: CollectionPlan
    rows: Mapping[str, RunStatus]
    hours: Mapping[str, float]
    unit: str

    @classmethod
    def of(cls, plan: CollectionPlan, runs_dir: Path, rows: Sequence[RunStatus]) -> CollectionState:
        """rows: of all runs."""
        price = hours_by_run(plan, runs_dir)
        return cls(plan, {row.run: row for row in reversed(rows)}, price.hours, price.unit)

    def left(self) -> list[str]:
        """Ids of the runs that a launch would start or wait for, parents first."""
        runs = self.plan.distinct()
        needed = {run for run in runs if self.rows[run].state not in LEFT_ALONE}
        for run in reversed(runs.values()):  # a measured parent has no weights, and is trained again for its children
            if run.id in needed and run.parent and self.rows[run.parent].state == MEASURED:
                needed.add(run.parent)
        return [run for run in runs if run in needed]

    def hours_left(self, run: str) -> float:
        """0 where it has no price."""
        row = self.rows[run]
        done = 0.0 if row.state == MEASURED else row.share
        return self.hours.get(run, 0.0) * (1 - done)

    def wall_hours(self, devices: int) -> float:
        """Of the runs that are left and priced, on so many devices."""
        runs, left = self.plan.distinct(), [run for run in self.left() if run in self.hours]
        tasks = {}
        for run in left:
            needed, parent = runs[run].config.machine.devices, runs[run].parent
            tasks[run] = LeftRun(self.hours_left(run) / needed, needed, parent if parent in left else None)
        return wall_hours(tasks, devices)

    def next_cell(self) -> NextCell | None:
        """None where nothing that is priced is missing."""
        runs, left = self.plan.distinct(), set(self.left())
        candidates = []
        for table, cells in self.plan.tables.items():
            for cell in cells:
                for run in cell.runs:
                    if run not in left or self.rows[run].state in LEFT_ALONE:
                        continue
                    chain: list[str] = [run]
                    while (parent := runs[chain[-1]].parent) and parent in left:
                        chain.append(parent)
                    if all(each in self.hours for each in chain):
                        hours = sum(map(self.hours_left, chain))
                        candidates.append(NextCell(table, cell.name, run, hours))
        return min(candidates, key=lambda each: each.hours, default=None)

    def missing(self, cell: TableCell) -> str:
        """``1 of 3 seeds; seed 1 running, seed 2 not run``; empty where nothing is missing."""
        rows = [self.rows[run] for run in cell.runs]
        lacking = [row for row in rows if row.state not in HAS_RESULT]
        if not lacking:
            return ""
        causes = ", ".join(f"seed {row.seed} {row.state}" for row in lacking)
        return f"{len(rows) - len(lacking)} of {len(rows)} seeds; {causes}"

    def summary(self, cells: Sequence[TableCell], runs: Sequence[str]) -> Summary:
        left = set(self.left())
        return Summary(
            cells=len(cells),
            complete=sum(not self.missing(cell) for cell in cells),
            runs=len(runs),
            states=dict(Counter(self.rows[run].state for run in runs)),
            hours=sum(self.hours.get(run, 0.0) for run in runs),
            hours_left=sum(self.hours_left(run) for run in runs if run in left),
            not_priced=sum(run not in self.hours for run in runs),
        )

    def table_lines(self) -> list[str]:
        """One line per table, and one of all. Runs that tables share count in each of them."""
        needed = self.plan.runs_by_table()
        summaries = {table: self.summary(cells, needed[table]) for table, cells in self.plan.tables.items()}
        every_cell = [cell for cells in self.plan.tables.values() for cell in cells]
        summaries["all"] = self.summary(every_cell, list(self.plan.distinct()))
        lines = [["table", "cells", "complete", self.unit, "left", "runs"]]
        lines += [[table, *summary.columns()] for table, summary in summaries.items()]
        widths = [max(map(len, column)) for column in zip(*lines)]
        return [
            f"{first:<{widths[0]}}  "
            + "".join(f"{cell:>{width}}  " for cell, width in zip(columns, widths[1:]))
            + states
            for first, *columns, states in lines
        ]

    def run_lines(self) -> Iterator[str]:
        """One line per run: its state, the run it starts from, and the tables that it serves."""
        tables = self._tables()
        for run in self.plan.distinct().values():
            row = self.rows[run.id]
            start = f"  from {run.parent}" if run.parent else ""
            yield f"{run.id:<44} {row.state:<11} {', '.join(tables[run.id])}{start}"

    def time_lines(self, devices: int | None) -> Iterator[str]:
        """How long what is left takes, where anything of it has a price, and where the rest of the prices come from."""
        left = self.left()
        unpriced = [run for run in left if run not in self.hours]
        if devices and len(unpriced) < len(left):
            without = f", without {len(unpriced)} runs that have no price" if unpriced else ""
            yield f"what is left takes {in_hours(self.wall_hours(devices))} h on {devices} devices{without}"
        if unpriced:
            yield f"what it will cost: {same_settings('price', self.plan.given, self.plan.words)}"

    def status_lines(self) -> Iterator[str]:
        """By table: what is missing of each cell; why runs ended without a result; then the cheapest next cell."""
        for table, cells in self.plan.tables.items():
            for cell in cells:
                if missing := self.missing(cell):
                    yield f"{table:<10} {cell.name:<44} {missing}"
        for run in self.plan.distinct():
            if self.rows[run].state in ENDED:
                yield f"{run}: {self.rows[run].state}: {self.rows[run].detail}"
        yield from self.table_lines()
        if cheapest := self.next_cell():
            yield (
                f"cheapest next cell: {cheapest.cell} of {cheapest.table}, {in_hours(cheapest.hours)} {self.unit} "
                f"for {cheapest.run} and what it starts from"
            )

    def document(self, devices: int | None, **more: Any) -> str:
        """All of it as JSON."""
        tables, runs, left = self._tables(), self.plan.distinct(), set(self.left())
        described = [
            {
                **self.rows[run.id].as_dict(),
                "id": run.id,
                "depends_on": [run.parent] if run.parent else [],
                "tables": tables[run.id],
                "hours": self.hours.get(run.id),
                "hours_left": self.hours_left(run.id) if run.id in left and run.id in self.hours else None,
            }
            for run in runs.values()
        ]
        needed = self.plan.runs_by_table()
        by_table = {
            table: {
                **asdict(self.summary(cells, needed[table])),
                "cells": [{**asdict(cell), "missing": self.missing(cell)} for cell in cells],
                "runs": needed[table],
            }
            for table, cells in self.plan.tables.items()
        }
        cheapest = self.next_cell()
        content = {
            **self.plan.as_dict(),
            "tables": by_table,
            "runs": described,
            "hours": sum(self.hours.values()),
            "hours_left": sum(map(self.hours_left, left)),
            "not_priced": sum(run not in self.hours for run in runs),
            "unit": self.unit,
            "devices": devices,
            "wall_hours": self.wall_hours(devices) if devices else None,
            "next": asdict(cheapest) if cheapest else None,
        }
        return json.dumps({**content, **more})

    def _tables(self) -> dict[str, list[str]]:
        """The tables that every run serves."""
        needed = self.plan.runs_by_table()
        return {run: [table for table, runs in needed.items() if run in runs] for run in self.plan.distinct()}
