"""Reads the files of measured results, which anybody may have edited: an error names the file and the line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml_files
from errors import ConfigError
from results.plans import CollectError
from results.tables import NUMBERS, REPEAT_COLUMNS, Exclusion, no_repeats

if TYPE_CHECKING:
    import pandas as pd

RUNS = ("arm", "seed", "run", "state", "task")
METRICS = ("run", "step", "epoch", "metric", "value", "final")
CURVES = ("run", "curve")
EXCLUSIONS = ("run", "because", "finished", "device", "metric", "value")  # a row per final value
PLAN = {"sweep": str, "protocol": str, "baseline": str, "arms": list}
ARM = {"name": str, "label": str}
TASK = {"name": str}


def about(path: Path) -> dict[str, Any]:
    """``about.yaml`` with the plan that was answered and the warnings."""
    try:
        content = yaml_files.load(path.read_bytes(), path.name)
    except OSError as error:
        raise _refused(path, _one_line(error)) from None
    except ConfigError as error:
        raise CollectError(f"measured results {path.parent.name}: {error}") from None
    _require(path, "it", content, {"plan": dict})
    plan = content["plan"]
    _require(path, "its plan", plan, PLAN)
    for number, arm in enumerate(plan["arms"], 1):
        _require(path, f"arm {number} of its plan", arm, ARM)
        if not isinstance(arm.get("config") or {}, dict):
            raise _refused(path, f"the config of arm {arm['name']} is not a mapping")
    if not isinstance(plan.get("tasks", []), list):
        raise _refused(path, "the tasks of its plan are not a list")
    for number, task in enumerate(plan.get("tasks", []), 1):
        _require(path, f"task {number} of its plan", task, TASK)
    if not isinstance(content.setdefault("warnings", []), list):
        raise _refused(path, "its warnings are not a list")
    return {**content, "warnings": [str(warning) for warning in content["warnings"]]}


def runs(path: Path) -> pd.DataFrame:
    """``runs.csv`` as texts, checked to be numbers and whole numbers where they have to be."""
    frame = _table(path, RUNS, dtype=str, keep_default_na=False)
    for column in NUMBERS:
        if column in frame:
            _refuse_non_numbers(path, frame, column, whole=NUMBERS[column] == "Int64", may_be_empty=column != "seed")
    for column in ("arm", "run"):
        _refuse_rows(path, frame[column] == "", f"its {column} is empty")
    return frame


def metrics(path: Path) -> pd.DataFrame:
    """``metrics.csv``, which has at most one final value of each run and metric."""
    frame = _table(path, METRICS)
    for column in ("step", "epoch", "value"):
        _refuse_non_numbers(path, frame, column, whole=column != "value", may_be_empty=column == "epoch")
    for column in ("run", "metric"):
        _refuse_rows(path, frame[column].isna(), f"its {column} is empty")
    _refuse_rows(path, ~frame["final"].astype(str).isin(["True", "False"]), "its final is neither True nor False")
    finals = frame[frame["final"].astype(bool)]
    repeated = finals.duplicated(["run", "metric"]).reindex(frame.index, fill_value=False)
    _refuse_rows(path, repeated, "a final value of this run and metric stands above already")
    return frame


def curves(path: Path) -> pd.DataFrame:
    """``curves.csv`` with whatever columns its curves have."""
    return _table(path, CURVES)


def repeats(path: Path) -> pd.DataFrame:
    """``repeats.csv``, which is absent where no run was measured more than once."""
    if not path.exists():
        return no_repeats()
    frame = _table(path, REPEAT_COLUMNS, dtype=str, keep_default_na=False)
    _refuse_non_numbers(path, frame, "value", whole=False, may_be_empty=False)
    for column in ("run", "metric"):
        _refuse_rows(path, frame[column] == "", f"its {column} is empty")
    return frame[list(REPEAT_COLUMNS)].astype({"value": "float64"})


def exclusions(path: Path) -> list[Exclusion]:
    """``excluded.csv``, which is absent where nothing was left out. A measurement without results has one row, too."""
    if not path.exists():
        return []
    frame = _table(path, EXCLUSIONS, dtype=str, keep_default_na=False)
    for column in ("run", "because"):
        _refuse_rows(path, frame[column] == "", f"its {column} is empty")
    _refuse_non_numbers(path, frame, "value", whole=False, may_be_empty=True)
    listed: dict[tuple[str, str, str], Exclusion] = {}
    for run, because, finished, device, metric, value in frame[list(EXCLUSIONS)].itertuples(index=False):
        each = listed.setdefault((run, finished, device), Exclusion(run, because, finished, device, {}))
        if metric:
            listed[run, finished, device] = each._replace(values={**each.values, metric: float(value)})
    return list(listed.values())


def exclusion_table(exclusions: Iterable[Exclusion]) -> pd.DataFrame:
    """The rows of ``excluded.csv``."""
    import pandas as pd

    rows = [
        {**each._asdict(), "metric": metric, "value": value}
        for each in exclusions
        for metric, value in (each.values.items() or [("", None)])
    ]
    return pd.DataFrame(rows, columns=list(EXCLUSIONS))


def _table(path: Path, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    """Rows in the order of the file, so that row n is on line n + 2."""
    import pandas as pd

    try:
        frame: pd.DataFrame = pd.read_csv(path, skip_blank_lines=False, **options)
    except (OSError, ValueError) as error:
        raise _refused(path, _one_line(error)) from None
    missing = [column for column in columns if column not in frame]
    if missing:
        raise _refused(f"{path}:1", f"it has no column {', '.join(missing)}")
    if not isinstance(frame.index, pd.RangeIndex):
        raise _refused(f"{path}:2", "it has more fields than the header")
    return frame


def _refuse_non_numbers(path: Path, frame: pd.DataFrame, column: str, *, whole: bool, may_be_empty: bool) -> None:
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    bad = ~np.isfinite(numbers)
    if whole:
        bad |= (numbers % 1 != 0) | (numbers.abs() >= 2**63)
    if may_be_empty:
        bad &= ~(frame[column].isna() | (frame[column] == ""))
    for row in frame.index[bad][:1]:
        text = "" if frame[column].isna()[row] else str(frame[column][row])
        kind = "a whole number" if whole else "a finite number"
        raise _refused(f"{path}:{row + 2}", f"its {column} is {repr(text) if text else 'empty'}, not {kind}")


def _refuse_rows(path: Path, bad: pd.Series, why: str) -> None:
    for row in bad.index[bad.astype(bool)][:1]:
        raise _refused(f"{path}:{row + 2}", why)


def _require(path: Path, subject: str, content: Any, keys: Mapping[str, type]) -> None:
    if not isinstance(content, dict):
        raise _refused(path, f"{subject} is not a mapping")
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            raise _refused(path, f"{subject} has {'a wrong' if key in content else 'no'} {key}")


def _refused(where: Path | str, why: str) -> CollectError:
    path = Path(where)
    return CollectError(f"measured results {path.parent.name}: {path.name}: {why}")


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return " ".join(str(error).split())
