"""From run folders to tidy tables: one row per planned run, per logged metric, per point of a curve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import SuiteError, unknown
from results.run_folder import CANCELLED, DONE, LOST, NOT_RUN, RunFolder, is_number, read_run

if TYPE_CHECKING:
    import pandas as pd

Plan = Mapping[str, Any]
RUN_ID = re.compile(r".+-s\d+-[0-9a-f]{8}")
RUN_COLUMNS = (
    "arm", "seed", "run", "state", "cause", "progress", "task", "model", "params_m", "flops_g", "epochs", "step",
    "wall_s", "images_per_s", "device", "finished", "commit", "dirty", "code_fingerprint", "data_fingerprint",
    "python", "torch", "notes",
)  # fmt: skip
NUMBERS: dict[str, Any] = {
    **dict.fromkeys(("progress", "params_m", "flops_g", "wall_s", "images_per_s"), "float64"),
    **dict.fromkeys(("seed", "epochs", "step"), "Int64"),
}
METRIC_COLUMNS = ("run", "arm", "seed", "task", "protocol", "step", "epoch", "metric", "value", "final")
CURVE_COLUMNS = ("run", "arm", "seed", "curve")
DIGITS = 6  # significant digits kept of any measured number, here already: a committed CSV then loses nothing more


class CollectError(SuiteError):
    """A plan or a collection that contradicts itself."""


@dataclass
class Collected:
    """What a sweep's runs came back with.

    runs: one row per planned (arm, seed), whatever its state (RUN_COLUMNS);
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
        chosen = self.metrics[self.metrics["final"] & (self.metrics["metric"] == metric)]
        return chosen[["arm", "seed", "run", "value"]].reset_index(drop=True)


def collect(plan: Plan, runs_dir: Path, states: Mapping[str, tuple[str, str]] | None = None) -> Collected:
    """Reads every planned run below ``runs_dir``. Runs of other sweeps there are none of our business."""
    check_plan(plan)
    folders = {}
    for entry in plan["runs"]:
        if entry["run"] not in folders:
            folders[entry["run"]] = read_run(runs_dir, entry["run"], entry["seed"], plan["protocol"])
    _cancel(folders, plan)
    warnings = [warning for folder in folders.values() for warning in folder.warnings]
    warnings += [
        f"{path.name}: looks like a run folder, but its name is not a run id; skipped"
        for path in (sorted(runs_dir.iterdir()) if runs_dir.is_dir() else [])
        if not path.name.startswith(".") and not RUN_ID.fullmatch(path.name) and (path / "summary.json").is_file()
    ]
    examples = {run: folder.examples for run, folder in folders.items() if folder.examples}
    planned = [(entry["arm"], entry["seed"], folders[entry["run"]]) for entry in plan["runs"]]
    return Collected(_runs(planned, plan), _metrics(planned, plan), _curves(planned), warnings, examples)


def check_plan(plan: Plan) -> None:
    """Refuses a plan whose runs or baseline name an arm it does not have, or that plans one cell twice."""
    arms = [arm["name"] for arm in plan["arms"]]
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

    frame = pd.DataFrame(list(rows), columns=list(RUN_COLUMNS))
    for column in RUN_COLUMNS:
        if column in NUMBERS:
            frame[column] = pd.to_numeric(frame[column]).astype(NUMBERS[column])
        else:
            values = frame[column].astype(object)
            frame[column] = values.where(values.notna(), "")
    return frame


def metrics_frame(rows: Iterable[Mapping[Any, Any]]) -> pd.DataFrame:
    """The metrics table with its types."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(METRIC_COLUMNS))
    return frame.astype({"seed": "int64", "step": "int64", "epoch": "Int64", "value": "float64", "final": "bool"})


def rounded(value: Any) -> Any:
    """A measured number at DIGITS significant digits; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _cancel(folders: Mapping[str, RunFolder], plan: Plan) -> None:
    """Marks runs that were never started because the run they start from failed; parents come before children."""
    for entry in plan["runs"]:
        run, parent = folders[entry["run"]], folders.get(entry.get("parent") or "")
        if parent is not None and parent.state in LOST and run.state == NOT_RUN:
            run.state, run.cause = CANCELLED, "the run it starts from failed"


def _runs(planned: list[tuple[str, int, RunFolder]], plan: Plan) -> pd.DataFrame:
    models = {arm["name"]: arm.get("model") for arm in plan["arms"]}
    rows = []
    for arm, seed, folder in planned:
        summary, provenance, status = folder.summary, folder.provenance, folder.status
        described = {key: rounded(summary.get(key)) for key in ("params_m", "flops_g", "wall_s", "images_per_s")}
        rows.append({
            "arm": arm, "seed": seed, "run": folder.run,
            "state": folder.state, "cause": folder.cause, "progress": rounded(folder.progress),
            "task": summary.get("task", ""), "model": _model(summary.get("model")) or models[arm], **described,
            "epochs": summary.get("epochs", status.get("epoch")), "step": summary.get("step", status.get("step")),
            "device": _one_line(summary.get("device")), "finished": _one_line(summary.get("finished")),
            "commit": provenance.get("commit"), "dirty": _flag(provenance.get("dirty")),
            "code_fingerprint": provenance.get("code_fingerprint"),
            "data_fingerprint": provenance.get("data_fingerprint"),
            "python": provenance.get("python"), "torch": (provenance.get("packages") or {}).get("torch"),
            "notes": "; ".join(map(_one_line, summary.get("notes") or [])),
        })  # fmt: skip
    return runs_frame(rows)


def _metrics(planned: list[tuple[str, int, RunFolder]], plan: Plan) -> pd.DataFrame:
    rows = []
    for arm, seed, folder in planned:
        key = {"run": folder.run, "arm": arm, "seed": seed, "protocol": plan["protocol"]}
        key["task"] = folder.summary.get("task", "")
        final = folder.summary.get("metrics", {})
        last = folder.summary.get("step")
        for row in folder.log:
            place = {**key, "step": int(row["step"]), "epoch": row.get("epoch")}
            for name, value in row.items():
                replaced = name in final and row["step"] == last  # by the summary's value, below
                if "/" in name and is_number(value) and not replaced:
                    rows.append({**place, "metric": name, "value": rounded(float(value)), "final": False})
        if last is None:
            continue
        for name, value in final.items():
            place = {**key, "step": int(last), "epoch": folder.summary.get("epochs")}
            rows.append({**place, "metric": name, "value": rounded(float(value)), "final": True})
    return metrics_frame(rows)


def _curves(planned: list[tuple[str, int, RunFolder]]) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"run": folder.run, "arm": arm, "seed": seed, "curve": name, **{k: rounded(v) for k, v in point.items()}}
        for arm, seed, folder in planned
        if folder.state == DONE
        for name, points in (folder.summary.get("curves") or {}).items()
        for point in points
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(CURVE_COLUMNS))


def _model(model: Any) -> str:
    return str((model.get("name") if isinstance(model, Mapping) else model) or "")


def _one_line(text: Any) -> str:
    return " ".join(str(text if text is not None else "").split())


def _flag(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "")
