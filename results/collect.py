"""From run folders to tidy tables: one row per planned run, per logged metric, per point of a curve."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import SuiteError, unknown
from results.reading import tidy
from results.reading.cache import Cache
from results.reading.chunk import Place
from results.run_folder import CANCELLED, DONE, LOST, NOT_RUN, UNREADABLE

if TYPE_CHECKING:
    import pandas as pd

Plan = Mapping[str, Any]
States = Mapping[str, tuple[str, str]]
RUN_ID = re.compile(r".+-s\d+-[0-9a-f]{8}")
RUN_COLUMNS = (
    "arm", "seed", "run", "state", "cause", "progress", "task", "model", "params_m", "flops_g", "epochs", "step",
    "wall_s", "images_per_s", "device", "finished", "commit", "dirty", "code_fingerprint", "data_fingerprint",
    "python", "torch", "notes", "config", "log_line",
)  # fmt: skip
NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("progress", "params_m", "flops_g", "wall_s", "images_per_s"), "float64"),
    **dict.fromkeys(("seed", "epochs", "step", "log_line"), "Int64"),
}
METRIC_COLUMNS = tidy.COLUMNS
CURVE_COLUMNS = ("run", "arm", "seed", "curve")


class CollectError(SuiteError):
    """A plan or a collection that contradicts itself."""


@dataclass
class Collected:
    """What a sweep's runs came back with.

    runs: one row per planned (arm, seed), whatever its state (RUN_COLUMNS); config is the text of its config.yaml,
    log_line the line of metrics.jsonl (from 1) that holds its last row;
    metrics: the whole log of every run that started; ``final`` marks the summary's values, the only ones reported;
    curves: rows of finished runs' curves (CURVE_COLUMNS and whatever the curve has);
    warnings: what was found and not counted; examples: run id → its ``examples.npz``;
    about: title, sweep, protocol, plan, hardware, date, note of measured results that were read back.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    curves: pd.DataFrame
    warnings: list[str] = field(default_factory=list)
    examples: dict[str, Path] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def finals(self, metric: str) -> pd.DataFrame:
        """arm, seed, run, value of ``metric`` for every finished run that has it."""
        finals = self.metrics[self.metrics["final"]]
        chosen = finals[finals["metric"] == metric][["arm", "seed", "run", "value"]]
        return chosen.astype({"arm": str, "run": str}).reset_index(drop=True)


def collect(plan: Plan, runs_dir: Path, states: States | None = None) -> Collected:
    """Reads every planned run below ``runs_dir``. Runs of other sweeps there are none of our business.

    Folders that have not changed since the last time are not read again (``reading.cache``). ``states`` holds, by run
    id, the (state, cause) of runs as a scheduler sees them: it is believed where a run has no result and its folder
    does not say itself that it ended.
    """
    check_plan(plan)
    planned = {entry["run"]: entry["seed"] for entry in plan["runs"]}  # a run may be of several arms
    places = Cache(runs_dir, f"{plan['sweep']}-{plan['protocol']}").of(planned, plan["protocol"])
    facts = {run: places[run].chunk.facts[places[run].row] for run in planned}
    names = sorted(os.listdir(runs_dir)) if runs_dir.is_dir() else []
    lost = _lost(runs_dir, names, facts)
    for run, (state, cause) in (states or {}).items():
        if run in facts and facts[run]["row"]["state"] not in (DONE, UNREADABLE, "failed", "refused"):
            facts[run]["row"] |= {"state": state, "cause": cause}
    _cancel(facts, plan)
    warnings = [warning for one in facts.values() for warning in one["warnings"]] + lost + _foreign(runs_dir, names)
    examples = {run: runs_dir / run / "examples.npz" for run, one in facts.items() if one["examples"]}
    runs, curves = _runs(facts, places, plan), _curves(facts, plan)
    cells = [
        tidy.Cell(run, entry["arm"], entry["seed"], facts[run]["row"]["task"], plan["protocol"], places[run])
        for entry in plan["runs"]
        for run in [entry["run"]]
    ]
    return Collected(runs, tidy.metrics(cells), curves, warnings, examples)


