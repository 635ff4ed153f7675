"""The section of a profile: arms of several sweeps in rows, probes in columns, each row with its mechanism."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.content import ablation, words
from reports.content.page import Cell, Grid, RunLine, Section
from reports.content.table import ArmRow, SweepResults, TaskTable
from reports.content.values import NOTHING, SeedRange, State, Text, Value
from reports.figures import draw_profile
from reports.specification import ProbeColumn, Profile, ProfilePart
from reports.specification_files import sweep_arms
from results import fingerprints
from run_format import DONE, NOT_RUN

if TYPE_CHECKING:
    import pandas as pd

DECIMALS = 1


@dataclass(frozen=True)
class ProbeCell:
    """An arm in a probe: the results it is of, its table by the probe's metric, and its row in that.

    Without results, whether the arm is ``planned``, which its sweep file says.
    """

    planned: bool
    results: SweepResults | None = None
    table: TaskTable | None = None
    row: ArmRow | None = None

    @property
    def mean(self) -> float | None:
        return self.row.mean if self.row else None

    @property
    def runs(self) -> pd.DataFrame | None:
        if self.table is None or self.row is None:
            return None
        return self.table.runs[self.table.runs["arm"] == self.row.arm]

    def value(self) -> Value:
        if self.row is not None and self.row.interval is not None:
            low, high = min(self.row.values.values()), max(self.row.values.values())
            return SeedRange(self.row.interval.mean, low, high, len(self.row.values), self.row.planned, DECIMALS)
        if self.row is not None and self.row.planned:
            return State(self.row.state)
        return State(NOT_RUN) if self.planned else NOTHING


@dataclass(frozen=True)
class ProfileLine:
    """A row of the profile. cells: by probe; of: the arm that it is a variant of; rate: whether in its rate only."""

    part: ProfilePart
    arm: str
    label: str
    mechanism: str
    cells: Mapping[str, ProbeCell]
    of: str = ""
    rate: bool = False

    @property
    def frames(self) -> list[pd.DataFrame]:
        return [runs for cell in self.cells.values() if (runs := cell.runs) is not None]

    def commits(self) -> list[str]:
        """The commits that measured it, in the order of the probes."""
        found = (commit[:8] for runs in self.frames for commit in _commits(runs))
        return list(dict.fromkeys(found))


def _commits(runs: pd.DataFrame) -> list[str]:
    """Those of finished runs."""
    return [str(commit) for commit in runs[runs["state"] == DONE]["commit"].dropna() if commit]


def section(spec: Profile, results: Sequence[SweepResults], *, figures: bool = True) -> Section:
    """Sets the results of a profile's sweeps in one table and draws its figures."""
    firsts = [(each, each.tables.first) for each in results]
    results = [each for each, first in firsts if first.protocol == spec.protocol and not first.changed]
    of_parts = {part.label: list(_lines(spec, part, results)) for part in spec.parts}
    lines = [line for of_part in of_parts.values() for line in of_part]
    ids = _RunIds(lines)
    of_distances = {each.name: _distance_table(each.sweep, results) for each in spec.distances}
    drawings, problems = draw_profile(spec, lines, of_distances) if figures else ([], [])
    return Section(
        name=spec.name,
        title=spec.title,
        question=spec.question,
        about=" ".join(_about(spec, of_parts)),
        cautions=tuple(dict.fromkeys(line for each in results for line in (*each.tables.mixed, *each.tables.left_out))),
        grid=_grid(spec, lines, ids),
        legend=tuple(_legend(spec, lines)),
        drawings=tuple(drawings),
        runs=tuple(ids.lines()),
        records=tuple(_records(spec, lines)),
        warnings=tuple(problems),
    )


def best(lines: Iterable[ProfileLine], part: ProfilePart, arm: str, probe: str) -> tuple[float, ProfileLine] | None:
    """The highest mean of an arm in a probe over the rates that it has been run at, and the line that has it."""
    of_arm = [line for line in lines if line.part is part and (line.arm == arm or (line.rate and line.of == arm))]
    means = [(mean, line) for line in of_arm if (mean := line.cells[probe].mean) is not None]
    return max(means, key=lambda found: found[0]) if means else None


def _lines(spec: Profile, part: ProfilePart, results: Sequence[SweepResults]) -> Iterator[ProfileLine]:
    """The rows of the specification, each with its variants after it, and then arms of which it knows nothing."""
    by_sweep = {sweep: [each for each in results if each.tables.spec.sweep == sweep] for sweep in part.sweeps.values()}
    arms = {sweep: sweep_arms(sweep) for sweep in part.sweeps.values()}
    known = [arm for sweep in arms.values() for arm in sweep]
    found = [row.arm for of_sweep in by_sweep.values() for each in of_sweep for row in each.tables.first.rows]
    names = list(dict.fromkeys([*known, *found]))

    def cells(arm: str) -> dict[str, ProbeCell]:
        of_probes = {}
        for name, probe in spec.probes.items():
            sweep = part.sweeps.get(name, "")
            of_probes[name] = _cell(arm, probe, by_sweep.get(sweep, ()), arm in arms.get(sweep, ()))
        return of_probes

    variants = {arm: variant for arm in names if arm not in part.rows and (variant := _variant(spec, part, arm))}
    for arm, row in part.rows.items():
        yield ProfileLine(part, arm, row.label, row.mechanism, cells(arm))
        for name, (of, what, rate) in variants.items():
            if of == arm:
                yield ProfileLine(part, name, f"{row.label}, {what}", "", cells(name), of, rate)
    for arm in names:
        if arm not in part.rows and arm not in variants:
            of_arm = cells(arm)
            label = next((cell.row.label for cell in of_arm.values() if cell.row), arm)
            yield ProfileLine(part, arm, label, "", of_arm)


def _variant(spec: Profile, part: ProfilePart, arm: str) -> tuple[str, str, bool] | None:
    """The row that an arm is a variant of, in what, and whether that is the rate alone."""
    of, _, ending = arm.rpartition("_")
    if of not in part.rows or ending not in {**spec.rates, **spec.others}:
        return None
    return of, {**spec.others, **spec.rates}[ending], ending in spec.rates


def _cell(arm: str, probe: ProbeColumn, results: Iterable[SweepResults], planned: bool) -> ProbeCell:
    """Of the results that have the arm, those with most seeds; of equal ones the first."""
    cells = []
    for each in results:
        main = each.tables.first
        for table in (main, *main.further):
            if table.metric.metric == probe.metric:
                cells += [ProbeCell(planned, each, table, row) for row in table.rows if row.arm == arm]
    return max(cells, key=lambda cell: len(cell.row.values) if cell.row else 0, default=ProbeCell(planned))


def _distance_table(sweep: str, results: Iterable[SweepResults]) -> TaskTable | None:
    """Of several results of a sweep, those with most finished runs."""
    tables = [each.tables.first for each in results if each.tables.spec.sweep == sweep]
    return max(tables, key=lambda table: int((table.runs["state"] == DONE).sum()), default=None)


class _RunIds:
    """Names of the runs behind the cells: a run that was measured twice is named with the results it is of."""

    def __init__(self, lines: Iterable[ProfileLine]) -> None:
        self._shown: dict[tuple[str, str], tuple[ProbeCell, str, Mapping[Any, Any]]] = {}
        for line in lines:
            for cell in line.cells.values():
                runs = cell.runs
                for run in [] if runs is None else runs.to_dict("records"):
                    shown = (cell, f"{line.label} ({line.part.label})", run)
                    self._shown.setdefault((run["run"], self._results(cell)), shown)
        runs_alone = [run for run, _ in self._shown]
        self._twice = {run for run in runs_alone if runs_alone.count(run) > 1}

    def of(self, cell: ProbeCell) -> tuple[str, ...]:
        runs = cell.runs
        if runs is None or cell.row is None or not cell.row.values:
            return ()
        return tuple(self._name(run, self._results(cell)) for run in runs["run"])

    def lines(self) -> Iterator[RunLine]:
        for (run, results), (cell, label, record) in self._shown.items():
            assert cell.results is not None and cell.table is not None
            where = ablation.origin(cell.table, run, cell.results.folder, cell.results.label)
            named = {**record, "run": run}
            line = ablation.run_line(label, named, cell.table.metric.metric, *where, task=results)
            yield RunLine(**{**vars(line), "id": self._name(run, results)})

    def _name(self, run: str, results: str) -> str:
        return f"{run} ({results})" if run in self._twice else run

    @staticmethod
    def _results(cell: ProbeCell) -> str:
        return cell.results.name if cell.results else ""