def check_plan(plan: Plan) -> None:
    """Refuses a plan whose runs or baseline name an arm it does not have, or that plans one cell twice."""
    arms = {arm["name"] for arm in plan["arms"]}
    for name in [entry["arm"] for entry in plan["runs"]] + [plan["baseline"]]:
        if name not in arms:
            raise CollectError(f"plan of sweep {plan['sweep']}: {unknown('arm', name, arms)}")
    cells = [(entry["arm"], entry["seed"]) for entry in plan["runs"]]
    twice = sorted({cell for cell in cells if cells.count(cell) > 1}) if len(set(cells)) < len(cells) else []
    if twice:
        raise CollectError(f"plan of sweep {plan['sweep']}: arm {twice[0][0]} has seed {twice[0][1]} more than once")


def runs_frame(rows: Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """The runs table with its types, the same whether the rows come from folders or from a CSV file."""
    import pandas as pd

    listed, columns = list(rows), {}
    for column in RUN_COLUMNS:
        values = [row.get(column) for row in listed]
        if column in NUMBERS:
            columns[column] = pd.to_numeric(pd.Series(values, dtype=object)).astype(NUMBERS[column])
        else:
            columns[column] = pd.Series(
                ["" if value is None or value != value else value for value in values], dtype=object
            )
    return pd.DataFrame(columns)


def metrics_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The metrics table with its types."""
    texts = {column: frame[column].astype(str).astype("category") for column in (*tidy.TEXTS, "metric")}
    types = {"seed": "int64", "step": "int64", "epoch": "Int64", "value": "float64", "final": "bool"}
    return frame.assign(**texts)[list(METRIC_COLUMNS)].astype(types)


def _cancel(facts: Mapping[str, dict[str, Any]], plan: Plan) -> None:
    """Marks runs that were never started because the run they start from failed; parents come before children."""
    for entry in plan["runs"]:
        run, parent = facts[entry["run"]]["row"], facts.get(entry.get("parent") or "")
        if parent is not None and parent["row"]["state"] in LOST and run["state"] == NOT_RUN:
            run |= {"state": CANCELLED, "cause": "the run it starts from failed"}


def _lost(runs_dir: Path, names: Iterable[str], facts: Mapping[str, dict[str, Any]]) -> list[str]:
    """Warnings about planned runs of which something is there, but nothing that says how they stand.

    A folder that a launcher made for later has a config and no checkpoint yet.
    """
    found = []
    for name in names:
        if name not in facts or facts[name]["row"]["state"] != NOT_RUN:
            continue
        if not (runs_dir / name).is_dir():
            kind = "a link that leads to no folder" if (runs_dir / name).is_symlink() else "a file"
            found.append(f"{name}: {kind} where the run's folder should be; not counted")
        elif any((runs_dir / name / "checkpoints").glob("[!.]*")):
            found.append(f"{name}: has checkpoints, but no state.json, metrics.jsonl or summary.json; not counted")
    return found


def _foreign(runs_dir: Path, names: Iterable[str]) -> list[str]:
    """Warnings about folders that look like runs and are none."""
    return [
        f"{name}: looks like a run folder, but its name is not a run id; skipped"
        for name in names
        if not name.startswith(".") and not RUN_ID.fullmatch(name) and (runs_dir / name / "summary.json").is_file()
    ]


def _runs(facts: Mapping[str, dict[str, Any]], places: Mapping[str, Place], plan: Plan) -> pd.DataFrame:
    models = {arm["name"]: arm.get("model") for arm in plan["arms"]}
    rows = []
    for entry in plan["runs"]:
        run, arm = entry["run"], entry["arm"]
        row, place = facts[run]["row"], places[run]
        planned = {"arm": arm, "seed": entry["seed"], "run": run, "model": row["model"] or models[arm]}
        rows.append({**row, **planned, "config": place.chunk.configs[place.row]})
    return runs_frame(rows)


def _curves(facts: Mapping[str, dict[str, Any]], plan: Plan) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for entry in plan["runs"]:
        own = {"run": entry["run"], "arm": entry["arm"], "seed": entry["seed"]}
        rows += [{**own, **point, **own} for point in facts[entry["run"]]["curves"]]  # no point says whose it is
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(CURVE_COLUMNS))