def _grid(spec: Profile, lines: Sequence[ProfileLine], ids: _RunIds) -> Grid:
    header = ("Arm", "Runs of", *(f"{probe.label} (%)" for probe in spec.probes.values()), "Commit")
    groups: list[list[tuple[Cell, ...]]] = []
    for line in lines:
        cells = [Cell(line.cells[probe].value(), ids.of(line.cells[probe])) for probe in spec.probes]
        commits = Text(", ".join(line.commits())) if line.commits() else NOTHING
        row = (Cell(Text(line.label)), Cell(Text(line.part.label)), *cells, Cell(commits))
        if line.of and groups:
            groups[-1].append(row)
        else:
            groups.append([row])
    return Grid(header, "ll" + "r" * len(spec.probes) + "l", tuple(map(tuple, groups)))


def _about(spec: Profile, of_parts: Mapping[str, Sequence[ProfileLine]]) -> Iterator[str]:
    import pandas as pd

    yield f"Protocol `{spec.protocol}`."
    for label, lines in of_parts.items():
        frames = [runs for line in lines for runs in line.frames]
        runs = pd.concat(frames, ignore_index=True) if frames else None
        done = runs[runs["state"] == DONE] if runs is not None else None
        if runs is None or done is None or not len(done):
            yield f"{label}: no run has finished."
            continue
        yield f"{label}: {len(done)} runs have finished."
        yield from words.measured_by(done)


def _legend(spec: Profile, lines: Sequence[ProfileLine]) -> Iterator[str]:
    metrics = "; ".join(f"{probe.label}: `{probe.metric}`, chance {probe.chance:g} %" for probe in spec.probes.values())
    yield f"{metrics}; after the last epoch, never the best one."
    yield (
        "A cell: mean over finished seeds, in brackets the lowest and the highest. “2 of 3” means that the third seed "
        "has no result yet; an arm without any shows the state of its runs. Differences with intervals and tests are "
        "in the report of each sweep; none is tested here, and none between rows of different commits."
    )
    if any(line.of for line in lines):
        yield (
            "Below an arm, the same arm at other learning rates, or otherwise changed, where it has been run so. An "
            "arm below the mark at all of them did not learn the probe in these steps; it is not called unable."
        )
    for line in lines:
        if line.mechanism:
            yield f"{line.label}: {line.mechanism}"


def _records(spec: Profile, lines: Sequence[ProfileLine]) -> Iterator[dict[str, Any]]:
    """A line per arm and probe."""
    for line in lines:
        for name, probe in spec.probes.items():
            cell = line.cells[name]
            row, runs = cell.row, cell.runs
            values = list(row.values.values()) if row else []
            commits = _commits(runs) if runs is not None else []
            highest = None if line.of else best(lines, line.part, line.arm, name)
            yield {
                "part": line.part.label,
                "arm": line.arm,
                "label": line.label,
                "probe": name,
                "metric": probe.metric,
                "mean": round(cell.mean, 4) if cell.mean is not None else None,
                "low": round(min(values), 4) if values else None,
                "high": round(max(values), 4) if values else None,
                "n": len(values),
                "planned": row.planned if row else None,
                "state": row.state if row else (NOT_RUN if cell.planned else ""),
                "highest_over_rates": round(highest[0], 4) if highest else None,
                "highest_arm": highest[1].arm if highest else "",
                "results": cell.results.name if cell.results else "",
                "commits": " ".join(dict.fromkeys(commits)),
                fingerprints.PRESENT_CODE: fingerprints.present_code(runs) if runs is not None else None,
            }
